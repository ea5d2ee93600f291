"""What goes into and comes out of a command that a client runs: its output up to a cap, its input, its terminal."""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

_CHUNK = 65536
_END_OF_INPUT = b"\x04"
_PIECES_LEFT = 16


class CaptureFull(Exception):
    """More came out than can be held; the text says what to do."""


class Capture:
    """The beginning of what a command says, on each of its streams.

    Args:
        cap: Bytes kept of each stream; what comes after them is dropped.
        strict: The client wants all of it: more than the cap is a failure then.

    Attributes:
        stream: Called with (stream, piece, whether that was the last of it) instead of keeping the piece.
        on_full: Called once where `strict` has failed.
        failure: Then why.
    """

    def __init__(self, cap: int, strict: bool) -> None:
        self._cap = cap
        self._strict = strict
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._count = {"stdout": 0, "stderr": 0}
        self.stream: Callable[[str, bytes, bool], None] | None = None
        self.on_full: Callable[[], object] | None = None
        self.failure: CaptureFull | None = None

    def add(self, name: str, piece: bytes) -> None:
        """One more piece of "stdout" or "stderr"."""
        room = self._cap - self._count[name]
        if self._strict and len(piece) > room and self.stream is None:
            if self.failure is None and self.on_full is not None:
                self.failure = CaptureFull(
                    f"the command wrote more than {self._cap} bytes to {name}, which is the most that is buffered; "
                    "set outputBytesCap, or stream its output"
                )
                self.on_full()
            return
        if self._strict and self.stream is not None:
            self.stream(name, piece, False)  # nothing is held here
            return
        taken = piece[:room]
        if not taken:
            return
        self._count[name] += len(taken)
        if self.stream is None:
            self._kept[name] += taken
        else:
            self.stream(name, taken, self._count[name] == self._cap)

    def text(self, name: str) -> str:
        """What is kept; nothing where it was streamed."""
        return self._kept[name].decode("utf-8", "replace")


class Input(Protocol):
    """What a command can be told."""

    def for_runner(self) -> dict[str, Any]:
        """How `Runner.run` gets it."""
        ...

    async def write(self, content: bytes, *, closes: bool) -> None:
        """Returns when the command's side has taken it all.

        Raises:
            OSError: Nobody reads it any more.
        """
        ...

    def ended(self) -> None:
        """The command has ended: what it left behind is read, and whoever still writes is told."""
        ...


class _Writer:
    """A descriptor of ours that the command reads from; writes come one after the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        os.set_blocking(descriptor, False)

    async def write(self, content: bytes) -> None:
        async with self._turn:
            rest = memoryview(content)
            while rest:
                if self._descriptor < 0:
                    raise BrokenPipeError("the command has ended")
                try:
                    rest = rest[os.write(self._descriptor, rest[:_CHUNK]) :]
                except BlockingIOError:
                    await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        descriptor = self._descriptor
        loop.add_writer(descriptor, _settle, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if self._descriptor == descriptor:
                loop.remove_writer(descriptor)

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def release(self) -> None:
        """Nothing is written any more; whoever waits learns it."""
        if self._waiting is not None:
            asyncio.get_running_loop().remove_writer(self._descriptor)
            _settle(self._waiting)
        self._descriptor = -1


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class PipeInput:
    """A pipe that the command reads as its stdin."""

    def __enter__(self) -> Self:
        self._theirs, self._ours = os.pipe()
        self._writer = _Writer(self._ours)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        os.close(self._theirs)

    def for_runner(self) -> dict[str, Any]:
        return {"stdin": self._theirs}

    async def write(self, content: bytes, *, closes: bool) -> None:
        if not self._writer.is_open:
            raise BrokenPipeError("stdin was closed before")
        await self._writer.write(content)
        if closes:
            self._close()

    def ended(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer.is_open:
            self._writer.release()
            os.close(self._ours)


class Terminal:
    """A terminal of its own for a command; all that appears on it is "stdout".

    Args:
        cells: (rows, columns).
    """

    def __init__(self, capture: Capture, cells: tuple[int, int] | None) -> None:
        self._capture = capture
        self._cells = cells

    def __enter__(self) -> Self:
        self._ours, self._theirs = pty.openpty()
        self._writer = _Writer(self._ours)
        self._is_read = True
        if self._cells is not None:
            self.resize(*self._cells)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended()
        os.close(self._ours)
        os.close(self._theirs)

    def for_runner(self) -> dict[str, Any]:
        return {"terminal": self._theirs}

    async def write(self, content: bytes, *, closes: bool) -> None:
        if not self._writer.is_open:
            raise BrokenPipeError("the command has ended")
        await self._writer.write(content + (_END_OF_INPUT if closes else b""))

    def resize(self, rows: int, columns: int) -> None:
        """The command is told by SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ended(self) -> None:
        self._writer.release()
        if self._is_read:
            self._is_read = False
            asyncio.get_running_loop().remove_reader(self._ours)
            with contextlib.suppress(OSError):
                # As much as a terminal holds, and not to the end: something that it left behind may write for ever.
                for _ in range(_PIECES_LEFT):
                    self._capture.add("stdout", os.read(self._ours, _CHUNK))

    def _read(self) -> None:
        try:
            piece = os.read(self._ours, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # on Linux: nobody has the other side open
            piece = b""
        if piece:
            self._capture.add("stdout", piece)
        else:
            self._is_read = False
            asyncio.get_running_loop().remove_reader(self._ours)
