"""Captured runs as they are found on the disk: listed, named, read while they grow or after, and pruned.

What is read may be of another version, cut off in the middle or damaged: each of these is told, and stops nothing.
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import shutil
import stat
import time
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from proxy.capture.exchange import Exchange
from proxy.capture.exchange_json import exchange_from_json
from proxy.capture.folder import EXCHANGES_FILE, FORMAT, RUN_FILE

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_FACTS = 64 * 1024
_CHUNK = 1024 * 1024
# Longer than any exchange: what has no line end for so long is no file of ours.
_MOST_LINE = 1024 * 1024
# A folder that is this young may be about to get its run.json.
_BEING_MADE_S = 60.0
_DAY_S = 86400.0


class CaptureError(Exception):
    """No run can be told by that name, or it cannot be read; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """A captured run, as its run.json told when it was read.

    Args:
        id: The name of its folder; names sort by time.
        started_at, ended_at: Unix time in seconds; `ended_at` is None while it goes on, and when it was cut off.
        command: Our command, and the program that it ran.
        versions: Of what captured it.
        bodies: Whether bodies and frames were captured too.
        problem: Why something is missing, None if nothing is.
        exchanges: How many ended and were written; None until the run ends.
    """

    path: Path
    id: str
    started_at: float
    command: str
    versions: Mapping[str, str]
    bodies: bool
    ended_at: float | None
    problem: str | None
    exchanges: int | None = None

    @property
    def complete(self) -> bool:
        """Whether it came to its end, and nothing is missing."""
        return self.ended_at is not None and self.problem is None

    def is_running(self) -> bool:
        """Whether its process lives. The kernel knows, by the lock."""
        return _is_locked(self.path)

    def state(self) -> str:
        """One word: running, complete, incomplete, or interrupted when nothing wrote its end."""
        if self.ended_at is None:
            return "running" if self.is_running() else "interrupted"
        return "complete" if self.complete else "incomplete"


class Skipped(NamedTuple):
    """A folder that is no run which can be read."""

    name: str
    reason: str


def survey(base: Path) -> tuple[list[Run], list[Skipped]]:
    """All runs, the newest first, and what was passed over. A base that is not there has none.

    Raises:
        CaptureError: It cannot be read.
    """
    found, skipped = [], []
    for name in sorted(_folders(base), reverse=True):
        try:
            found.append(_load(base / name))
        except CaptureError as exc:
            skipped.append(Skipped(name, str(exc)))
    return found, skipped


def runs(base: Path) -> list[Run]:
    """All runs, the newest first; what is passed over is logged."""
    found, skipped = survey(base)
    for one in skipped:
        logger.warning("capture skipped run=%s reason=%s", one.name, one.reason)
    return found


def find(base: Path, name: str) -> Run:
    """The run of this name.

    Args:
        name: "last", the id or the beginning of one, its last four digits, or the path of a folder (with a "/").

    Raises:
        CaptureError: There is none, or more than one, or it cannot be read.
    """
    if "/" in name:
        return _load(Path(name))
    found, skipped = survey(base)
    if name == "last":
        if not found:
            rest = f" ({len(skipped)} cannot be read; `countersign capture list` says why)" if skipped else ""
            raise CaptureError(f"no run is captured in {str(base)!r}{rest}; `--captures DIR` names another directory")
        return found[0]
    fitting = [run for run in found if name and (run.id.startswith(name) or run.id.endswith(f"-{name}"))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        some = ", ".join(run.id for run in fitting[:5]) + (", …" if len(fitting) > 5 else "")
        raise CaptureError(f"{name!r} is the beginning of {len(fitting)} runs: {some}; name one of them")
    for one in skipped:
        if name and one.name.startswith(name):
            raise CaptureError(f"{one.name}: {one.reason}")
    raise CaptureError(f"no run {name!r} in {str(base)!r}; `countersign capture list` shows what there is")


# Exchanges


class Reading(NamedTuple):
    """The exchanges of a run in the order of their numbers, and how many lines of its file are none."""

    exchanges: list[Exchange]
    unreadable: int


def read(run: Run) -> Reading:
    """What is there by now; of each exchange what was told last.

    Raises:
        CaptureError: The file is not there, or cannot be read.
    """
    tail = Tail(run)
    latest = {exchange.number: exchange for exchange in tail.poll()}
    # A line that is being written is none that is torn.
    torn = tail.torn and not run.is_running()
    return Reading([latest[number] for number in sorted(latest)], tail.unreadable + torn)


def read_exchanges(run: Run) -> list[Exchange]:
    """The same without the count of unreadable lines, which is logged. Raises CaptureError."""
    exchanges, unreadable = read(run)
    if unreadable:
        logger.warning("capture damaged run=%s unreadable_lines=%d", run.id, unreadable)
    return exchanges


class Tail:
    """Reads the exchanges of a run as they are written.

    Attributes:
        unreadable: How many lines were no exchange.
    """

    def __init__(self, run: Run) -> None:
        self._path = run.path / EXCHANGES_FILE
        self._offset = 0
        self._partial = b""
        self._is_skipping = False
        self.unreadable = 0

    @property
    def torn(self) -> bool:
        """Whether the last line has no end, yet."""
        return bool(self._partial)

    def poll(self) -> list[Exchange]:
        """What was added since the last call, each phase by itself, in the order of writing.

        Raises:
            CaptureError: The file is not there, or cannot be read.
        """
        found: list[Exchange] = []
        try:
            descriptor = os.open(self._path, _READ)
            with open(descriptor, "rb", buffering=0) as file:
                if os.fstat(descriptor).st_size < self._offset:
                    # On a full disk its writer takes back the line that was torn.
                    self._offset, self._partial = self._offset - len(self._partial), b""
                file.seek(self._offset)
                while chunk := file.read(_CHUNK):
                    self._offset += len(chunk)
                    self._add(chunk, found)
        except OSError as exc:
            raise CaptureError(f"{str(self._path)!r} cannot be read: {exc.strerror}") from exc
        return found

    def _add(self, chunk: bytes, found: list[Exchange]) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            if self._is_skipping:
                self._is_skipping = False
                continue
            try:
                found.append(_exchange(line))
            except (ValueError, RecursionError):
                self.unreadable += 1
        if len(self._partial) > _MOST_LINE:
            self.unreadable += not self._is_skipping
            self._partial, self._is_skipping = b"", True


def _exchange(line: bytes) -> Exchange:
    """Raises ValueError or RecursionError."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    exchange = exchange_from_json(content)
    for name, kinds in _KINDS.items():
        value = getattr(exchange, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name} is of another type")
        if isinstance(value, float | int) and not 0 <= value < _MOST[name == "started_at"]:  # NaN is not either
            raise ValueError(f"{name} is out of range")
    return exchange


_MOST = (1e15, 2e11)  # bytes and seconds; and Unix time before the calendar ends


_NUMBER, _NONE = (int, float), (type(None),)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("number", "port", "token_bytes", "request_bytes", "response_bytes"), (int,)),
    **dict.fromkeys(("host", "method", "path", "http_version"), (str,)),
    **dict.fromkeys(("route", "thread_id", "error"), (str, *_NONE)),
    **dict.fromkeys(("waited_s", "first_byte_s", "duration_s", "sent_s", "connect_s"), (*_NUMBER, *_NONE)),
    "started_at": _NUMBER,
    "status": (int, *_NONE),
}


# Pruning


class Pruned(NamedTuple):
    """What was removed, the oldest first, and how large what stays is."""

    removed: list[tuple[str, int]]
    kept_bytes: int


def prune(base: Path, keep_bytes: int, keep_days: float, now: float, *, dry_run: bool = False) -> Pruned:
    """Remove the oldest runs until the others are as few as wanted. One that is running stays, whatever its size.

    Args:
        keep_bytes: For all runs together.
        keep_days: Days since a run started.
        now: Unix time in seconds.
        dry_run: Only tell what would be removed.

    Raises:
        CaptureError: The base, or a run that should go, cannot be read or removed.
    """
    sizes = {name: _size(base / name) for name in sorted(_folders(base))}
    total = sum(sizes.values())
    removed = []
    for name, size in sizes.items():
        is_old = now - _started(name) > keep_days * _DAY_S
        if (is_old or total > keep_bytes) and not _is_in_use(base / name, now):
            if not dry_run:
                _remove(base / name)
            removed.append((name, size))
            total -= size
    return Pruned(removed, total)


def run_bytes(run: Run) -> int:
    """What a run takes on the disk."""
    return _size(run.path)


def _remove(path: Path) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):  # another process prunes too
            shutil.rmtree(path)
    except OSError as exc:
        raise CaptureError(f"{str(path)!r} cannot be removed: {exc.strerror}") from exc


def _started(name: str) -> float:
    try:
        return float(timegm(time.strptime(name[:16], "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return math.inf  # no name of ours after all; no age makes it go


def _is_in_use(path: Path, now: float) -> bool:
    if _is_locked(path):
        return True
    try:
        return not (path / RUN_FILE).exists() and now - path.stat().st_mtime < _BEING_MADE_S
    except OSError:
        return False


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path / RUN_FILE, _READ)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _size(path: Path) -> int:
    """Of all files in a folder; those that are gone meanwhile count nothing."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


# Folders


def _folders(base: Path) -> list[str]:
    """Those that are named as runs are. Whatever else lies there is none of ours."""
    try:
        with os.scandir(base) as found:
            return [one.name for one in found if _NAME.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise CaptureError(f"{str(base)!r} cannot be read: {exc.strerror}; `--captures DIR` names another") from exc


def _load(path: Path) -> Run:
    try:
        descriptor = os.open(path / RUN_FILE, _READ)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CaptureError(f"its {RUN_FILE} is no regular file")
            text = file.read(_MOST_FACTS)
    except FileNotFoundError:
        raise CaptureError(f"{path.name} is no captured run, or only half of one: there is no {RUN_FILE}") from None
    except OSError as exc:
        raise CaptureError(f"its {RUN_FILE} cannot be read: {exc.strerror}") from exc
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        raise CaptureError(f"its {RUN_FILE} is half-written or damaged: it is no JSON") from None
    version = facts.get("format") if isinstance(facts, dict) else None
    if version != FORMAT or isinstance(version, bool):
        told = f"format {version}" if isinstance(version, int) else "no known format"
        raise CaptureError(
            f"it is of {told}, and this countersign reads format {FORMAT}; read it with the version that captured it"
        )
    try:
        return _run(path, facts)
    except (KeyError, TypeError, ValueError):
        raise CaptureError(f"its {RUN_FILE} is damaged: something that every run has is missing in it") from None


def _run(path: Path, facts: dict[str, Any]) -> Run:
    ended_at, problem, exchanges = facts["ended_at"], facts.get("problem"), facts.get("exchanges")
    return Run(
        path=path,
        id=path.resolve().name,
        started_at=float(facts["started_at"]),
        command=str(facts["command"]),
        versions={str(name): str(value) for name, value in dict(facts["versions"]).items()},
        bodies=facts["bodies"] is True,
        ended_at=None if ended_at is None else float(ended_at),
        problem=None if problem is None else str(problem),
        exchanges=None if exchanges is None else int(exchanges),
    )
