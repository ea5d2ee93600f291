"""The directory of one run: keys and sockets live there, and nothing of it outlives the process for long."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_PREFIX = "run-"
_LOCK = "lock"
# In the lock file: only what says so was made here, and may be removed.
_MAGIC = b"The directory of one run of countersign. It is removed when the run has ended.\n"


class RunDirectory:
    """A 0700 directory that is removed when the run ends; a run that was killed is swept up by the next one.

    The directory holds a locked file for as long as its process lives (flock(2)), which the kernel gives up also
    after SIGKILL. That, and not a pid that may belong to another process by now, tells the living from the dead. Runs
    lie in a private directory of their own, "countersign-runs-UID" in the runtime or temp directory: nothing outside
    of it is ever looked at, and in it only what holds our lock file is removed. Sandboxes hide these directories by
    name (agent.sandbox.host), so runs are never put anywhere else.

    Raises:
        OSError: There is no place for it; says what is wrong with each.
    """

    def __init__(self) -> None:
        parent = _parent()
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        # Renamed once it is locked: a sweeper that found it unlocked would take this run for a dead one.
        unlocked = self.path / "lock.new"
        self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._lock, _MAGIC)
        unlocked.rename(self.path / _LOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it now, with everything in it. A second call does nothing."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def _parent() -> Path:
    """The first place for runs that is ours alone. One that somebody else has made or opened is passed over."""
    passed_over = []
    for base in _bases():
        parent = base / f"countersign-runs-{os.geteuid()}"
        wrong = _made_private(parent)
        if wrong is None:
            return parent
        passed_over.append(f"{str(parent)!r} {wrong}")
    raise OSError(
        f"no private directory can be made for the keys and sockets of a run: {'; '.join(passed_over)}; "
        "remove what is in the way, or let XDG_RUNTIME_DIR name a directory of mode 0700 that is yours"
    )


def _bases() -> Iterator[Path]:
    """$XDG_RUNTIME_DIR where it is ours (a private tmpfs on most desktops), then the machine's temp directories.

    $TMPDIR comes last: it may name a place of the user's in which tools work, and other runs may have another one.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.path.isdir(runtime):
        status = os.stat(runtime)
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            yield Path(os.path.normpath(runtime))
    yield from (Path("/tmp"), Path("/var/tmp"))
    for named in (os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")):
        if named.startswith("/"):
            yield Path(os.path.normpath(named))


def _made_private(parent: Path) -> str | None:
    """Make it if it is not there; what keeps it from being a directory of ours that nobody else may enter."""
    try:
        parent.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as exc:
        return f"cannot be made: {exc.strerror}"
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is no directory"
    if status.st_uid != os.geteuid():
        return "belongs to somebody else"
    return f"is open to others (mode {stat.S_IMODE(status.st_mode):o})" if status.st_mode & 0o077 else None


def _sweep(parent: Path) -> None:
    for path in parent.glob(_PREFIX + "*"):
        try:
            if stat.S_ISDIR(path.lstat().st_mode) and _is_dead_run(path):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # another run is sweeping the same directory, or it is none of ours


def _is_dead_run(path: Path) -> bool:
    """Whether a lock file of ours is in it, and nobody holds it. Raises OSError if there is none."""
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.read(descriptor, len(_MAGIC) + 1) != _MAGIC:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
