"""The standard streams of a command that the agent runs: fed, read as they come, and kept up to a limit."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Callable

_CHUNK = 65536


class Output:
    """Bytes of a stream up to a limit: the first half of it and, of what follows, the last half.

    Args:
        limit: Bytes kept at most.
        passed_on: Called with each piece as it comes, also with what is dropped here.
    """

    def __init__(self, limit: int, passed_on: Callable[[bytes], None] | None = None) -> None:
        self._first = limit // 2
        self._last = limit - self._first
        self._passed_on = passed_on
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped = 0

    def write(self, piece: bytes) -> None:
        room = self._first - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:] if room < len(piece) else b""
        # Cut only now and then: moving the bytes for each piece would cost more than holding a few too many.
        if len(self._tail) > 2 * self._last + _CHUNK:
            self._cut()
        # Last, since it may raise.
        if self._passed_on is not None:
            self._passed_on(piece)

    def _cut(self) -> None:
        surplus = len(self._tail) - self._last
        if surplus > 0:
            del self._tail[:surplus]
            self.dropped += surplus

    def kept(self) -> bytes:
        self._cut()
        return bytes(self._head + self._tail)


class Pipes:
    """The three streams of one process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outputs: list[Output], stdin: bytes | int | None) -> None:
        self._loop = loop
        self._outputs = outputs
        # A descriptor stays the caller's, who writes to its other end.
        self._given = stdin if isinstance(stdin, int) else None
        self._stdin = memoryview(stdin if isinstance(stdin, bytes) else b"")
        self._wants_input = isinstance(stdin, bytes)
        self._open: dict[int, Output] = {}
        self._theirs: list[int] = []
        self._writing = -1
        self._all_read = asyncio.Event()

    def __enter__(self) -> Pipes:
        try:
            self._theirs.append(self._input())
            for output in self._outputs:
                read, write = os.pipe()
                self._theirs.append(write)
                self._open[read] = output
                os.set_blocking(read, False)
                self._loop.add_reader(read, self._read, read)
        except BaseException:
            self.__exit__()
            raise
        self.theirs = (self._theirs[0], self._theirs[1], self._theirs[-1])
        return self

    def _input(self) -> int:
        if self._given is not None:
            return os.dup(self._given)
        if not self._wants_input:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        read, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._loop.add_writer(self._writing, self._write)
        return read

    def close_theirs(self) -> None:
        """The process has them now; we would otherwise never see their end."""
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs = []

    def __exit__(self, *_exc: object) -> None:
        self.close_theirs()
        for descriptor in list(self._open):
            self._close(descriptor)
        self._close_input()

    async def drained(self, timeout_s: float) -> None:
        """The command has ended: wait until all has been read, or for a while, and then take what is there."""
        if not self._open:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_read.wait()
        except TimeoutError:
            for descriptor in list(self._open):
                # Not to the end: something that it left behind may write for ever.
                self._read_up_to(descriptor, _waiting(descriptor))

    def _read_up_to(self, descriptor: int, count: int) -> None:
        while count > 0 and descriptor in self._open:
            try:
                taken = self._read(descriptor) or count
            except Exception as exc:
                # As for what is read by the loop: it is the listener's, who must not spoil the command's result.
                self._loop.call_exception_handler({"message": "a listener for output failed", "exception": exc})
                taken = _CHUNK
            count -= taken

    def _read(self, descriptor: int) -> int:
        try:
            piece = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return 0
        if piece:
            self._open[descriptor].write(piece)
        else:
            self._close(descriptor)
        return len(piece)

    def _close(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        del self._open[descriptor]
        if not self._open:
            self._all_read.set()

    def _write(self) -> None:
        try:
            self._stdin = self._stdin[os.write(self._writing, self._stdin[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._stdin = self._stdin[:0]
        if not self._stdin:
            self._close_input()

    def _close_input(self) -> None:
        if self._writing >= 0:
            self._loop.remove_writer(self._writing)
            os.close(self._writing)
            self._writing = -1


def _waiting(descriptor: int) -> int:
    """How many bytes a pipe holds."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
