"""What an upstream answers that would confuse the next request, or whoever reads it."""

import contextlib

import pytest

from tests.proxy.attacking import FORGED, HANDSHAKE, attempt
from tests.proxy.origin import OK, Origin, answering, echoing
from tests.proxy.wire import RESPONSES, ConnectionEnded, post, tunnel, upgrade


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(),
        post("/elsewhere"),
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        HANDSHAKE.replace(b"Version: 13", b"Version: 12"),
        b"GET / HTTP/1.1\r\nHost: chatgpt.com\r\n\r\n",
    ],
)
def test_a_101_that_nobody_asked_for_closes_the_connection(run, stage, request_bytes):
    """R10: mitmproxy makes a raw tunnel of any 101, past every check; what follows would be the client's to write."""

    async def switch(visit):
        request = await visit.head()
        await visit.body(request)
        await visit.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        while await visit.frames():
            pass

    async def scenario():
        async with stage(Origin(switch)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.send(request_bytes)
                assert b"101" not in await wire.receive_rest()
            [exchange] = await it.reported()
        assert exchange.error and len(it.origin.requests) == 1

    run(scenario())


def test_a_101_to_a_handshake_opens_a_raw_connection(run, stage):
    """The negative control: there the bytes behind it are the WebSocket's."""

    async def scenario():
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(upgrade())).status == 101
            await wire.send(b"raw")
            assert await wire.receive() == b"raw"
        assert it.origin.received.endswith(b"raw")

    run(scenario())


def test_two_answers_to_one_request_end_the_upstream_connection(run, stage):
    """R10: the second must not become the answer to the next request."""

    async def scenario():
        evil = OK.replace(b"ok", b"no")
        async with stage(Origin(answering(OK + evil))) as it, tunnel(it.proxy) as wire:
            first = await wire.exchange(post())
            assert (first.status, first.body) == (200, b"ok")
            with contextlib.suppress(ConnectionEnded):
                second = await wire.exchange(post("/elsewhere"))
                assert second.body != b"no"
            assert all(visit.received.count(b"HTTP/1.1") == 1 for visit in it.origin.visits)

    run(scenario())


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nok",
        b"garbage\r\n\r\n",
    ],
)
def test_an_ambiguous_answer_is_not_passed_on(run, stage, response):
    async def scenario():
        async with stage(Origin(answering(response))) as it:
            assert await attempt(it, post()) == 502

    run(scenario())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_passed_to_the_client_and_not_followed(run, stage, status):
    """R9: following it would take the token to where the upstream points."""

    async def scenario():
        redirect = f"HTTP/1.1 {status} Moved\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n".encode()
        async with stage(Origin(answering(redirect))) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(post())
            assert (answer.status, answer.values(b"location")) == (status, [b"https://evil.example/"])
        assert len(it.origin.requests) == 1 and it.tokens.asked == 1

    run(scenario())


@pytest.mark.parametrize("status", [401, 426, 429, 500, 503])
@pytest.mark.parametrize("make", [post, upgrade])
def test_a_refusal_is_passed_to_the_client_and_not_tried_again(run, stage, make, status):
    """W2: the agent reacts to these itself, 426 by changing to POST."""

    async def scenario():
        refusal = f"HTTP/1.1 {status} No\r\nX-Reason: mine\r\nContent-Length: 2\r\n\r\nno".encode()
        async with stage(Origin(answering(refusal))) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(make())
            assert (answer.status, answer.values(b"x-reason"), answer.body) == (status, [b"mine"], b"no")
        assert len(it.origin.requests) == 1 and it.tokens.asked == 1

    run(scenario())


def test_a_head_of_64_kib_beside_the_scope_passes_without_a_stamp(run, stage):
    async def scenario():
        async with stage() as it:
            assert await attempt(it, post(RESPONSES + "/" + "a" * 65536, [FORGED])) == 200
        assert it.origin.only_request.attestation == [] and it.tokens.asked == 0

    run(scenario())
