"""How much later a turn is because tries before it failed: refused upgrades, errors, connections that broke. Pure."""

import math
from dataclasses import dataclass, field

from proxy.capture.exchange import Exchange, Phase, Transport
from proxy.live.waterfall import client_left
from proxy.scope import RESPONSES_POST

# Threads that are remembered.
MOST_THREADS = 1000
# Seconds. Who comes so long after a failure is no agent that tries again.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Try:
    """What a thread last tried, in Unix times.

    Args:
        first_at: When the first of the tries began that failed one after the other.
        ended_at: When the last of them ended; infinite while it is open.
        has_failed: False of a WebSocket that answered: only that the thread goes over to POST tells that it failed.
    """

    first_at: float
    ended_at: float
    has_failed: bool


@dataclass(slots=True)
class Tries:
    """Looks at exchanges as they go on; memory is bounded."""

    _threads: dict[str, _Try] = field(default_factory=dict)

    def lost_s(self, exchange: Exchange) -> float:
        """How many seconds before this new request the first of the tries began that failed; 0.0 if none did."""
        before = self._before(exchange)
        return 0.0 if before is None else max(0.0, exchange.started_at - before.first_at)

    def look(self, exchange: Exchange) -> None:
        """One more phase of an exchange."""
        if exchange.route != RESPONSES_POST.name or exchange.thread_id is None or exchange.phase is Phase.DECIDED:
            return
        is_over = exchange.phase is Phase.ENDED
        ended_at = exchange.started_at + (exchange.duration_s or 0.0) if is_over else math.inf
        found = None
        if exchange.status == 101:
            if exchange.turns:
                turn = exchange.turns[-1]
                found = _Try(exchange.started_at + turn.asked_s, ended_at, is_over and turn.first_s is None)
        elif not is_over:
            return
        elif has_failed(exchange):
            before = self._before(exchange)
            found = _Try(exchange.started_at if before is None else before.first_at, ended_at, True)
        self._threads.pop(exchange.thread_id, None)
        if found is not None:
            self._threads[exchange.thread_id] = found
            if len(self._threads) > MOST_THREADS:
                del self._threads[next(iter(self._threads))]

    def _before(self, exchange: Exchange) -> _Try | None:
        if exchange.route != RESPONSES_POST.name or exchange.thread_id is None:
            return None
        before = self._threads.get(exchange.thread_id)
        if before is None or exchange.started_at - before.ended_at > PATIENCE_S:
            return None
        return before if before.has_failed or exchange.transport is Transport.POST else None


def has_failed(exchange: Exchange) -> bool:
    """Whether an agent would try it again."""
    if exchange.status is None:
        return exchange.phase is Phase.ENDED
    if exchange.transport is Transport.WEBSOCKET:
        return exchange.status != 101
    return exchange.status >= 400 or (exchange.error is not None and not client_left(exchange))
