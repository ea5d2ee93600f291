"""A desktop client and the server's end of its connection, in memory."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from agent.rpc.handshake import Identity
from agent.rpc.server import AppServer, Connection, Connections, Method, Methods

IDENTITY_SYSTEM, IDENTITY_TERMINAL = "Debian 12.0.0; x86_64", "xterm"


class MemoryStream:
    """The server's end: a `MessageStream` over two queues."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        self.is_broken = False
        self.is_read = asyncio.Event()
        self.is_read.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self.incoming.get()) is not None:
            yield text

    async def send(self, text: str) -> None:
        if self.is_broken:
            raise ConnectionError("the client closed its end")
        await self.is_read.wait()
        await self.outgoing.put(text)

    async def aclose(self) -> None:
        await self.incoming.put(None)
        await self.outgoing.put(None)


class Client:
    """The desktop's end."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream

    async def write(self, text: str) -> None:
        """Send a text that need not be a message."""
        await self.stream.incoming.put(text)

    async def send(self, **message: Any) -> None:
        await self.write(json.dumps(message))

    async def receive_text(self) -> str:
        """The next text from the server."""
        text = await self.stream.outgoing.get()
        assert text is not None, "the server closed the connection"
        return text

    async def receive(self) -> Any:
        """The next message from the server."""
        return json.loads(await self.receive_text())

    async def call(self, method: str, params: Any = None, request_id: int | str = 1) -> Any:
        """Send a request and return the next message, which should be its answer."""
        await self.send(id=request_id, method=method, params={} if params is None else params)
        return await self.receive()

    async def initialize(self, name: str = "desktop", **capabilities: Any) -> Any:
        """The handshake; returns the answer."""
        return await self.call(
            "initialize", {"clientInfo": {"name": name, "version": "1"}, "capabilities": capabilities}, "init"
        )

    async def leave(self) -> None:
        """Close the connection."""
        await self.stream.incoming.put(None)


class Served:
    """An `AppServer` that clients connect to. `initialized` are the connections whose handshake is done, in order."""

    def __init__(self, methods: Methods | None = None) -> None:
        self.connections = Connections()
        self.initialized: list[Connection] = []
        self._methods = methods or {}
        self._tasks: dict[Client, asyncio.Task[None]] = {}
        self.server = AppServer(
            name="the test server",
            codex_home="/home/of/codex",
            connections=self.connections,
            identity=lambda name: Identity(name, IDENTITY_SYSTEM, IDENTITY_TERMINAL),
            method=self._method,
            on_initialized=self.initialized.append,
        )

    async def _method(self, name: str) -> Method | None:
        return self._methods.get(name)

    async def connect(self, *, greeted: bool = False) -> Client:
        """A new client; its connection is open when this returns."""
        stream = MemoryStream()
        client = Client(stream)
        task = asyncio.create_task(self.server.serve(stream, greeted=greeted))
        self._tasks[client] = task
        await asyncio.sleep(0)  # up to the first read: connections are numbered in the order of these calls
        return client

    async def gone(self, client: Client) -> None:
        """Wait until the server is done with this client."""
        await self._tasks[client]

    async def leave_all(self) -> None:
        """All clients leave."""
        for client in self._tasks:
            await client.leave()
        await asyncio.gather(*self._tasks.values())

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


@contextlib.asynccontextmanager
async def served(methods: Methods | None = None) -> AsyncIterator[Served]:
    """A server with these methods."""
    it = Served(methods)
    try:
        yield it
    finally:
        await it.stop()
