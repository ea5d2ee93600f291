"""The folder of a run while it is written: made private, locked as long as its process lives, bounded.

Every file in it is made new (O_EXCL) and never through a symlink, relative to the folder's descriptor.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from proxy.capture.limits import Limits

FORMAT = 1
RUN_FILE = "run.json"
EXCHANGES_FILE = "exchanges.jsonl"
BODIES_DIRECTORY = "bodies"
KEY_FILE = "key"
KEY_BYTES = 32

# run.json is written at the start with this length, blanks at its end. What is known at the end then finds room in it
# on a full disk too, and is there in one write.
RUN_FILE_BYTES = 4096
_MOST_TEXT = 500

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CaptureUnavailable(OSError):
    """Nothing can be captured there; the text says why and what to do."""


class LimitReached(Exception):
    """The run is as large as it may be."""


def open_base(base: Path) -> None:
    """Make the directory of all runs, mode 0700 with all that is missing above it.

    Raises:
        CaptureUnavailable: It cannot be made, is not ours, or others may write in it.
    """
    try:
        for path in reversed((base, *base.parents)):
            with contextlib.suppress(FileExistsError):
                if not path.exists():
                    path.mkdir(0o700)
        status = base.stat()
    except OSError as exc:
        raise _unavailable(base, exc) from exc
    if not stat.S_ISDIR(status.st_mode):
        raise CaptureUnavailable(f"runs cannot be captured in {str(base)!r}: it is no directory; name another one")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise CaptureUnavailable(
            f"runs cannot be captured in {str(base)!r}: others may write there (owner {status.st_uid}, mode "
            f"{stat.S_IMODE(status.st_mode):04o}); name another directory, or `chmod 700` it if it is yours"
        )


def redaction_key(base: Path) -> bytes:
    """The key under which equal secrets of all runs have equal marks; made on first use, mode 0600.

    Raises:
        CaptureUnavailable: It cannot be made or read, or is none of ours.
    """
    path = base / KEY_FILE
    try:
        if not path.exists():
            # Linked when it is complete: two runs that start at once agree on one.
            fresh = base / f"{KEY_FILE}.{secrets.token_hex(4)}"
            _write_new(fresh, secrets.token_bytes(KEY_BYTES))
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(fresh, path)
            finally:
                fresh.unlink()
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            key = file.read(KEY_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as exc:
        raise _unavailable(path, exc) from exc
    if len(key) != KEY_BYTES or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise CaptureUnavailable(
            f"{str(path)!r} is to hold the {KEY_BYTES} bytes under which secrets are marked, for us alone, and does "
            "not; remove it to have a new one made"
        )
    return key


class RunFolder:
    """One run being written. Of all methods but `create` each may raise OSError: the disk is full, or gone.

    Attributes:
        id: The name of the folder: when it started, UTC, and four hexadecimal digits.
        facts: What is in run.json, without what is known at the end.
        lines: How many exchanges are written, each phase by itself.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], descriptors: tuple[int, int, int, int], limits: Limits):
        self.path = path
        self.id = path.name
        self.facts = facts
        self._directory, self._bodies, self._run_file, self._exchanges = descriptors
        self._limits = limits
        self.lines = 0
        self._size = 0  # of the exchanges
        self._body_size = 0

    @classmethod
    def create(
        cls, base: Path, command: str, versions: Mapping[str, str], bodies: bool, limits: Limits, now: float
    ) -> Self:
        """Make the folder of a run that starts now.

        Args:
            now: Unix time in seconds.

        Raises:
            CaptureUnavailable: It cannot be made.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        path = base / f"{moment}-{secrets.token_hex(2)}"
        opened: list[int] = []
        try:
            for _ in range(16):  # two runs of one second may draw the same digits
                with contextlib.suppress(FileExistsError):
                    path.mkdir(0o700)
                    break
                path = base / f"{moment}-{secrets.token_hex(2)}"
            opened.append(os.open(path, _DIRECTORY))
            os.mkdir(BODIES_DIRECTORY, 0o700, dir_fd=opened[0])
            opened.append(os.open(BODIES_DIRECTORY, _DIRECTORY, dir_fd=opened[0]))
            opened.append(os.open(RUN_FILE, _NEW, 0o600, dir_fd=opened[0]))
            # Whoever lists runs looks at the lock for a moment, and then this would wait for it.
            fcntl.flock(opened[2], fcntl.LOCK_EX)
            opened.append(os.open(EXCHANGES_FILE, _NEW | os.O_APPEND, 0o600, dir_fd=opened[0]))
            facts = {
                "format": FORMAT,
                "id": path.name,
                "started_at": now,
                "command": command[:_MOST_TEXT],
                "versions": dict(versions),
                "bodies": bodies,
            }
            folder = cls(path, facts, (opened[0], opened[1], opened[2], opened[3]), limits)
            folder.describe({"ended_at": None})
        except OSError as exc:
            for descriptor in opened:
                os.close(descriptor)
            if opened:  # so it is ours, and nothing is in it
                shutil.rmtree(path, ignore_errors=True)
            raise _unavailable(path, exc) from exc
        return folder

    def describe(self, more: Mapping[str, Any]) -> None:
        """Write run.json: the facts and these. Texts are cut to what finds room."""
        content = {name: value[:_MOST_TEXT] if isinstance(value, str) else value for name, value in more.items()}
        text = json.dumps({**self.facts, **content}, indent=2).encode().ljust(RUN_FILE_BYTES - 1) + b"\n"
        if os.pwrite(self._run_file, text, 0) < len(text):  # as much as found room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines to the exchanges. If not all of them find room the first ones are there, each of them whole.

        Raises:
            LimitReached: The run has no room for all of them.
        """
        room = self._limits.run_bytes - self._size - self._body_size
        fitting = 0
        for line in lines:
            room -= len(line)
            if room < 0:
                break
            fitting += 1
        content, written = b"".join(lines[:fitting]), 0
        try:
            while written < len(content):
                written += os.write(self._exchanges, memoryview(content)[written:])
        finally:
            whole = content.rfind(b"\n", 0, written) + 1
            if whole < written:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._exchanges, self._size + whole)  # without the line that was torn
            self._size += whole
            self.lines += content.count(b"\n", 0, whole)
        if fitting < len(lines):
            raise LimitReached

    def append_body(self, name: str, content: bytes, fresh: bool) -> bool:
        """Add to the file of a body, which is made if it is `fresh`. Whether the run had room for it.

        The file is opened for each call: with many exchanges at once the proxy needs the descriptors itself.
        """
        if self._body_size + len(content) > self._limits.run_bytes // 8 * 7 - self._size:
            return False
        flags = _NEW if fresh else os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags | os.O_APPEND, 0o600, dir_fd=self._bodies)
        try:
            _write_all(descriptor, content)
        finally:
            os.close(descriptor)
        self._body_size += len(content)
        return True

    def close(self) -> None:
        """Give up the lock: the run is over."""
        for descriptor in (self._exchanges, self._bodies, self._directory, self._run_file):
            os.close(descriptor)


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _unavailable(path: Path, exc: OSError) -> CaptureUnavailable:
    reason = exc.strerror or type(exc).__name__
    advice = "name another directory by --captures, or use --no-capture"
    return CaptureUnavailable(f"runs cannot be captured in {str(path)!r}: {reason}; {advice}")
