"""Before anything is sent upstream, and before anybody is asked for a token, the upstream has shown who it is (C7)."""

import asyncio
import socket

import pytest
import trustme

from proxy.server import LOOPBACK
from tests.proxy.h2wire import h2_post, h2_tunnel
from tests.proxy.origin import Origin, echoing, leaving
from tests.proxy.wire import connect_head, dial, post, tunnel, upgrade

BAD = {
    "another authority": lambda: (Origin(echoing), trustme.CA().cert_pem.bytes()),
    "another name": lambda: (Origin(echoing, names=["evil.example"]), None),
    "only a subdomain": lambda: (Origin(echoing, names=["a.chatgpt.com"]), None),
    "only its address": lambda: (Origin(echoing, names=[LOOPBACK]), None),
    "a certificate of yesterday": lambda: (Origin(echoing, expired=True), None),
}


@pytest.mark.parametrize("make", [post, upgrade])
@pytest.mark.parametrize("bad", list(BAD))
def test_an_upstream_that_is_not_who_it_should_be_gets_nothing_and_nobody_is_asked(run, stage, bad, make):
    async def scenario():
        origin, trusted = BAD[bad]()
        async with stage(origin, trusted=trusted) as it:
            for path in ("/backend-api/codex/responses", "/backend-api/codex/models"):
                async with tunnel(it.proxy) as wire:
                    answer = await wire.exchange(make(path))
                    assert answer.status == 502 and b"erif" in answer.body  # "Certificate verify failed: ..."
        assert it.origin.received == b"" and it.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize("make", [post, upgrade])
def test_one_that_is_gets_it(run, stage, make):
    """The negative control."""

    async def scenario():
        async with stage(Origin(echoing, names=["*.example", "chatgpt.com"])) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(make())).status in (200, 101)
        assert it.tokens.asked == 1 and len(it.origin.requests) == 1

    run(scenario())


def test_the_same_over_http2(run, stage):
    async def scenario():
        async with stage(Origin(names=["evil.example"], alpn=["h2"])) as it, h2_tunnel(it.proxy) as client:
            assert (await client.exchange(h2_post())).status == 502
        assert it.origin.requests == [] and it.tokens.asked == 0

    run(scenario())


def test_the_upstream_is_asked_for_by_the_name_of_the_connect_and_not_by_its_address(run, stage):
    async def scenario():
        async with stage() as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(post())
            async with tunnel(it.proxy, "api.openai.com") as wire:
                await wire.exchange(post(host="api.openai.com"))
        assert it.origin.snis == ["chatgpt.com", "api.openai.com"]

    run(scenario())


@pytest.mark.parametrize("path", ["/backend-api/codex/responses", "/elsewhere"])
def test_an_upstream_that_speaks_no_tls_gets_no_request(run, stage, path):
    async def scenario():
        received = b""

        async def plain(reader, writer):
            nonlocal received
            received = await reader.read(65536)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(plain, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with stage(upstream_port=port) as it, tunnel(it.proxy) as wire:
                assert (await wire.exchange(post(path))).status == 502
        assert received[:1] == b"\x16" and b"POST" not in received and it.tokens.asked == 0

    run(scenario())


def test_an_upstream_that_is_not_there_is_a_502_to_the_connect(run, stage):
    async def scenario():
        with socket.create_server((LOOPBACK, 0)) as nobody:
            port = nobody.getsockname()[1]
        async with stage(upstream_port=port) as it, await dial(it.proxy.port) as wire:
            answer = await wire.exchange(connect_head(it.proxy))
            assert answer.status == 502 and b"Cannot connect" in answer.body
        assert it.tokens.asked == 0

    run(scenario())


def test_a_connection_that_the_upstream_closed_is_made_and_verified_anew(run, stage):
    """The second request finds the upstream gone: a new connection to the same name, and a stamp of its own."""

    async def scenario():
        async with stage(Origin(leaving)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 200
            await it.origin.wait_until(lambda: it.origin.visits[0].closed)
            assert (await wire.exchange(post())).status == 200
        assert it.origin.snis == ["chatgpt.com"] * 2 and len(it.origin.visits) == 2
        assert [request.attestation for request in it.origin.requests] == [
            ['{"v":1,"s":0,"t":"token-1"}'], ['{"v":1,"s":0,"t":"token-2"}'],
        ]  # fmt: skip

    run(scenario())


def test_a_stamped_request_is_never_sent_twice(run, stage):
    """The upstream drops the connection without an answer: the client is told, and decides itself."""

    async def scenario():
        async def drop(visit):
            await visit.body(await visit.head())

        async with stage(Origin(drop)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 502
        assert len(it.origin.requests) == 1 and it.tokens.asked == 1

    run(scenario())
