"""Run commands for the agent: in the background, with their output kept up to a limit and their time bounded.

The only place in the agent that starts processes for the model. Each gets a session of its own and no terminal; when
its time is up or the caller gives up, everything it started is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from agent.sandbox import stage
from agent.sandbox.denial import likely_denied
from agent.sandbox.frozen import frozen
from agent.sandbox.init import Init
from agent.sandbox.launch import end, init_of, prepare, spawn
from agent.sandbox.placeholders import Hold
from agent.sandbox.plan import Backend, SandboxPlan, SandboxUnavailable
from agent.sandbox.policy import Policy
from agent.sandbox.state import state_directory
from agent.sandbox.streams import Output, Pipes

# As the original reports a command whose time was up (coreutils' timeout does, too).
TIMED_OUT = 124
# How long an ended command's pipes are read on: something that it left behind may hold them open for ever.
_DRAIN_S = 0.5
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
        self._guardian: subprocess.Popen[bytes] | None = None
        # Plans are made in threads.
        self._guarding = threading.Lock()

    async def run(
        self,
        make_plan: Callable[[], SandboxPlan],
        environ: Mapping[str, str],
        *,
        timeout_s: float | None,
        max_output_bytes: int,
        stdin: bytes | None = None,
        on_output: Callable[[str, bytes], None] | None = None,
        plans_quickly: bool = False,
    ) -> Outcome:
        """Run one command to its end.

        "Everything it started" is all of its sandbox under bubblewrap; elsewhere its process group, which a process
        can leave by making a session of its own.

        Args:
            make_plan: Makes the plan; called again if the disk changed in between, and in another thread.
            environ: The command's whole environment, but for what the plan adds.
            timeout_s: Then everything it started is killed; None for no limit.
            max_output_bytes: Kept of stdout and of stderr, each.
            stdin: What it reads; None for nothing at all.
            on_output: Called with "stdout" or "stderr" and each piece, as it comes.
            plans_quickly: Plan on the loop, since that takes less than another thread would (`is_quick`).

        Raises:
            SandboxUnavailable: It was not run.
            PolicyError: It was not run.
            asyncio.CancelledError: Given up; everything it started is dead.
        """
        if plans_quickly:
            plan, hold = prepare(make_plan, self._guard)
        else:
            plan, hold = await _prepared(make_plan, self._guard)
        try:
            return await _run(
                plan, hold, {**environ, **dict(plan.environment)}, timeout_s, max_output_bytes, stdin, on_output
            )
        finally:
            if hold is not None:
                hold.release()

    def _guard(self) -> None:
        """A process that outlives us, should we be killed, and then removes our placeholders."""
        with self._guarding:
            if self._guardian is not None and self._guardian.poll() is None:
                return
            from agent.sandbox import placeholders

            self._guardian = subprocess.Popen(  # noqa: S603 - our own interpreter and file
                [sys.executable, "-I", "-S", placeholders.__file__, state_directory(), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """Nothing is left to guard."""
        guardian, self._guardian = self._guardian, None
        if guardian is not None and guardian.stdin is not None:
            try:
                guardian.stdin.write(b".")
                guardian.stdin.close()
            except BrokenPipeError:
                pass
            guardian.wait(timeout=5)


async def _prepared(
    make_plan: Callable[[], SandboxPlan], guarded: Callable[[], None]
) -> tuple[SandboxPlan, Hold | None]:
    """`prepare`, in another thread. It cannot be stopped: who is cancelled waits for it and releases what it holds."""
    preparing = asyncio.ensure_future(asyncio.to_thread(prepare, make_plan, guarded))
    try:
        return await asyncio.shield(preparing)
    except asyncio.CancelledError:
        await asyncio.wait([preparing])
        if preparing.exception() is None:
            _, hold = preparing.result()
            if hold is not None:
                hold.release()
        raise


async def _run(
    plan: SandboxPlan,
    hold: Hold | None,
    environ: Mapping[str, str],
    timeout_s: float | None,
    max_output_bytes: int,
    stdin: bytes | None,
    on_output: Callable[[str, bytes], None] | None,
) -> Outcome:
    def heard(stream: str) -> Callable[[bytes], None] | None:
        return None if on_output is None else lambda piece: on_output(stream, piece)

    loop = asyncio.get_running_loop()
    outputs = [Output(max_output_bytes, heard("stdout")), Output(max_output_bytes, heard("stderr"))]
    started = time.monotonic()
    init = init_of(plan) if plan.backend is Backend.BUBBLEWRAP else None
    with Pipes(loop, outputs, stdin) as pipes, contextlib.closing(init) if init else contextlib.nullcontext():
        pid = _start(plan, hold, environ, pipes.theirs, init)
        pipes.close_theirs()
        timed_out = False
        try:
            async with asyncio.timeout(timeout_s):
                status = await _ended(loop, pid)
        except TimeoutError:
            timed_out = True
            status = await _kill(loop, pid, plan.backend)
        except BaseException:
            await asyncio.shield(_kill(loop, pid, plan.backend))
            await asyncio.shield(_gone(loop, init))
            raise
        await _gone(loop, init)
        await pipes.drained(_DRAIN_S)
    code = os.waitstatus_to_exitcode(status)
    code = TIMED_OUT if timed_out else 128 - code if code < 0 else code
    stdout, stderr = outputs[0].kept(), outputs[1].kept()
    said = (stderr + stdout).decode(errors="replace")
    confined = plan.backend is not Backend.NONE
    return Outcome(
        exit_code=code,
        stdout=stdout,
        stderr=stderr,
        dropped_stdout=outputs[0].dropped,
        dropped_stderr=outputs[1].dropped,
        timed_out=timed_out,
        duration_s=time.monotonic() - started,
        likely_denied=confined and not timed_out and likely_denied(code, said, sys.platform),
    )


def _start(
    plan: SandboxPlan,
    hold: Hold | None,
    environ: Mapping[str, str],
    streams: tuple[int, int, int],
    init: Init | None,
) -> int:
    """Start the process of a plan in a session of its own; returns its pid.

    Raises:
        SandboxUnavailable: It cannot be started.
    """
    if plan.backend is Backend.BUBBLEWRAP:
        if plan.bridge_ports:
            raise SandboxUnavailable(
                plan.backend, "the managed network is built for one command at a time; start the sandbox helper for it"
            )
        # From this thread, which lives as long as the agent: bubblewrap dies with the thread that started it.
        return spawn(plan, environ, hold, init.descriptors if init is not None else {}, streams=streams)
    argv = plan.argv
    pass_fds: tuple[int, ...] = ()
    told = -1
    if plan.backend in (Backend.SECCOMP, Backend.LANDLOCK):
        # A file and not a pipe, which takes no more than 64 KiB before it has a reader.
        told = os.memfd_create("plan")
        os.write(told, stage.describe(plan, environ))
        os.lseek(told, 0, os.SEEK_SET)
        argv, pass_fds = (sys.executable, "-I", "-S", stage.__file__, str(told)), (told,)
    try:
        process = subprocess.Popen(  # noqa: S603 - what the model wants run, confined by the plan
            argv,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            cwd=plan.cwd,
            env=environ,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as exc:
        raise SandboxUnavailable(
            plan.backend, f"{argv[0]!r} cannot be started in {plan.cwd!r}: {exc.strerror}"
        ) from exc
    finally:
        if told >= 0:
            os.close(told)
    # We wait for it by its pid; Popen must not wait for it as well when it is collected.
    process.returncode = 0
    return process.pid


async def _ended(loop: asyncio.AbstractEventLoop, pid: int) -> int:
    """The status of a child of ours, once it has ended."""
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return os.waitpid(pid, 0)[1]  # noqa: ASYNC222 - it has ended: this does not wait


async def _kill(loop: asyncio.AbstractEventLoop, pid: int, backend: Backend) -> int:
    if backend is Backend.BUBBLEWRAP:
        end(pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(_END_S):
                return await _ended(loop, pid)
        except TimeoutError:
            pass
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return await _ended(loop, pid)


async def _gone(loop: asyncio.AbstractEventLoop, init: Init | None) -> None:
    """bubblewrap has ended: wait until its sandbox has, where that has to be known."""
    if init is None or (end_of_init := init.end()) < 0:
        return
    ended = asyncio.Event()
    loop.add_reader(end_of_init, ended.set)
    try:
        async with asyncio.timeout(_END_S):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(end_of_init)
