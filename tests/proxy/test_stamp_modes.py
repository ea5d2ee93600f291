"""When a request is stamped, and what is told of it."""

import asyncio

import pytest

from proxy.attestation import AttestationRefused, AttestationStatus, NoAttester
from proxy.capture.exchange import Stamp
from proxy.modes import OnFailure, StampMode
from tests.proxy.origin import Origin, echoing, leaving
from tests.proxy.running import Tokens, failing, never
from tests.proxy.stamping import FORGED, OK_1, SOON_S, TIMEOUT, posted_and_upgraded
from tests.proxy.wire import post, tunnel, upgrade

# Modes


@pytest.mark.parametrize(
    ("mode", "lines", "arrives", "asked", "stamp"),
    [
        (StampMode.ALWAYS, [FORGED], [OK_1], 1, Stamp.STAMPED),
        (StampMode.ALWAYS, [], [OK_1], 1, Stamp.STAMPED),
        (StampMode.MISSING, [FORGED], ['{"v":1,"s":0,"t":"forged"}'], 0, Stamp.NATIVE),
        (StampMode.MISSING, ['x-oai-attestation: {"v":1,"s":1}'], [TIMEOUT], 0, Stamp.NATIVE),
        (StampMode.MISSING, [], [OK_1], 1, Stamp.STAMPED),
        (StampMode.MISSING, ["x-oai-attestation: no envelope"], [OK_1], 1, Stamp.STAMPED),
        (StampMode.MISSING, [FORGED, FORGED], [OK_1], 1, Stamp.STAMPED),
        (StampMode.NEVER, [FORGED], ['{"v":1,"s":0,"t":"forged"}'], 0, Stamp.NATIVE),
        (StampMode.NEVER, ["x-oai-attestation: no envelope"], ["no envelope"], 0, Stamp.FOREIGN),
        (StampMode.NEVER, [], [], 0, Stamp.ABSENT),
        (StampMode.NEVER, ["x-oai-attestation: a", "x-oai-attestation: b"], ["a", "b"], 0, Stamp.FOREIGN),
        (StampMode.NEVER, ["x_oai_attestation: a"], [], 0, Stamp.ABSENT),
    ],
)
@posted_and_upgraded
def test_each_mode_does_what_it_says(run, stage, request_with, mode, lines, arrives, asked, stamp):
    async def scenario():
        async with stage(Origin(echoing), mode=mode) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(request_with(headers=lines))
            [exchange] = await it.reported()
        assert it.origin.only_request.attestation == arrives
        assert it.tokens.asked == asked and exchange.stamp is stamp
        assert exchange.attested == any('"s":0' in value for value in arrives)

    run(scenario())


def test_of_several_native_envelopes_none_is_vouched_for_and_all_arrive_where_only_observed(run, stage):
    """They were once dropped, and reported as absent, by the mode that only observes."""

    async def scenario():
        async with stage(mode=StampMode.NEVER) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post(headers=[FORGED, "Accept: */*", FORGED, "x_oai_attestation: too"]))
            [exchange] = await it.reported()
        assert it.origin.only_request.attestation == ['{"v":1,"s":0,"t":"forged"}'] * 2
        assert b"x_oai_attestation: too" in it.origin.received
        assert (exchange.stamp, exchange.attested, exchange.token_bytes) == (Stamp.FOREIGN, False, 0)

    run(scenario())


@pytest.mark.parametrize(
    ("mode", "arrives"),
    [(StampMode.ALWAYS, []), (StampMode.MISSING, []), (StampMode.NEVER, ['{"v":1,"s":0,"t":"forged"}'])],
)
def test_beside_the_scope_only_the_observing_mode_leaves_a_header(run, stage, mode, arrives):
    async def scenario():
        async with stage(mode=mode) as it, tunnel(it.proxy) as wire:
            await wire.exchange(post("/backend-api/codex/models", [FORGED]))
        assert it.origin.only_request.attestation == arrives and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize(
    ("tokens", "reason"), [(never(), b"timeout"), (failing(AttestationRefused()), b"failed")], ids=["timeout", "error"]
)
@posted_and_upgraded
def test_where_failures_are_refused_the_answer_is_503_and_nothing_is_sent(run, stage, request_with, tokens, reason):
    async def scenario():
        async with stage(Origin(echoing), tokens, on_failure=OnFailure.REFUSE, timeout_s=SOON_S) as it:
            async with tunnel(it.proxy) as wire:
                answer = await wire.exchange(request_with(headers=[FORGED]))
            [exchange] = await it.reported()
        assert answer.status == 503 and reason in answer.body
        assert it.origin.received == b""
        assert (exchange.stamp, exchange.attestation, exchange.status) == (Stamp.REFUSED, None, 503)

    run(scenario())


@pytest.mark.parametrize(("tokens", "header"), [(Tokens(), [OK_1]), (failing(NoAttester()), [])])
def test_there_a_token_still_goes_through_and_so_does_a_request_with_nobody_to_ask(run, stage, tokens, header):
    """The negative control: REFUSE is about questions that failed."""

    async def scenario():
        async with stage(tokens=tokens, on_failure=OnFailure.REFUSE) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 200
        assert it.origin.only_request.attestation == header

    run(scenario())


# What is reported


def test_an_exchange_says_what_happened_and_how_long_it_took(run, stage):
    async def scenario():
        async with stage() as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post("/backend-api/codex/responses?secret=1", ["thread-id: 019a"]))
                await wire.exchange(post("/backend-api/codex/models"))
            scoped, other = await it.reported(2)
        assert (scoped.number, scoped.method, scoped.path) == (1, "POST", "/backend-api/codex/responses")
        assert (scoped.route, scoped.attestation, scoped.thread_id) == ("responses", AttestationStatus.OK, "019a")
        assert 0 <= scoped.waited_s <= scoped.first_byte_s <= scoped.duration_s
        assert (other.number, other.route, other.stamp, other.waited_s) == (2, None, Stamp.NOT_SCOPED, None)

    run(scenario())


def test_an_answer_that_is_cut_is_reported_as_an_error(run, stage):
    async def scenario():
        async def cutting(visit):
            request = await visit.head()
            await visit.body(request)
            await visit.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

        async with stage(Origin(cutting)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(post())
                assert (await wire.receive_rest()).endswith(b"\r\n\r\nhalf")  # what came is not held back
            [exchange] = await it.reported()
        assert exchange.status == 200 and exchange.error

    run(scenario())


@posted_and_upgraded
def test_a_request_whose_client_left_while_a_token_was_awaited_is_no_attested_one(run, stage, request_with):
    """A token that was made and went nowhere proves nothing."""

    async def scenario():
        left = asyncio.Event()

        async def late(_):
            await left.wait()
            return "token-1"

        async with stage(Origin(echoing), Tokens(late)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(request_with())
                await it.tokens.wait_for(1)
            await asyncio.sleep(SOON_S)  # the proxy has seen it leave
            left.set()
            [exchange] = await it.reported()
        assert (exchange.stamp, exchange.attested, exchange.token_bytes) == (Stamp.UNSENT, False, 0)
        assert exchange.route == "responses" and exchange.error
        assert it.origin.received == b""

    run(scenario())


def test_nor_is_one_that_found_the_upstream_gone(run, stage):
    """The second request of a connection whose upstream went away in between."""

    async def scenario():
        async with stage(Origin(leaving)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 200
            await it.origin.__aexit__(None, None, None)
            assert (await wire.exchange(post())).status == 502
            first, second = await it.reported(2)
        assert first.attested and (second.stamp, second.attested) == (Stamp.UNSENT, False)

    run(scenario())


def test_one_that_was_sent_and_never_answered_is(run, stage):
    async def scenario():
        async def silent(visit):
            await visit.body(await visit.head())

        async with stage(Origin(silent)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 502
            [exchange] = await it.reported()
        assert (exchange.stamp, exchange.status, exchange.attested) == (Stamp.STAMPED, None, True)

    run(scenario())


@pytest.mark.parametrize("body", [b"", b"half"])
def test_so_is_one_whose_body_was_cut_since_its_token_has_arrived(run, stage, body):
    """It was once reported as unsent, with a token that was already spent."""

    async def scenario():
        async def reading(visit):
            await visit.body(await visit.head())

        cut = post().replace(b"Content-Length: 2", b"Content-Length: 100").removesuffix(b"{}") + body
        async with stage(Origin(reading)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(cut)
                await it.origin.wait_until(lambda: it.origin.requests != [])
            [exchange] = await it.reported()
        assert it.origin.only_request.attestation == [OK_1]
        assert (exchange.stamp, exchange.attested, exchange.token_bytes) == (Stamp.STAMPED, True, len("token-1"))
        assert exchange.status is None and exchange.error

    run(scenario())


def test_every_scoped_request_is_reported_exactly_once(run, stage):
    """F9."""

    async def scenario():
        async with stage(Origin(echoing)) as it:
            for request_head in (post(), upgrade(), post("/elsewhere"), post(headers=["X: a\rb"])):
                async with tunnel(it.proxy) as wire:
                    await wire.exchange(request_head)
            await it.reported(4)
        assert sorted(exchange.number for exchange in it.exchanges) == [1, 2, 3, 4]

    run(scenario())
