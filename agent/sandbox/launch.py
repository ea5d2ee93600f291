"""Carry out a plan for a command that takes over this process's standard streams, and end as it ended.

For the commands; the agent, which has an event loop and many commands at once, uses `run`.
"""

from __future__ import annotations

import os
import sys

from agent.sandbox.plan import SECCOMP_FD, SYNC_FD, Backend, SandboxPlan, SandboxUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType
    from typing import NoReturn

    from agent.sandbox.bridge import Bridge
    from agent.sandbox.init import Init
    from agent.sandbox.placeholders import Hold
else:
    # The same functions and numbers; `signal` would import `enum` to give the numbers names (5 ms).
    try:
        import _signal as signal
    except ImportError:
        import signal

# What is passed on to bubblewrap while we wait for it; it dies of each, and the sandbox with it.
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
# Python ignores these, and what is ignored stays so through exec: `yes | head` would not end.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# Above all descriptors that a plan names.
_ABOVE = 8
_ENDED_YET = os.WEXITED | os.WNOHANG | os.WNOWAIT
# How often the disk may change between plan and launch before we give up.
_ATTEMPTS = 5
# As the original ends when the command cannot be executed.
EXEC_FAILED = 101


def prepare(
    make_plan: Callable[[], SandboxPlan], guarded: Callable[[], None] | None = None
) -> tuple[SandboxPlan, Hold | None]:
    """Plan, and make the placeholders that the plan wants; plan again if the disk changed in between.

    Args:
        guarded: Called before anything is held: whoever cleans up if we are killed must be there then.

    Returns:
        The plan, and what to release once the sandbox is gone; None where nothing is masked.

    Raises:
        SandboxUnavailable: What `plan` raises, or a placeholder cannot be made.
        PolicyError: As `plan`.
    """
    for _ in range(_ATTEMPTS):
        plan = make_plan()
        if not plan.masked:
            return plan, None
        from agent.sandbox.placeholders import Placeholders, Stale
        from agent.sandbox.state import state_directory

        # Also where another launch has made them: ours may be the last that holds them, and its sandbox outlive us.
        if guarded is not None:
            guarded()
        try:
            records = Placeholders(state_directory())
            return plan, records.hold([(held.path, held.directory) for held in plan.placeholders], plan.masked)
        except Stale:
            continue
        except OSError as exc:
            raise SandboxUnavailable(
                plan.backend,
                f"cannot make the placeholder that keeps a protected path from being created: {exc.strerror}: "
                f"{exc.filename or ''!r}; the command was not run",
            ) from exc
    raise SandboxUnavailable(
        Backend.BUBBLEWRAP, f"the masked paths changed {_ATTEMPTS} times while the command was planned"
    )


def inherited_environment() -> dict[str, str]:
    """Our environment as our caller gave it: Python adds LC_CTYPE where no locale is set (PEP 538)."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") == "C.UTF-8" and sys.platform == "linux":
        with open("/proc/self/environ", "rb") as file:
            if not any(pair.startswith(b"LC_CTYPE=") for pair in file.read().split(b"\0")):
                del environ["LC_CTYPE"]
    return environ


def run_here(make_plan: Callable[[], SandboxPlan], environ: Mapping[str, str]) -> int:
    """Run a command as this process: with its streams, its environment, its process group; return the exit code.

    A plan without a second process replaces this one and does not return. If bubblewrap was killed by a signal, this
    process dies of the same.

    Raises:
        SandboxUnavailable: The command was not run.
        PolicyError: The same.
    """
    lifeline = -1

    def guarded() -> None:
        nonlocal lifeline
        if lifeline < 0:
            lifeline = _start_guardian()

    plan, hold = prepare(make_plan, guarded)
    if plan.backend is Backend.SECCOMP or plan.backend is Backend.LANDLOCK:
        _close_inherited()
    if plan.backend is Backend.BUBBLEWRAP:
        return _bubblewrapped(plan, hold, lifeline, environ)
    try:
        os.chdir(plan.cwd)
    except OSError as exc:
        raise SandboxUnavailable(plan.backend, f"the working directory {plan.cwd!r}: {exc.strerror}") from exc
    if plan.backend is Backend.SECCOMP or plan.backend is Backend.LANDLOCK:
        confine(plan)
    execute(plan.argv, environ)


def _close_inherited() -> None:
    """A directory or a socket that our caller left open to us would be a way out. All of ours are closed by exec."""
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        descriptor = int(name)
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue  # the listing's own descriptor, closed by now


def confine(plan: SandboxPlan) -> None:
    """Confine this very process, for good, as a plan of the backends seccomp and landlock says.

    Raises:
        SandboxUnavailable: The kernel refused. Nothing may be executed then.
    """
    from agent.sandbox.inner import forbid_new_privileges, install

    try:
        if plan.landlock is not None:
            from agent.sandbox.landlock import abi_version, restrict

            restrict(abi_version(), ("/",), plan.landlock.writable, plan.landlock.restrict_tcp)
        forbid_new_privileges()
        if plan.seccomp is not None:
            install(plan.seccomp)
    except OSError as exc:
        raise SandboxUnavailable(plan.backend, str(exc)) from exc


def execute(argv: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    """Become the command; if it cannot be executed, say so on stderr and exit with 101."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environ)
    except OSError as exc:
        # Too late for an exception that somebody could take for "not confined, so go on".
        sys.stderr.write(f"Failed to execvp {argv[0]}: {exc.strerror}\n")
        os._exit(EXEC_FAILED)


def _bubblewrapped(plan: SandboxPlan, hold: Hold | None, lifeline: int, environ: Mapping[str, str]) -> int:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    # Where our caller ignores it, the kernel would keep no exit code for us.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    bridge = _bridge(plan)
    init = init_of(plan)
    try:
        given = {**(bridge.descriptors if bridge is not None else {}), **(init.descriptors if init is not None else {})}
        pid = spawn(plan, environ, hold, given, signal_mask=blocked)
        forwarded = _forward_to(pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if bridge is not None and init is not None:
            try:
                bridge.open(init.awaited(lambda: os.waitid(os.P_PID, pid, _ENDED_YET) is None))
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        status = os.waitpid(pid, 0)[1]
        if init is not None:
            init.wait()
    finally:
        # Nothing may interrupt the cleaning up: a second signal finds it done.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        if bridge is not None:
            bridge.close()
        if init is not None:
            init.close()
        if hold is not None:
            hold.release()
        if lifeline >= 0:
            os.write(lifeline, b".")
            os.close(lifeline)
    if forwarded or os.WIFSIGNALED(status):
        number = forwarded[0] if forwarded else os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return os.waitstatus_to_exitcode(status)


def spawn(
    plan: SandboxPlan,
    environ: Mapping[str, str],
    hold: Hold | None,
    given: Mapping[int, int],
    *,
    signal_mask: Iterable[int] = (),
    streams: tuple[int, int, int] | None = None,
) -> int:
    """Start bubblewrap and return its pid. Of our descriptors it gets the streams and those that its argv names.

    Args:
        given: Descriptors that argv names beside those of the program and the hold: its number for each of ours.
        signal_mask: The signals that it starts with blocked.
        streams: Descriptors for stdin, stdout and stderr, and a session of its own; None keeps ours.

    Raises:
        SandboxUnavailable: It cannot be executed, e.g. the command line is too long for the kernel.
    """
    _close_inherited()
    program, write = os.pipe()
    given = {SECCOMP_FD: program, **given}
    if hold is not None:
        given[SYNC_FD] = hold.descriptor
    moved: list[int] = []
    try:
        # A pipe takes 64 KiB without a reader; a program has a few hundred bytes.
        os.write(write, plan.seccomp or b"")
        os.close(write)
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams or ())
        ]
        for number, descriptor in given.items():
            # Out of the way of the numbers that are given out.
            while descriptor < _ABOVE:
                descriptor = os.dup(descriptor)
                moved.append(descriptor)
            actions.append((os.POSIX_SPAWN_DUP2, descriptor, number))
        return os.posix_spawn(
            plan.argv[0],
            plan.argv,
            environ,
            file_actions=actions,
            setsigmask=signal_mask,
            # A caller may ignore SIGCHLD, and bubblewrap would then wait for its child for ever.
            setsigdef=(*_IGNORED_BY_PYTHON, signal.SIGCHLD),
            setsid=streams is not None,
        )
    except OSError as exc:
        import errno

        advice = "; deny or grant whole directories instead of single files" if exc.errno == errno.E2BIG else ""
        raise SandboxUnavailable(plan.backend, f"{plan.argv[0]!r} cannot be started: {exc.strerror}{advice}") from exc
    finally:
        for descriptor in (program, *moved):
            os.close(descriptor)


def _forward_to(pid: int) -> list[int]:
    """Let the signals that end us end the sandbox first; the result is filled with those that did."""
    ended_by: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        ended_by.append(number)
        end(pid, number)

    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    return ended_by


def end(pid: int, number: int) -> None:
    """End a bubblewrap in such a way that when it has ended, all in its sandbox has: by its init, which it waits for.

    Killed itself it ends at once, and for a moment the command runs on, while its masks are taken away already.

    Args:
        number: The signal for a bubblewrap that has no init yet.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            inits = [int(child) for child in file.read().split()]
        for init in inits:
            os.kill(init, signal.SIGKILL)
        if not inits:
            os.kill(pid, number)
    except FileNotFoundError:
        # Without CONFIG_PROC_CHILDREN, or it is gone.
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    except ProcessLookupError:
        pass


def init_of(plan: SandboxPlan) -> Init | None:
    """What follows the sandbox's init, where somebody has to know of its end or its namespaces."""
    if not plan.masked and not plan.bridge_ports:
        return None
    from agent.sandbox.init import Init

    return Init()


def _bridge(plan: SandboxPlan) -> Bridge | None:
    if not plan.bridge_ports:
        return None
    from agent.sandbox.bridge import Bridge

    return Bridge(plan.bridge_ports)


def _start_guardian() -> int:
    """Fork a process that removes the placeholders if we are killed; returns the writing end of its lifeline."""
    from agent.sandbox.placeholders import guard
    from agent.sandbox.state import state_directory

    read, write = os.pipe()
    launcher = os.getpid()
    if os.fork() == 0:
        try:
            os.setsid()
            os.close(write)
            # Our streams are somebody's pipes: whoever waits for their end must not wait for the guardian.
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            guard(read, state_directory(), launcher)
        finally:
            os._exit(0)
    os.close(read)
    return write
