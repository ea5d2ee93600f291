"""The one value that is used twice: a realtime call's, again on the sideband socket of that call."""

import pytest

from proxy.attestation import NoAttester
from proxy.capture.exchange import Stamp
from proxy.modes import StampMode
from tests.proxy.origin import Origin, switching_protocols
from tests.proxy.running import Tokens, failing, never
from tests.proxy.wire import post, tunnel, upgrade

CALLS = "/backend-api/codex/realtime/calls?intent=quicksilver"
SIDEBAND = "/v1/realtime?intent=quicksilver&call_id=rtc_1"
FORGED = "x-oai-attestation: forged"
OK_1 = '{"v":1,"s":0,"t":"token-1"}'


def calling(status=201, location="/v1/realtime/calls/rtc_1", handshakes=(101,)):
    """An upstream that opens calls, and answers handshakes with these statuses, then with the last again."""
    left = list(handshakes)

    async def behave(visit):
        while (request := await visit.head()) is not None:
            if request.values("upgrade"):
                status_now = left.pop(0) if len(left) > 1 else left[0]
                if status_now == 101:
                    await visit.write(switching_protocols(request))
                    while await visit.frames():
                        pass
                else:
                    await visit.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status_now)
                continue
            await visit.body(request)
            head = f"HTTP/1.1 {status} OK\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            await visit.write(head.encode("latin-1"))

    return Origin(behave)


async def open_call(it):
    async with tunnel(it.proxy) as wire:
        return await wire.exchange(post(CALLS, ["thread-id: 019a"]))


async def join(it, target=SIDEBAND, headers=()):
    async with tunnel(it.proxy, "api.openai.com") as wire:
        return await wire.exchange(upgrade(target, headers, host="api.openai.com"))


def stamps(it):
    return [request.attestation for request in it.origin.requests]


@pytest.mark.parametrize("status", [200, 201])
def test_the_value_of_a_call_is_carried_once_on_its_sideband_and_nobody_is_asked_again(run, stage, status):
    async def scenario():
        async with stage(calling(status)) as it:
            await open_call(it)
            assert (await join(it, headers=[FORGED])).status == 101
            assert (await join(it, headers=[FORGED])).status == 101
            exchanges = await it.reported(3)
        assert stamps(it) == [[OK_1], [OK_1], []]
        assert it.tokens.threads == ["019a"]
        assert [exchange.stamp for exchange in exchanges] == [Stamp.STAMPED, Stamp.CARRIED, Stamp.ABSENT]
        assert [exchange.route for exchange in exchanges] == ["realtime-call", *["realtime-sideband"] * 2]
        assert exchanges[1].attested and not exchanges[2].attested

    run(scenario())


def test_a_handshake_that_failed_may_carry_it_again(run, stage):
    async def scenario():
        async with stage(calling(handshakes=(503, 101))) as it:
            await open_call(it)
            assert [(await join(it)).status, (await join(it)).status] == [503, 101]
        assert stamps(it) == [[OK_1], [OK_1], [OK_1]] and it.tokens.asked == 1

    run(scenario())


@pytest.mark.parametrize(
    "target",
    [
        "/v1/realtime?call_id=rtc_2",
        "/v1/realtime?call_id=rtc_1&call_id=rtc_1",
        "/v1/realtime?model=gpt-realtime",
        "/v1/realtime",
        "/v1/realtime/?call_id=rtc_1",
        "/v1/other?call_id=rtc_1",
    ],
)
def test_a_sideband_of_no_known_call_goes_without(run, stage, target):
    async def scenario():
        async with stage(calling()) as it:
            await open_call(it)
            await join(it, target, [FORGED])
        assert stamps(it)[0] == [OK_1] and stamps(it)[1:] in ([], [[]])
        assert it.tokens.asked == 1

    run(scenario())


@pytest.mark.parametrize(
    ("status", "location"),
    [(401, "/v1/realtime/calls/rtc_1"), (302, "/v1/realtime/calls/rtc_1"), (201, "/elsewhere/rtc_1"), (201, "")],
)
def test_a_call_that_was_not_opened_leaves_nothing_for_a_sideband(run, stage, status, location):
    async def scenario():
        async with stage(calling(status, location)) as it:
            await open_call(it)
            await join(it)
        assert stamps(it) == [[OK_1], []]

    run(scenario())


def test_a_post_beside_the_calls_opens_none_whatever_it_is_answered(run, stage):
    async def scenario():
        async with stage(calling()) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post())
                await wire.exchange(post("/backend-api/codex/realtime/other"))
            await join(it)
        assert stamps(it) == [[OK_1], [], []]

    run(scenario())


@pytest.mark.parametrize(
    ("tokens", "carried"), [(never(), ['{"v":1,"s":1}']), (failing(NoAttester()), [])], ids=["timeout", "nobody"]
)
def test_a_failure_is_carried_like_a_token_and_an_absence_is_too(run, stage, tokens, carried):
    async def scenario():
        async with stage(calling(), tokens, timeout_s=0.05) as it:
            await open_call(it)
            await join(it)
        assert stamps(it) == [carried, carried] and it.tokens.asked == 1

    run(scenario())


def test_a_value_of_the_clients_own_is_carried_where_that_is_left_alone(run, stage):
    async def scenario():
        own = '{"v":1,"s":0,"t":"own"}'
        async with stage(calling(), Tokens(), mode=StampMode.MISSING) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post(CALLS, [f"x-oai-attestation: {own}"]))
            await join(it)
        assert stamps(it) == [[own], [own]] and it.tokens.asked == 0

    run(scenario())


def test_the_scoped_paths_of_chatgpt_are_not_stamped_on_the_realtime_host(run, stage):
    async def scenario():
        async with stage(calling()) as it, tunnel(it.proxy, "api.openai.com") as wire:
            await wire.exchange(post(headers=[FORGED], host="api.openai.com"))
        assert stamps(it) == [[]] and it.tokens.asked == 0

    run(scenario())
