"""What the attacks of the tests share."""

import contextlib

from tests.proxy.wire import ConnectionEnded, tunnel, upgrade

FORGED = 'x-oai-attestation: {"v":1,"s":0,"t":"forged"}'
HANDSHAKE = upgrade(headers=[FORGED])
HEAD = b"POST /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\n"
# What an attacker wants to arrive as a second request, behind the back of the proxy.
SMUGGLED = b"POST /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\n" + FORGED.encode() + b"\r\n\r\n"


def lines(*added):
    return HEAD + b"".join(line + b"\r\n" for line in added) + b"\r\n"


async def attempt(it, request):
    """Send this through a fresh tunnel and then the end of the stream; the status that came back, None if none did."""
    async with tunnel(it.proxy) as wire:
        await wire.send(request)
        with contextlib.suppress(ConnectionEnded):
            answer = await wire.answer()
            return answer.status
    return None


def nothing_got_through(it):
    return it.origin.received == b"" and it.tokens.asked == 0
