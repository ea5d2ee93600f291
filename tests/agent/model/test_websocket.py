"""The Responses socket by itself, against a server that misbehaves below the stand-in."""

import asyncio
import contextlib

import pytest
from websockets.asyncio.client import connect
from websockets.utils import accept_key

from agent.model.failures import StreamBroken
from agent.model.websocket import ResponsesSocket

# More than the buffers of both ends of a loopback connection.
LARGE = 16 * 1024 * 1024


async def shake_hands(reader, writer):
    """The upgrade, and nothing more."""
    head = await reader.readuntil(b"\r\n\r\n")
    key = next(line for line in head.decode().splitlines() if line.lower().startswith("sec-websocket-key"))
    accepted = accept_key(key.partition(":")[2].strip())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + f"Sec-WebSocket-Accept: {accepted}\r\n\r\n".encode()
    )


@contextlib.asynccontextmanager
async def socket_of_a_service_that_does_not_read():
    over = asyncio.Event()

    async def serve(reader, writer):
        await shake_hands(reader, writer)
        await over.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        connection = await connect(f"ws://{host}:{port}/", proxy=None, compression=None, ping_interval=None)
        try:
            yield ResponsesSocket(connection, idle_timeout_s=0.3)
        finally:
            connection.transport.abort()
            over.set()


def test_a_service_that_does_not_read_breaks_the_stream_after_the_idle_timeout(run):
    """A send had no deadline: the turn hung for ever."""

    async def scenario():
        async with socket_of_a_service_that_does_not_read() as socket:
            with pytest.raises(StreamBroken, match="idle timeout"):
                await anext(socket.respond({"input": "x" * LARGE}))

    run(scenario())


def test_a_service_that_does_not_read_does_not_hold_up_the_end(run, monkeypatch):
    """The deadline of the library begins once all that was sent before has been read."""
    monkeypatch.setattr("agent.model.websocket.CLOSE_TIMEOUT_S", 0.1)

    async def scenario():
        async with socket_of_a_service_that_does_not_read() as socket:
            with pytest.raises(StreamBroken):
                await anext(socket.respond({"input": "x" * LARGE}))
            async with asyncio.timeout(5):
                await socket.aclose()
            assert not socket.is_open

    run(scenario())
