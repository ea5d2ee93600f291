"""Exchanges, notices and changes as a page gets them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from proxy.attestation import ATTESTATION_BUDGET_S
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport
from proxy.capture.exchange_json import exchange_as_json
from proxy.live.feed import Changes, Followed
from proxy.live.notices import Notice
from proxy.live.waterfall import Part, Span, client_left, duration_text, turns_of, verdict, waterfall

# Exchanges of one message.
AT_ONCE = 50

_HEADERS = ("request_headers", "response_headers")

# What became of the header: (a word, a tone, a sentence). The tones are good, bad, warn and idle.
_STAMPS = {
    Stamp.NOT_SCOPED: ("not scoped", "idle", "Not one of the requests that carry an attestation."),
    Stamp.ABSENT: ("no stamp", "bad", "In scope, and without attestation: there was nobody to ask, or nobody asked."),
    Stamp.FOREIGN: ("foreign value", "bad", "In scope, with a value of the client's own that is no envelope."),
    Stamp.REFUSED: ("refused", "warn", "Answered by the proxy; nothing was sent upstream."),
    Stamp.UNSENT: ("not sent", "warn", "In scope, and the upstream or the client was gone before it went out."),
    Stamp.STAMPED: ("stamped", "good", "A fresh token of the desktop went upstream with it."),
    Stamp.CARRIED: ("carried", "good", "The token of its realtime call went upstream with it again."),
    Stamp.NATIVE: ("native", "good", "The token that the client itself set went upstream as it was."),
}


def messages(changes: Changes) -> Iterator[dict[str, Any]]:
    """The messages of the stream that tell of these, the newest exchanges first.

    There are several, since to write one takes time in which nothing else goes on: about 2 ms for each.
    """
    exchanges = changes.exchanges
    kind = "snapshot" if changes.is_snapshot else "changes"
    notices = [notice_as_json(one) for one in changes.notices]
    for end in range(len(exchanges), -1, -AT_ONCE):
        if end == 0 and exchanges:
            return
        yield {
            "kind": kind,
            "run": changes.run,
            "budget_ms": ATTESTATION_BUDGET_S * 1000,
            "exchanges": [row(one) for one in exchanges[max(0, end - AT_ONCE) : end]],
            "notices": notices,
            "coverage": changes.coverage.as_json(),
            "forgotten": changes.forgotten,
        }
        kind, notices = "more", []


def row(followed: Followed) -> dict[str, Any]:
    """An exchange for the table: all but its headers, its stamp in words, its parts in ms."""
    exchange = followed.exchange
    content = exchange_as_json(exchange)
    for name in _HEADERS:
        del content[name]
    word, tone, _ = stamp_words(exchange)
    return {
        **content,
        "scoped": exchange.route is not None,
        "stamp_word": word,
        "tone": tone,
        "severity": followed.severity,
        "is_socket": exchange.transport is Transport.TUNNEL or exchange.status == 101,
        "is_over": exchange.phase is Phase.ENDED,
        "broke_off": exchange.error is not None and not (client_left(exchange) and exchange.status is not None),
        "parts": _parts(waterfall(exchange, followed.lost_s)),
        "turns": [
            {"number": turn.number, "parts": _parts(spans), "said": _said(spans)} for turn, spans in turns_of(exchange)
        ],
    }


def detail(followed: Followed, notices: tuple[Notice, ...]) -> dict[str, Any]:
    """Everything of one exchange but what it carried."""
    exchange = followed.exchange
    word, tone, sentence = stamp_words(exchange)
    content = exchange_as_json(exchange)
    return {
        **row(followed),
        **{name: content[name] for name in _HEADERS},
        "stamp_sentence": sentence,
        "verdict": asdict(verdict(exchange, followed.lost_s)),
        "notices": [notice_as_json(one) for one in notices],
    }


def notice_as_json(notice: Notice) -> dict[str, Any]:
    return asdict(notice)


def stamp_words(exchange: Exchange) -> tuple[str, str, str]:
    """What became of its header: a word, a tone and a sentence."""
    word, tone, sentence = _STAMPS[exchange.stamp]
    if tone != "good" or exchange.attested:
        return word, tone, sentence
    if exchange.attestation is None:  # of a native header there may be several
        return f"{word}, unclear", "bad", "It went upstream with a value that is no single envelope."
    failure = exchange.attestation.name.lower()
    named = failure if exchange.stamp is Stamp.STAMPED else f"{word} {failure}"
    return named, "bad", f"It went upstream with failure status {int(exchange.attestation)} ({failure}) and no token."


def _parts(spans: Sequence[Span]) -> list[tuple[str, float, float | None]]:
    return [
        (span.part, round(span.start_s * 1000, 2), None if span.end_s is None else round(span.end_s * 1000, 2))
        for span in spans
    ]


def _said(spans: Sequence[Span]) -> str:
    """Of a turn on a WebSocket: when upstream was silent in the midst of its answer."""
    return ", ".join(
        f"{duration_text(span.end_s - span.start_s)} of silence after its first answer"
        for span in spans[1:]
        if span.part is Part.WAIT and span.end_s is not None
    )
