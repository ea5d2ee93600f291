"""JSON lines on stdin and stdout.

Read and written on the loop without changing the descriptors' flags: they may be shared with the parent's terminal,
which must not find itself non-blocking afterwards.
"""

import asyncio
import logging
import os
import select
import threading
from collections import deque
from collections.abc import AsyncIterator

from agent.rpc.greeting import Greeting
from agent.rpc.lines import Lines

logger = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
# When this much waits to be written, `send` waits for the client to read.
HIGH_WATER_BYTES = 1024 * 1024
# What a pipe that polls as writable takes without blocking (POSIX, pipe(7)).
PIPE_BUF = select.PIPE_BUF


class StdioStream:
    """The `MessageStream` of a pair of descriptors; an iterator that ends at end of file.

    Args:
        greeting: What was read before there was a loop.
    """

    def __init__(self, read_fd: int = 0, write_fd: int = 1, greeting: Greeting | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_fd, self._write_fd = read_fd, write_fd
        self._lines = Lines() if greeting is None else greeting.lines
        self._texts: deque[str] = deque(() if greeting is None else greeting.texts)
        self._arrived = asyncio.Event()
        self._ended = False
        self._unwritten = bytearray()
        self._waiting_to_write = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._write_error: OSError | None = None
        self._poll = select.poll()
        self._poll.register(write_fd, select.POLLOUT)
        try:
            self._loop.add_reader(read_fd, self._read)
            self._threaded = False
        except (OSError, ValueError):  # a regular file or /dev/null, which cannot be polled
            self._threaded = True
            threading.Thread(target=self._read_blocking, daemon=True, name="stdin").start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            while self._texts:
                yield self._texts.popleft()
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def send(self, text: str) -> None:
        """Queue one line; waits only while the client does not read.

        Raises:
            ConnectionError: The client has closed its end.
        """
        if self._write_error is not None:
            raise ConnectionError(f"stdout is closed: {self._write_error.strerror}") from self._write_error
        self._unwritten += text.encode("utf-8") + b"\n"
        if not self._waiting_to_write:
            self._write()
        if len(self._unwritten) > HIGH_WATER_BYTES:
            self._writable.clear()
            await self._writable.wait()

    async def aclose(self) -> None:
        """Let go of the descriptors, which stay open, and end the iteration."""
        if not self._threaded and not self._ended:
            self._loop.remove_reader(self._read_fd)
        if self._waiting_to_write:
            self._loop.remove_writer(self._write_fd)
            self._waiting_to_write = False
        self._ended = True
        self._arrived.set()

    def _read(self) -> None:
        try:
            data = os.read(self._read_fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            logger.warning("stdin failed: %s", exc.strerror)
            data = b""
        if not data:
            self._loop.remove_reader(self._read_fd)
        self._received(data)

    def _read_blocking(self) -> None:
        data = b"start"
        while data:
            try:
                data = os.read(self._read_fd, READ_BYTES)
            except OSError:
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._received, data)
            except RuntimeError:  # the loop has ended first
                return

    def _received(self, data: bytes) -> None:
        if data:
            self._texts.extend(self._lines.receive(data))
        else:
            self._ended = True
        self._arrived.set()

    def _write(self) -> None:
        """Write what the descriptor takes now; go on when it polls as writable."""
        try:
            while self._unwritten and self._poll.poll(0):
                written = os.write(self._write_fd, self._unwritten[:PIPE_BUF])
                del self._unwritten[:written]
        except BlockingIOError:
            pass
        except OSError as exc:
            self._write_error = exc
            self._unwritten.clear()
        if self._unwritten and not self._waiting_to_write:
            self._loop.add_writer(self._write_fd, self._write)
            self._waiting_to_write = True
        elif not self._unwritten and self._waiting_to_write:
            self._loop.remove_writer(self._write_fd)
            self._waiting_to_write = False
        if len(self._unwritten) <= HIGH_WATER_BYTES:
            self._writable.set()
