"""A TCP relay before the stand-in for each host, to count who came: a connection without a request is a clue."""

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from proxy.scope import Target

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 64 * 1024


class Doors:
    """The relays, an async context manager; `addresses` is where they are while it is open.

    `connected` counts the connections by host.

    Args:
        port: The stand-in's, on loopback.
        targets: As the clients name them.
    """

    def __init__(self, port: int, targets: Sequence[Target]) -> None:
        self.connected = {target.host: 0 for target in targets}
        self.addresses: dict[Target, tuple[str, int]] = {}
        self._port = port
        self._targets = tuple(targets)
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for target in self._targets:
            server = await asyncio.start_server(functools.partial(self._accepted, target.host), LOOPBACK, 0)
            self._servers.append(server)
            self.addresses[target] = (LOOPBACK, server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _accepted(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected[host] += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(ConnectionError):
                await self._relay(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self._port)
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
