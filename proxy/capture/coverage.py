"""Did every scoped request carry a token? Counted from exchanges."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from proxy.capture.exchange import Exchange, Stamp, Transport


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """How many requests of one route and transport had one outcome.

    `outcome` is "ok" or a failure status in lower case for what we stamped or carried, "native ok" and the like for
    the client's own envelope, else the word of `Stamp`.
    """

    route: str
    transport: str
    outcome: str
    requests: int


@dataclass(frozen=True, slots=True)
class FailedConnection:
    """How many connections to one target, "host:port", had no request for one reason."""

    target: str
    reason: str
    connections: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """The count of a run.

    Args:
        out_of_scope: Requests on scoped hosts without a row.
        refused: Requests on scoped hosts that were answered here before they were matched with a row.
        tunnels: Connections elsewhere.
        failed: Connections of which nothing came, elsewhere or not.
    """

    rows: tuple[CoverageRow, ...]
    scoped: int
    attested: int
    out_of_scope: int
    refused: int
    tunnels: int
    failed: tuple[FailedConnection, ...] = ()

    @property
    def complete(self) -> bool:
        """Every scoped request carried a token, and there was at least one."""
        return 0 < self.scoped == self.attested

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**asdict(self), "complete": self.complete}


class CoverageCount:
    """Counts exchanges as they end; keeps none of them."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._attested = self._out_of_scope = self._refused = self._tunnels = 0

    def add(self, exchange: Exchange) -> None:
        """Count one more."""
        if exchange.transport is Transport.TUNNEL and exchange.error is not None:
            self._failed[f"{exchange.host}:{exchange.port}", exchange.error] += 1
        elif exchange.transport is Transport.TUNNEL:
            self._tunnels += 1
        elif exchange.route is None and exchange.stamp is Stamp.REFUSED:
            self._refused += 1
        elif exchange.route is None:
            self._out_of_scope += 1
        else:
            self._attested += exchange.attested
            self._counts[exchange.route, exchange.transport, outcome_of(exchange)] += 1

    def coverage(self) -> Coverage:
        """What was counted so far."""
        rows = tuple(CoverageRow(*key, requests) for key, requests in sorted(self._counts.items()))
        scoped = self._counts.total()
        failed = tuple(FailedConnection(*key, connections) for key, connections in sorted(self._failed.items()))
        return Coverage(rows, scoped, self._attested, self._out_of_scope, self._refused, self._tunnels, failed)


def outcome_of(exchange: Exchange) -> str:
    """The outcome of a request in scope, as in `CoverageRow`."""
    status = "" if exchange.attestation is None else exchange.attestation.name.lower()
    if exchange.stamp in (Stamp.STAMPED, Stamp.CARRIED) and status:
        return status
    return f"{exchange.stamp} {status}".strip()
