"""Threads on disk, under CODEX_HOME, as the original lays them out.

`sessions/YYYY/MM/DD/rollout-<time>-<id>.jsonl`, and archived ones in `archived_sessions/`. A thread that is loaded is
locked (flock(2)), so that two processes never write one file.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.core.rollout import FORMAT, META, NotAThread, StoredThread, line, read

logger = logging.getLogger(__name__)

# A look at a file for the list reads no more than this of its beginning.
_LOOK_BYTES = 256 * 1024


class ThreadNotStored(LookupError):
    """There is no file of this thread."""


class ThreadArchived(LookupError):
    """Its file is in the archive."""


class ThreadBusy(Exception):
    """Another process has it loaded, or it is being unloaded here."""


class StoreFailed(Exception):
    """The disk does not let us; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a thread."""

    path: Path
    archived: bool


class Journal:
    """Appends the lines of one thread. Made at once, its file with the first line that is worth it.

    Args:
        meta: What the first line says.
        exists: There is a file, which is gone on with.

    Each line is written when it is told, in one write: after a kill -9 at most the last one is torn.
    """

    def __init__(self, path: Path, meta: Callable[[], dict[str, Any]], *, exists: bool = False) -> None:
        self.path = path
        self._meta = meta
        self._exists = exists
        self._file = -1
        self._is_torn = exists  # whether the last line may lack its end
        self.problem: str | None = None
        self.lines = 0  # that were written

    def write(self, kind: str, payload: Any) -> None:
        """Append one line. After a failure nothing more is written, and `problem` says why; the thread goes on."""
        if self.problem is not None:
            return
        try:
            if self._file < 0:
                self._open()
            if self._is_torn:
                _end_torn_line(self.path, self._file)
                self._is_torn = False
            _write_all(self._file, line(kind, payload, _now()))
            self.lines += 1
        except (OSError, ThreadBusy, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            self.problem = f"the thread is not saved any more: {self.path.name}: {reason}"
            logger.error("%s", self.problem)

    def lock(self) -> None:
        """Take the file for this process.

        Raises:
            ThreadBusy: Another has it.
            OSError: It cannot be opened.
        """
        if self._file < 0 and self._exists:
            self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self.path, flags | (0 if self._exists else os.O_CREAT | os.O_EXCL), 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ThreadBusy("another process has this thread loaded; end it there first") from None
            if not self._exists:
                _write_all(file, line(META, {**self._meta(), "countersign": FORMAT}, _now()))
        except BaseException:
            os.close(file)
            if not self._exists:  # what has no first line is no thread, and would be in the way of its name
                self.path.unlink(missing_ok=True)
            raise
        self._file, self._exists = file, True

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a file yet."""
        return self._exists

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.write(file, data[written:])


def _end_torn_line(path: Path, file: int) -> None:
    """What comes next must begin a line of its own."""
    with open(path, "rb") as content:
        size = content.seek(0, os.SEEK_END)
        if size:
            content.seek(size - 1)
            if content.read(1) != b"\n":
                _write_all(file, b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """The threads under one CODEX_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._sessions = home / "sessions"
        self._archive = home / "archived_sessions"

    def path_of(self, thread_id: str, created_at: int) -> Path:
        """Where the file of a new thread goes."""
        when = datetime.fromtimestamp(created_at).astimezone()
        return self._sessions / f"{when:%Y/%m/%d}" / f"rollout-{when:%Y-%m-%dT%H-%M-%S}-{thread_id}.jsonl"

    def find(self, thread_id: str) -> Found:
        """Raises ThreadNotStored."""
        for base, archived in ((self._sessions, False), (self._archive, True)):
            for path in base.rglob(f"rollout-*-{thread_id}.jsonl"):
                return Found(path, archived)
        raise ThreadNotStored(thread_id)

    def path_to_load(self, thread_id: str) -> Path:
        """The file of a thread that can be gone on with.

        Raises:
            ThreadNotStored, ThreadArchived: There is none.
        """
        found = self.find(thread_id)
        if found.archived:
            raise ThreadArchived(thread_id)
        return found.path

    def read(self, found: Found, *, whole: bool = True) -> StoredThread:
        """What the file of a thread says.

        Args:
            whole: False where it is being written: a turn that has no end yet is not over then.

        Raises:
            StoreFailed: It cannot be used.
        """
        try:
            with open(found.path, "rb") as file:
                thread = read(file, whole=whole)
                thread.updated_at = int(os.fstat(file.fileno()).st_mtime)
        except OSError as exc:
            raise StoreFailed(f"the thread's file {found.path.name} cannot be read: {exc.strerror}") from exc
        except NotAThread as exc:
            raise StoreFailed(f"the thread's file {found.path.name} cannot be used: {exc}") from exc
        for problem in thread.problems:
            logger.warning("thread %s: %s", thread.id, problem)
        return thread

    def look(self, *, archived: bool) -> Iterator[tuple[StoredThread, Found]]:
        """The beginnings of all threads; files that are no threads of ours are passed over."""
        base = self._archive if archived else self._sessions
        for path in base.rglob("rollout-*.jsonl"):
            with contextlib.suppress(OSError, NotAThread):
                with open(path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    thread = read(file.readlines(_LOOK_BYTES), whole=size <= _LOOK_BYTES)
                    thread.updated_at = int(os.fstat(file.fileno()).st_mtime)
                    if size > _LOOK_BYTES:
                        _look_at_end(file, size, thread)
                yield thread, Found(path, archived)

    def move(self, found: Found, *, archived: bool) -> Path:
        """Into the archive, or back.

        Raises:
            StoreFailed: The disk does not let us.
        """
        if archived:
            target = self._archive / found.path.name
        else:
            date = found.path.name.removeprefix("rollout-")[:10].split("-")
            target = self._sessions.joinpath(*date) / found.path.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.rename(found.path, target)
        except OSError as exc:
            raise StoreFailed(f"the thread's file {found.path.name} cannot be moved: {exc.strerror}") from exc
        return target

    def delete(self, found: Found) -> None:
        """Raises StoreFailed."""
        try:
            found.path.unlink()
        except OSError as exc:
            raise StoreFailed(f"the thread's file {found.path.name} cannot be deleted: {exc.strerror}") from exc


def _look_at_end(file: Any, size: int, thread: StoredThread) -> None:
    """What may have been updated since: names, read states. Only the end of a long file is looked at."""
    file.seek(max(size - _LOOK_BYTES, _LOOK_BYTES))
    file.readline()
    first = line(META, thread.meta, "")
    rest = read([first, *file], whole=False)
    thread.meta, thread.read_state = rest.meta, rest.read_state or thread.read_state
