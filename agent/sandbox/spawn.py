"""The start of a bubblewrap: what it gets of us, and what it must not get."""

from __future__ import annotations

import os
import sys

from agent.sandbox.init import STATUS_FD
from agent.sandbox.plan import INFO_FD, SECCOMP_FD, SYNC_FD, SandboxPlan, SandboxUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping

    from agent.sandbox.placeholders import Hold
else:
    # The same functions and numbers; `signal` would import `enum` to give the numbers names (5 ms).
    try:
        import _signal as signal
    except ImportError:
        import signal

# Python ignores these, and what is ignored stays so through exec: `yes | head` would not end.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# Where bubblewrap reads more of its command line.
_ARGS_FD = 8
# Above all descriptors that it is given.
_ABOVE = 9
# What the dynamic linker and the C library heed when a program starts. bubblewrap is not confined yet when it does, and
# these may name what a command can write: a tool's own environment, or that of a shell in which one builds libraries.
_HEEDED_AT_START = ("LD_", "GLIBC_TUNABLES", "MALLOC_", "GCONV_PATH", "LOCPATH", "NLSPATH", "MUSL_LOCPATH")


def spawn(
    plan: SandboxPlan,
    environ: Mapping[str, str],
    hold: Hold | None,
    given: Mapping[int, int],
    *,
    signal_mask: Iterable[int] = (),
    streams: tuple[int, int, int] | None = None,
    posix_spawn: Callable[..., int] = os.posix_spawn,
) -> int:
    """Start bubblewrap and return its pid. Of our descriptors it gets the streams and those that its argv names.

    Args:
        given: Descriptors beside those of the program and the hold: its number for each of ours.
        signal_mask: The signals that it starts with blocked.
        streams: Descriptors for stdin, stdout and stderr, and a session of its own; None keeps ours.

    Raises:
        SandboxUnavailable: It cannot be executed, e.g. the command line is too long for the kernel.
    """
    ours: list[int] = []
    words = [plan.argv[0]]
    try:
        program, write = os.pipe()
        ours += [program, write]
        # A pipe takes 64 KiB without a reader; a program has a few hundred bytes.
        os.write(write, plan.seccomp or b"")
        os.close(ours.pop())
        given = {SECCOMP_FD: program, **given}
        if STATUS_FD in given:
            words += ["--json-status-fd", str(STATUS_FD)]
        if hold is not None:
            given |= {SYNC_FD: hold.descriptor, INFO_FD: hold.record}
        elif plan.bridge_ports:
            given[INFO_FD] = given[STATUS_FD]
        environ, withheld = _withheld(environ)
        if withheld:
            ours.append(os.memfd_create("arguments"))
            os.pwrite(ours[-1], withheld, 0)
            given[_ARGS_FD] = ours[-1]
            words += ["--args", str(_ARGS_FD)]
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams or ())
        ]
        for number in range(3, _ABOVE):
            descriptor = given.get(number, -1)
            # Out of the way of the numbers that are given out.
            while 0 <= descriptor < _ABOVE:
                descriptor = os.dup(descriptor)
                ours.append(descriptor)
            actions.append(
                (os.POSIX_SPAWN_CLOSE, number) if descriptor < 0 else (os.POSIX_SPAWN_DUP2, descriptor, number)
            )
        if hasattr(os, "POSIX_SPAWN_CLOSEFROM"):
            actions.append((os.POSIX_SPAWN_CLOSEFROM, _ABOVE))
        else:
            close_inherited()
        return posix_spawn(
            words[0],
            [*words, *plan.argv[1:]],
            environ,
            file_actions=actions,
            setsigmask=signal_mask,
            # A caller may ignore SIGCHLD, and bubblewrap would then wait for its child for ever.
            setsigdef=(*IGNORED_BY_PYTHON, signal.SIGCHLD),
            setsid=streams is not None,
        )
    except (OSError, ValueError) as exc:
        import errno

        too_long = isinstance(exc, OSError) and exc.errno == errno.E2BIG
        reason = exc.strerror if isinstance(exc, OSError) else exc
        advice = "; deny or grant whole directories instead of single files" if too_long else ""
        raise SandboxUnavailable(plan.backend, f"{plan.argv[0]!r} cannot be started: {reason}{advice}") from exc
    finally:
        for descriptor in ours:
            os.close(descriptor)


def _withheld(environ: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
    """An environment for bubblewrap, and the words by which it gives the command what is missing there.

    The words are to be given by a descriptor: on a command line everybody could read them.
    """
    withheld = [name for name in environ if name.startswith(_HEEDED_AT_START)]
    if not withheld:
        return environ, b""
    words = [os.fsencode(word) for name in withheld for word in ("--setenv", name, environ[name])]
    if any(b"\0" in word for word in words):
        # It would be the end of the word, and the next one bubblewrap's option.
        raise ValueError("embedded null byte")
    return {name: value for name, value in environ.items() if name not in withheld}, b"\0".join([*words, b""])


def close_inherited() -> None:
    """A directory or a socket that our caller left open to us would be a way out. All of ours are closed by exec."""
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        descriptor = int(name)
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue  # the listing's own descriptor, closed by now


def said(exc: OSError | ValueError) -> str:
    """What an error of the system says, with the file it is about; or why a text cannot be given to the system."""
    if not isinstance(exc, OSError):
        return str(exc)
    return f"{exc.strerror}: {exc.filename!r}" if exc.filename else exc.strerror or str(exc)
