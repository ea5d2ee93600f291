"""Empty files and directories that stand on the disk while something missing is masked, and who still needs them.

To keep `.git` from being created, something must be mounted on it, and so something must be there: an empty directory,
made for the launch and removed after it. Launches on one workspace share it. Each launch keeps a record file that names
what it needs and holds a lock on it (flock(2)), together with bubblewrap's init: the lock is free only when the whole
sandbox is gone, also after SIGKILL. The last one removes; whoever comes later sweeps up after the killed.

This module imports nothing of ours, because it is also run by itself, as the guardian of an agent (`python FILE DIR`).
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

# A killed launch's processes die within microseconds of its lock's release; before that its masks must stay.
_GRACE_S = 0.05
_GUARD_S = 10.0


class Stale(Exception):
    """What the plan saw on the disk is not there any more: plan again."""


class Placeholders:
    """The records in one state directory."""

    def __init__(self, directory: str) -> None:
        self._directory = f"{directory}/launches"
        os.makedirs(self._directory, 0o700, exist_ok=True)

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
            needed = {path: claim for path, claim in claimed.items() if path in concerned}
            name = f"{self._directory}/{os.getpid()}-{time.monotonic_ns()}"
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Written before they are made: if we are killed in between, the sweeper knows where to look.
                made = {path: _Claim(path, directory) for path, directory in missing.items() if path not in needed}
                _write(descriptor, [*needed.values(), *made.values()])
                for path, claim in made.items():
                    claim.make()
                    needed[path] = claim
                _write(descriptor, needed.values())
            except BaseException as exc:
                for path, claim in needed.items():
                    if path not in claimed:
                        claim.remove()
                os.unlink(name)
                os.close(descriptor)
                if isinstance(exc, FileExistsError):
                    raise Stale(str(exc)) from exc
                raise
            return Hold(self, name, descriptor, needed)

    def release(self, hold: Hold) -> None:
        """Drop a record and remove what no other launch needs. What has been filled by somebody stays."""
        with self._lock():
            claimed = self._sweep(mine=hold.name)
            for path, claim in hold.claims.items():
                if path not in claimed:
                    claim.remove()
            os.unlink(hold.name)

    def sweep(self) -> None:
        """Remove what killed launches left."""
        with self._lock():
            self._sweep()

    def _lock(self) -> _Locked:
        return _Locked(f"{self._directory}.lock")

    def _sweep(self, mine: str | None = None) -> dict[str, _Claim]:
        """What living launches claim, by path; records of the dead are dropped, and what only they claimed removed."""
        living: dict[str, _Claim] = {}
        dead: dict[str, _Claim] = {}
        for entry in os.listdir(self._directory):
            name = f"{self._directory}/{entry}"
            if name == mine:
                continue
            descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            try:
                alive = not _is_free(descriptor)
                found = living if alive else dead
                for claim in _read(descriptor):
                    found[claim.path] = claim
                if not alive:
                    os.unlink(name)
            finally:
                os.close(descriptor)
        leftovers = [claim for path, claim in dead.items() if path not in living]
        if leftovers:
            time.sleep(_GRACE_S)
        for claim in leftovers:
            claim.remove()
        return living


class Hold:
    """One launch's record. Its descriptor is to be given to the sandbox's init (`--sync-fd`).

    Attributes:
        name: The record file.
        descriptor: Open on it, with the lock.
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
        self.since_ns = since_ns or time.time_ns()

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


def _write(descriptor: int, claims: Iterable[_Claim]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, "".join(claim.line() for claim in claims).encode(), 0)


def _read(descriptor: int) -> Iterator[_Claim]:
    size = os.fstat(descriptor).st_size
    for line in os.pread(descriptor, size, 0).decode().splitlines():
        words = line.split(" ")
        if len(words) == 5:
            device, inode, since_ns, directory, path = words
            yield _Claim(
                os.fsdecode(bytes.fromhex(path)), directory == "1", int(device), int(inode), since_ns=int(since_ns)
            )


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
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


def guard(lifeline: int, directory: str, wait: Callable[[float], None] = time.sleep) -> None:
    """Wait until the other end of a pipe is closed; unless a byte came first (all was released), sweep up.

    Args:
        lifeline: The reading end. The writing end lives in the process that launches, and nowhere else.
    """
    if os.read(lifeline, 1):
        return
    records = Placeholders(directory)
    deadline = time.monotonic() + _GUARD_S
    # The sandboxes die with their launcher, but not in the same instant.
    while time.monotonic() < deadline:
        records.sweep()
        if not os.listdir(f"{directory}/launches"):
            return
        wait(0.02)


if __name__ == "__main__":
    os.setsid()
    guard(0, sys.argv[1])
