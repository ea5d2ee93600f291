"""Bodies, event streams and WebSockets go through as they come: unbuffered, byte for byte, and nothing is kept."""

import asyncio
import gc
import hashlib
import random
import struct

import pytest
import zstandard
from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow
from mitmproxy.tcp import TCPFlow, TCPMessage

from tests.loops import on_each_loop
from tests.proxy.origin import Origin, answering, echoing, switching_protocols
from tests.proxy.wire import RESPONSES, post, tunnel, upgrade

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def noise(size, seed=1):
    """Bytes that look like nothing, the same in each run."""
    return random.Random(seed).randbytes(size)


def chunk(content):
    return b"%x\r\n%s\r\n" % (len(content), content)


# Answers


@on_each_loop
@pytest.mark.parametrize("path", [RESPONSES, "/backend-api/other"])
def test_the_first_event_arrives_while_the_upstream_has_not_finished(run, stage, path):
    """The upstream writes the second event only when the client has read the first: a buffer would wait for ever."""

    async def scenario():
        first_was_read = asyncio.Event()

        async def slowly(visit):
            await visit.body(await visit.head())
            await visit.write(CHUNKED + chunk(b"data: 1\n\n"))
            await first_was_read.wait()
            await visit.write(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

        async with stage(Origin(slowly)) as it, tunnel(it.proxy) as wire:
            await wire.send(post(path))
            assert (await wire.receive_until(b"data: 1\n\n")).startswith(b"HTTP/1.1 200")
            first_was_read.set()
            await wire.receive_until(b"data: 2\n\n")

    run(scenario())


def test_a_large_answer_arrives_byte_for_byte(run, stage):
    async def scenario():
        body = noise(3_000_000)
        response = b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with stage(Origin(answering(response + body))) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(post())
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
        assert answer.values(b"content-encoding") == [b"zstd"]

    run(scenario())


# Requests


@on_each_loop
def test_a_body_goes_on_while_the_client_is_still_writing(run, stage):
    """The client writes the second half only when the first has arrived."""

    async def scenario():
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.send(post(body=b"x" * 20)[:-10])
            await it.origin.wait_until(lambda: b"x" * 10 in it.origin.received)
            await wire.send(b"x" * 10)
            assert (await wire.answer()).status == 200
        assert it.origin.only_request.body == b"x" * 20

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_compressed_body_arrives_byte_for_byte(run, stage, chunked):
    async def scenario():
        body = zstandard.ZstdCompressor().compress(noise(3_000_000).hex().encode())
        pieces = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]
        head = b"POST /backend-api/codex/responses HTTP/1.1\r\nHost: chatgpt.com\r\nContent-Encoding: zstd\r\n"
        async with stage() as it, tunnel(it.proxy) as wire:
            if chunked:
                await wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
                for piece in pieces:
                    await wire.send(chunk(piece))
                await wire.send(b"0\r\n\r\n")
            else:
                await wire.send(head + b"Content-Length: %d\r\n\r\n" % len(body))
                for piece in pieces:
                    await wire.send(piece)
            assert (await wire.answer()).status == 200
        received = it.origin.only_request.body
        assert hashlib.sha256(received).digest() == hashlib.sha256(body).digest()
        assert it.origin.only_request.values("content-encoding") == ["zstd"]

    run(scenario())


def test_a_client_that_expects_100_continue_gets_it_and_its_body_arrives(run, stage):
    async def scenario():
        request = post(headers=["Expect: 100-continue"], body=b"late")
        async with stage() as it, tunnel(it.proxy) as wire:
            await wire.send(request[:-4])
            assert (await wire.answer()).status == 100
            await wire.send(b"late")
            assert (await wire.answer()).status == 200
        assert it.origin.only_request.body == b"late"
        assert it.origin.only_request.attestation == ['{"v":1,"s":0,"t":"token-1"}']

    run(scenario())


# WebSockets


@on_each_loop
def test_frames_go_both_ways_byte_for_byte_whatever_they_hold(run, stage):
    """W4, L7: also fragments, control frames, reserved bits and what no RFC allows; they are the peers' business."""

    async def scenario():
        odd = b"\xf1\x80\x00\x00\x00\x00" + b"\x01\x81\x00\x00\x00\x00a\x80\x80\x00\x00\x00\x00"
        frames = odd + noise(300_000)
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            handshake = upgrade(headers=["Sec-WebSocket-Extensions: permessage-deflate"])
            assert (await wire.exchange(handshake)).status == 101
            echoed, sent = b"", 0
            while len(echoed) < len(frames):
                await wire.send(frames[sent : sent + 10_000])
                sent += 10_000
                echoed += await wire.receive()
        assert echoed == frames
        assert it.origin.received.endswith(frames)
        assert it.origin.only_request.values("sec-websocket-extensions") == ["permessage-deflate"]

    run(scenario())


def living(*kinds):
    """All objects of these kinds, after a collection."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


def test_nothing_of_an_open_websocket_is_kept(run, stage):
    """W3: mitmproxy would keep each frame for as long as the connection lives."""

    async def scenario():
        before = {id(flow) for flow in living(TCPFlow)}
        async with stage(Origin(echoing)) as it, tunnel(it.proxy) as wire:
            await wire.exchange(upgrade())
            for _ in range(200):
                await wire.send(b"\x82\xfe" + struct.pack(">H", 4000) + bytes(4004))
                echoed = 0
                while echoed < 4008:
                    echoed += len(await wire.receive())
            [flow] = [flow for flow in living(TCPFlow) if id(flow) not in before]
            assert flow.messages == []
            assert len(living(TCPMessage)) <= 1

    run(scenario())


def test_nothing_of_a_closed_connection_is_kept(run, stage):
    async def scenario():
        before = len(living(TCPFlow, HTTPFlow, Client))
        async with stage(Origin(echoing), observer=lambda _: None) as it:
            for _ in range(10):
                async with tunnel(it.proxy) as wire:
                    await wire.exchange(post())
                    await wire.exchange(upgrade())
            await it.origin.wait_until(lambda: all(visit.closed for visit in it.origin.visits))
            # The last connection may be closing still.
            assert len(living(TCPFlow, HTTPFlow, Client)) - before <= 4

    run(scenario())


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_when_one_side_of_a_websocket_leaves_the_other_is_told(run, stage, who):
    async def scenario():
        async def hang_up(visit):
            await visit.write(switching_protocols(await visit.head()))
            while who == "client" and await visit.frames():
                pass

        async with stage(Origin(hang_up)) as it:
            async with tunnel(it.proxy) as wire:
                await wire.exchange(upgrade())
                if who == "upstream":
                    assert await wire.receive_rest() == b""
            await it.origin.wait_until(lambda: it.origin.visits[0].closed)

    run(scenario())
