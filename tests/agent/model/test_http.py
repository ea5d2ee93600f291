"""POST and JSON through the real proxy, to an upstream that says exactly what the story needs."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import traceback

import pytest

from agent.model.failures import StreamBroken, UpstreamError
from agent.model.http import HttpClient
from agent.model.limits import RateLimits
from agent.model.wire import Completed, Created, LimitsSeen, TurnState
from certs.trust import client_context
from tests.agent.model.chatgpt_behind_proxy import ORIGIN, world
from tests.proxy.origin import Origin, answering

URL = f"{ORIGIN}/backend-api/codex/responses"
CREATED = b'data: {"type":"response.created","response":{"id":"r"}}\n\n'
COMPLETED = b'data: {"type":"response.completed","response":{"id":"r"}}\n\n'
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def saying(*pieces):
    """Answers a request with these pieces, each in a TLS record of its own; then closes."""

    async def behave(visit):
        request = await visit.head()
        if request is None:
            return
        await visit.body(request)
        for piece in pieces:
            await visit.write(piece)
            for _ in range(100):  # let the proxy and the client take it in: a network may part any answer
                await asyncio.sleep(0)

    return behave


def hanging(*pieces):
    """The same, and then nothing more, until the client has gone."""

    async def behave(visit):
        await saying(*pieces)(visit)
        await visit.frames()

    return behave


def origin(behave):
    return Origin(behave, names=("chatgpt.com", "api.openai.com", "auth.openai.com"))


async def respond(http, url=URL, idle_timeout_s=10.0, retries=0, compress=False):
    events = http.respond(
        url, {"thread-id": "thread-1"}, {"input": []}, compress=compress, idle_timeout_s=idle_timeout_s, retries=retries
    )
    async with contextlib.aclosing(events):
        return [event async for event in events]


def test_the_headers_of_an_answer_come_before_its_events(run, tmp_path):
    async def scenario():
        head = SSE.replace(b"\r\n\r\n", b"\r\nx-codex-turn-state: TS-1\r\nx-codex-primary-used-percent: 7\r\n\r\n")
        async with world(tmp_path, service=origin(saying(head, CREATED, COMPLETED))) as here:
            events = await respond(here.client.http)
        assert events[0] == TurnState("TS-1")
        assert isinstance(events[1], LimitsSeen) and events[1].limits.primary.used_percent == 7
        assert events[2:] == [Created("r"), Completed("r", None)]

    run(scenario())


def test_an_answer_cut_anywhere_gives_the_same_events(run, tmp_path):
    async def scenario():
        pieces = [CREATED[:9], CREATED[9:-1], CREATED[-1:] + COMPLETED[:40], COMPLETED[40:]]
        async with world(tmp_path, service=origin(saying(SSE, *pieces))) as here:
            assert await respond(here.client.http) == [LimitsSeen(RateLimits()), Created("r"), Completed("r", None)]

    run(scenario())


def test_nothing_is_asked_to_be_compressed_on_its_way_back(run, tmp_path):
    """An event stream that is compressed arrives in blocks, not in events."""

    async def scenario():
        async with world(tmp_path, service=origin(saying(SSE, COMPLETED))) as here:
            await respond(here.client.http)
            request = here.service.only_request
        assert request.values("accept-encoding") == []
        assert request.values("accept") == ["text/event-stream"]
        assert request.values("proxy-authorization") == []

    run(scenario())


def test_an_error_that_arrives_in_pieces_is_read_whole(run, tmp_path):
    async def scenario():
        body = b'{"error": {"type": "invalid_request_error", "message": "bad request"}}'
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with world(tmp_path, service=origin(saying(head, body[:20], body[20:]))) as here:
            with pytest.raises(UpstreamError, match="^bad request$") as failed:
                await respond(here.client.http)
        assert (failed.value.status, failed.value.kind) == (400, "invalid_request_error")

    run(scenario())


def test_a_json_answer_that_arrives_in_pieces_is_read_whole(run, tmp_path):
    async def scenario():
        body = json.dumps({"models": [{"slug": f"gpt-{number}"} for number in range(100)]}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with world(tmp_path, service=origin(saying(head, body[:100], body[100:]))) as here:
            status, answer = await here.client.http.request_json("GET", f"{ORIGIN}/backend-api/codex/models")
        assert status == 200 and len(answer["models"]) == 100

    run(scenario())


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="no head"),
        pytest.param([b"HTTP/1.1 503 Unavailable\r\nContent-Length: 100\r\n\r\n{"], id="half an error"),
        pytest.param([SSE, CREATED], id="half a stream"),
        pytest.param([SSE, CREATED, b": still here"], id="half an event"),
    ],
)
def test_an_upstream_that_falls_silent_breaks_the_stream_in_bounded_time(pieces, run, tmp_path):
    async def scenario():
        async with world(tmp_path, service=origin(hanging(*pieces))) as here, asyncio.timeout(5):
            with pytest.raises(StreamBroken, match="idle timeout waiting for SSE"):
                await respond(here.client.http, idle_timeout_s=0.3)

    run(scenario())


@pytest.mark.parametrize(
    "pieces, said",
    [
        pytest.param([SSE, CREATED], "ended before it was complete", id="an early end"),
        pytest.param([SSE, b"data: {not json\n\n"], "not JSON", id="garbage"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", CREATED], "broke off", id="a cut body"),
        pytest.param([b"nonsense\r\n\r\n"], "502|broke off", id="no HTTP"),
    ],
)
def test_an_answer_that_is_none_breaks_the_stream_or_fails_it(pieces, said, run, tmp_path):
    async def scenario():
        async with world(tmp_path, service=origin(saying(*pieces))) as here:
            with pytest.raises((StreamBroken, UpstreamError), match=said) as failed:
                await respond(here.client.http)
            assert isinstance(failed.value, StreamBroken) or failed.value.status == 502

    run(scenario())


def test_a_redirect_is_not_followed(run, tmp_path):
    """The token and the bearer were for the address they were sent to."""

    async def scenario():
        head = b"HTTP/1.1 307 Temporary\r\nLocation: https://api.openai.com/elsewhere\r\n"
        head += b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        async with world(tmp_path, service=origin(saying(head))) as here:
            with pytest.raises(UpstreamError) as failed:
                await respond(here.client.http)
            status, _ = await here.client.http.request_json("GET", f"{ORIGIN}/x")
            assert failed.value.status == status == 307
            assert len(here.service.requests) == 2

    run(scenario())


def test_a_json_answer_that_is_no_json_is_none(run, tmp_path):
    async def scenario():
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"
        async with world(tmp_path, service=origin(saying(head))) as here:
            assert await here.client.http.request_json("GET", f"{ORIGIN}/x") == (200, None)

    run(scenario())


# The way there


def test_a_host_that_the_proxy_does_not_admit_is_an_error_that_no_retry_mends(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here:
            with pytest.raises(UpstreamError, match="the proxy refused to connect to evil.example with 403") as failed:
                await here.client.http.post("https://evil.example/x", b"", {})
        assert failed.value.status == 403

    run(scenario())


def test_an_upstream_that_is_not_there_is_a_broken_stream(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here:
            await here.service.__aexit__(None, None, None)
            with pytest.raises(StreamBroken, match="the proxy could not connect to chatgpt.com"):
                await respond(here.client.http)
            assert await here.client.http.post_json_tunnelled("https://auth.openai.com/oauth/token", {}) == (0, None)

    run(scenario())


def test_the_wrong_proxy_secret_is_refused_and_told_to_nobody(run, tmp_path, caplog):
    async def scenario():
        async with world(tmp_path) as here:
            endpoint = dataclasses.replace(here.endpoint, secret="guessed-4711")

            async def ready():
                return endpoint

            http = HttpClient(ready)
            try:
                with pytest.raises(UpstreamError, match="with 407") as failed:
                    await respond(http)
            finally:
                await http.aclose()
            assert not here.service.received
        told = "".join(traceback.format_exception(failed.value)) + repr(failed.value) + repr(endpoint) + caplog.text
        assert "4711" not in told and here.endpoint.secret not in told

    run(scenario())


def test_another_authority_than_the_proxys_is_not_trusted(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here:
            endpoint = dataclasses.replace(here.endpoint, context=client_context(here.service.ca_pem))

            async def ready():
                return endpoint

            http = HttpClient(ready)
            try:
                with pytest.raises(StreamBroken, match="broke off"):
                    await respond(http)
            finally:
                await http.aclose()
            assert not here.service.received
            await respond(here.client.http)  # the control: with the right one it works

    run(scenario())


def test_a_provider_that_is_not_there_is_named(run):
    """A model server of one's own that was not started: only the name of an exception was told."""

    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]

        async def ready():
            raise AssertionError("plain http needs no proxy")

        http = HttpClient(ready)
        try:
            with pytest.raises(StreamBroken, match=f"no connection to 127.0.0.1:{port}"):
                await respond(http, f"http://127.0.0.1:{port}/v1/responses")
        finally:
            await http.aclose()

    run(scenario())


def test_a_tunnelled_host_shows_its_own_certificate(run, tmp_path):
    async def scenario():
        url = "https://auth.openai.com/oauth/token"
        body = {"grant_type": "refresh_token"}
        async with world(tmp_path) as here:
            status, answer = await here.client.http.request_json("POST", url, body, tunnelled=True)
            assert status == 200 and answer["refresh_token"] == "stand-in-refresh-1"
            with pytest.raises(StreamBroken, match="POST auth.openai.com failed"):
                await here.client.http.request_json("POST", url, body)  # the proxy's authority did not sign it

    run(scenario())


def test_connections_are_kept_for_the_next_request(run, tmp_path):
    """One tunnel for three requests; each has its own token all the same."""

    async def scenario():
        body = CREATED + COMPLETED
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        async with world(tmp_path, service=origin(answering(answer))) as here:
            for _ in range(3):
                await respond(here.client.http)
            assert here.tokens.asked == 3
            assert len(here.service.visits) == 1

    run(scenario())
