"""A process that outlives the one that launches, should that be killed, and then removes its placeholders.

It is a shell that waits for the end of a pipe and only then becomes this file, run by name (`guardian.py DIR PID`): a
shell is there in a fraction of a millisecond, while it starts nobody waits for it, and a launcher that is not killed
never needs more of it.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from agent.sandbox.placeholders import Placeholders
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

_SHELL = "/bin/sh"
_WAIT_THEN_RUN = 'cd / && read -r _; exec "$@"'
# How long it looks for the rest of a launch.
_GUARD_S = 10.0
_STEP_S = 0.02


class Guardian:
    """Of one process that launches. Not for several threads at once."""

    def __init__(self) -> None:
        self._pid = -1
        self._lifeline = -1

    def start(self, directory: str) -> None:
        """Have one, in a session of its own: it is not killed along with our process group.

        Args:
            directory: Where the records are.

        Raises:
            OSError: It cannot be started.
        """
        if self._pid >= 0 and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            return
        self._pid = -1
        self.dismiss()
        read, self._lifeline = os.pipe()
        try:
            self._pid = _started(read, [sys.executable, "-I", "-S", __file__, directory, str(os.getpid())])
        except BaseException:
            self.dismiss()
            raise
        finally:
            os.close(read)

    def dismiss(self) -> None:
        """All is released."""
        if self._pid >= 0:
            # Before its pipe ends. Our child, and not reaped: nobody else can have its pid.
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = -1
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def _started(lifeline: int, command: list[str]) -> int:
    actions: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_DUP2, lifeline, 0),
        # Our streams are somebody's pipes: whoever waits for their end must not wait for the guardian.
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    if hasattr(os, "POSIX_SPAWN_CLOSEFROM"):
        actions.append((os.POSIX_SPAWN_CLOSEFROM, 3))
    for words in ([_SHELL, "-c", _WAIT_THEN_RUN, "sh", *command], command):
        try:
            # Without the environment: LD_PRELOAD or LD_LIBRARY_PATH may lead to where a confined command can write.
            return os.posix_spawn(
                words[0],
                words,
                {},
                file_actions=actions,
                setsid=True,
                setsigmask=(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
            )
        except FileNotFoundError:
            if words is command:
                raise
    raise AssertionError


def guard(lifeline: int, directory: str, launcher: int, wait: Callable[[float], None] = time.sleep) -> None:
    """Wait for the end of a launcher, then end its sandboxes and remove its placeholders.

    Args:
        lifeline: The reading end of a pipe. The writing end lives in the launcher, and nowhere else.
        launcher: Its pid.
    """
    from agent.sandbox.placeholders import Busy, Placeholders

    while os.read(lifeline, 1):
        pass
    records = Placeholders(directory)
    # Whoever has the pid later on is somebody else.
    ended_ns = time.monotonic_ns()
    deadline = time.monotonic() + _GUARD_S
    while (left := begun_before(ended_ns, launcher, records.directory)) and time.monotonic() < deadline:
        _end(records, left)
        try:
            records.sweep()
        except Busy:
            pass
        if begun_before(ended_ns, launcher, records.directory):
            wait(_STEP_S)


def begun_before(until_ns: int, launcher: int, directory: str) -> list[str]:
    """The records of a launcher that were begun before some time (`time.monotonic_ns`)."""
    return [
        f"{directory}/{name}"
        for name in os.listdir(directory)
        if name.startswith(f"{launcher}-") and int(name.rpartition("-")[2]) <= until_ns
    ]


def _end(records: Placeholders, left: list[str]) -> None:
    """Kill what is left of the launches of a dead launcher, and wait for its end."""
    from agent.sandbox.placeholders import told_in

    witnesses = []
    for record in left:
        try:
            with open(record, "rb") as file:
                which = told_in(file.read())
        except FileNotFoundError:
            continue
        if which is not None:
            witnesses.append(which.witness())
    _kill(witnesses)
    end_holders({*left, *map(records.lock_of, left)})


def end_holders(files: set[str]) -> None:
    """Kill all but this process that have one of these files open, and wait for their end.

    bubblewrap asks to die with its parent once it runs (PR_SET_PDEATHSIG), and its child only when it is told to go on:
    whoever is orphaned before that would wait, or run the command, for ever.
    """
    from agent.sandbox.init import opened

    _kill([opened(pid) for pid in _holders(files) - {os.getpid()}])


def _kill(witnesses: list[int]) -> None:
    from agent.sandbox.init import has_ended, kill_by

    for witness in witnesses:
        if witness >= 0:
            kill_by(witness)
            # Of a pid namespace's init the end is told when all others in it are dead.
            has_ended(witness, _GUARD_S)
            os.close(witness)


def _holders(files: set[str]) -> set[int]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") in files:
                    found.add(int(pid))
            except OSError:
                continue
    return found


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    guard(0, sys.argv[1], int(sys.argv[2]))
