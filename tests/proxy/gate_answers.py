"""What the bare port answers."""

from tests.proxy.wire import dial


async def first_answer(it, request):
    """What the bare port says to a first request, and whether it announces that it closes (and does)."""
    async with await dial(it.proxy.port) as wire:
        answer = await wire.exchange(request)
        closes = answer.values(b"connection") == [b"close"]
        return answer, closes and await wire.receive_rest() == b""


def refused_and_silent(it):
    """Nothing reached the upstream and nobody was asked for a token."""
    return it.origin.visits == [] and it.tokens.asked == 0
