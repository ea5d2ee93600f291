"""The Responses socket by itself, against a server that misbehaves below the stand-in."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.utils import accept_key

from agent.model.failures import StreamBroken
from agent.model.websocket import ResponsesSocket

# More than the buffers of both ends of a loopback connection.
LARGE = 16 * 1024 * 1024


def test_a_service_that_does_not_read_breaks_the_stream_after_the_idle_timeout(run):
    """A send had no deadline: the turn hung for ever."""

    over = asyncio.Event()

    async def shake_hands_and_stop_reading(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.decode().splitlines() if line.lower().startswith("sec-websocket-key"))
        accepted = accept_key(key.partition(":")[2].strip())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accepted}\r\n\r\n".encode()
        )
        await over.wait()
        writer.close()

    async def scenario():
        async with await asyncio.start_server(shake_hands_and_stop_reading, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            connection = await connect(f"ws://{host}:{port}/", proxy=None, compression=None, ping_interval=None)
            socket = ResponsesSocket(connection, idle_timeout_s=0.3)
            with pytest.raises(StreamBroken, match="idle timeout"):
                await anext(socket.respond({"input": "x" * LARGE}))
            socket.abort()
            over.set()

    run(scenario())
