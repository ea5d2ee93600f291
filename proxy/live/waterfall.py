"""Where the time of an exchange went: its parts in order, and in words what that means. Pure."""

import enum
from dataclasses import dataclass

from proxy.attestation import ATTESTATION_BUDGET_S
from proxy.capture.exchange import Exchange, Phase, SocketTurn, Stamp, Transport

# Seconds. A silence of upstream within its answer that is told by itself.
_QUIET_S = 1.0


class Part(enum.StrEnum):
    """What an exchange spends time on, in order."""

    TRIES = "tries"  # earlier tries of the same thread that failed, until this one began
    CONNECT = "connect"  # opening the upstream connection; over before the request head came
    TOKEN = "token"  # waiting for the desktop's token
    SEND = "send"  # the request, until the end of its body
    WAIT = "wait"  # nothing goes either way until the answer's head is there
    RECEIVE = "receive"  # the answer, until its end
    OPEN = "open"  # a WebSocket after its handshake, or a tunnel


@dataclass(frozen=True, slots=True)
class Span:
    """One part.

    Args:
        start_s, end_s: Seconds from the request head; before it they are negative. `end_s` is None where the part is
            still under way.
    """

    part: Part
    start_s: float
    end_s: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What took the time, in a line, and what that means."""

    headline: str
    meaning: str


def waterfall(exchange: Exchange, lost_s: float = 0.0) -> tuple[Span, ...]:
    """The parts that are known of, without gaps between them.

    Args:
        lost_s: Seconds between the first of the tries that failed and this one.
    """
    is_over = exchange.phase is Phase.ENDED
    if exchange.transport is Transport.TUNNEL:
        return (Span(Part.OPEN, 0.0, exchange.duration_s if is_over else None),)
    spans = []
    # The connection was opened at the end of that time.
    connect_s = max(0.0, exchange.connect_s or 0.0)
    if lost_s > connect_s:
        spans.append(Span(Part.TRIES, -lost_s, -connect_s))
    if exchange.connect_s is not None:
        spans.append(Span(Part.CONNECT, -exchange.connect_s, 0.0))
    at = 0.0
    if exchange.waited_s is not None:
        spans.append(Span(Part.TOKEN, 0.0, exchange.waited_s))
        at = exchange.waited_s
    # None of these is before `at` on one clock; but a file may say anything.
    end_s = max(at, exchange.duration_s or 0.0) if is_over else None
    answered_s = None if exchange.first_byte_s is None else max(at, exchange.first_byte_s)
    if exchange.sent_s is None and answered_s is None:
        spans.append(Span(Part.SEND, at, end_s))
        return tuple(spans)
    # An answer may come while the body is still on its way.
    sent_s = max(at, min(time for time in (exchange.sent_s, answered_s) if time is not None))
    spans.append(Span(Part.SEND, at, sent_s))
    if answered_s is None:
        spans.append(Span(Part.WAIT, sent_s, end_s))
        return tuple(spans)
    spans.append(Span(Part.WAIT, sent_s, answered_s))
    is_socket = exchange.transport is Transport.WEBSOCKET and exchange.status == 101
    spans.append(
        Span(Part.OPEN if is_socket else Part.RECEIVE, answered_s, None if end_s is None else max(answered_s, end_s))
    )
    return tuple(spans)


# How mitmproxy 12.2 begins the error of a client that left, on HTTP/1 and on HTTP/2.
_CLIENT_LEFT = ("client disconnected", "stream reset by client")


def client_left(exchange: Exchange) -> bool:
    """Whether it ended because the client closed its side.

    With an answer under way that is usual: agents hang up once they have read that the response is complete.
    """
    return exchange.error is not None and exchange.error.lower().startswith(_CLIENT_LEFT)


def turn_spans(turn: SocketTurn, ended_s: float | None) -> tuple[Span, ...]:
    """The parts of a turn on a WebSocket; nothing is known of its end but when upstream last said something.

    Args:
        ended_s: When nothing more of it could come, in seconds from the request head; None if it still may.
    """
    asked_s = turn.asked_s
    if turn.first_s is None or turn.last_s is None:
        return (Span(Part.WAIT, asked_s, None if ended_s is None else max(asked_s, ended_s)),)
    first_s = max(asked_s, turn.first_s)
    last_s = max(first_s, turn.last_s)
    spans = [Span(Part.WAIT, asked_s, first_s)]
    if first_s <= turn.quiet_from_s and _QUIET_S <= turn.quiet_until_s - turn.quiet_from_s <= last_s - first_s:
        spans.append(Span(Part.RECEIVE, first_s, turn.quiet_from_s))
        spans.append(Span(Part.WAIT, turn.quiet_from_s, turn.quiet_until_s))
        first_s = turn.quiet_until_s
    return (*spans, Span(Part.RECEIVE, first_s, max(first_s, last_s)))


def turns_of(exchange: Exchange) -> tuple[tuple[SocketTurn, tuple[Span, ...]], ...]:
    """The turns of a WebSocket that are known, with their parts."""
    ends = [*(turn.asked_s for turn in exchange.turns[1:]), exchange.duration_s]
    if exchange.phase is not Phase.ENDED:
        ends[-1] = None
    return tuple((turn, turn_spans(turn, end_s)) for turn, end_s in zip(exchange.turns, ends, strict=False))


def verdict(exchange: Exchange, lost_s: float = 0.0) -> Verdict:
    """Why it took as long as it did, for somebody who sees such a page for the first time."""
    if exchange.transport is Transport.TUNNEL and exchange.error is not None:
        return Verdict("This connection came to nothing", f"No request was on it: {exchange.error.rstrip('.')}.")
    if exchange.transport is Transport.TUNNEL:
        return Verdict(
            "A tunnel to another host",
            "It is end-to-end encrypted and out of scope: only its length and its bytes are known.",
        )
    if exchange.stamp is Stamp.REFUSED:
        return Verdict("Answered here", "The proxy refused this request itself; nothing of it went upstream.")
    spans = waterfall(exchange, lost_s)
    last = spans[-1]
    if last.end_s is None and last.part is not Part.OPEN:
        return _UNDER_WAY[last.part]
    # A handshake is what somebody waits for; that a socket stays open is no delay.
    lengths = {
        span.part: span.end_s - span.start_s for span in spans if span.part is not Part.OPEN and span.end_s is not None
    }
    total_s = sum(lengths.values())
    if total_s <= 0:
        return Verdict("No times are known", "It ended before anything of it could be measured.")
    part = max(lengths, key=lambda one: lengths[one])
    is_handshake = last.part is Part.OPEN
    if is_handshake and (found := _turn_verdict(exchange, total_s)) is not None:
        return found
    what = "the handshake" if is_handshake else "it"
    if part is Part.TRIES:
        what = "the turn"
    share = f"{round(100 * lengths[part] / total_s)} % of the {duration_text(total_s)} that {what} took"
    meaning = _UPGRADE if is_handshake and part is Part.WAIT else _MEANINGS[part]
    if client_left(exchange) and not is_handshake:
        meaning += " Then the client hung up."
    elif exchange.error is not None and not is_handshake:
        meaning = f"Then it broke off: {exchange.error.rstrip('.')}. {meaning}"
    waited_s = lengths.get(Part.TOKEN, 0.0)
    if part is not Part.TOKEN and waited_s > ATTESTATION_BUDGET_S:
        meaning += f" The token, too, was late: {duration_text(waited_s)} of {duration_text(ATTESTATION_BUDGET_S)}."
    if is_handshake:
        meaning += (
            " The socket then carries one turn after the other; how long they took stands below."
            if exchange.turns
            else " What it carries then shows in a run with --bodies."
        )
    return Verdict(f"{_NAMES[part]}: {share}", meaning)


def _turn_verdict(exchange: Exchange, handshake_s: float) -> Verdict | None:
    """Of the slowest turn of a WebSocket; None if there is none, or its handshake took longer."""
    turns = turns_of(exchange)
    if turns and turns[-1][1][-1].end_s is None:
        return Verdict(
            f"Turn {turns[-1][0].number} waits for upstream",
            "The question is out, and nothing has come back on the socket yet.",
        )
    longest: tuple[float, float, SocketTurn] | None = None
    for turn, spans in turns:
        took_s = (spans[-1].end_s or 0.0) - turn.asked_s
        if longest is None or took_s > longest[0]:
            waited_s = sum((span.end_s or 0.0) - span.start_s for span in spans if span.part is Part.WAIT)
            longest = took_s, waited_s, turn
    if longest is None or longest[0] <= handshake_s:
        return None
    took_s, waited_s, turn = longest
    which = "Its only turn" if turns[-1][0].number == 1 else f"Its slowest turn, number {turn.number},"
    share = round(100 * waited_s / took_s)
    headline = f"{which} took {duration_text(took_s)}; for {share} % of it nothing came from upstream"
    return Verdict(headline, f"{_SILENT if share >= 50 else _WROTE} What was said shows in a run with --bodies.")


def duration_text(duration_s: float) -> str:
    """A duration for people: "7.2 ms", "240 ms", "2.31 s", "1 min 5 s"."""
    if duration_s < 0.01:
        return f"{duration_s * 1000:.1f} ms"
    if duration_s < 0.9995:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 59.95:
        return f"{duration_s:.{2 if duration_s < 9.995 else 1}f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    return f"{minutes} min {seconds} s"


_NAMES = {
    Part.TRIES: "Tries that failed before it",
    Part.CONNECT: "Connecting upstream",
    Part.TOKEN: "Waiting for the token",
    Part.SEND: "Sending the request",
    Part.WAIT: "Waiting for the first byte",
    Part.RECEIVE: "Receiving the answer",
}

_SILENT = (
    "The question was out, and upstream was silent: the model was thinking, or the service was busy. Neither the token "
    "nor this machine is the reason."
)
_WROTE = "Most of it upstream was answering: a long answer takes long."

_MEANINGS = {
    Part.TRIES: "The agent tried the same before, failed, and paused in between; those requests stand below, under its "
    "thread.",
    Part.CONNECT: "That is name lookup, TCP and TLS: the network, or the distance. Only the first request on a "
    "connection pays it.",
    Part.TOKEN: "That is the desktop, which makes one token for each scoped request. Above 100 ms the original gives "
    "up; look at what the desktop does on attestation/generate.",
    Part.SEND: "That is the request's body on its way up: a long history, images, or a slow uplink.",
    Part.WAIT: "The request was out, and upstream had not begun to answer: the service was thinking or busy. Neither "
    "the token nor this machine is the reason.",
    Part.RECEIVE: "Upstream was answering all that time: the model writes as it thinks, so a long answer takes long. "
    "Neither the token nor this machine is the reason.",
}

_UPGRADE = "Upstream took so long to answer the upgrade."

_UNDER_WAY = {
    Part.SEND: Verdict("Still sending", "The end of the request's body has not come from the client yet."),
    Part.WAIT: Verdict(
        "Waiting for the first byte",
        "The request is out, with what stamp it got; upstream has not begun to answer.",
    ),
    Part.RECEIVE: Verdict("Still receiving", "Upstream is answering; the model writes as it thinks."),
}
