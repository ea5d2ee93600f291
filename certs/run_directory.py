"""The directory of one run: keys and sockets live there, and nothing of it outlives the process for long."""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PREFIX = "countersign-"
_LOCK = "lock"
# A directory without its lock is either being made this moment, or was left by a process killed in that moment.
_SETTLED_S = 60.0


class RunDirectory:
    """A 0700 directory that is removed when the run ends; a run that was killed is swept up by the next one.

    The directory holds a locked file for as long as its process lives (flock(2)), which the kernel gives up also
    after SIGKILL. That, and not a pid that may belong to another process by now, tells the living from the dead.
    """

    def __init__(self) -> None:
        base = _base()
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        # Renamed once it is locked: a sweeper that found it unlocked would take this run for a dead one.
        unlocked = self.path / "lock.new"
        self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _base() -> Path:
    """$XDG_RUNTIME_DIR where it is ours (a private tmpfs on most desktops), else the temp directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime):
        status = os.stat(runtime)
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return Path(runtime)
    return Path(tempfile.gettempdir())


def _sweep(base: Path) -> None:
    for path in base.glob(_PREFIX + "*"):
        try:
            status = path.lstat()
            if status.st_uid != os.geteuid() or not path.is_dir() or path.is_symlink():
                continue
            if _abandoned(path, status.st_mtime):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # another run is sweeping the same directory


def _abandoned(path: Path, changed_at: float) -> bool:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return time.time() - changed_at > _SETTLED_S
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
