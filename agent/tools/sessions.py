"""Commands that go on while the model does something else: their output is kept, and more can be said to them."""

import asyncio
import itertools
import logging
import os
import pty
import secrets
import sys
import termios
import time
from collections.abc import Callable, Mapping

from agent.sandbox.plan import SandboxPlan, SandboxUnavailable
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Outcome, Runner

logger = logging.getLogger(__name__)

# Kept of what a command says between two calls, and of all that it said.
MOST_KEPT_BYTES = 1024 * 1024
# As many commands may go on in one thread; the oldest gives way.
MOST_SESSIONS = 64
# At most this much is read at once: a command that never stops writing must not keep the loop from all else.
_CHUNK = 64 * 1024
# Rows and columns of a terminal (observed).
_TERMINAL_SIZE = (24, 80)
# No two of a process are one, as two of a thread would be now and then that are drawn by lot.
_IDS = itertools.count(secrets.randbelow(90_000) + 1000)
# How long a command may take to read what it is told.
_WRITE_S = 5.0

# A descriptor alone makes no controlling terminal, and without one ^C interrupts nothing.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "try: os.setsid()\n"
    "except OSError: pass\n"  # it leads a session already
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


def on_terminal(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command, so that the terminal which is its stdin becomes the controlling one of its session."""
    return (sys.executable, "-IS", "-c", _TAKE_TERMINAL, *argv)


class Session:
    """One command.

    Attributes:
        id: As the model knows it.
        began: By the monotonic clock.
        outcome: Once it has ended.
    """

    def __init__(self, on_output: Callable[[bytes], None], *, tty: bool) -> None:
        self.id = next(_IDS)
        self.began = time.monotonic()
        self.tty = tty
        self.outcome: Outcome | None = None
        self.failure: Exception | None = None
        self.said = _Tail()
        self.all = _Tail()
        self._on_output = on_output
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._master = -1
        self._writing = asyncio.Lock()  # calls run beside each other

    def start(self, runner: Runner, make_plan: Callable[[], SandboxPlan], environ: Mapping[str, str]) -> None:
        """Start it; it goes on by itself."""
        self._task = asyncio.create_task(self._run(runner, make_plan, environ))

    async def _run(self, runner: Runner, make_plan: Callable[[], SandboxPlan], environ: Mapping[str, str]) -> None:
        terminal: int | None = None
        loop = asyncio.get_running_loop()
        try:
            if self.tty:
                self._master, terminal = pty.openpty()
                termios.tcsetwinsize(terminal, _TERMINAL_SIZE)
                os.set_blocking(self._master, False)
                loop.add_reader(self._master, self._read)
            self.outcome = await runner.run(
                make_plan,
                environ,
                timeout_s=None,
                max_output_bytes=0,
                on_output=lambda _, piece: self._heard(piece),
                terminal=terminal,
                merged=True,
            )
        except (SandboxUnavailable, PolicyError, OSError, ValueError) as exc:
            self.failure = exc
        except Exception as exc:
            logger.exception("a command could not be run")
            self.failure = RuntimeError(f"internal error: {type(exc).__name__}")
        finally:
            if terminal is not None:
                os.close(terminal)
            if self._master >= 0:
                loop.remove_reader(self._master)
                loop.remove_writer(self._master)
                # No more than a terminal holds: what the command left behind may write for ever.
                for _ in range(4):
                    self._read()
                os.close(self._master)
                self._master = -1
            self._ended.set_result(None)

    def _read(self) -> None:
        try:
            piece = os.read(self._master, _CHUNK)
        except OSError:  # nothing more for now, or for good: of the latter its end tells
            return
        if piece:
            self._heard(piece)

    def _heard(self, piece: bytes) -> None:
        self.said.add(piece)
        self.all.add(piece)
        self._on_output(piece)

    @property
    def is_over(self) -> bool:
        return self._ended.done()

    def when_over(self, tell: Callable[[], object]) -> None:
        """Have `tell` called once it has ended."""
        self._ended.add_done_callback(lambda _: tell())

    async def wait(self, timeout_s: float) -> None:
        """Until it has ended, but not longer."""
        await asyncio.wait((self._ended,), timeout=timeout_s)

    async def write(self, data: bytes) -> None:
        """Say something to it, on its terminal; nothing if it has ended.

        Raises:
            TimeoutError: It does not read.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_WRITE_S), self._writing:
            while data and self._master >= 0:
                try:
                    data = data[os.write(self._master, data) :]
                except BlockingIOError:
                    room = loop.create_future()
                    loop.add_writer(self._master, _settle, room)
                    try:
                        await asyncio.wait((room, self._ended), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if self._master >= 0:
                            loop.remove_writer(self._master)

    async def stop(self) -> None:
        """Kill it, and all it started, if it has not ended; returns when it has."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))


def _settle(room: "asyncio.Future[None]") -> None:
    if not room.done():
        room.set_result(None)


class _Tail:
    """The beginning and the end of what was said, up to a bound."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.dropped = 0

    def add(self, piece: bytes) -> None:
        self._kept += piece
        if len(self._kept) > 2 * MOST_KEPT_BYTES:
            half = MOST_KEPT_BYTES // 2
            self.dropped += len(self._kept) - 2 * half
            del self._kept[half:-half]

    def take(self) -> tuple[bytes, int]:
        """What was kept since the last time, and how many bytes were not."""
        whole, dropped = bytes(self._kept), self.dropped
        self._kept, self.dropped = bytearray(), 0
        return whole, dropped

    def text(self) -> str:
        """All that is kept."""
        return self._kept.decode(errors="replace")
