"""JSON lines on stdin and stdout.

The descriptors keep their flags: they may be shared with the parent's terminal, which must not find itself
non-blocking afterwards. The loop cannot watch them then (libuv makes whatever it polls non-blocking), so a thread
reads. Writing is done at once where the descriptor takes it, and by a thread while it does not.
"""

import asyncio
import logging
import os
import select
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

from agent.rpc.greeting import Greeting
from agent.rpc.lines import Lines

logger = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
# What a pipe that polls as writable takes without blocking (POSIX, pipe(7)).
PIPE_BUF = select.PIPE_BUF
# When this much waits to be written, `send` waits for the client to read.
HIGH_WATER_BYTES = 1024 * 1024
# When this many lines wait to be handled, no more are read.
MOST_LINES = 10_000


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
        self._room = threading.Event()
        self._room.set()
        self._ended = False
        self._unwritten = bytearray()
        self._writing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._write_error: OSError | None = None
        self._poll = select.poll()
        self._poll.register(write_fd, select.POLLOUT)
        # A daemon: the end of the process does not wait for another line.
        threading.Thread(target=self._read, daemon=True, name="stdin").start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            while self._texts:
                yield self._texts.popleft()
            self._room.set()
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
        if not self._writing:
            self._write()
        if len(self._unwritten) > HIGH_WATER_BYTES:
            self._writable.clear()
            await self._writable.wait()

    async def aclose(self) -> None:
        """Let go of the descriptors, which stay open, and end the iteration."""
        self._ended = True
        self._arrived.set()

    def _read(self) -> None:
        """In a thread: read until the end of the input or of the loop."""
        data = b"start"
        while data:
            self._room.wait()
            try:
                data = os.read(self._read_fd, READ_BYTES)
            except OSError as exc:
                logger.warning("stdin failed: %s", exc.strerror)
                data = b""
            if not self._tell(self._received, data):
                return

    def _received(self, data: bytes) -> None:
        if data:
            self._texts.extend(self._lines.receive(data))
            if len(self._texts) > MOST_LINES:
                self._room.clear()
        else:
            self._ended = True
        self._arrived.set()

    def _write(self) -> None:
        """Write what the descriptor takes now; the rest is left to a thread."""
        try:
            while self._unwritten and self._poll.poll(0):
                written = os.write(self._write_fd, self._unwritten[:PIPE_BUF])
                del self._unwritten[:written]
        except BlockingIOError:
            pass  # somebody else has made it non-blocking
        except OSError as exc:
            self._failed(exc)
        if self._unwritten:
            self._writing = True
            chunk = bytes(self._unwritten[:PIPE_BUF])
            threading.Thread(target=self._write_when_possible, args=(chunk,), daemon=True, name="stdout").start()
        if len(self._unwritten) <= HIGH_WATER_BYTES:
            self._writable.set()

    def _write_when_possible(self, chunk: bytes) -> None:
        """In a thread: wait until the descriptor takes something, and write it."""
        poll = select.poll()
        poll.register(self._write_fd, select.POLLOUT)
        try:
            poll.poll()
            written = os.write(self._write_fd, chunk)
        except BlockingIOError:
            written = 0
        except OSError as exc:
            self._tell(self._failed, exc)
            return
        self._tell(self._written, written)

    def _written(self, count: int) -> None:
        self._writing = False
        del self._unwritten[:count]
        self._write()

    def _failed(self, exc: OSError) -> None:
        self._writing = False
        self._write_error = exc
        self._unwritten.clear()
        self._writable.set()

    def _tell[T](self, act: Callable[[T], None], value: T) -> bool:
        """Call back on the loop; False when it has ended first."""
        try:
            self._loop.call_soon_threadsafe(act, value)
        except RuntimeError:
            return False
        return True
