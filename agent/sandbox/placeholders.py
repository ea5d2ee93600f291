"""Empty files and directories that stand on the disk while something missing is masked, and who still needs them.

To keep `.git` from being created, something must be mounted on it, and so something must be there: an empty directory,
made for the launch and removed after it. Launches on one workspace share it. Each launch keeps a record of what it
needs. It lives, and what it needs stays, as long as one of three is there:

* its launcher, which holds a lock (flock(2)) on the record, by a descriptor that it passes to no command;
* a bubblewrap that has just been started, or its init: they hold one on another file. A command can take that one away
  (pidfd_getfd(2) on its init), so it counts only for a launch whose launcher died before any command ran;
* the init that bubblewrap named in the record before it let the command go.

So what is left is removed when the whole sandbox is gone, also after SIGKILL, by the last launch that needed it or by
whoever comes later.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from agent.sandbox.init import Told, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    type _Key = tuple[str, int, int]

# The lock over the records is held for less than a millisecond, but for launches with very many placeholders.
_WAIT_S = 5.0
# As long as an event loop may stand still for it.
_AT_ONCE_S = 0.002
_STEP_S = 0.0002
# CLOCK_REALTIME_COARSE of linux/time.h, which file times are taken from; it is up to 10 ms behind the usual one.
_FILE_CLOCK = 5
# Outside of the sandbox its owner may fill it, with `git init` say, while a command runs; inside it is read-only.
_DIRECTORY_MODE = 0o755


class Stale(Exception):
    """What the plan saw on the disk is not there any more: plan again."""


class Busy(Exception):
    """Another process has the lock over the records: also a confined one can that may read our files."""


class Placeholders:
    """The records in one state directory.

    Args:
        wait_s: How long those who are patient wait for the lock over them.

    Attributes:
        directory: Where they are, each named after the pid of its launcher and the time.
    """

    def __init__(self, directory: str, wait_s: float = _WAIT_S) -> None:
        self.wait_s = wait_s
        self.directory = f"{directory}/launches"
        # Not the records themselves: what bubblewrap's init holds open, a command opens by /proc/1/fd, for writing too.
        self._locks = f"{directory}/alive"
        for made in (self.directory, self._locks):
            try:
                os.mkdir(made, 0o700)
            except FileExistsError:
                pass

    def hold(self, wanted: Sequence[tuple[str, bool]], masked: Iterable[str], patient: bool = True) -> Hold:
        """Make what is missing and note what is needed, until the result is released.

        Args:
            wanted: Paths to make, and whether as a directory (else as an empty file).
            masked: All paths that the launch masks; what is there and is another launch's placeholder is held too.
            patient: Wait for the lock, and not for two milliseconds only.

        Raises:
            Stale: One of `masked` is gone, or one of `wanted` is there now and is nobody's placeholder.
            Busy: The lock was not to be had. Nothing was made.
            OSError: One cannot be made (the disk is full, no permission); those made before are removed again.
        """
        lock = _Lock(f"{self.directory}.lock")
        try:
            lock.take(self.wait_s if patient else _AT_ONCE_S)
            hold = self._hold(wanted, masked, lock)
            lock.give_up()
        except BaseException:
            lock.close()
            raise
        return hold

    def _hold(self, wanted: Sequence[tuple[str, bool]], masked: Iterable[str], lock: _Lock) -> Hold:
        claimed = self._sweep()
        missing, concerned = dict(wanted), {path for path, _ in wanted} | set(masked)
        for path in concerned:
            if path not in missing and not os.path.lexists(path):
                raise Stale(path)
        # One that somebody took away meanwhile is made anew, and its first holder's claim is void.
        needed = {claim.path: claim for claim in claimed.values() if claim.path in concerned and claim.stands()}
        made = [_Claim(path, directory) for path, directory in missing.items() if path not in needed]
        hold = Hold(self, f"{self.directory}/{os.getpid()}-{time.monotonic_ns()}", lock, needed)
        try:
            hold.begin()
            # Noted before they are made: if we are killed in between, the sweeper knows where to look.
            _write(hold.record, [*needed.values(), *made])
            for claim in made:
                try:
                    claim.make()
                finally:
                    if claim.inode:
                        needed[claim.path] = claim
            _write(hold.record, made)
        except BaseException as exc:
            _remove(claim for claim in needed.values() if claim.key not in claimed)
            self._drop(hold.name)
            hold.leave()
            if isinstance(exc, FileExistsError):
                raise Stale(str(exc)) from exc
            raise
        return hold

    def release(self, hold: Hold) -> None:
        """Drop a record and remove what no other launch needs. What has been filled by somebody stays.

        The lock over the records is held: until it is given up nobody takes the launch for dead.
        """
        claimed = self._sweep(mine=hold.name)
        _remove(claim for claim in hold.claims.values() if claim.key not in claimed)
        self._drop(hold.name)

    def sweep(self) -> None:
        """Remove what killed launches left.

        Raises:
            Busy: The lock was not to be had.
        """
        lock = _Lock(f"{self.directory}.lock")
        try:
            lock.take(self.wait_s)
            self._sweep()
        finally:
            lock.close()

    def lock_of(self, name: str) -> str:
        return f"{self._locks}/{name.rpartition('/')[2]}"

    def _drop(self, name: str) -> None:
        for path in (self.lock_of(name), name):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def _sweep(self, mine: str | None = None) -> dict[_Key, _Claim]:
        """What living launches claim; records of the dead are dropped, and what only they claimed removed."""
        living: dict[_Key, _Claim] = {}
        dead: dict[_Key, _Claim] = {}
        for entry in os.listdir(self.directory):
            name = f"{self.directory}/{entry}"
            if name == mine:
                continue
            text, alive = _read(name)
            alive = alive or not _is_free(self.lock_of(name))
            if not alive and (which := told_in(text)) is not None:
                alive = which.lives()
            found = living if alive else dead
            for claim in _claims(text):
                found[claim.key] = claim
            if not alive:
                self._drop(name)
        needed = {claim.path for claim in living.values()}
        _remove(claim for key, claim in dead.items() if key not in living and (claim.inode or claim.path not in needed))
        return living


class Hold:
    """One launch's record and locks.

    Attributes:
        name: The record file.
        files: That and the other one: who else than the launcher has one of them open belongs to the sandbox.
        record: Open on it, with the launcher's lock; for bubblewrap (`--info-fd`), which keeps it from its child.
        descriptor: Open on an empty file that is only there to be locked; for the sandbox's init (`--sync-fd`).
        claims: What is needed, by path.
    """

    def __init__(self, owner: Placeholders, name: str, lock: _Lock, claims: dict[str, _Claim]) -> None:
        self._owner = owner
        # Kept open: at the end there may be no descriptor left to be had.
        self._lock = lock
        self.name = name
        self.files = {name, owner.lock_of(name)}
        self.record = -1
        self.descriptor = -1
        self.claims = claims

    def begin(self) -> None:
        """Make the files.

        Raises:
            Busy: Somebody watches for them, and has locked them before us.
        """
        flags = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.record = os.open(self.name, os.O_WRONLY | os.O_APPEND | flags, 0o600)
        self.descriptor = os.open(self._owner.lock_of(self.name), os.O_RDWR | flags, 0o600)
        if not (_is_locked(self.record) and _is_locked(self.descriptor)):
            raise Busy

    def release(self, patient: bool = True) -> bool:
        """The sandbox is gone: remove what only it needed. A second call does nothing. To be followed by `close`.

        What cannot be removed now (no lock in time, no descriptors) is left to whoever comes later.

        Returns:
            False if that would mean to wait for more than two milliseconds and the caller is not patient. Nothing is
            changed then.
        """
        if self.descriptor < 0:
            return True
        try:
            self._lock.take(self._owner.wait_s if patient else _AT_ONCE_S)
        except Busy:
            if patient:
                self.leave()
            return patient
        try:
            self._close()
            self._owner.release(self)
        except OSError:
            pass
        finally:
            self._lock.close()
        return True

    def leave(self) -> None:
        """Without removing anything: that is for whoever comes when the sandbox is gone."""
        self._close()
        self._lock.close()
        self.close()

    def close(self) -> None:
        """Give back what it was all about, once it is released. That takes longer than the release, and can wait."""
        for claim in self.claims.values():
            if claim.kept >= 0:
                os.close(claim.kept)
                claim.kept = -1

    def _close(self) -> None:
        for descriptor in (self.record, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self.record = self.descriptor = -1


class _Claim:
    """A placeholder: its path, and which inode it is once made; while that is kept no other gets its number."""

    def __init__(self, path: str, directory: bool, device: int = 0, inode: int = 0, since_ns: int = 0) -> None:
        self.path = path
        self.directory = directory
        self.device = device
        self.inode = inode
        self.since_ns = since_ns or time.clock_gettime_ns(_FILE_CLOCK)
        # Open on it. Most of what a directory's removal takes is done only when this is closed.
        self.kept = -1

    @property
    def key(self) -> _Key:
        """Which one it is, also among several that stood at one path one after the other."""
        return self.path, self.device, self.inode

    def stands(self) -> bool:
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def make(self) -> None:
        if self.directory:
            os.mkdir(self.path, _DIRECTORY_MODE)
        else:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        try:
            self.kept = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            status = os.fstat(self.kept)
        except OSError:  # no descriptor left: it is removed all the same
            status = os.lstat(self.path)
        self.device, self.inode = status.st_dev, status.st_ino
        if self.directory and status.st_mode & 0o777 != _DIRECTORY_MODE:
            # A umask; not by the path, where somebody may have put a link meanwhile.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.fchmod(descriptor, _DIRECTORY_MODE)
            os.close(descriptor)

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
        return f"{self.device} {self.inode} {self.since_ns} {int(self.directory)} {os.fsencode(self.path).hex()}\n"


def _remove(claims: Iterable[_Claim]) -> None:
    # The inner before the outer, which would not be empty.
    for claim in sorted(claims, key=lambda claim: claim.path, reverse=True):
        claim.remove()


def _write(record: int, claims: Iterable[_Claim]) -> None:
    text = "".join(claim.line() for claim in claims).encode()
    while text:
        # On a full disk a part may be taken; the next attempt then says so.
        text = text[os.write(record, text) :]


def _read(name: str) -> tuple[bytes, bool]:
    """A record, and whether its launcher has its lock."""
    with open(name, "rb", buffering=0) as file:
        # The lock before the content: a bubblewrap that has yet to write there has the lock, too.
        alive = not _is_locked(file.fileno())
        return file.read(), alive


def _claims(text: bytes) -> Iterable[_Claim]:
    """Of each path the last. What was cut off in writing has no end of line, or is no line of ours."""
    claims: dict[str, _Claim] = {}
    for line in text.split(b"\n")[:-1]:
        try:
            device, inode, since_ns, directory, quoted = line.decode("ascii").split(" ")
            path = os.fsdecode(bytes.fromhex(quoted))
            claims[path] = _Claim(path, directory == "1", int(device), int(inode), since_ns=int(since_ns))
        except ValueError:
            continue
    return claims.values()


def told_in(text: bytes) -> Told | None:
    """What bubblewrap has added to a record."""
    return told(text[max(text.find(b"{"), 0) :])


def _is_free(lock: str) -> bool:
    try:
        with open(lock, "rb", buffering=0) as file:
            return _is_locked(file.fileno())
    except FileNotFoundError:
        return True


def _is_locked(descriptor: int) -> bool:
    """Lock a file, if nobody else has; whether it is locked by this descriptor now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Lock:
    """The lock over all records. Each holder opens the file for itself: so it also keeps threads apart."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, wait_s: float) -> None:
        """
        Raises:
            Busy: Somebody else had it all the while.
        """
        deadline = 0.0
        while not _is_locked(self._descriptor):
            now = time.monotonic()
            deadline = deadline or now + wait_s
            if now >= deadline:
                raise Busy
            time.sleep(_STEP_S)

    def give_up(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
