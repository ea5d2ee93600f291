"""bubblewrap's init: the first process of a sandbox, with which all others in it end.

bubblewrap itself ends as soon as its init has told it the command's code, while the init, and what the command left in
the background, still run for a moment. The kernel reports the init's end only when all in its pid namespace are dead,
so that is what has to be awaited before anything that was masked may be touched.
"""

from __future__ import annotations

import os
import time

from agent.sandbox.frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    try:
        import _signal as signal
    except ImportError:
        import signal

# Where bubblewrap writes of its sandbox's beginning and end (`--json-status-fd`); not a number that plans give out.
STATUS_FD = 7
# How long an init may take to end with its bubblewrap. It takes less than a millisecond.
BY_ITSELF_S = 0.1
# And once it is killed. Nothing keeps it then; this is for a machine that is stuck.
KILLED_S = 10.0
_STEP_S = 0.0005
# How long a bubblewrap may take to stop; it is longer only in a system call that does not end, such as one on a dead
# network mount.
_STOP_S = 1.0
_STOPPED_OR_ENDED = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT if hasattr(os, "WSTOPPED") else 0


@frozen
class Told:
    """What bubblewrap tells of a sandbox before it lets the command go.

    Args:
        pid: The init's, as it is seen out here.
        pid_namespace: Its inode; None if the sandbox has none of its own.
        mount_namespace: Its inode.
    """

    pid: int
    pid_namespace: int | None
    mount_namespace: int

    def witness(self) -> int:
        """A descriptor that can be read once the init, and all in its pid namespace, are dead; -1 if it is gone."""
        descriptor = opened(self.pid)
        if descriptor < 0 or self.is_there():
            return descriptor
        os.close(descriptor)
        return -1

    def is_there(self) -> bool:
        """Whether the init has its pid, dead or alive. Then a pidfd that was opened before is its own."""
        kind, namespace = ("mnt", self.mount_namespace) if self.pid_namespace is None else ("pid", self.pid_namespace)
        try:
            return os.stat(f"/proc/{self.pid}/ns/{kind}").st_ino == namespace
        except PermissionError:
            # A command that may trace can make its init such that nobody may look at it. Its user it cannot change.
            return _is_ours(self.pid)
        except OSError:
            return False

    def lives(self) -> bool:
        """Whether anything of the sandbox can still run."""
        if self.pid_namespace is None:
            return self.has_stragglers()
        witness = self.witness()
        if witness < 0:
            return False
        try:
            return not has_ended(witness, 0)
        finally:
            os.close(witness)

    def has_stragglers(self) -> bool:
        """Whether a process is left that sees the sandbox's mounts. Only where it shares a pid namespace can one be."""
        for pid in filter(str.isdigit, os.listdir("/proc") if self.pid_namespace is None else ()):
            try:
                if os.stat(f"/proc/{pid}/ns/mnt").st_ino == self.mount_namespace:
                    return True
            except OSError:
                continue
        return False


def told(text: bytes) -> Told | None:
    """What `--info-fd` or `--json-status-fd` has written; None as long as it is not complete."""
    document, closing, _ = text.partition(b"}")
    pid = _number(document, b'"child-pid": ') if closing else None
    if pid is None:
        return None
    return Told(pid, _number(document, b'"pid-namespace": '), _number(document, b'"mnt-namespace": ') or 0)


def _number(document: bytes, name: bytes) -> int | None:
    digits = document.partition(name)[2].partition(b",")[0].strip()
    return int(digits) if digits.isdigit() else None


def opened(pid: int) -> int:
    """A pidfd; -1 if there is no such process."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def has_ended(witness: int, wait_s: float) -> bool:
    """Whether a pidfd tells of an end, at the latest after a while."""
    import select

    return bool(select.select([witness], [], [], wait_s)[0])


def kill_by(witness: int) -> None:
    """Kill what a pidfd stands for, if it is not dead yet."""
    try:
        signal.pidfd_send_signal(witness, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # PermissionError: another user's process. Then it is not the one that was meant, which is gone.
        pass


class Init:
    """One sandbox's, followed by who starts it. Made before bubblewrap is started, which is given `descriptors`.

    bubblewrap writes into a file of ours. It was a pipe: when we were killed, bubblewrap died of writing to it
    (SIGPIPE), and its init, which it had not yet told to go on, waited for ever.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("init")
        self._told: Told | None = None
        self._end = -1

    @property
    def descriptors(self) -> dict[int, int]:
        """bubblewrap's number for our file."""
        return {STATUS_FD: self._file}

    def told(self) -> Told | None:
        """Which it is; None while bubblewrap has not told it."""
        if self._told is None:
            self._told = told(os.pread(self._file, 4096, 0))
        return self._told

    def executed(self) -> bool:
        """bubblewrap has ended: whether the command had begun. It reports no code of one that could not."""
        return b'"exit-code"' in os.pread(self._file, 4096, 0)

    def awaited(self, goes_on: Callable[[], bool]) -> Told | None:
        """Which it is, as soon as that is told; None if bubblewrap has ended before.

        Args:
            goes_on: Whether bubblewrap still runs.
        """
        while (which := self.told()) is None:
            if not goes_on():
                return self.told()
            time.sleep(_STEP_S)
        return which

    def end(self) -> int:
        """bubblewrap has ended, just now. A descriptor that can be read when its init has; -1 if it has already."""
        if self._end < 0 and (which := self.told()) is not None:
            self._end = opened(which.pid)
        return self._end

    def insist(self) -> bool:
        """Kill an init that has not ended with its bubblewrap: a command that may trace can keep it from that.

        Returns:
            False if it is gone, and the descriptor is that of a process which has the pid now.
        """
        which = self.told()
        if which is None or self._end < 0 or not which.is_there():
            return False
        kill_by(self._end)
        return True

    def wait(self) -> bool:
        """bubblewrap has ended: wait until its sandbox has. False: it has not, and what it masks has to stay."""
        end = self.end()
        gone = end < 0 or has_ended(end, BY_ITSELF_S) or not self.insist() or has_ended(end, KILLED_S)
        return gone and self.is_alone()

    def is_alone(self) -> bool:
        """The init has ended: whether nobody is left behind that sees the sandbox's mounts."""
        which = self.told()
        return which is None or not which.has_stragglers()

    def close(self) -> None:
        for descriptor in (self._file, self._end):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._end = -1


def end(pid: int, number: int) -> None:
    """End a bubblewrap in such a way that when it has ended, all in its sandbox has: by its init, which it waits for.

    Killed itself it ends at once, and for a moment the command runs on, while its masks are taken away already; or for
    ever, if it was about to clone its init. So it is stopped first: then it has one or has none.

    Args:
        pid: A child of ours that is not reaped yet.
        number: The signal for a bubblewrap that has no init yet.
    """
    if not _sent(pid, signal.SIGSTOP):
        return
    _await_stop(pid)
    inits = _children(pid)
    for init in inits:
        _sent(init, signal.SIGKILL)
    if not inits:
        _sent(pid, number)
    # What is pending is taken before anything of it runs.
    _sent(pid, signal.SIGCONT)


def _sent(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + _STOP_S
    while os.waitid(os.P_PID, pid, _STOPPED_OR_ENDED) is None and time.monotonic() < deadline:
        time.sleep(_STEP_S / 5)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        # It is gone; or the kernel was made without CONFIG_PROC_CHILDREN, and the children are to be looked for.
        return [int(child) for child in filter(str.isdigit, os.listdir("/proc")) if _parent(child) == pid]


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the command, in brackets, may hold anything.
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return -1


def _is_ours(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            user = file.read().partition(b"\nUid:")[2].split(None, 1)[0]
    except (OSError, IndexError):
        return False
    return int(user) == os.geteuid()
