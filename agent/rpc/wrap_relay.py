"""Carries bytes between a desktop's descriptors and a child's pipes, and puts questions to the desktop on the way.

A thread of its own waits for all four with poll(2): the desktop's descriptors keep their flags (see agent.rpc.stdio),
and a token is asked for and answered whatever the loop is busy with. Each direction goes on while the other stands
still, and keeps a bounded number of bytes: who does not read holds up whoever writes to him, as without us.
"""

import asyncio
import itertools
import logging
import os
import secrets
import select
import threading
from collections.abc import Callable
from typing import Any

from agent.rpc.jsonrpc import ErrorResponse, RequestFailed, encode
from agent.rpc.server import ClientGone
from agent.rpc.wrap import Answer, FromDesktop, Handshake, ToDesktop

logger = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
# What a pipe that polls as writable takes without blocking (POSIX, pipe(7)).
PIPE_BUF = select.PIPE_BUF
# Bytes that may wait for a child that does not read: an answer to a question of ours may stand behind them.
MOST_FOR_CHILD_BYTES = 4 * 1024 * 1024
# Seconds that the thread gets to return once it has said that it is over.
LAST_STEPS_S = 1.0


class Questions:
    """What the desktop is asked, until it has answered. The methods belong to the loop, but for `take`.

    Args:
        wake: Tells the relay's thread that there is a new one.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        # Random, so that it can be no id of the child's, whose ids are its own to choose.
        self.prefix = f"countersign-{secrets.token_hex(16)}-"
        self._wake = wake
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._unsent: dict[str, bytes] = {}
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._is_closed = False
        self.late = 0

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Ask, and wait for the answer; give it a deadline from outside. One that was given up is not sent any more.

        Raises:
            RequestFailed: The desktop answered with an error.
            ClientGone: It left first.
        """
        if self._is_closed:
            raise ClientGone(f"the desktop left before {method} was sent")
        request_id = f"{self.prefix}{next(self._numbers)}"
        line = encode({"method": method, "id": request_id, "params": params}).encode() + b"\n"
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        with self._lock:
            self._unsent[request_id] = line
        self._wake()
        try:
            return await answer
        finally:
            del self._answers[request_id]
            with self._lock:
                self._unsent.pop(request_id, None)

    def has_unsent(self) -> bool:
        """Whether `take` would return some."""
        return bool(self._unsent)

    def take(self) -> bytes:
        """The lines of those that are still to be sent, which they are now. For the relay's thread."""
        with self._lock:
            lines = b"".join(self._unsent.values())
            self._unsent.clear()
        return lines

    def answered(self, answer: Answer) -> None:
        """The desktop answered; dropped where nobody waits for it any more."""
        waiting = self._answers.get(str(answer.id))
        if waiting is None or waiting.done():
            self.late += 1
            logger.info("an answer of the desktop came late, or twice; dropped")
        elif isinstance(answer, ErrorResponse):
            waiting.set_exception(RequestFailed(answer.code, answer.message))
        else:
            waiting.set_result(answer.result)

    def close(self) -> None:
        """The desktop has left: whoever waits is told."""
        self._is_closed = True
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(ClientGone("the desktop closed its connection"))


class Relay:
    """Between a desktop and its child. Made before the child is: the proxy, whose address the child gets, asks it.

    Args:
        desktop_in, desktop_out: What the desktop writes to and reads from; they stay open and keep their flags.
    """

    def __init__(self, desktop_in: int = 0, desktop_out: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken, self._wake_end = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake_end, False)
        self.questions = Questions(self._wake)
        self._handshake = Handshake()
        self._from_desktop = FromDesktop(self.questions.prefix, self._handshake)
        self._to_desktop = ToDesktop(self._handshake)
        self._to_child = bytearray()
        # None once nothing more comes from there, or goes there.
        self._desktop_in: int | None = desktop_in
        self._desktop_out: int | None = desktop_out
        self._child_in: int | None = None
        self._child_out: int | None = None
        self._child_has_ended = False
        self._is_given_up = False
        self._room_in_desktop = select.poll()
        self._room_in_desktop.register(desktop_out, select.POLLOUT)
        self._thread: threading.Thread | None = None
        self._over: asyncio.Future[None] = self._loop.create_future()

    @property
    def attests(self) -> bool:
        """Whether the desktop said, and the child accepted, that it makes tokens, and is still there."""
        said = self._handshake.accepted
        if said is None or self._desktop_in is None or self._desktop_out is None:
            return False
        return said.capabilities.request_attestation

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Ask the desktop, as `Connection.request` does."""
        return await self.questions.ask(method, params)

    def start(self, child_in: int, child_out: int) -> None:
        """Carry from now on.

        Args:
            child_in, child_out: Our ends of the child's pipes. They are the relay's from here: it makes them
                non-blocking, and closes them.
        """
        os.set_blocking(child_in, False)
        os.set_blocking(child_out, False)
        self._child_in, self._child_out = child_in, child_out
        # A daemon: another reader of the terminal may take what was announced to us, and leave us waiting in read(2).
        self._thread = threading.Thread(target=self._run, daemon=True, name="relay")
        self._thread.start()

    async def finish(self) -> None:
        """The child has ended: carry the rest of what it wrote, which waits for a desktop that does not read."""
        self._child_has_ended = True
        self._wake()
        await self.over()

    def give_up(self) -> None:
        """Carry nothing more."""
        self._is_given_up = True
        self._wake()

    async def over(self) -> None:
        """Wait until nothing is carried any more. Raises what went wrong, which only a bug does."""
        await asyncio.shield(self._over)

    def close(self) -> None:
        """Let go of everything; to be called when nothing is carried any more, or nothing was."""
        if self._thread is not None:
            self._thread.join(LAST_STEPS_S)
        if self._thread is None or not self._thread.is_alive():
            os.close(self._woken)
            os.close(self._wake_end)

    def _wake(self) -> None:
        try:
            os.write(self._wake_end, b"!")
        except BlockingIOError:
            pass  # it is full of such calls

    def _tell[*Ts](self, act: Callable[[*Ts], None], *values: *Ts) -> None:
        try:
            self._loop.call_soon_threadsafe(act, *values)
        except RuntimeError:
            self._is_given_up = True  # the loop has ended first

    # From here on: the thread.

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            self._carry()
        except Exception as exc:
            failure = exc
        finally:
            self._close_child_in()
            self._close_child_out()
            self._tell(self._ended, failure)

    def _ended(self, failure: Exception | None) -> None:
        self.questions.close()
        if failure is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(failure)

    def _carry(self) -> None:
        poll = select.poll()
        watched: dict[int, int] = {}
        while not self._is_over():
            wanted = self._wanted()
            for descriptor in watched.keys() - wanted.keys():
                poll.unregister(descriptor)
            for descriptor in wanted:
                if watched.get(descriptor) != wanted[descriptor]:
                    poll.register(descriptor, wanted[descriptor])
            watched = wanted
            ready = {descriptor for descriptor, _ in poll.poll(0 if self._has_rest_to_read() else None)}
            if self._woken in ready:
                self._read_calls()
            # Answers first, and what makes room before what fills it.
            if self._desktop_in in ready:
                self._read_desktop()
            if self._child_in in ready:
                self._write_child()
            if self._desktop_out in ready:
                self._write_desktop()
            if self._child_out in ready or self._has_rest_to_read():
                self._read_child()

    def _is_over(self) -> bool:
        if self._is_given_up:
            return True
        return self._child_has_ended and self._child_out is None and not len(self._to_desktop)

    def _has_rest_to_read(self) -> bool:
        """Whether to read without being told to: a process that the child left behind may keep its pipe open."""
        return self._child_has_ended and self._child_out is not None and len(self._to_desktop) < READ_BYTES

    def _wanted(self) -> dict[int, int]:
        """What to wait for."""
        wanted = {self._woken: select.POLLIN}
        if self._desktop_in is not None and len(self._to_child) < MOST_FOR_CHILD_BYTES:
            wanted[self._desktop_in] = select.POLLIN
        if self._child_in is not None and self._to_child:
            wanted[self._child_in] = select.POLLOUT
        if self._child_out is not None and len(self._to_desktop) < READ_BYTES:
            wanted[self._child_out] = select.POLLIN
        if self._desktop_out is not None and (len(self._to_desktop) or self._may_ask()):
            wanted[self._desktop_out] = select.POLLOUT
        return wanted

    def _may_ask(self) -> bool:
        return self._to_desktop.at_line_start and self.questions.has_unsent()

    def _read_calls(self) -> None:
        try:
            os.read(self._woken, READ_BYTES)
        except BlockingIOError:
            pass

    def _read_desktop(self) -> None:
        assert self._desktop_in is not None
        try:
            content = os.read(self._desktop_in, READ_BYTES)
        except BlockingIOError:
            return  # somebody else has made it non-blocking, and was quicker
        except OSError as exc:
            logger.warning("stdin failed: %s", exc.strerror)
            content = b""
        if content:
            passed, answers = self._from_desktop.receive(content)
            for answer in answers:
                self._tell(self.questions.answered, answer)
        else:
            self._desktop_in = None
            self._tell(self.questions.close)
            passed = self._from_desktop.end()
        if self._child_in is not None:
            self._to_child += passed
            self._write_child()

    def _write_child(self) -> None:
        assert self._child_in is not None
        try:
            while self._to_child:
                written = os.write(self._child_in, self._to_child[:READ_BYTES])
                del self._to_child[:written]
        except BlockingIOError:
            return
        except OSError as exc:
            logger.info("the child does not read any more: %s", exc.strerror)
            self._close_child_in()
            return
        if self._desktop_in is None:
            self._close_child_in()

    def _read_child(self) -> None:
        if self._child_out is None or len(self._to_desktop) >= READ_BYTES:
            return
        try:
            content = os.read(self._child_out, READ_BYTES)
        except BlockingIOError:
            if self._child_has_ended:
                self._close_child_out()
            return
        if content:
            self._to_desktop.extend(content)
            self._write_desktop()
        else:
            self._close_child_out()

    def _write_desktop(self) -> None:
        """Write as long as the descriptor takes it; a question, where there is one, at the next start of a line."""
        if self._desktop_out is None:
            return
        try:
            while (len(self._to_desktop) or self._may_ask()) and self._room_in_desktop.poll(0):
                # Not sooner: one that was not written can be withdrawn.
                if self._to_desktop.at_line_start:
                    self._to_desktop.put_first(self.questions.take())
                first = self._to_desktop.first(PIPE_BUF, of_line=self.questions.has_unsent())
                if first:
                    self._to_desktop.written(os.write(self._desktop_out, first))
        except BlockingIOError:
            pass  # somebody else has made it non-blocking
        except OSError as exc:
            logger.info("the desktop does not read any more: %s", exc.strerror)
            self._desktop_out = None
            self._tell(self.questions.close)
            self._to_desktop.clear()
            self._close_child_out()  # for the child it is as if it had written to the desktop itself

    def _close_child_in(self) -> None:
        if self._child_in is not None:
            os.close(self._child_in)
            self._child_in = None
        self._to_child.clear()

    def _close_child_out(self) -> None:
        if self._child_out is not None:
            os.close(self._child_out)
            self._child_out = None
