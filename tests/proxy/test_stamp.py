"""What happens to the header on its way through, seen in the bytes that reach the upstream."""

import asyncio

import pytest

from proxy.attestation import AttestationRefused, NoAttester
from proxy.capture.exchange import Stamp
from proxy.modes import StampMode
from tests.loops import on_each_loop
from tests.proxy.origin import Origin, echoing
from tests.proxy.running import Tokens, broken_scope, failing, never
from tests.proxy.stamping import FORGED, OK_1, SOON_S, TIMEOUT, posted_and_upgraded
from tests.proxy.wire import post, tunnel, upgrade

# Forged headers


@posted_and_upgraded
@pytest.mark.parametrize(
    "forged",
    [
        [FORGED],
        [FORGED, FORGED],
        ["X-OAI-Attestation: forged"],
        ["X-Oai-AtteStation: forged", FORGED],
        ["x-oai-attestation:"],
        ["x-oai-attestation: caf\xe9\xff"],
        [FORGED, "Accept: */*", FORGED],
    ],
)
def test_whatever_the_client_wrote_into_the_header_is_replaced(run, stage, request_with, forged):
    async def scenario():
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            await wire.exchange(request_with(headers=forged))
        assert it.origin.only_request.attestation == [OK_1]
        assert b"forged" not in it.origin.received

    run(scenario())


@pytest.mark.parametrize("alias", ["x_oai_attestation", "X-OAI_Attestation", "x_oai-attestation"])
@pytest.mark.parametrize("path", ["/backend-api/codex/responses", "/backend-api/codex/models", "/elsewhere"])
@pytest.mark.parametrize("mode", [StampMode.ALWAYS, StampMode.MISSING])
def test_a_forged_header_with_underscores_does_not_arrive_either(run, stage, alias, path, mode):
    """CGI, WSGI and PHP take "_" and "-" in a name for the same; the alias once reached the origin on every route."""

    async def scenario():
        async with stage(mode=mode) as it, tunnel(it.proxy) as wire:
            await wire.exchange(post(path, [f"{alias}: forged", "x_other: stays"]))
        assert b"forged" not in it.origin.received and b"x_other: stays" in it.origin.received

    run(scenario())


@posted_and_upgraded
@pytest.mark.parametrize(
    ("tokens", "header"),
    [
        (never(), [TIMEOUT]),
        (failing(AttestationRefused()), ['{"v":1,"s":2}']),
        (failing(RuntimeError("a bug")), ['{"v":1,"s":2}']),
        (failing(ExceptionGroup("weird", [KeyError("x")])), ['{"v":1,"s":2}']),
        (failing(NoAttester()), []),
    ],
)
def test_a_forged_header_is_gone_also_when_there_is_no_token(run, stage, request_with, tokens, header):
    async def scenario():
        async with stage(Origin(echoing), tokens, timeout_s=SOON_S) as it, tunnel(it.proxy) as wire:
            await wire.exchange(request_with(headers=[FORGED]))
        assert it.origin.only_request.attestation == header
        assert b"forged" not in it.origin.received

    run(scenario())


@pytest.mark.parametrize(
    "request_head",
    [
        post("/backend-api/codex/models", [FORGED]),
        post("/backend-api/codex/responsesX", [FORGED, FORGED]),
        upgrade("/backend-api/other", [FORGED]),
        b"GET /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\n" + FORGED.encode() + b"\r\n\r\n",
    ],
)
def test_beside_the_scope_a_forged_header_is_stripped_and_nobody_is_asked(run, stage, request_head):
    async def scenario():
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            await wire.exchange(request_head)
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0

    run(scenario())


def test_on_one_connection_a_scoped_request_is_stamped_and_the_next_one_beside_the_scope_is_not(run, stage):
    async def scenario():
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.exchange(post())
            await wire.exchange(post("/backend-api/wham/usage", [FORGED]))
            await wire.exchange(post())
        assert [request.attestation for request in it.origin.requests] == [[OK_1], [], ['{"v":1,"s":0,"t":"token-2"}']]
        assert len(it.origin.visits) == 1

    run(scenario())


def test_two_requests_in_one_write_are_two_requests(run, stage):
    async def scenario():
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.send(post() + post("/backend-api/wham/usage", [FORGED]))
            await wire.answer()
            await wire.answer()
        assert [request.attestation for request in it.origin.requests] == [[OK_1], []]

    run(scenario())


# What else is in a request


def test_everything_else_arrives_as_it_was_sent(run, stage):
    """R11: names keep their case, headers their order; also what is odd and legal."""

    async def scenario():
        head = (
            b"POST /backend-api/codex/responses?a=%2F&b HTTP/1.1\r\nhOsT: chatgpt.com\r\nAuthorization: Bearer x\r\n"
            b"X-B: 2\r\nx-a: 1\r\nX-B: caf\xe9 \xff\r\nCookie: a=b; c\r\nContent-Length: 3\r\nEmpty:\r\n"
        )
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.exchange(head + b"\r\nabc")
        sent, received = head, it.origin.received
        stamp = b"x-oai-attestation: " + OK_1.encode() + b"\r\n"
        assert received == sent.replace(b"Empty:\r\n", b"Empty: \r\n") + stamp + b"\r\nabc"

    run(scenario())


@pytest.mark.parametrize("path", ["/backend-api/codex/responses", "/backend-api/codex/models"])
def test_what_is_meant_for_the_proxy_does_not_go_upstream(run, stage, path):
    async def scenario():
        ours = ["Proxy-Authorization: Basic c2VjcmV0", "proxy-connection: keep-alive", "PROXY-AUTHORIZATION: again"]
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.exchange(post(path, ours))
        assert b"proxy-" not in it.origin.received.lower() and b"c2VjcmV0" not in it.origin.received

    run(scenario())


# The question


@on_each_loop
def test_there_is_one_question_for_each_post_and_handshake_and_none_for_a_frame(run, stage):
    async def scenario():
        async with stage(Origin(echoing)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post())
                await wire.exchange(post())
                await wire.exchange(upgrade())
                for _ in range(20):
                    await wire.send(b"\x82\x85\x00\x00\x00\x00hello")
                    assert await wire.receive()
            async with tunnel(it.proxy) as wire:
                await wire.exchange(upgrade())
        assert it.tokens.asked == 4
        assert len({request.attestation[0] for request in it.origin.requests}) == 4  # and no token is used twice

    run(scenario())


@pytest.mark.parametrize(
    ("lines", "thread"),
    [
        (["thread-id: 019a-7f"], "019a-7f"),
        (["Thread-ID: 019a-7f"], "019a-7f"),
        ([], None),
        (["thread-id: a", "thread-id: b"], None),
        (["thread-id: a b"], None),
        (["thread-id: " + "a" * 65], None),
        (["thread-id: caf\xe9"], None),
        (["thread-id:"], None),
    ],
)
def test_the_question_names_the_thread_of_the_request(run, stage, lines, thread):
    async def scenario():
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.exchange(post(headers=lines))
        assert it.tokens.threads == [thread]

    run(scenario())


@on_each_loop
def test_while_one_request_waits_for_its_token_others_go_through(run, stage):
    """F8: no queue behind a slow desktop. The first token comes only after everything else is answered."""

    async def scenario():
        go = asyncio.Event()

        async def make(number):
            if number == 1:
                await go.wait()
            return f"token-{number}"

        async with stage(tokens=Tokens(make)) as it, tunnel(it.proxy) as slow:
            await slow.send(post())
            await it.tokens.wait_for(1)
            async with tunnel(it.proxy) as unscoped, tunnel(it.proxy) as scoped:
                await unscoped.exchange(post("/backend-api/wham/usage"))
                await scoped.exchange(post())
            go.set()
            await slow.answer()
        assert [request.attestation for request in it.origin.requests] == [
            [], ['{"v":1,"s":0,"t":"token-2"}'], [OK_1],
        ]  # fmt: skip

    run(scenario())


def test_a_late_token_is_not_used_for_the_next_request(run, stage):
    async def scenario():
        late = asyncio.get_running_loop().create_future()

        async def make(number):
            return await asyncio.shield(late) if number == 1 else f"token-{number}"

        async with stage(tokens=Tokens(make), timeout_s=SOON_S) as it, tunnel(it.proxy) as wire:
            await wire.exchange(post())
            late.set_result("stale")
            await wire.exchange(post())
        assert [request.attestation for request in it.origin.requests] == [[TIMEOUT], ['{"v":1,"s":0,"t":"token-2"}']]

    run(scenario())


@pytest.mark.parametrize("leaving", ["close", "half close"])
@posted_and_upgraded
def test_a_client_that_leaves_while_the_token_is_awaited_causes_no_stamped_request(run, stage, request_with, leaving):
    async def scenario():
        go = asyncio.Event()

        async def make(_):
            await go.wait()
            return "too late"

        async with stage(Origin(echoing), Tokens(make)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(request_with())
                await it.tokens.wait_for(1)
                await (wire.close() if leaving == "close" else wire.end_writing())
                async with tunnel(it.proxy) as later:  # by its answer the proxy has seen the other one leave
                    await later.exchange(post("/backend-api/wham/usage"))
                go.set()
                [exchange, *_] = [one for one in await it.reported(2) if one.route]
        assert exchange.error and exchange.status is None
        assert b"too late" not in it.origin.received and len(it.origin.requests) == 1

    run(scenario())


def test_the_same_client_is_stamped_if_it_stays(run, stage):
    """The negative control of the test above."""

    async def scenario():
        go = asyncio.Event()

        async def make(_):
            await go.wait()
            return "in time"

        async with stage(tokens=Tokens(make)) as it, tunnel(it.proxy) as wire:
            await wire.send(post())
            await it.tokens.wait_for(1)
            go.set()
            await wire.answer()
        assert it.origin.only_request.attestation == ['{"v":1,"s":0,"t":"in time"}']

    run(scenario())


@pytest.mark.parametrize("named", ["x-oai-attestation", "keep-alive, X-OAI-Attestation", "x_oai_attestation ,close"])
@posted_and_upgraded
def test_a_request_that_has_the_stamp_dropped_on_the_way_is_refused(run, stage, request_with, named):
    """What `Connection` names goes no further than the next hop, which would have eaten the token."""

    async def scenario():
        async with stage(Origin(echoing)) as it:
            async with tunnel(it.proxy) as wire:
                assert (await wire.exchange(request_with(headers=[f"Connection: {named}"]))).status == 400
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post(headers=["Connection: keep-alive, x-other"]))
        assert it.origin.only_request.attestation == [OK_1] and it.tokens.asked == 1

    run(scenario())


# A hook that fails


@posted_and_upgraded
@pytest.mark.parametrize("path", ["/backend-api/codex/responses", "/backend-api/codex/models"])
def test_a_hook_that_fails_answers_502_and_sends_nothing(run, stage, request_with, path):
    """mitmproxy forwards the request, forged header and all, after a hook that raised."""

    async def scenario():
        scope = broken_scope()
        async with stage(Origin(echoing), scope=scope) as it:
            async with tunnel(it.proxy) as wire:
                answer = await wire.exchange(request_with(path, [FORGED]))
            [exchange] = await it.reported()
        assert answer.status == 502 and b"forged" not in answer.body
        assert it.origin.received == b"" and it.tokens.asked == 0
        assert (exchange.stamp, exchange.status, exchange.attested) == (Stamp.REFUSED, 502, False)

    run(scenario())


def test_the_same_request_goes_through_a_scope_that_works(run, stage):
    """The negative control of the test above."""

    async def scenario():
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post(headers=[FORGED]))).status == 200
        assert it.origin.only_request.attestation == [OK_1]

    run(scenario())
