"""What differs between two runs: "what changed between codex 0.163 and 0.169?". Pure."""

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from proxy.capture.exchange import Exchange, Transport

# Headers whose values belong to one request, or to one thread. That they are there counts, what they say does not.
_OF_ONE_REQUEST = frozenset(
    """
    age cf-ray content-length date etag last-modified openai-processing-ms retry-after sec-websocket-accept
    sec-websocket-key session-id session_id set-cookie thread-id x-client-request-id x-codex-parent-thread-id
    x-codex-turn-metadata x-codex-turn-state x-codex-window-id x-envoy-upstream-service-time x-oai-attestation
    x-oai-request-id x-ratelimit-limit-requests x-ratelimit-remaining-requests x-ratelimit-reset-requests
    x-request-id
    """.split()
)
_MOST_VALUES = 3
ANOTHER_SECRET = "another secret"
_MARK = re.compile(r"\[redacted [0-9]+ bytes #[0-9a-f]+\]")

# What in a path is an id: a number, a UUID, a prefix with an id behind it, long letters with digits among them.
_ID = re.compile(
    r"[0-9]+|[0-9a-fA-F-]{16,}|[A-Za-z]{2,12}[_-](?=[A-Za-z0-9]*[0-9])[A-Za-z0-9]+|(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{20,}"
)


@dataclass(frozen=True, slots=True)
class Key:
    """What requests are compared with: those of the same kind.

    Args:
        target: The route, or the host and the shape of the path, with "{id}" for what is one.
    """

    target: str
    method: str
    transport: str


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """A header that differs.

    Args:
        side: "request" or "response".
        kind: "added", "removed", "changed", "another secret", or "rarer" and "more often" where only the share of
            requests differs.
        before, after: Values that were seen, few of them; of secrets their marks.
        before_share, after_share: On which part of the requests, 0 to 1.
    """

    side: str
    name: str
    kind: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    before_share: float
    after_share: float


@dataclass(frozen=True, slots=True)
class Timing:
    """The medians of a duration in ms; None where no request had one."""

    name: str
    before_ms: float | None
    after_ms: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Requests of one kind in both runs.

    Args:
        statuses, stamps: (what, how often before, how often after).
    """

    key: Key
    before: int
    after: int
    statuses: tuple[tuple[str, int, int], ...]
    stamps: tuple[tuple[str, int, int], ...]
    headers: tuple[HeaderChange, ...]
    timings: tuple[Timing, ...]

    @property
    def differs(self) -> bool:
        """Whether more than numbers, secrets and durations do: it, a status, a stamp or a header is in one run only."""
        in_one = any((a == 0) != (b == 0) for _, a, b in (*self.statuses, *self.stamps))
        in_headers = any(change.kind != ANOTHER_SECRET for change in self.headers)
        return in_one or in_headers or (self.before == 0) != (self.after == 0)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs beside each other, by kinds of requests."""

    groups: tuple[Group, ...]

    @property
    def differs(self) -> bool:
        """Whether a group does."""
        return any(group.differs for group in self.groups)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "differs": self.differs,
            "groups": [{**asdict(group), "differs": group.differs} for group in self.groups],
        }


def difference(before: Iterable[Exchange], after: Iterable[Exchange]) -> Difference:
    """Compare them; the order of requests does not count."""
    first, second = _grouped(before), _grouped(after)
    keys = sorted(first.keys() | second.keys(), key=lambda key: (key.target, key.method, key.transport))
    return Difference(tuple(_group(key, first.get(key, []), second.get(key, [])) for key in keys))


def path_shape(path: str) -> str:
    """The path with "{id}" in place of every part that is an id."""
    return "/".join("{id}" if _ID.fullmatch(part) else part for part in path.split("/"))


def _grouped(exchanges: Iterable[Exchange]) -> dict[Key, list[Exchange]]:
    groups: dict[Key, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        port = "" if exchange.port == 443 else f":{exchange.port}"
        target = exchange.route or f"{exchange.host}{port}{path_shape(exchange.path)}"
        groups[Key(target, exchange.method, str(exchange.transport))].append(exchange)
    return groups


def _group(key: Key, before: Sequence[Exchange], after: Sequence[Exchange]) -> Group:
    sides = (
        ("request", [one.request_headers for one in before], [one.request_headers for one in after]),
        (
            "response",
            [one.response_headers for one in before if one.status is not None],
            [one.response_headers for one in after if one.status is not None],
        ),
    )
    headers = [change for side, first, second in sides if first and second for change in _headers(side, first, second)]
    return Group(
        key=key,
        before=len(before),
        after=len(after),
        statuses=_counts([_status(one) for one in before], [_status(one) for one in after]),
        stamps=_counts([_stamp(one) for one in before], [_stamp(one) for one in after]),
        headers=tuple(headers),
        timings=tuple(_timing(name, before, after) for name in _TIMINGS),
    )


_TIMINGS = ("waited_s", "connect_s", "first_byte_s", "duration_s")


def _timing(name: str, before: Sequence[Exchange], after: Sequence[Exchange]) -> Timing:
    first, second = (_median_ms(getattr(one, name) for one in some) for some in (before, after))
    return Timing(name.removesuffix("_s"), first, second)


def _status(exchange: Exchange) -> str:
    if exchange.transport is Transport.TUNNEL:
        return "-"
    return "no answer" if exchange.status is None else str(exchange.status)


def _stamp(exchange: Exchange) -> str:
    status = "" if exchange.attestation is None else f" {exchange.attestation.name.lower()}"
    return f"{exchange.stamp}{status}"


def _counts(before: Sequence[str], after: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    first, second = Counter(before), Counter(after)
    return tuple((name, first[name], second[name]) for name in sorted(first.keys() | second.keys()))


type _Headers = tuple[tuple[str, str], ...]


def _headers(side: str, before: Sequence[_Headers], after: Sequence[_Headers]) -> list[HeaderChange]:
    first, second = _seen(before), _seen(after)
    changes = []
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name, Counter()), second.get(name, Counter())
        shares = a.total() / len(before), b.total() / len(after)
        kind = _kind(name, a, b, shares)
        if kind is not None:
            changes.append(HeaderChange(side, name, kind, _some(a), _some(b), round(shares[0], 3), round(shares[1], 3)))
    return changes


def _seen(headers: Sequence[_Headers]) -> Mapping[str, Counter[str]]:
    """Of each header the values, all of a request as one, and how often."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for fields in headers:
        of_one: dict[str, list[str]] = defaultdict(list)
        for name, value in fields:
            of_one[name.lower()].append(value)
        for name, values in of_one.items():
            seen[name][", ".join(values)] += 1
    return seen


def _kind(name: str, before: Counter[str], after: Counter[str], shares: tuple[float, float]) -> str | None:
    if not before:
        return "added"
    if not after:
        return "removed"
    # All values of one run are missing in the other; where they overlap, the runs did different things, not the same
    # thing differently.
    if name not in _OF_ONE_REQUEST and not before.keys() & after.keys():
        # Another login, another secret: what is around the marks is the same.
        first, second = ({_MARK.sub("", value) for value in values} for values in (before, after))
        all_marked = all(_MARK.search(value) for value in (*before, *after))
        return ANOTHER_SECRET if all_marked and first == second else "changed"
    if (shares[0] == 1) != (shares[1] == 1):
        return "rarer" if shares[1] < shares[0] else "more often"
    return None


def _some(values: Counter[str]) -> tuple[str, ...]:
    return tuple(value for value, _ in sorted(values.items(), key=lambda item: (-item[1], item[0]))[:_MOST_VALUES])


def _median_ms(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return round(statistics.median(known) * 1000, 3) if known else None
