"""Captures a run on the disk, beside the traffic and never in its way.

The proxy's loop only puts what it sees into a queue. A thread of its own writes; it works for half a millisecond at
most before it lets the loop have the interpreter. What comes faster than it can be written is counted and dropped,
and when the disk is full the capture ends and the traffic goes on.
"""

import importlib.metadata
import json
import logging
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.capture.exchange import Exchange, Phase, Transport
from proxy.capture.exchange_json import exchange_as_json
from proxy.capture.folder import LimitReached, RunFolder, open_base, redaction_key
from proxy.capture.limits import Limits, Retention
from proxy.capture.observation import Piece
from proxy.capture.redact import Redactor
from proxy.capture.store import CaptureError, Run, prune

if TYPE_CHECKING:
    from proxy.capture.bodies.keeper import BodyKeeper

logger = logging.getLogger(__name__)

# Seconds in which what is told is gathered: of an exchange that is over by then one line is written, and not three.
_TICK_S = 0.1
# When the queue never becomes empty, what is gathered is written after so many seconds nevertheless.
_MOST_DRAIN_S = 0.5
# With so much in the queue they are not waited for.
_URGENT_BYTES = 1024 * 1024
_URGENT_ITEMS = 500
# Seconds that the thread works before it rests, and rests. Anything that waits for the interpreter gets it then.
_WORK_S = 0.0005
_REST_S = 0.0002
_LINES_AT_ONCE = 64
# Beside its data, of a piece in the queue.
_PIECE_BYTES = 200


@dataclass(frozen=True, slots=True)
class _Seen:
    """A piece, and the Unix time when it went by."""

    number: int
    from_client: bool
    at: float
    data: bytes


@dataclass(frozen=True, slots=True)
class _Missed:
    """From here on pieces of this direction are not in the queue."""

    number: int
    from_client: bool


class CaptureLog:
    """Captures one run.

    Args:
        base: The directory of all runs.
        name: Of our command.
        command: What it runs, if anything. Of it only the program's name is kept: arguments may be secrets.
        bodies: Whether pieces are wanted too.

    Attributes:
        run: The run, as it was when it started.
        redactor: Under a key that all runs in `base` share, so that secrets can be compared.
    """

    run: Run
    redactor: Redactor

    def __init__(
        self,
        base: Path,
        name: str,
        command: Sequence[str] = (),
        *,
        bodies: bool = False,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        retention: Retention = Retention(),  # noqa: B008 (frozen)
    ) -> None:
        self._base = base
        self._command = " ".join([name, *(os.path.basename(word) for word in command[:1])])
        self._wants_bodies = bodies
        self._limits = limits
        self._retention = retention
        # To a deque one thread can append while another takes from it.
        self._queue: deque[Exchange | _Seen | _Missed] = deque()
        self._work, self._urgent = threading.Event(), threading.Event()
        # Each of these has one writer: the loop, or the thread.
        self._put_bytes = self._taken_bytes = 0
        self._lost_exchanges = self._lost_bytes = 0
        self._holes: set[tuple[int, bool]] = set()
        self._is_closing = False
        self._failure: str | None = None
        self._thread: threading.Thread | None = None
        self._folder: RunFolder
        self._keeper: BodyKeeper | None = None
        self._latest: dict[tuple[int, bool], Exchange] = {}
        self._written = self._unwritten = 0  # exchanges that have ended
        self._rested_at = 0.0

    @property
    def problem(self) -> str | None:
        """Why something is missing, in words; None if nothing is."""
        lost = self._lost_exchanges + self._unwritten
        parts = [
            self._failure,
            f"{lost} exchanges are not in it" if lost else None,
            f"{self._lost_bytes} bytes of bodies came too fast and were not looked at" if self._lost_bytes else None,
        ]
        return "; ".join(part for part in parts if part) or None

    # On the proxy's loop

    def start(self) -> None:
        """Make the folder of the run, and start to write.

        Raises:
            CaptureUnavailable: It cannot be made; the text says why.
        """
        open_base(self._base)
        self.redactor = Redactor(redaction_key(self._base))
        versions = {"countersign": importlib.metadata.version("countersign"), "python": platform.python_version()}
        now = time.time()
        self._folder = RunFolder.create(self._base, self._command, versions, self._wants_bodies, self._limits, now)
        self.run = Run(
            path=self._folder.path,
            id=self._folder.id,
            started_at=now,
            command=self._command,
            versions=versions,
            bodies=self._wants_bodies,
            ended_at=None,
            problem=None,
        )
        if self._wants_bodies:
            from proxy.capture.bodies.keeper import BodyKeeper

            self._keeper = BodyKeeper(self._folder, self.redactor, self._limits, self._breathe)
        self._thread = threading.Thread(target=self._write, name="capture", daemon=True)
        self._thread.start()

    def changed(self, exchange: Exchange) -> None:
        """One more phase of an exchange. Takes a microsecond; never raises and never waits."""
        is_last = exchange.phase is Phase.ENDED
        if is_last and self._holes:
            self._holes -= {(exchange.number, True), (exchange.number, False)}
        # Phases that are replaced later leave the last quarter of the queue to those that are not.
        room = self._limits.queue_items if is_last else self._limits.queue_items * 3 // 4
        if self._failure is not None or len(self._queue) >= room:
            self._lost_exchanges += is_last
            return
        self._queue.append(exchange)
        self._wake()

    def piece(self, piece: Piece) -> None:
        """Some of what an exchange carries. The same holds."""
        if self._failure is not None or self._keeper is None:
            return
        size = len(piece.data)
        if self._holes and (piece.number, piece.from_client) in self._holes:
            self._lost_bytes += size
            return
        waiting = self._put_bytes - self._taken_bytes
        if waiting + size > self._limits.queue_bytes or len(self._queue) >= self._limits.queue_items // 2:
            # With a hole in it nothing behind can be decoded: the rest of this direction is not taken either.
            self._lost_bytes += size
            self._holes.add((piece.number, piece.from_client))
            self._queue.append(_Missed(piece.number, piece.from_client))
        else:
            self._put_bytes += size + _PIECE_BYTES
            self._queue.append(_Seen(piece.number, piece.from_client, time.time(), bytes(piece.data)))
        self._wake()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is left, and how it ended. A second call does nothing; neither does one before `start`."""
        if self._thread is None:
            return
        self._is_closing = True
        self._work.set()
        self._urgent.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("capture not closed run=%s reason=it is still being written", self.run.id)
        self._thread = None

    def _wake(self) -> None:
        if not self._work.is_set():
            self._work.set()
        if not self._urgent.is_set() and (
            len(self._queue) > _URGENT_ITEMS or self._put_bytes - self._taken_bytes > _URGENT_BYTES
        ):
            self._urgent.set()

    # On the thread that writes

    def _write(self) -> None:
        try:
            self._prune()
            while True:
                self._work.wait()
                self._work.clear()
                self._urgent.wait(_TICK_S)
                self._urgent.clear()
                is_closing = self._is_closing  # asked before: what was put in until then is taken out below
                self._drain()
                if is_closing:
                    if self._keeper is not None:
                        self._keeper.close()
                    break
        except LimitReached:
            self._stop(f"the run has reached its limit of {self._limits.run_bytes} bytes")
        except OSError as exc:
            self._stop(exc.strerror or type(exc).__name__)
        except Exception as exc:  # a bug: its text might quote what is captured
            self._stop(f"an error of its own, {type(exc).__name__}")
        if self._failure is None and (problem := self.problem):
            logger.warning("capture incomplete run=%s reason=%r", self.run.id, problem)
        self._describe(time.time())
        self._folder.close()

    def _prune(self) -> None:
        try:
            removed, _ = prune(self._base, self._retention.keep_bytes, self._retention.keep_days, time.time())
        except CaptureError as exc:
            logger.warning("capture not pruned: %s", exc)
            return
        for run_id, size in removed:
            logger.info("capture pruned run=%s bytes=%d", run_id, size)

    def _drain(self) -> None:
        until = time.monotonic() + _MOST_DRAIN_S
        while self._queue:
            if time.monotonic() > until and not self._is_closing:
                self._work.set()
                break
            item = self._queue.popleft()
            match item:
                case Exchange():
                    # That a WebSocket was opened is written by itself: it may last for hours.
                    is_opened = item.phase is Phase.ANSWERED and item.transport is Transport.WEBSOCKET
                    if is_opened:  # behind it, so that the last line of a number is of its last phase
                        self._latest.pop((item.number, False), None)
                    self._latest[item.number, is_opened] = item
                    if self._keeper is not None:
                        self._keeper.changed(item)
                    if len(self._latest) >= _LINES_AT_ONCE:
                        self._append()
                case _Seen():
                    self._taken_bytes += len(item.data) + _PIECE_BYTES
                    assert self._keeper is not None
                    self._keeper.piece(item.number, item.from_client, item.at, item.data)
                case _Missed():
                    assert self._keeper is not None
                    self._keeper.miss(item.number, item.from_client)
            self._breathe()
        if self._keeper is not None:
            self._keeper.flush()
        self._append()

    def _append(self) -> None:
        lines = []
        for exchange in self._latest.values():
            lines.append(_ENCODER.encode(exchange_as_json(exchange)).encode() + b"\n")
            self._breathe()
        before = self._folder.lines
        try:
            self._folder.append(lines)
        finally:
            for key in list(self._latest)[: self._folder.lines - before]:
                self._written += self._latest.pop(key).phase is Phase.ENDED

    def _breathe(self) -> None:
        """Let others have the interpreter, if this thread has had it for long enough."""
        now = time.perf_counter()
        if now - self._rested_at > _WORK_S and not self._is_closing:
            time.sleep(_REST_S)
            self._rested_at = time.perf_counter()

    def _stop(self, reason: str) -> None:
        """Capture ends here; once this is set, nothing is put into the queue any more."""
        self._failure = f"capture stopped after {time.time() - self.run.started_at:.1f} s: {reason}"
        logger.error("capture stopped run=%s reason=%r; the traffic goes on", self.run.id, reason)
        kept: list[object] = [*self._latest.values()]
        while self._queue:  # not iterated over: the loop may just be adding one
            kept.append(self._queue.popleft())
        self._unwritten = sum(isinstance(one, Exchange) and one.phase is Phase.ENDED for one in kept)
        self._latest.clear()
        self._describe(None)
        while not self._is_closing:  # the end is told when it has come
            self._work.wait()
            self._work.clear()

    def _describe(self, ended_at: float | None) -> None:
        try:
            self._folder.describe({"ended_at": ended_at, "problem": self.problem, "exchanges": self._written})
        except OSError as exc:
            logger.error("capture not described run=%s error=%s", self.run.id, exc.strerror)


_ENCODER = json.JSONEncoder(separators=(",", ":"))
