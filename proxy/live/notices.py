"""What somebody who watches should be told at once: what happened, and what it means. Pure."""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from proxy.attestation import ATTESTATION_BUDGET_S, AttestationStatus
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport
from proxy.live.waterfall import client_left, duration_text
from proxy.scope import RESPONSES_POST

# How the gate begins the error of a connection on which the client did not finish its handshake.
_CLIENT_BROKE_OFF = "the client broke off TLS"

# Threads and exchanges that are remembered; who comes back after so many others may be told of again.
MOST_THREADS = 1000
MOST_EXCHANGES = 4000


class Severity(enum.StrEnum):
    """Whether the proof of the run is spoilt or a request was lost, or only time."""

    PROBLEM = "problem"
    WARNING = "warning"


class Kind(enum.StrEnum):
    """What is told once for each exchange."""

    FALLBACK = "fallback"
    UNSTAMPED = "unstamped"
    FAILED_TOKEN = "failed token"
    LATE_TOKEN = "late token"
    UPGRADE = "upgrade"
    REJECTED = "rejected"
    REFUSED = "refused"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened.

    Args:
        number: Of the exchange.
        at: Unix time in seconds when the exchange began.
        title: The same for all of its sort.
        text: What happened to this one.
        advice: What it means, and what to do.
    """

    kind: Kind
    severity: Severity
    number: int
    at: float
    title: str
    text: str
    advice: str


@dataclass(slots=True)
class _Thread:
    """What a thread did by WebSocket since it last posted."""

    first_at: float
    number: int
    failures: int = 0
    reason: str = ""
    was_open: bool = False
    is_open: bool = False
    has_fallen_back: bool = False


@dataclass(slots=True)
class Notices:
    """Looks at exchanges as they go on. Of one exchange each kind is told once; memory is bounded."""

    _threads: dict[str | None, _Thread] = field(default_factory=dict)
    _told: dict[int, set[str]] = field(default_factory=dict)

    def look(self, exchange: Exchange) -> list[Notice]:
        """What is new with this phase of it."""
        told = self._told.setdefault(exchange.number, set())
        if len(self._told) > MOST_EXCHANGES:
            del self._told[next(iter(self._told))]
        found = []
        for notice in (*self._transport(exchange, told), *_of_one(exchange)):
            if notice.kind not in told:
                told.add(notice.kind)
                found.append(notice)
        return found

    def _transport(self, exchange: Exchange, told: set[str]) -> Iterator[Notice]:
        if exchange.route != RESPONSES_POST.name:  # what a turn's own requests are sent by, on both transports
            return
        thread = self._threads.pop(exchange.thread_id, None)
        if exchange.transport is Transport.WEBSOCKET:
            thread = thread or _Thread(exchange.started_at, exchange.number)
            _follow(thread, exchange, told)
        elif thread is not None and not thread.has_fallen_back:
            thread.has_fallen_back = True
            yield _fallback(exchange, thread)
        if thread is not None:
            self._threads[exchange.thread_id] = thread
            if len(self._threads) > MOST_THREADS:
                del self._threads[next(iter(self._threads))]


def _follow(thread: _Thread, exchange: Exchange, told: set[str]) -> None:
    if exchange.number > thread.number and (thread.was_open or thread.has_fallen_back):
        # It tries anew.
        thread.first_at, thread.failures, thread.reason = exchange.started_at, 0, ""
        thread.was_open = thread.is_open = thread.has_fallen_back = False
    thread.number = max(thread.number, exchange.number)
    if exchange.status == 101:
        thread.was_open, thread.is_open = True, exchange.phase is not Phase.ENDED
    elif (exchange.status is not None or exchange.phase is Phase.ENDED) and "failed" not in told:
        told.add("failed")
        thread.failures += 1
        thread.reason = exchange.error or f"HTTP {exchange.status}"


def _fallback(exchange: Exchange, thread: _Thread) -> Notice:
    who = "A client that names no thread" if exchange.thread_id is None else f"Thread {short(exchange.thread_id)}"
    passed = duration_text(max(0.0, exchange.started_at - thread.first_at))
    if thread.was_open:
        state = "is still open" if thread.is_open else "has ended"
        why = f"its WebSocket #{thread.number} {state}"
        advice = "The agent gave the socket up and sends the turn again by POST; look at the end of that socket."
    elif thread.failures:
        times = "one failed upgrade" if thread.failures == 1 else f"{thread.failures} failed upgrades"
        why = f"{times} (the last was #{thread.number}: {thread.reason.rstrip('.')}); {passed} passed before the POST"
        advice = (
            "The turn was that much later. The agent stays with POST for the rest of the session; start it again once "
            "the upgrades pass."
        )
    else:
        why = f"its upgrade #{thread.number} was not answered; {passed} passed before the POST"
        advice = "The turn was that much later: something between here and upstream swallows the upgrade."
    return Notice(
        Kind.FALLBACK, Severity.WARNING, exchange.number, exchange.started_at,
        "Fell back from WebSocket to POST", f"{who} went over to POST: {why}.", advice,
    )  # fmt: skip


def _of_one(exchange: Exchange) -> Iterator[Notice]:
    what = f"{_transport_name(exchange)} {exchange.route or exchange.path or exchange.host}"

    def notice(kind: Kind, severity: Severity, title: str, text: str, advice: str) -> Notice:
        return Notice(kind, severity, exchange.number, exchange.started_at, title, f"{what} {text}", advice)

    if exchange.stamp is Stamp.REFUSED:
        if exchange.status is not None:
            yield notice(
                Kind.REFUSED, Severity.PROBLEM, "Refused by the proxy",
                f"was answered here with {exchange.status}; nothing was sent upstream.",
                _REFUSALS.get(exchange.status, "It is malformed or ambiguous; the body of the answer says why."),
            )  # fmt: skip
        return
    if exchange.route is not None:
        yield from _stamp(exchange, notice)
    yield from _answer(exchange, notice)


def _stamp(exchange: Exchange, notice: "_Write") -> Iterator[Notice]:
    waited_s = exchange.waited_s
    if exchange.stamp in _UNSTAMPED:
        text, advice = _UNSTAMPED[exchange.stamp]
        yield notice(Kind.UNSTAMPED, Severity.PROBLEM, "Scoped request without a stamp", text, advice)
    elif not exchange.attested and exchange.attestation is not None:
        text, advice = _FAILED_TOKENS[exchange.attestation]
        wait = "" if waited_s is None else f" after {duration_text(waited_s)}"
        yield notice(
            Kind.FAILED_TOKEN, Severity.PROBLEM, "No token, only a failure status",
            f"went out with status {int(exchange.attestation)}: {text}{wait}.", advice,
        )  # fmt: skip
    elif waited_s is not None and waited_s > ATTESTATION_BUDGET_S:
        yield notice(
            Kind.LATE_TOKEN, Severity.WARNING, "Token over its budget",
            f"waited {duration_text(waited_s)} for its token; the budget is {duration_text(ATTESTATION_BUDGET_S)}.",
            "Each scoped request waits so before it goes out. Look at what the desktop does on attestation/generate.",
        )  # fmt: skip


def _answer(exchange: Exchange, notice: "_Write") -> Iterator[Notice]:
    status, is_upgrade = exchange.status, exchange.transport is Transport.WEBSOCKET
    if status is not None and status != 101 and (is_upgrade or exchange.route is not None and status >= 400):
        advice = _STATUSES.get(status) or _STATUSES.get(status // 100 * 100, "Nobody expects that here.")
        after = "" if exchange.first_byte_s is None else f" after {duration_text(exchange.first_byte_s)}"
        if is_upgrade:
            yield notice(
                Kind.UPGRADE, Severity.WARNING, "WebSocket upgrade refused",
                f"got no socket: upstream answered {status}{after}.", advice,
            )  # fmt: skip
        else:
            yield notice(
                Kind.REJECTED, Severity.WARNING, "Error from upstream", f"was answered with {status}{after}.", advice
            )
    if exchange.error is None or (client_left(exchange) and status is not None):
        return
    if exchange.transport is Transport.TUNNEL:
        is_upstream = not exchange.error.startswith(_CLIENT_BROKE_OFF)
        yield notice(
            Kind.BROKEN, Severity.PROBLEM if is_upstream else Severity.WARNING, "Connection came to nothing",
            f"came to nothing: {exchange.error.rstrip('.')}.",
            "The network, a proxy on the way, or the host: no request was on it." if is_upstream else
            "Once it says little: agents give connections up. Each time it says that the agent does not trust the "
            "proxy's authority; `countersign doctor -- CMD` tells why.",
        )  # fmt: skip
        return
    if client_left(exchange):
        after = "" if exchange.duration_s is None else f" after {duration_text(exchange.duration_s)}"
        yield notice(
            Kind.BROKEN, Severity.WARNING, "Given up by the client",
            f"was given up by the client{after}, without any answer.",
            "An agent that lost its patience looks so, and a turn that was interrupted.",
        )  # fmt: skip
    else:
        yield notice(
            Kind.BROKEN, Severity.PROBLEM, "No complete answer", f"broke off: {exchange.error.rstrip('.')}.",
            "The connection failed and not the request: the network, a proxy on the way, or the service. Agents try "
            "again by themselves, which takes time.",
        )  # fmt: skip


_Write = Callable[[Kind, Severity, str, str, str], Notice]

_UNSTAMPED = {
    Stamp.ABSENT: (
        "carried no attestation: there was nobody to ask for a token, or the proxy only observes.",
        "Connect a desktop that declares requestAttestation; with --stamp never, the agent itself made no header.",
    ),
    Stamp.FOREIGN: (
        "carried a value of the client's own that is no attestation envelope.",
        "Upstream will not take it for one. Look for what sets x-oai-attestation, or run without --stamp never.",
    ),
    Stamp.UNSENT: (
        "did not go out: the upstream or the client was gone before it could.",
        "Nothing was attested because nothing was sent; the error of the exchange says which side it was.",
    ),
}

_FAILED_TOKENS = {
    AttestationStatus.TIMEOUT: (
        "the desktop made no token in time",
        "Look at what the desktop does on attestation/generate: it has 100 ms, and a late token is thrown away.",
    ),
    AttestationStatus.FAILED: (
        "the desktop answered with an error, or was gone",
        "Look at the desktop's own log: it could not make a token on this machine.",
    ),
    AttestationStatus.CANCELED: (
        "the question was canceled",
        "The desktop took it back; ask again.",
    ),
    AttestationStatus.MALFORMED: (
        "the desktop's answer was no token",
        "The answer must be an object with a text 'token' of printable ASCII, of 64 KiB at most.",
    ),
}

_REFUSALS = {
    502: "The upstream connection failed or was not to be trusted, or the request could not be judged; its body says.",
    503: "There was no token, and on_failure is 'refuse'. Look at the desktop, or let the failure status be sent.",
}

# By status, else by its hundred.
_STATUSES = {
    401: "The sign-in is not accepted; the agent refreshes it and tries again. If it stays so, sign in again.",
    403: "Upstream forbids it: the account, the region, or a firewall that dislikes how a client behind a proxy looks.",
    426: "Upstream wants no WebSocket here; the agent goes over to POST at once.",
    429: "Upstream limits the rate; agents wait and try again, and the turn is late by that.",
    200: "That is no answer to an upgrade: something on the way does not speak WebSocket.",
    300: "Upstream redirects, and agents do not follow; look at the base URL.",
    400: "Upstream does not accept the request; its body says why.",
    500: "The service has trouble of its own; agents wait and try again, and the turn is late by that.",
}


def short(thread_id: str) -> str:
    """The end of a thread's id: ids begin with the time, and those of one session look alike there."""
    return thread_id if len(thread_id) <= 12 else f"…{thread_id[-8:]}"


def _transport_name(exchange: Exchange) -> str:
    if exchange.transport is Transport.WEBSOCKET:
        return "WebSocket"
    return "A tunnel to" if exchange.transport is Transport.TUNNEL else exchange.method
