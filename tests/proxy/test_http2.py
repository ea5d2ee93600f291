"""POST over HTTP/2, as the agent sends it, and what can be wrong in one."""

import asyncio

import pytest

from proxy.attestation import AttestationRefused
from proxy.modes import OnFailure
from tests.loops import on_each_loop
from tests.proxy.h2wire import h2_post, h2_tunnel
from tests.proxy.origin import Origin
from tests.proxy.running import Tokens, broken_scope, failing
from tests.proxy.wire import RESPONSES, tunnel

FORGED = (b"x-oai-attestation", b"forged")
OK_1 = '{"v":1,"s":0,"t":"token-1"}'


@pytest.fixture
def h2_stage(stage):
    """A proxy in front of an upstream that speaks HTTP/2."""

    def make(*tokens, **options):
        return stage(Origin(alpn=("h2", "http/1.1")), *tokens, **options)

    return make


def without(headers, name):
    return [pair for pair in headers if pair[0] != name]


@on_each_loop
def test_a_post_is_stamped_once_and_arrives_complete(run, h2_stage):
    async def scenario():
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            answer = await client.exchange(h2_post(RESPONSES, FORGED, FORGED, (b"thread-id", b"019a")), b"{}")
            assert (answer.status, answer.body, answer.ended_by) == (200, b"ok", "end")
        request = it.origin.only_request
        assert request.attestation == [OK_1] and request.body == b"{}"
        assert request.values(":authority") == ["chatgpt.com"] and request.values(":path") == [RESPONSES]
        assert it.tokens.threads == ["019a"]

    run(scenario())


def test_streams_beside_each_other_have_a_token_each_and_those_beside_the_scope_none(run, h2_stage):
    async def scenario():
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            numbers = [
                await client.send(h2_post(path, FORGED)) for path in (RESPONSES, "/elsewhere", RESPONSES + "/compact")
            ]
            assert [(await client.answer(number)).status for number in numbers] == [200, 200, 200]
        by_path = {request.values(":path")[0]: request.attestation for request in it.origin.requests}
        assert by_path.pop("/elsewhere") == []
        assert sorted(by_path.values()) == [[OK_1], ['{"v":1,"s":0,"t":"token-2"}']]
        assert len(it.origin.visits) == 1

    run(scenario())


def test_an_upstream_that_speaks_only_http1_gets_http1(run, stage):
    """ALPN is mirrored: the client is not offered what the upstream cannot do."""

    async def scenario():
        async with stage() as it, tunnel(it.proxy, alpn=("h2", "http/1.1")) as wire:
            assert wire.tls.selected_alpn_protocol() == "http/1.1"

    run(scenario())


@pytest.mark.parametrize("name", [b"x-oai-attestation", b"proxy-authorization"])
def test_trailers_carry_nothing_that_headers_must_not(run, h2_stage, name):
    """Trailers once went upstream as they were; a server may merge them into the headers (RFC 9110 6.5)."""

    async def scenario():
        trailers = [(name, b"forged"), (b"x-checksum", b"1"), (name, b"forged again")]
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            assert (await client.exchange(h2_post(), trailers=trailers)).status == 200
        assert it.origin.only_request.trailers == ((b"x-checksum", b"1"),)
        assert it.origin.only_request.attestation == [OK_1]

    run(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        without(h2_post(), b":authority"),
        [*without(h2_post(), b":authority"), (b"host", b"chatgpt.com")],
        [*h2_post(), (b"host", b"evil.example")],
        [(b":authority", b"evil.example"), *without(h2_post(), b":authority"), (b"host", b"chatgpt.com")],
        [(b":authority", b"chatgpt.com."), *without(h2_post(), b":authority")],
        [(b":authority", b"chatgpt.com"), *h2_post()],
        [(b":authority", b"user@chatgpt.com"), *without(h2_post(), b":authority")],
        h2_post(RESPONSES + " HTTP/1.1\r\nHost: evil.example"),
        h2_post(RESPONSES + " x"),
        h2_post(RESPONSES + "\r\nx-oai-attestation: forged"),
        h2_post(RESPONSES + "\n"),
        h2_post(RESPONSES + "\x00"),
        h2_post(RESPONSES + "#x"),
        h2_post(RESPONSES + "/"),
        h2_post("//" + RESPONSES),
        h2_post("/backend-api/codex/%72esponses"),
        h2_post(f"https://chatgpt.com{RESPONSES}"),
        h2_post(""),
        h2_post("*"),
        without(h2_post(), b":path"),
        without(h2_post(), b":method"),
        without(h2_post(), b":scheme"),
        [(b":method", b"POST /x HTTP/1.1\r\nX:"), *without(h2_post(), b":method")],
        [(b":method", b"CONNECT"), *without(h2_post(), b":method")],
        [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *without(h2_post(), b":method")],
        [(b":unknown", b"x"), *h2_post()],
        [*h2_post(), (b":path", b"/late")],
        h2_post(RESPONSES, (b"X-Upper", b"x")),
        h2_post(RESPONSES, (b"X-OAI-Attestation", b"forged")),
        h2_post(RESPONSES, (b"transfer-encoding", b"chunked")),
        h2_post(RESPONSES, (b"connection", b"keep-alive")),
        h2_post(RESPONSES, (b"upgrade", b"websocket")),
        h2_post(RESPONSES, (b"te", b"gzip")),
        h2_post(RESPONSES, (b"content-length", b"5")),
        h2_post(RESPONSES, (b"x", b"a\r\nx-oai-attestation: forged")),
        h2_post(RESPONSES, (b"x", b"a\nb")),
        h2_post(RESPONSES, (b"x", b"a\x00b")),
        h2_post(RESPONSES, (b"x\r\nx-oai-attestation", b"forged")),
        h2_post(RESPONSES, (b"x-oai-attestation ", b"forged")),
        h2_post(RESPONSES, (b"", b"x")),
    ],
)
def test_a_request_that_is_not_quite_one_ends_without_reaching_the_upstream(run, h2_stage, headers):
    async def scenario():
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            answer = await client.exchange(headers)
            assert answer.status in (None, 400, 421)
        assert it.origin.requests == [] and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize(
    "more",
    [
        (b"host", b"chatgpt.com"),
        (b"x", b"caf\xe9 \xff"),
        (b"cookie", b"a=b"),
        (b"te", b"trailers"),
        (b"x-long", b"x" * 8000),
    ],
)
def test_what_is_legal_besides_goes_through_stamped(run, h2_stage, more):
    """The negative control of the refusals."""

    async def scenario():
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            assert (await client.exchange(h2_post(RESPONSES, more))).status == 200
        assert it.origin.only_request.attestation == [OK_1]
        assert it.origin.only_request.headers.count(more) == 1

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "is_stamped"),
    [
        (h2_post(), True),
        ([(b":method", b"GET"), *without(h2_post(), b":method")], False),
        ([(b":method", b"PUT"), *without(h2_post(), b":method")], False),
        (h2_post(RESPONSES, (b"x-http-method-override", b"GET")), False),
        (h2_post(RESPONSES + "X"), False),
    ],
)
def test_only_the_exact_request_is_stamped(run, h2_stage, headers, is_stamped):
    async def scenario():
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            assert (await client.exchange([*headers, FORGED])).status == 200
        assert it.origin.only_request.attestation == ([OK_1] if is_stamped else [])
        assert it.tokens.asked == is_stamped

    run(scenario())


def test_a_hook_that_fails_answers_502_and_the_connection_goes_on(run, h2_stage):
    async def scenario():
        async with h2_stage(scope=broken_scope()) as it, h2_tunnel(it.proxy) as client:
            for _ in range(2):
                answer = await client.exchange(h2_post(RESPONSES, FORGED))
                assert (answer.status, answer.ended_by) == (502, "end") and b"forged" not in answer.body
        assert it.origin.requests == [] and it.tokens.asked == 0

    run(scenario())


def test_where_failures_are_refused_the_answer_is_503_and_other_streams_go_on(run, h2_stage):
    async def scenario():
        async with h2_stage(failing(AttestationRefused()), on_failure=OnFailure.REFUSE) as it:
            async with h2_tunnel(it.proxy) as client:
                assert (await client.exchange(h2_post(RESPONSES, FORGED))).status == 503
                assert (await client.exchange(h2_post("/elsewhere"))).status == 200
        assert [request.values(":path") for request in it.origin.requests] == [["/elsewhere"]]

    run(scenario())


def test_a_stream_that_is_reset_while_the_token_is_awaited_causes_no_stamped_request(run, h2_stage):
    async def scenario():
        go = asyncio.Event()

        async def make(_):
            await go.wait()
            return "too late"

        async with h2_stage(Tokens(make)) as it, h2_tunnel(it.proxy) as client:
            number = await client.send(h2_post(), body=None)
            await it.tokens.wait_for(1)
            await client.reset(number)
            assert (await client.exchange(h2_post("/elsewhere"))).status == 200
            go.set()
            exchanges = await it.reported(2)
        assert [request.values(":path") for request in it.origin.requests] == [["/elsewhere"]]
        [left] = [exchange for exchange in exchanges if exchange.route]
        assert left.status is None and left.error

    run(scenario())


def test_the_body_goes_on_while_it_is_still_being_sent(run, h2_stage):
    async def scenario():
        async with h2_stage() as it, h2_tunnel(it.proxy) as client:
            headers = without(h2_post(), b"content-length")
            number = await client.send(headers, body=None)
            await it.origin.wait_until(lambda: len(it.origin.requests) == 1)
            assert not it.origin.only_request.complete
            await client.send_body(number, b"late")
            assert (await client.answer(number)).status == 200
        assert it.origin.only_request.body == b"late"

    run(scenario())
