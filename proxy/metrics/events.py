"""What happened, once each, out of the phases of exchanges: the ground of all metrics. Pure."""

from collections import OrderedDict
from dataclasses import dataclass

from proxy.capture.coverage import outcome_of
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport

# Threads whose WebSocket was refused, and of which the next POST is a fallback. More are forgotten, oldest first.
_MOST_THREADS = 10_000


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose outcome is known.

    Args:
        route: Of the scope; "" where it is in none.
        outcome: As in coverage; "out of scope" or "refused" where there is no route.
        fell_back: It is a POST on a thread whose WebSocket was refused just before.
    """

    exchange: Exchange
    route: str
    outcome: str
    fell_back: bool


@dataclass(frozen=True, slots=True)
class TunnelEnded:
    """An untouched tunnel is closed; bytes each way."""

    sent_bytes: int
    received_bytes: int


class Events:
    """Turns phases into events."""

    def __init__(self) -> None:
        self._answered: set[int] = set()  # numbers that were told of, and have not ended
        self._refused_sockets: OrderedDict[str, None] = OrderedDict()

    def of(self, exchange: Exchange) -> Request | TunnelEnded | None:
        """What a phase of an exchange adds, if anything."""
        if exchange.transport is Transport.TUNNEL:
            ended = exchange.phase is Phase.ENDED
            return TunnelEnded(exchange.request_bytes, exchange.response_bytes) if ended else None
        if exchange.phase is Phase.DECIDED:
            return None
        if exchange.number in self._answered:
            if exchange.phase is Phase.ENDED:
                self._answered.discard(exchange.number)
            return None
        if exchange.phase is Phase.ANSWERED:
            self._answered.add(exchange.number)
        if exchange.route is not None:
            return Request(exchange, exchange.route, outcome_of(exchange), self._falls_back(exchange))
        return Request(exchange, "", "refused" if exchange.stamp is Stamp.REFUSED else "out of scope", False)

    def _falls_back(self, exchange: Exchange) -> bool:
        if exchange.thread_id is None:
            return False
        if exchange.transport is Transport.WEBSOCKET:
            self._refused_sockets.pop(exchange.thread_id, None)
            if exchange.status != 101:
                self._refused_sockets[exchange.thread_id] = None
                if len(self._refused_sockets) > _MOST_THREADS:
                    self._refused_sockets.popitem(last=False)
            return False
        return self._refused_sockets.pop(exchange.thread_id, 0) is None
