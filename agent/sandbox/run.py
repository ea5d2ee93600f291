"""Run commands for the agent: in the background, with their output kept up to a limit and their time bounded.

The only place in the agent that starts processes for the model. Each gets a session of its own and no terminal; when
its time is up or the caller gives up, everything it started is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from agent.sandbox.denial import likely_denied
from agent.sandbox.frozen import frozen
from agent.sandbox.guardian import Guardian
from agent.sandbox.init import BY_ITSELF_S, KILLED_S, Init, end
from agent.sandbox.launch import EXEC_FAILED, end_orphan, prepare
from agent.sandbox.leash import Leash
from agent.sandbox.placeholders import Busy, Hold
from agent.sandbox.plan import Backend, SandboxPlan, SandboxUnavailable
from agent.sandbox.policy import Policy
from agent.sandbox.spawn import said
from agent.sandbox.start import start
from agent.sandbox.streams import Output, Pipes

# As the original reports a command whose time was up (coreutils' timeout does, too).
TIMED_OUT = 124
# How long an ended command's pipes are read on: something that it left behind may hold them open for ever.
_DRAIN_S = 0.5
# What nobody has to wait for is done when the outcome is with who waits for that.
_LATER_S = 0.001
# How long bubblewrap may take to end once its init was killed.
_END_S = 5.0


@frozen
class Outcome:
    """How a command ended.

    Args:
        exit_code: Its own; 128 + N if signal N ended it; TIMED_OUT if its time was up.
        stdout: What it wrote, at most the limit: the beginning and the end.
        dropped_stdout: Bytes left out of the middle.
        duration_s: From the start to the end, in seconds.
        likely_denied: It failed, and in a way that looks like the sandbox's doing.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    dropped_stdout: int
    dropped_stderr: int
    timed_out: bool
    duration_s: float
    likely_denied: bool


def is_quick(policy: Policy) -> bool:
    """Whether a plan of the policy takes less than a millisecond: no patterns to look up, and few paths."""
    return not policy.globs and len(policy.rules) <= 50


class Runner:
    """Starts commands. One for each agent; closed after the last of them."""

    def __init__(self) -> None:
        self._guardian = Guardian()
        self._leash = Leash()
        # Plans are made in threads.
        self._guarding = threading.Lock()
        self._has_planned = False
        self._released: list[Hold] = []

    async def run(
        self,
        make_plan: Callable[[], SandboxPlan],
        environ: Mapping[str, str],
        *,
        timeout_s: float | None,
        max_output_bytes: int,
        stdin: bytes | int | None = None,
        on_output: Callable[[str, bytes], None] | None = None,
        plans_quickly: bool = False,
        terminal: int | None = None,
        merged: bool = False,
    ) -> Outcome:
        """Run one command to its end.

        "Everything it started" is all of its sandbox under bubblewrap; elsewhere its process group, which a process
        can leave by making a session of its own.

        Args:
            make_plan: Makes the plan; called again if the disk changed in between, and in another thread.
            environ: The command's whole environment, but for what the plan adds.
            timeout_s: Then everything it started is killed; None for no limit. Counted from the command's start.
            max_output_bytes: Kept of stdout and of stderr, each.
            stdin: What it reads, or a descriptor of the caller's that it reads from; None for nothing at all.
            on_output: Called with "stdout" or "stderr" and each piece, as it comes. What it raises is the event loop's.
            plans_quickly: Plan on the loop, since that takes less than another thread would (`is_quick`).
            terminal: A descriptor that becomes its stdin, stdout and stderr. It stays the caller's, who reads the other
                end: nothing of it is in the outcome.
            merged: What it writes to stderr goes where its stdout goes, in the order in which it was written.

        Raises:
            SandboxUnavailable: It was not run.
            PolicyError: It was not run.
            asyncio.CancelledError: Given up; everything it started is dead.
        """
        plan, hold = await self._prepared(make_plan, plans_quickly)
        try:
            outcome = await _carried_out(
                plan, hold, environ, timeout_s, max_output_bytes, stdin, on_output, terminal, merged, self._leash
            )
        except GeneratorExit:
            # The loop is gone without an end of its tasks, and nothing can be awaited any more.
            if hold is not None:
                hold.leave()
            raise
        except BaseException:
            await self._release(hold)
            raise
        if await self._release(hold):
            raise asyncio.CancelledError
        return outcome

    async def _prepared(self, make_plan: Callable[[], SandboxPlan], quickly: bool) -> tuple[SandboxPlan, Hold | None]:
        """`prepare`, in a thread unless it is quick. No thread can be stopped: who is cancelled waits for it."""
        # The first plan finds out what bubblewrap can do here.
        if quickly and self._has_planned:
            with contextlib.suppress(Busy):
                return prepare(make_plan, self._guard, patient=False)
        # A future and not a task: nobody who ends all tasks of the loop ends it.
        preparing = asyncio.get_running_loop().run_in_executor(None, prepare, make_plan, self._guard)
        given_up = await _through(preparing)
        if given_up:
            if preparing.exception() is None:
                await self._release(preparing.result()[1])
            raise asyncio.CancelledError
        prepared = preparing.result()
        self._has_planned = True
        return prepared

    async def _release(self, hold: Hold | None) -> bool:
        """Release what is held. Whether somebody gave us up meanwhile: that changes nothing."""
        given_up = False
        if hold is not None:
            loop = asyncio.get_running_loop()
            if not hold.release(patient=False):
                given_up = await _through(loop.run_in_executor(None, hold.release))
            self._released.append(hold)
            loop.call_later(_LATER_S, self._close_released)
        return given_up

    def _close_released(self) -> None:
        while self._released:
            self._released.pop().close()

    def _guard(self, directory: str) -> None:
        """Have a process that outlives us, should we be killed, and then removes our placeholders."""
        with self._guarding:
            self._guardian.start(directory)

    def close(self) -> None:
        """Nothing is left to guard."""
        self._close_released()
        with self._guarding:
            self._guardian.dismiss()
        self._leash.close()


async def _carried_out(
    plan: SandboxPlan,
    hold: Hold | None,
    environ: Mapping[str, str],
    timeout_s: float | None,
    max_output_bytes: int,
    stdin: bytes | int | None,
    on_output: Callable[[str, bytes], None] | None,
    terminal: int | None,
    merged: bool,
    leash: Leash,
) -> Outcome:
    def heard(stream: str) -> Callable[[bytes], None] | None:
        return None if on_output is None else lambda piece: on_output(stream, piece)

    loop = asyncio.get_running_loop()
    outputs = [Output(max_output_bytes, heard("stdout")), Output(max_output_bytes, heard("stderr"))]
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            pipes = stack.enter_context(Pipes(loop, outputs[:1] if merged else outputs, stdin))
            streams = pipes.theirs if terminal is None else (terminal, terminal, terminal)
            command = _Running(loop, plan, hold, {**environ, **dict(plan.environment)}, streams, leash)
            stack.callback(command.close)
        except OSError as exc:
            raise SandboxUnavailable(plan.backend, f"the command cannot be started: {said(exc)}") from exc
        pipes.close_theirs()
        timed_out = given_up = False
        try:
            timed_out = not await command.ends_within(timeout_s)
        except asyncio.CancelledError:
            given_up = True
        if timed_out or given_up:
            command.kill()
        if await command.finished() or given_up:
            raise asyncio.CancelledError
        await pipes.drained(_DRAIN_S)
        code = TIMED_OUT if timed_out else command.code()
    stdout, stderr = outputs[0].kept(), outputs[1].kept()
    printed = (stderr + stdout).decode(errors="replace")
    confined = plan.backend is not Backend.NONE
    return Outcome(
        exit_code=code,
        stdout=stdout,
        stderr=stderr,
        dropped_stdout=outputs[0].dropped,
        dropped_stderr=outputs[1].dropped,
        timed_out=timed_out,
        duration_s=time.monotonic() - started,
        likely_denied=confined and not timed_out and likely_denied(code, printed, sys.platform),
    )


class _Running:
    """The process of a plan, from its start to the end of all that it started.

    Raises:
        SandboxUnavailable, OSError: It cannot be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plan: SandboxPlan,
        hold: Hold | None,
        environ: Mapping[str, str],
        streams: tuple[int, int, int],
        leash: Leash,
    ) -> None:
        self._loop = loop
        self._leash = leash
        self._plan = plan
        self._hold = hold
        self._status: int | None = None
        self._witness = -1
        self._last_resort: asyncio.TimerHandle | None = None
        self._init = Init() if plan.backend is Backend.BUBBLEWRAP else None
        try:
            leash.prepare(plan.backend)
            self._pid = start(plan, hold, environ, streams, self._init)
        except BaseException:
            self._close_init()
            raise
        try:
            self._leash.hold(plan.backend, self._pid)
            self._witness = os.pidfd_open(self._pid)
        except BaseException:
            self.close()
            raise
        self._ended = self._readable(self._witness)

    async def ends_within(self, timeout_s: float | None) -> bool:
        """Whether it ended in time."""
        await asyncio.wait((self._ended,), timeout=timeout_s)
        return self._ended.done()

    def kill(self) -> None:
        """Kill everything it started."""
        if self._init is None:
            self._kill_group()
        elif not self._ended.done():
            end(self._pid, signal.SIGKILL)
            self._last_resort = self._loop.call_later(_END_S, self._kill_group)

    def _kill_group(self) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    async def finished(self) -> bool:
        """Wait until it has ended, and its sandbox has. Whether somebody gave it up meanwhile: that changes nothing."""
        given_up = await _through(self._ended)
        self._reap()  # it has ended: this does not wait
        # Where nothing is masked nobody has to know of the rest, which dies with bubblewrap.
        if self._init is not None and self._hold is not None:
            end_orphan(self._init, self._hold)
            end_of_init = self._init.end()
            if end_of_init >= 0:
                gone = self._readable(end_of_init)
                given_up |= await _through(gone, BY_ITSELF_S)
                if not gone.done() and self._init.insist():
                    given_up |= await _through(gone, KILLED_S)
                    if not gone.done():
                        self._hold.leave()
                self._loop.remove_reader(end_of_init)
            if not self._init.is_alone():
                self._hold.leave()
        return given_up

    def code(self) -> int:
        """Its exit code, once it is finished."""
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        if code > 0 and self._init is not None and not self._init.executed():
            return EXEC_FAILED
        return 128 - code if code < 0 else code

    def close(self) -> None:
        """Let go of it. If it is not finished nobody waits for all of it: what it masks stays for the next sweep."""
        if self._status is None:
            if self._init is not None:
                end(self._pid, signal.SIGKILL)
            self._kill_group()
            self._reap()
            if self._hold is not None:
                self._hold.leave()
        if self._last_resort is not None:
            self._last_resort.cancel()
        if self._witness >= 0:
            self._loop.remove_reader(self._witness)
            os.close(self._witness)
            self._witness = -1
        self._close_init()

    def _reap(self) -> None:
        self._leash.release(self._pid)  # before somebody else can have the pid
        self._status = os.waitpid(self._pid, 0)[1]

    def _close_init(self) -> None:
        if self._init is not None:
            self._init.close()

    def _readable(self, descriptor: int) -> asyncio.Future[None]:
        """Done when the descriptor can be read, which it then is not any more."""
        done: asyncio.Future[None] = self._loop.create_future()

        def ready() -> None:
            self._loop.remove_reader(descriptor)
            if not done.done():
                done.set_result(None)

        self._loop.add_reader(descriptor, ready)
        return done


async def _through[Result](future: asyncio.Future[Result], timeout_s: float | None = None) -> bool:
    """Wait for a future, also if we are cancelled, for which it says whether we were."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    cancelled = False
    while not future.done() and (deadline is None or time.monotonic() < deadline):
        try:
            await asyncio.wait((future,), timeout=None if deadline is None else deadline - time.monotonic())
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
