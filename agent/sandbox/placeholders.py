"""Empty files and directories that stand on the disk while something missing is masked, and who still needs them.

To keep `.git` from being created, something must be mounted on it, and so something must be there: an empty directory,
made for the launch and removed after it. Launches on one workspace share it. Each launch keeps a record file that names
what it needs, and holds a lock (flock(2)), together with bubblewrap's init: the lock is free only when the whole
sandbox is gone, also after SIGKILL. The last one removes; whoever comes later sweeps up after the killed.

This module imports nothing of ours, because it is also run by itself, as an agent's guardian (`python FILE DIR PID`).
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    type _Key = tuple[str, int, int]

# A killed launch's processes die within microseconds of its lock's release; before that its masks must stay.
_GRACE_S = 0.05
_GUARD_S = 10.0
# CLOCK_REALTIME_COARSE of linux/time.h, which file times are taken from; it is up to 10 ms behind the usual one.
_FILE_CLOCK = 5


class Stale(Exception):
    """What the plan saw on the disk is not there any more: plan again."""


class Placeholders:
    """The records in one state directory."""

    def __init__(self, directory: str) -> None:
        self._directory = f"{directory}/launches"
        # Not the records themselves: what bubblewrap's init holds open, a tool opens by /proc/1/fd, and for writing.
        self._locks = f"{directory}/alive"
        for made in (self._directory, self._locks):
            os.makedirs(made, 0o700, exist_ok=True)

    def hold(self, wanted: Sequence[tuple[str, bool]], masked: Iterable[str]) -> Hold:
        """Make what is missing and note what is needed, until the result is released.

        Args:
            wanted: Paths to make, and whether as a directory (else as an empty file).
            masked: All paths that the launch masks; what is there and is another launch's placeholder is held too.

        Raises:
            Stale: One of `masked` is gone, or one of `wanted` is there now and is nobody's placeholder.
            OSError: One cannot be made (the disk is full, no permission); those made before are removed again.
        """
        with self._lock():
            claimed = self._sweep()
            missing, concerned = dict(wanted), {path for path, _ in wanted} | set(masked)
            for path in concerned:
                if path not in missing and not os.path.lexists(path):
                    raise Stale(path)
            # One that somebody took away meanwhile is made anew, and its first holder's claim is void.
            needed = {claim.path: claim for claim in claimed.values() if claim.path in concerned and claim.stands()}
            name = f"{self._directory}/{os.getpid()}-{time.monotonic_ns()}"
            record = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            descriptor = -1
            try:
                descriptor = os.open(self.lock_of(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Written before they are made: if we are killed in between, the sweeper knows where to look.
                made = {path: _Claim(path, directory) for path, directory in missing.items() if path not in needed}
                _write(record, [*needed.values(), *made.values()])
                for path, claim in made.items():
                    claim.make()
                    needed[path] = claim
                _write(record, needed.values())
            except BaseException as exc:
                _remove(claim for claim in needed.values() if claim.key not in claimed)
                self._drop(name)
                if descriptor >= 0:
                    os.close(descriptor)
                if isinstance(exc, FileExistsError):
                    raise Stale(str(exc)) from exc
                raise
            finally:
                os.close(record)
            return Hold(self, name, descriptor, needed)

    def release(self, hold: Hold) -> None:
        """Drop a record and remove what no other launch needs. What has been filled by somebody stays."""
        with self._lock():
            claimed = self._sweep(mine=hold.name)
            _remove(claim for claim in hold.claims.values() if claim.key not in claimed)
            self._drop(hold.name)

    def sweep(self) -> None:
        """Remove what killed launches left."""
        with self._lock():
            self._sweep()

    def end(self, launcher: int) -> None:
        """Kill what still holds a lock of a dead launcher's, and wait for its end.

        bubblewrap asks to die with its parent once it runs (PR_SET_PDEATHSIG), and its child only when it is told to go
        on: whoever is orphaned before that would wait, or run the command, for ever.
        """
        import select
        import signal

        locks = {f"{self._locks}/{name}" for name in os.listdir(self._locks) if name.startswith(f"{launcher}-")}
        for pid in _holders(locks) - {os.getpid(), launcher}:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                # Of a pid namespace's init the end is told when all others in it are dead.
                select.select([descriptor], [], [], _GUARD_S)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)

    def lock_of(self, name: str) -> str:
        return f"{self._locks}/{name.rpartition('/')[2]}"

    def _drop(self, name: str) -> None:
        for path in (self.lock_of(name), name):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def _lock(self) -> _Locked:
        return _Locked(f"{self._directory}.lock")

    def _sweep(self, mine: str | None = None) -> dict[_Key, _Claim]:
        """What living launches claim; records of the dead are dropped, and what only they claimed removed."""
        living: dict[_Key, _Claim] = {}
        dead: dict[_Key, _Claim] = {}
        for entry in os.listdir(self._directory):
            name = f"{self._directory}/{entry}"
            if name == mine:
                continue
            alive = not _is_free(self.lock_of(name))
            found = living if alive else dead
            for claim in _read(name):
                found[claim.key] = claim
            if not alive:
                self._drop(name)
        needed = {claim.path for claim in living.values()}
        leftovers = [
            claim for key, claim in dead.items() if key not in living and (claim.inode or claim.path not in needed)
        ]
        if leftovers:
            time.sleep(_GRACE_S)
        _remove(leftovers)
        return living


class Hold:
    """One launch's record and lock. The descriptor is to be given to the sandbox's init (`--sync-fd`).

    Attributes:
        name: The record file.
        descriptor: Open on an empty file that is only there to be locked, with the lock.
        claims: What is needed, by path.
    """

    def __init__(self, owner: Placeholders, name: str, descriptor: int, claims: dict[str, _Claim]) -> None:
        self._owner = owner
        self.name = name
        self.descriptor = descriptor
        self.claims = claims

    def release(self) -> None:
        """The sandbox is gone: remove what only it needed. A second call does nothing."""
        if self.descriptor < 0:
            return
        try:
            self._owner.release(self)
        finally:
            os.close(self.descriptor)
            self.descriptor = -1


class _Claim:
    """A placeholder: its path, and which inode it is once made."""

    def __init__(self, path: str, directory: bool, device: int = 0, inode: int = 0, since_ns: int = 0) -> None:
        self.path = path
        self.directory = directory
        self.device = device
        self.inode = inode
        self.since_ns = since_ns or time.clock_gettime_ns(_FILE_CLOCK)

    @property
    def key(self) -> _Key:
        """Which one it is, also among several that stood at one path one after the other."""
        return self.path, self.device, self.inode

    def stands(self) -> bool:
        """Whether it is still there."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def make(self) -> None:
        if self.directory:
            os.mkdir(self.path, 0o755)
        else:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        status = os.lstat(self.path)
        self.device, self.inode = status.st_dev, status.st_ino

    def remove(self) -> None:
        """Remove it if it is still the one that was made, and empty. What somebody has put in its place is theirs."""
        try:
            status = os.lstat(self.path)
            same = (status.st_dev, status.st_ino) == (self.device, self.inode)
            # Killed between making and noting: ours is what appeared there after we said we would make it.
            appeared = not self.inode and status.st_uid == os.geteuid() and status.st_ctime_ns >= self.since_ns
            if not (same or appeared):
                return
            if self.directory:
                os.rmdir(self.path)
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(self.path)
        except OSError:
            return

    def line(self) -> str:
        """As in a record; the path comes last and is quoted, since it may hold anything but NUL."""
        quoted = os.fsencode(self.path).hex()
        return f"{self.device} {self.inode} {self.since_ns} {int(self.directory)} {quoted}\n"


def _remove(claims: Iterable[_Claim]) -> None:
    # The inner before the outer, which would not be empty.
    for claim in sorted(claims, key=lambda claim: claim.path, reverse=True):
        claim.remove()


def _write(descriptor: int, claims: Iterable[_Claim]) -> None:
    text = "".join(claim.line() for claim in claims).encode()
    written = 0
    while written < len(text):
        # On a full disk a part may be taken; the next attempt then says so.
        written += os.pwrite(descriptor, text[written:], written)
    os.ftruncate(descriptor, written)


def _read(name: str) -> Iterator[_Claim]:
    with open(name, encoding="ascii") as file:
        lines = file.read().splitlines()
    for line in lines:
        words = line.split(" ")
        if len(words) == 5:
            device, inode, since_ns, directory, path = words
            yield _Claim(
                os.fsdecode(bytes.fromhex(path)), directory == "1", int(device), int(inode), since_ns=int(since_ns)
            )


def _holders(locks: set[str]) -> set[int]:
    """The processes that have one of these files open."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc") if locks else ()):
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") in locks:
                    found.add(int(pid))
            except OSError:
                continue
    return found


def _is_free(lock: str) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


class _Locked:
    """The lock over all records, as a context."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def guard(lifeline: int, directory: str, launcher: int, wait: Callable[[float], None] = time.sleep) -> None:
    """Wait until the other end of a pipe is closed; unless a byte came first (all was released), sweep up.

    Args:
        lifeline: The reading end. The writing end lives in the process that launches, and nowhere else.
        launcher: The pid of that process, whose records are to be gone in the end.
    """
    if os.read(lifeline, 1):
        return
    records = Placeholders(directory)
    deadline = time.monotonic() + _GUARD_S
    # The sandboxes die with their launcher, but not in the same instant, and one that was just starting not at all.
    while time.monotonic() < deadline:
        records.end(launcher)
        records.sweep()
        if not any(name.startswith(f"{launcher}-") for name in os.listdir(f"{directory}/launches")):
            return
        wait(0.02)


if __name__ == "__main__":
    guard(0, sys.argv[1], int(sys.argv[2]))
