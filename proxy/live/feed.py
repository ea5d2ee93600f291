"""The exchanges of a run as they go on, for pages that follow them.

What a page has not seen yet is told by one number, the cursor, and looked up when it asks: a page that is slow costs
nothing but its own connection, and catches up with the last state of what it missed.
"""

import asyncio
import itertools
from dataclasses import dataclass

from proxy.capture.coverage import Coverage, CoverageCount
from proxy.capture.exchange import Exchange, Phase
from proxy.live.notices import Notice, Notices, Severity
from proxy.live.tries import Tries, has_failed

MOST_EXCHANGES = 2000
MOST_NOTICES = 200
# Numbers of exchanges that are forgotten and not over; a proxy has fewer connections than that.
MOST_UNCOUNTED = 20_000
# So many of the longest unchanged are looked at for one that is over, before an open one has to go.
_LOOKED_AT = 64
_GRAVITY = (Severity.WARNING, Severity.PROBLEM)


@dataclass(frozen=True, slots=True)
class Followed:
    """An exchange in its last state.

    Args:
        version: Of the feed when it changed.
        is_counted: It is in the coverage.
        severity: The worst that was noticed of it, None if nothing was.
        lost_s: Seconds that tries before it had taken, which failed.
    """

    version: int
    exchange: Exchange
    is_counted: bool
    severity: Severity | None
    lost_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new since a cursor.

    Args:
        cursor: For the next question.
        run: The run's name.
        is_snapshot: This is all there is, and replaces what a page has: another run, or the first question.
        exchanges: Each in its last state, in the order in which they changed.
        forgotten: How many of this run are not kept any more.
    """

    cursor: int
    run: str
    is_snapshot: bool
    exchanges: tuple[Followed, ...]
    notices: tuple[Notice, ...]
    coverage: Coverage
    forgotten: int


class LiveFeed:
    """The last state of a bounded number of exchanges. All of it on one loop.

    Args:
        run: Its name, for people; empty where it has none.
    """

    def __init__(self, run: str = "", most_exchanges: int = MOST_EXCHANGES) -> None:
        self._most = most_exchanges
        self._version = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.restart(run)

    def restart(self, run: str) -> None:
        """Forget all: another run begins."""
        self._run = run
        self._kept: dict[int, Followed] = {}  # the longest unchanged first
        self._notices: list[tuple[int, Notice]] = []
        self._looking = Notices()
        self._tries = Tries()
        self._count = CoverageCount()
        self._uncounted: set[int] = set()  # forgotten while they were under way
        self._forgotten = 0
        self._highest_forgotten = 0
        self._version += 1
        self._began = self._version
        self._wake()

    def changed(self, exchange: Exchange) -> None:
        """One more phase of an exchange. Quick: it is called in the way of the traffic."""
        kept = self._kept.pop(exchange.number, None)
        if kept is None and self._is_over_and_gone(exchange):
            return
        self._uncounted.discard(exchange.number)
        is_counted = kept is not None and kept.is_counted
        if not is_counted and exchange.phase is not Phase.DECIDED:
            # Only from the answer on it is known whether the stamp went out.
            self._count.add(exchange)
            is_counted = True
        self._version += 1
        notices = self._looking.look(exchange)
        severity = max((notice.severity for notice in notices), default=None, key=_GRAVITY.index)
        if kept is not None and kept.severity is not None:
            severity = kept.severity if severity is None else max(severity, kept.severity, key=_GRAVITY.index)
        lost_s = self._tries.lost_s(exchange) if kept is None else kept.lost_s
        if has_failed(exchange):  # it is a failed try itself; what was lost is told of the one that succeeds
            lost_s = 0.0
        self._tries.look(exchange)
        self._kept[exchange.number] = Followed(self._version, exchange, is_counted, severity, lost_s)
        self._notices += ((self._version, notice) for notice in notices)
        del self._notices[:-MOST_NOTICES]
        if len(self._kept) > self._most:
            self._forget_one()
        self._wake()

    def _is_over_and_gone(self, exchange: Exchange) -> bool:
        """Whether this is a later phase of one that was counted and forgotten; each begins with DECIDED."""
        is_known = exchange.number in self._uncounted or exchange.number > self._highest_forgotten
        return exchange.phase is not Phase.DECIDED and not is_known

    def _forget_one(self) -> None:
        oldest = itertools.islice(self._kept.values(), _LOOKED_AT)
        over = next((one for one in oldest if one.exchange.phase is Phase.ENDED), None)
        gone = self._kept.pop(next(iter(self._kept)) if over is None else over.exchange.number)
        if not gone.is_counted and len(self._uncounted) < MOST_UNCOUNTED:
            self._uncounted.add(gone.exchange.number)
        self._forgotten += 1
        self._highest_forgotten = max(self._highest_forgotten, gone.exchange.number)

    def since(self, cursor: int) -> Changes:
        """What changed after `cursor`; 0 is the beginning."""
        is_snapshot = cursor < self._began
        new = itertools.takewhile(lambda one: is_snapshot or one.version > cursor, reversed(self._kept.values()))
        return Changes(
            self._version,
            self._run,
            is_snapshot,
            tuple(new)[::-1],
            tuple(notice for version, notice in self._notices if is_snapshot or version > cursor),
            self._count.coverage(),
            self._forgotten,
        )

    async def next(self, cursor: int) -> Changes:
        """The same, once there is something."""
        while self._version <= cursor:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return self.since(cursor)

    def find(self, number: int) -> Followed | None:
        """This exchange, if it is still kept."""
        return self._kept.get(number)

    @property
    def exchanges(self) -> list[Exchange]:
        """All that are kept, in the order of their arrival."""
        return [self._kept[number].exchange for number in sorted(self._kept)]

    def notices_of(self, number: int) -> tuple[Notice, ...]:
        """What was told of it, as far as that is still kept."""
        return tuple(notice for _, notice in self._notices if notice.number == number)

    @property
    def run(self) -> str:
        return self._run

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
