"""The listener on a TCP port, met by real clients and by raw bytes."""

import asyncio
import contextlib
import json
import logging
import socket
import struct
from ipaddress import ip_address

import pytest
import websockets
from websockets.asyncio.client import connect

from agent.rpc.jsonrpc import notify
from agent.rpc.listen import NOT_READ, SocketUnavailable, listen_tcp
from agent.rpc.listen_address import WebSocketAddress
from agent.rpc.listen_door import Door
from agent.rpc.server import MOST_UNANSWERED, Answer, Method
from agent.rpc.ws_auth import CapabilityToken
from tests.agent.rpc.memory import served
from tests.loops import on_each_loop

LOOPBACK = WebSocketAddress(ip_address("127.0.0.1"), 0)
INITIALIZE = {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "desktop", "version": "1"}}}
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
# More than the buffers of the kernel and of the library take in, in a thousand messages.
LARGE = notify("warning", {"message": "x" * 20_000}, 0)


@contextlib.asynccontextmanager
async def listening(methods=None, *, check=None, address=LOOPBACK, stall_s=60.0):
    """A served listener and its port."""
    async with (
        served(methods) as it,
        listen_tcp(address, Door(address, check), it.server.serve, stall_s) as listener,
    ):
        yield it, listener


def dial(listener, **options):
    return connect(f"ws://127.0.0.1:{listener.port}/rpc", **{"compression": None, "proxy": None, **options})


async def initialized(listener, **options):
    """Whether a client can do its handshake there."""
    async with dial(listener, **options) as client:
        await client.send(json.dumps(INITIALIZE))
        return "result" in json.loads(await client.recv())


async def refused(port):
    """Return once nobody listens there; the loop closes a listener in its next round."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()


async def answer(listener, request):
    """(status, body) of what a request gets that is no WebSocket afterwards."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(request.encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body.decode(), head.decode().lower()


@on_each_loop
def test_a_client_is_served_and_the_port_is_closed_afterwards(run):
    async def scenario():
        async with listening() as (_, listener):
            assert await initialized(listener)
            port = listener.port
        await refused(port)

    run(scenario())


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_address_is_listened_on(run):
    async def scenario():
        address = WebSocketAddress(ip_address("::1"), 0)
        async with listening(address=address) as (_, listener):
            async with connect(f"ws://[::1]:{listener.port}", proxy=None) as client:
                await client.send(json.dumps(INITIALIZE))
                assert "result" in json.loads(await client.recv())

    run(scenario())


def test_the_answer_to_the_upgrade_tells_nothing_about_us(run):
    async def scenario():
        async with listening() as (_, listener), dial(listener) as client:
            # As observed; the limit is told on unix sockets only.
            assert {name.lower() for name in client.response.headers} == {
                *("connection", "upgrade", "sec-websocket-accept", "date"),
            }

    run(scenario())


def test_what_is_refused_is_answered_as_the_original_does(run):
    async def scenario():
        async with listening(check=CapabilityToken.of(b"open-sesame")) as (it, listener):
            missing = await answer(listener, f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
            assert missing[:2] == (401, "missing websocket bearer token")
            assert "content-type: text/plain; charset=utf-8" in missing[2]
            wrong = f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}Authorization: Bearer sesame\r\n\r\n"
            assert (await answer(listener, wrong))[:2] == (401, "invalid websocket bearer token")
            good = {"Authorization": "bearer open-sesame"}
            page = f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}Origin: http://localhost\r\n\r\n"
            assert (await answer(listener, page))[:2] == (403, "")
            rebound = f"GET / HTTP/1.1\r\nHost: evil.example\r\n{UPGRADE}\r\n"
            assert (await answer(listener, rebound))[0] == 403
            for path in ("/readyz", "/healthz"):
                assert (await answer(listener, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))[:2] == (200, "")
            plain = await answer(listener, "GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert plain[:2] == (400, "Connection header did not include 'upgrade'")
            assert it.initialized == [] and await initialized(listener, additional_headers=good)

    run(scenario())


def test_what_is_no_http_gets_no_byte(run):
    async def scenario():
        async with listening() as (it, listener):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(json.dumps(INITIALIZE).encode() + b"\n")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            assert it.initialized == []

    run(scenario())


def test_a_port_that_is_taken_says_so(run):
    async def scenario():
        async with listening() as (_, listener):
            taken = WebSocketAddress(LOOPBACK.ip, listener.port)
            with pytest.raises(SocketUnavailable, match=rf"ws://127\.0\.0\.1:{listener.port}: .*choose another port"):
                async with listening(address=taken):
                    pass
            assert await initialized(listener)

    run(scenario())


def test_an_address_of_another_machine_says_so(run):
    async def scenario():
        with pytest.raises(SocketUnavailable, match="cannot listen on"):
            async with listening(address=WebSocketAddress(ip_address("192.0.2.1"), 0)):
                pass

    run(scenario())


def test_a_long_message_may_come_in_fragments(run):
    async def scenario():
        async with listening() as (_, listener), dial(listener) as client:
            padding = " " * (8 * 1024 * 1024)
            await client.send([json.dumps(INITIALIZE), padding, padding, padding])
            assert json.loads(await client.recv())["id"] == 1

    run(scenario())


@pytest.mark.parametrize("fragments", [1, 9])
def test_a_message_that_is_too_long_ends_that_connection_and_no_other(run, fragments):
    async def scenario():
        async with listening() as (_, listener), dial(listener) as client:
            padding = " " * (16 * 1024 * 1024 if fragments > 1 else 17 * 1024 * 1024)
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await client.send([padding] * fragments if fragments > 1 else padding)
                await client.recv()
            assert closed.value.rcvd.code == 1009
            assert await initialized(listener)

    run(scenario())


def test_when_it_stops_nobody_gets_in_and_then_the_clients_are_told(run):
    async def scenario():
        async with listening() as (_, listener):
            client, port = await dial(listener), listener.port
            listener.accept_no_more()
            await refused(port)
            await client.send(json.dumps(INITIALIZE))
            assert json.loads(await client.recv())["id"] == 1
        with pytest.raises(websockets.ConnectionClosedOK) as closed:
            await client.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the server is ending")

    run(scenario())


# Clients that do not read


async def deaf_client(listener, buffer_bytes=2048):
    """One that did its handshake over small buffers, and is not reading."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", listener.port))
    await loop.sock_sendall(raw, f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(raw, 1)
    text = json.dumps(INITIALIZE).encode()
    await loop.sock_sendall(raw, b"\x81" + bytes([0x80 | 126]) + struct.pack(">H", len(text)) + bytes(4) + text)
    return raw


async def everything(raw):
    """What there is to read, to the end."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(raw, 1 << 20):
            received += piece
    return bytes(received)


GOODBYE = b"\x88" + bytes([2 + len(NOT_READ)]) + struct.pack(">H", 1008) + NOT_READ.encode()


async def only(initialized):
    """The connection that has initialised, once it has."""
    while not initialized:
        await asyncio.sleep(0)
    return initialized[0]


@on_each_loop
def test_a_client_that_takes_nothing_is_let_go_and_told_why(run, caplog):
    async def scenario():
        let_go = asyncio.Event()
        handler = logging.Handler()
        handler.emit = lambda record: let_go.set()
        logging.getLogger("agent.rpc.listen").addHandler(handler)
        try:
            async with listening(stall_s=0.2) as (it, listener):
                raw = await deaf_client(listener)
                connection = await only(it.initialized)
                for _ in range(1000):
                    connection.send(LARGE)
                await let_go.wait()
                received = await everything(raw)  # it wakes up, too late
                raw.close()
                assert received.endswith(GOODBYE)
                assert len(received) < 1000 * len(LARGE)
                assert connection.outbox.waiting == 0 or not connection.attests
                assert await initialized(listener)
        finally:
            logging.getLogger("agent.rpc.listen").removeHandler(handler)

    run(scenario())
    assert "took nothing for 0.2 s" in caplog.text


def test_a_client_that_reads_late_misses_nothing(run):
    """The negative control: the same thousand messages."""

    async def scenario():
        async with listening() as (it, listener):
            raw = await deaf_client(listener)
            connection = await only(it.initialized)
            for _ in range(1000):
                connection.send(LARGE)
            reading = asyncio.create_task(everything(raw))
            await connection.outbox.drained()
            listener.accept_no_more()
            await listener.aclose()
            received = await reading
            raw.close()
            assert received.count(LARGE.encode()) == 1000 and NOT_READ.encode() not in received

    run(scenario())


def test_a_client_that_reads_slowly_is_kept(run):
    """What counts is whether it takes anything, not how much."""

    async def scenario():
        async with listening(stall_s=0.3) as (it, listener):
            raw = await deaf_client(listener, 256 * 1024)
            connection = await only(it.initialized)
            # One message that takes longer to be read than the patience for one that takes nothing.
            connection.send(notify("warning", {"message": "x" * 12_000_000}, 0))
            connection.send(LARGE)
            loop, received = asyncio.get_running_loop(), bytearray()
            started = loop.time()
            while LARGE.encode() not in received[-2 * len(LARGE) :]:
                piece = await loop.sock_recv(raw, 200_000)
                assert piece, "it was let go"
                received += piece
                await asyncio.sleep(0.02)  # the slowness is what is tested
            assert loop.time() - started > 0.6
            raw.close()

    run(scenario())


@on_each_loop
def test_closing_a_client_that_is_stuck_does_not_take_long(run):
    """The goodbye is queued behind what it does not read; waiting for that once had no end."""

    async def scenario():
        streams = []

        async def flood(stream):
            streams.append(stream)
            with contextlib.suppress(ConnectionError):
                while True:
                    await stream.send(LARGE)

        async with listen_tcp(LOOPBACK, Door(LOOPBACK, None), flood) as listener:
            raw = await deaf_client(listener)
            while not streams or not streams[0]._websocket.paused:
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await streams[0].aclose()
            with pytest.raises(ConnectionError):
                await streams[0].send("one more")
            raw.close()

    run(scenario())


# Clients that ask too much


def test_more_requests_than_can_wait_are_refused_and_may_come_again(run):
    async def scenario():
        go_on = asyncio.Event()

        async def wait(connection, params):
            await go_on.wait()
            return Answer({})

        methods = {"thread/start": Method(parse=lambda params: params, handle=wait)}
        async with listening(methods) as (_, listener), dial(listener) as client:
            await client.send(json.dumps(INITIALIZE))
            await client.recv()

            async def ask(request_id):
                await client.send(json.dumps({"id": request_id, "method": "thread/start", "params": {}}))

            for number in range(MOST_UNANSWERED + 2):
                await ask(number)
            for refused in (MOST_UNANSWERED, MOST_UNANSWERED + 1):
                error = {"code": -32001, "message": "Server overloaded; retry later."}
                assert json.loads(await client.recv()) == {"error": error, "id": refused}
            go_on.set()
            answered = [json.loads(await client.recv())["id"] for _ in range(MOST_UNANSWERED)]
            assert sorted(answered) == list(range(MOST_UNANSWERED))
            await ask("again")
            assert json.loads(await client.recv()) == {"id": "again", "result": {}}

    run(scenario())
