"""The events of an exchange as a page shows them: runs of like ones in one line, and what each turn spent its time on.
Pure.
"""

import json
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from proxy.capture.bodies.reading import Event
from proxy.live.waterfall import Verdict, duration_text

# Lines that are shown of the beginning, and as many of the end.
MOST_LINES = 150
MOST_TURNS = 50
MOST_TEXT = 4000
# Longer ones are shown as they are: to lay them out takes too long.
_MOST_PARSED = 256 * 1024

_ENDS = frozenset({"response.completed", "response.done", "response.failed", "response.incomplete", "error"})
_MODEL = re.compile(r'"model"\s*:\s*"([^"\\]{1,100})"')
_HEAD = 4096


@dataclass(slots=True)
class Line:
    """One event, or several of one kind in a row.

    Args:
        at_s, until_s: Of the first and the last, in seconds from the request head.
        size: Of all, in bytes.
        text: Laid out, and cut at MOST_TEXT; of deltas what they say together.
    """

    at_s: float
    until_s: float
    from_client: bool
    kind: str
    count: int
    size: int
    text: str


@dataclass(slots=True)
class Turn:
    """One question to the model and its answer. Seconds from the request head; None of what has not come.

    Args:
        output_s: When the first of its output came.
        outcome: "completed", "failed" and so on; "" while it goes on.
        tokens: As the service counted them, in words.
    """

    number: int
    asked_s: float
    model: str = ""
    output_s: float | None = None
    ended_s: float | None = None
    outcome: str = ""
    tokens: str = ""


class Digest:
    """Takes events in their order; memory is bounded.

    Args:
        asked_s: When the question of an exchange that is no WebSocket was out; of a WebSocket None: there the client's
            messages tell.
    """

    def __init__(self, asked_s: float | None) -> None:
        self._first: list[Line] = []
        self._last: deque[Line] = deque(maxlen=MOST_LINES)
        self._turns: deque[Turn] = deque(maxlen=MOST_TURNS)
        self._asked = 0
        self._is_answer = asked_s is not None
        self.left_out = 0
        if asked_s is not None:
            self._ask(asked_s, "")

    def add(self, event: Event) -> None:
        """One more."""
        self._add_line(event)
        if event.from_client:
            if event.kind == "response.create":
                found = _MODEL.search(event.text or "", 0, _HEAD)
                self._ask(event.t, "" if found is None else found[1])
        elif self._turns and self._turns[-1].ended_s is None:
            self._answer(self._turns[-1], event)

    @property
    def lines(self) -> list[Line]:
        """The first and the last; `left_out` is between them."""
        return [*self._first, *self._last]

    @property
    def turns(self) -> list[Turn]:
        """The last of them. Of an answer without events of the model there is none."""
        return [turn for turn in self._turns if turn.outcome or turn.output_s is not None or not self._is_answer]

    def _ask(self, at_s: float, model: str) -> None:
        self._asked += 1
        self._turns.append(Turn(self._asked, at_s, model))

    def _answer(self, turn: Turn, event: Event) -> None:
        if turn.output_s is None and (event.kind.endswith(".delta") or event.kind == "response.output_item.done"):
            turn.output_s = event.t
        if event.kind in _ENDS:
            turn.ended_s, turn.outcome = event.t, event.kind.removeprefix("response.")
            response = _member(_parsed(event.text), "response")
            model = _member(response, "model")
            turn.model = turn.model or (model[:100] if isinstance(model, str) else "")
            turn.tokens = _tokens(_member(response, "usage"))

    def _add_line(self, event: Event) -> None:
        last = self._last[-1] if self._last else self._first[-1] if self._first else None
        is_delta = event.kind.endswith(".delta")
        if last is not None and is_delta and (last.kind, last.from_client) == (event.kind, event.from_client):
            last.count += 1
            last.until_s = event.t
            last.size += event.size
            if len(last.text) < MOST_TEXT:
                last.text = cut(last.text + _delta(event))
            return
        text = _delta(event) if is_delta else laid_out(event.text or "")
        line = Line(event.t, event.t, event.from_client, event.kind, 1, event.size, text)
        if len(self._first) < MOST_LINES:
            self._first.append(line)
        else:
            self.left_out += len(self._last) == MOST_LINES
            self._last.append(line)


def turn_verdict(turns: list[Turn]) -> Verdict | None:
    """Which turn of a socket was slow, and why; None if none has ended."""
    over = [(turn, turn.ended_s - turn.asked_s) for turn in turns if turn.ended_s is not None]
    if not over:
        return None
    turn, took_s = max(over, key=lambda one: one[1])
    until_output_s = (turn.ended_s if turn.output_s is None else turn.output_s or 0.0) or 0.0
    share = (until_output_s - turn.asked_s) / took_s if took_s > 0 else 0.0
    which = "Its only turn" if len(turns) == 1 else f"The slowest of its {len(turns)} turns, number {turn.number},"
    headline = f"{which} took {duration_text(took_s)}: {round(100 * share)} % until the first output"
    if share >= 0.5:
        return Verdict(
            headline,
            "The question was out, and the model had not begun to write: it was thinking, or the service was busy. "
            "Neither the token nor this machine is the reason.",
        )
    return Verdict(headline, "Most of it the model was writing: a long answer takes long.")


def laid_out(text: str) -> str:
    """JSON on several lines; anything else as it is. Cut at MOST_TEXT."""
    content = _parsed(text)
    return cut(text if content is None else json.dumps(content, indent=1, ensure_ascii=False))


def cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " …"


def _delta(event: Event) -> str:
    delta = _member(_parsed(event.text), "delta")
    return delta if isinstance(delta, str) else ""


def _parsed(text: str | None) -> Any:
    if text is None or len(text) > _MOST_PARSED:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _member(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _tokens(usage: Any) -> str:
    counted = [
        (_member(usage, "input_tokens"), "in"),
        (_member(_member(usage, "input_tokens_details"), "cached_tokens"), "of them cached"),
        (_member(usage, "output_tokens"), "out"),
        (_member(_member(usage, "output_tokens_details"), "reasoning_tokens"), "of them thinking"),
    ]
    return ", ".join(f"{count} {word}" for count, word in counted if type(count) is int)
