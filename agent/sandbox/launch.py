"""Carry out a plan for a command that takes over this process's standard streams, and end as it ended.

For the commands; the agent, which has an event loop and many commands at once, uses `run`.
"""

from __future__ import annotations

import os
import sys

from agent.sandbox.init import Init, end
from agent.sandbox.plan import Backend, SandboxPlan, SandboxUnavailable
from agent.sandbox.spawn import IGNORED_BY_PYTHON, close_inherited, said, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping
    from typing import NoReturn

    from agent.sandbox.bridge import Bridge
    from agent.sandbox.guardian import Guardian
    from agent.sandbox.placeholders import Hold
else:
    # The same functions and numbers; `signal` would import `enum` to give the numbers names (5 ms).
    try:
        import _signal as signal
    except ImportError:
        import signal

# What is passed on to what we wait for: bubblewrap, with which the sandbox ends, or the command itself.
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_AWAITED = (*_FORWARDED, signal.SIGCHLD)
# si_code of a signal that the terminal sent (asm-generic/siginfo.h): the whole process group has got it.
_SI_KERNEL = 0x80
_ENDED_YET = os.WEXITED | os.WNOHANG | os.WNOWAIT
# How often the disk may change between plan and launch before we give up.
_ATTEMPTS = 5
# As the original ends when the command cannot be executed.
EXEC_FAILED = 101


def prepare(
    make_plan: Callable[[], SandboxPlan], guarded: Callable[[str], None] | None = None, patient: bool = True
) -> tuple[SandboxPlan, Hold | None]:
    """Plan, and make the placeholders that the plan wants; plan again if the disk changed in between.

    Args:
        guarded: Called with the directory of the records before anything is held: whoever cleans up if we are killed
            must be there then.
        patient: Wait, up to five seconds, while another process has the records locked.

    Returns:
        The plan, and what to release once the sandbox is gone; None where nothing is masked.

    Raises:
        SandboxUnavailable: What `plan` raises, or a placeholder cannot be made.
        PolicyError: As `plan`.
        Busy: The records are locked, and we are not to wait.
    """
    for _ in range(_ATTEMPTS):
        plan = make_plan()
        if not plan.masked:
            return plan, None
        from agent.sandbox.placeholders import Busy, Placeholders, Stale
        from agent.sandbox.state import state_directory

        try:
            # Also where another launch has made them: ours may be the last that holds them, and its sandbox outlive us.
            directory = state_directory()
            if guarded is not None:
                guarded(directory)
            records = Placeholders(directory)
        except OSError as exc:
            raise SandboxUnavailable(plan.backend, f"no record can be kept of what is masked: {said(exc)}") from exc
        try:
            wanted = [(held.path, held.directory) for held in plan.placeholders]
            return plan, records.hold(wanted, plan.masked, patient)
        except Stale:
            continue
        except Busy as exc:
            if not patient:
                raise
            reason = f"another process keeps the records in {directory!r} locked; end it"
            raise SandboxUnavailable(plan.backend, reason) from exc
        except (OSError, ValueError) as exc:
            raise SandboxUnavailable(
                plan.backend, f"cannot make the placeholder that keeps a protected path from being created: {said(exc)}"
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


def run_here(
    make_plan: Callable[[], SandboxPlan],
    environ: Mapping[str, str],
    in_place: bool = False,
    failed: int = EXEC_FAILED,
) -> int:
    """Run a command with this process's streams, environment and process group; return its exit code.

    A command that died of signal N is 128 + N. But if the signal was sent to this process, or killed bubblewrap, this
    process dies of the same.

    Args:
        in_place: Where bubblewrap is not needed, become the command instead of starting it, and do not return. So does
            the original's helper; its `sandbox` starts it.
        failed: The code where the command could not be executed.

    Raises:
        SandboxUnavailable: The command was not run.
        PolicyError: The same.
    """
    guardian: Guardian | None = None

    def guarded(directory: str) -> None:
        nonlocal guardian
        if guardian is None:
            from agent.sandbox import guardian as guardians

            guardian = guardians.Guardian()
            guardian.start(directory)

    def dismissed() -> None:
        if guardian is not None:
            guardian.dismiss()

    try:
        plan, hold = prepare(make_plan, guarded)
        if plan.backend is Backend.BUBBLEWRAP:
            return _bubblewrapped(plan, hold, environ, failed, dismissed)
    finally:
        dismissed()
    try:
        os.chdir(plan.cwd)
    except (OSError, ValueError) as exc:
        raise SandboxUnavailable(plan.backend, f"the working directory {plan.cwd!r}: {said(exc)}") from exc
    if in_place:
        _become(plan, environ, failed)
    return _in_child(plan, environ, failed)


def _become(plan: SandboxPlan, environ: Mapping[str, str], failed: int) -> NoReturn:
    """Become the command of a plan that needs no other process.

    Raises:
        SandboxUnavailable: It cannot be confined.
    """
    if plan.backend is Backend.SECCOMP or plan.backend is Backend.LANDLOCK:
        close_inherited()
        confine(plan)
    execute(plan.argv, environ, failed)


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
        raise SandboxUnavailable(plan.backend, said(exc)) from exc


def execute(argv: tuple[str, ...], environ: Mapping[str, str], failed: int = EXEC_FAILED) -> NoReturn:
    """Become the command; if it cannot be executed, say so on stderr and exit with a code."""
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environ)
    except (OSError, ValueError) as exc:
        # Too late for an exception that somebody could take for "not confined, so go on".
        reason = exc.strerror if isinstance(exc, OSError) else exc
        os.write(2, f"Failed to execvp {argv[0]}: {reason}\n".encode(errors="backslashreplace"))
        os._exit(failed)


def _in_child(plan: SandboxPlan, environ: Mapping[str, str], failed: int) -> int:
    """Run the command of a plan that needs no other process in a child, and return its code."""
    read, write = os.pipe()
    blocked = _blocked()
    try:
        child = os.fork()
        if child == 0:
            _try_to_become(plan, environ, failed, write, blocked)
        os.close(write)
        with open(read, "rb") as file:
            # To its end, which is where the command is executed.
            refusal = file.read().decode()
        came = _wait(child, lambda number, from_terminal: None if from_terminal else os.kill(child, number))
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in came:
            _die(os.WTERMSIG(status))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if refusal:
        raise SandboxUnavailable(plan.backend, refusal)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _try_to_become(
    plan: SandboxPlan, environ: Mapping[str, str], failed: int, refused: int, signal_mask: Iterable[int]
) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        _become(plan, environ, failed)
    except BaseException as exc:
        reason = exc.reason if isinstance(exc, SandboxUnavailable) else f"it could not be confined: {exc!r}"
        os.write(refused, reason.encode(errors="backslashreplace"))
    finally:
        os._exit(EXEC_FAILED)


def _bubblewrapped(
    plan: SandboxPlan, hold: Hold | None, environ: Mapping[str, str], failed: int, released: Callable[[], None]
) -> int:
    # Nothing interrupts us until all is released: signals are looked for when there is nothing else to do.
    blocked = _blocked()
    try:
        status, executed, came = _sandboxed(plan, hold, environ, blocked)
        released()
        if came or os.WIFSIGNALED(status):
            _die(came[0] if came else os.WTERMSIG(status))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    code = os.waitstatus_to_exitcode(status)
    return code if executed or not code else failed


def _sandboxed(
    plan: SandboxPlan, hold: Hold | None, environ: Mapping[str, str], signal_mask: Iterable[int]
) -> tuple[int, bool, list[int]]:
    """Run the command to its end, and release what was held.

    Returns:
        bubblewrap's status, whether the command could be executed, and the signals that we got.
    """
    bridge: Bridge | None = None
    init: Init | None = None
    try:
        try:
            init = Init()
            given = init.descriptors
            if plan.bridge_ports:
                from agent.sandbox import bridge as bridges

                bridge = bridges.Bridge(plan.bridge_ports)
                given |= bridge.descriptors
        except OSError as exc:
            raise SandboxUnavailable(plan.backend, f"bubblewrap cannot be started: {said(exc)}") from exc
        pid = spawn(plan, environ, hold, given, signal_mask=signal_mask)
        try:
            if bridge is not None:
                which = init.awaited(lambda: _runs(pid) and not signal.sigpending() & {*_FORWARDED})
                bridge.open(None if which is None else which.pid)
            came = _wait(pid, lambda number, _: end(pid, number))
        except BaseException:
            end(pid, signal.SIGKILL)
            raise
        finally:
            status = os.waitpid(pid, 0)[1]
            if hold is not None:
                end_orphan(init, hold)
                if not init.wait():
                    hold.leave()
        return status, init.executed(), came
    finally:
        if bridge is not None:
            bridge.close()
        if init is not None:
            init.close()
        if hold is not None:
            hold.release()
            hold.close()


def end_orphan(init: Init, hold: Hold) -> None:
    """bubblewrap has ended: if that was before it told of its init, end the one that it may have had.

    It is waiting to be told to go on, and would for ever.
    """
    if init.told() is None:
        from agent.sandbox.guardian import end_holders

        end_holders(hold.files)


def _blocked() -> Iterable[int]:
    """Block what we wait for; returns the signals that were blocked before."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    # Where our caller ignores it, the kernel would keep no exit code for us.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return blocked


def _runs(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, _ENDED_YET) is None


def _wait(pid: int, pass_on: Callable[[int, bool], None]) -> list[int]:
    """Wait for the end of a child, without reaping it: until then it can be signalled.

    Args:
        pass_on: Called with each signal that we get and do not ignore, and whether the terminal has sent it to all.

    Returns:
        Their numbers.
    """
    came = []
    while _runs(pid):
        number, from_terminal = _next_signal()
        if number != signal.SIGCHLD and signal.getsignal(number) is not signal.SIG_IGN:
            came.append(number)
            pass_on(number, from_terminal)
    return came


def _next_signal() -> tuple[int, bool]:
    if hasattr(signal, "sigwaitinfo"):
        found = signal.sigwaitinfo(_AWAITED)
        return found.si_signo, found.si_code == _SI_KERNEL
    # macOS does not say where it comes from; these two come from the terminal.
    number = signal.sigwait(_AWAITED)
    return number, number in (signal.SIGINT, signal.SIGQUIT)


def _die(number: int) -> None:
    """End as what we waited for has ended, of a signal: of a blocked one as soon as it is not blocked any more."""
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
