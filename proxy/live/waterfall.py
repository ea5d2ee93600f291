"""Where the time of an exchange went: its parts in order, and in words what that means. Pure."""

import enum
from dataclasses import dataclass

from proxy.attestation import ATTESTATION_BUDGET_S
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport


class Part(enum.StrEnum):
    """What an exchange spends time on, in order."""

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


def waterfall(exchange: Exchange) -> tuple[Span, ...]:
    """The parts that are known of, without gaps between them."""
    is_over = exchange.phase is Phase.ENDED
    if exchange.transport is Transport.TUNNEL:
        return (Span(Part.OPEN, 0.0, exchange.duration_s if is_over else None),)
    spans = []
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


def verdict(exchange: Exchange) -> Verdict:
    """Why it took as long as it did, for somebody who sees such a page for the first time."""
    if exchange.transport is Transport.TUNNEL:
        return Verdict(
            "A tunnel to another host",
            "It is end-to-end encrypted and out of scope: only its length and its bytes are known.",
        )
    if exchange.stamp is Stamp.REFUSED:
        return Verdict("Answered here", "The proxy refused this request itself; nothing of it went upstream.")
    spans = waterfall(exchange)
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
    what = "the handshake" if is_handshake else "it"
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
            " The socket then carries one turn after the other; how long each took shows where its frames are kept, in "
            "a run with --bodies."
        )
    return Verdict(f"{_NAMES[part]}: {share}", meaning)


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
    Part.CONNECT: "Connecting upstream",
    Part.TOKEN: "Waiting for the token",
    Part.SEND: "Sending the request",
    Part.WAIT: "Waiting for the first byte",
    Part.RECEIVE: "Receiving the answer",
}

_MEANINGS = {
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
