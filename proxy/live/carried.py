"""What an exchange carried, for a page: the decoded events of its capture, as far as there is one."""

import time
from dataclasses import dataclass
from typing import Any

from proxy.capture.bodies.reading import Part, Summary, read_events, read_summary, read_text
from proxy.capture.exchange import Exchange, Transport
from proxy.capture.store import CaptureError, Run
from proxy.live.turns import MOST_TEXT, Digest, Line, Turn, laid_out, turn_verdict
from proxy.live.waterfall import Verdict

# Bytes of events that are looked at; a socket may carry 64 MiB.
MOST_BYTES = 16 * 1024 * 1024
# After so many events others get the interpreter: the proxy may run in this process.
_AT_ONCE = 100
_REST_S = 0.0002


@dataclass(frozen=True, slots=True)
class Carried:
    """All of it.

    Args:
        summary: (a name, what there is to say).
        verdict: Of a WebSocket's turns, where they are known.
        note: Why there is no more; empty where there is nothing to say.
    """

    summary: tuple[tuple[str, str], ...] = ()
    turns: tuple[Turn, ...] = ()
    lines: tuple[Line, ...] = ()
    verdict: Verdict | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same as a page gets it, in ms."""
        return {
            "summary": self.summary,
            "turns": [_turn(turn) for turn in self.turns],
            "lines": [_line(line) for line in self.lines],
            "note": self.note,
        }


def carried(run: Run | None, exchange: Exchange) -> Carried:
    """What is kept of it by now. Reads files, and takes its time."""
    if exchange.transport is Transport.TUNNEL:
        return Carried(note="What a tunnel carries is encrypted from end to end.")
    if run is None or not run.bodies:
        return Carried(note="What it carried was not captured; a run with --bodies shows it here.")
    try:
        return _carried(run, exchange)
    except CaptureError as exc:
        return Carried(note=f"What it carried cannot be shown: {exc}.")


def _carried(run: Run, exchange: Exchange) -> Carried:
    is_socket = exchange.status == 101
    digest = Digest(None if is_socket else exchange.sent_s or exchange.waited_s or 0.0)
    note, looked_at = "", 0
    for count, event in enumerate(read_events(run, exchange.number), 1):
        digest.add(event)
        looked_at += event.size
        if looked_at > MOST_BYTES:
            note = f"Only its first {MOST_BYTES // 1_000_000} MB were looked at. "
            break
        if count % _AT_ONCE == 0:
            time.sleep(_REST_S)
    summary = read_summary(run, exchange.number)
    lines = digest.lines
    if summary is not None:
        lines = [*_body_lines(run, exchange, summary), *lines]
    if digest.left_out:
        note += f"{digest.left_out} lines between the first and the last are left out. "
    if summary is None and not lines:
        note += "Nothing of it is kept yet." if exchange.duration_s is None else "Nothing of it is kept."
    turns = tuple(digest.turns)
    return Carried(
        tuple(_summary(summary)) if summary is not None else (),
        turns,
        tuple(lines),
        turn_verdict(list(turns)) if is_socket else None,
        note.strip(),
    )


def _summary(summary: Summary) -> list[tuple[str, str]]:
    pairs = []
    for name, part in (("Request", summary.request), ("Answer", summary.response)):
        if part is not None and (part.size or part.problem):
            pairs.append((name, _part(part)))
    for response in summary.responses[-1:]:
        told = [response.get("model"), response.get("status"), response.get("response_id")]
        pairs.append(("Response", " · ".join(str(one) for one in told if one)))
    if summary.problem:
        pairs.append(("Problem", summary.problem))
    return [pair for pair in pairs if pair[1]]


def _part(part: Part) -> str:
    size = "size not known" if part.size is None else f"{part.size} bytes"
    words = [size, part.media_type, f"{part.secrets} secrets taken out" if part.secrets else None, part.problem]
    return ", ".join(word for word in words if word)


def _body_lines(run: Run, exchange: Exchange, summary: Summary) -> list[Line]:
    """Bodies that are no stream of events: the request's, and an answer in one piece."""
    found = []
    for from_client, part in ((True, summary.request), (False, summary.response)):
        if part is None or part.media_type == "text/event-stream":
            continue
        body = read_text(run, exchange.number, part, 16 * MOST_TEXT)
        if body:
            at_s = 0.0 if from_client else exchange.first_byte_s or 0.0
            kind = "request body" if from_client else "answer body"
            text = laid_out(body.decode("utf-8", "replace")) if b"\0" not in body else ""
            found.append(Line(at_s, at_s, from_client, kind, 1, part.size or len(body), text))
    return found


def _turn(turn: Turn) -> dict[str, Any]:
    output_s = turn.output_s if turn.output_s is not None else turn.ended_s
    parts: list[tuple[str, float, float | None]] = [
        ("wait", _ms(turn.asked_s), None if output_s is None else _ms(output_s))
    ]
    if output_s is not None and turn.output_s is not None:
        parts.append(("receive", _ms(output_s), None if turn.ended_s is None else _ms(turn.ended_s)))
    said = " · ".join(word for word in (turn.model, turn.outcome, turn.tokens) if word)
    return {"number": turn.number, "parts": parts, "said": said}


def _line(line: Line) -> dict[str, Any]:
    return {
        "at_ms": _ms(line.at_s),
        "until_ms": _ms(line.until_s),
        "from_client": line.from_client,
        "name": line.kind,
        "count": line.count,
        "size": line.size,
        "text": line.text,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
