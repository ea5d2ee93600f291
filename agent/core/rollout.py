"""A thread as lines of a file, and back. Pure.

Append-only: one JSON object a line, {"timestamp", "type", "payload"}, as the original's rollouts are, in the same
place and with the same names for what both have (session_meta, response_item). A line that was torn by a crash, or is
garbage, is left out and reported; what is left is a thread that can go on.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core.goals import Goal
from agent.core.thread import ABORTED_CALL
from agent.core.tooling import OUTPUT_TYPES
from agent.core.views import turn_wire
from agent.model.wire import Item, TokenUsage

META = "session_meta"
HISTORY = "response_item"
TURN_STARTED = "turn_started"
ITEM = "thread_item"
TURN_ENDED = "turn_ended"
USAGE = "token_usage"
READ_STATE = "read_state"
UPDATED = "thread_updated"
COMPACTED = "compacted"
REVERTED = "reverted"
GOAL = "goal"


@dataclass(slots=True)
class StoredTurn:
    """A turn as it was told to clients, with its items.

    Args:
        wire: Without items.
        items: Those that were completed, in order.
        history_start: How long the history was when it began; 0 if it was compacted since.
        compacted: What the history was when it began, if it was compacted since.
        total, last: The thread's tokens when it ended.
        model: The one that was to answer.
        after: The one that had answered last before.
    """

    wire: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)
    history_start: int = 0
    compacted: list[Item] | None = None
    total: TokenUsage = field(default_factory=TokenUsage)
    last: TokenUsage = field(default_factory=TokenUsage)
    model: str | None = None
    after: str | None = None

    def before(self, history: list[Item]) -> list[Item]:
        """The history when the turn began, given what has become of it."""
        return history[: self.history_start] if self.compacted is None else list(self.compacted)


@dataclass(slots=True)
class StoredThread:
    """What the lines of a thread add up to.

    Args:
        meta: The payload of the first line, with what was updated later.
        created_at, updated_at: Unix seconds.
        window: How often it was compacted.
        problems: What was left out, a sentence each.
    """

    meta: dict[str, Any]
    history: list[Item] = field(default_factory=list)
    turns: list[StoredTurn] = field(default_factory=list)
    total: TokenUsage = field(default_factory=TokenUsage)
    last: TokenUsage = field(default_factory=TokenUsage)
    read_state: dict[str, Any] | None = None
    updated_at: int = 0
    window: int = 0
    goal: Goal | None = None
    problems: list[str] = field(default_factory=list)
    closing: list[tuple[str, Any]] = field(default_factory=list)  # lines that a crash kept from being written
    calls: set[Any] = field(default_factory=set)  # ids of those in the history
    reverted: set[str] = field(default_factory=set)  # ids of turns

    def turn(self, turn_id: str) -> StoredTurn | None:
        """The turn; one that has lost its beginning is made up, one that was taken back is None."""
        for known in reversed(self.turns):
            if known.wire["id"] == turn_id:
                return known
        if turn_id in self.reverted:
            return None
        self.turns.append(
            StoredTurn(turn_wire(turn_id, "interrupted", started_ms=None), [], len(self.history), None, self.total)
        )
        return self.turns[-1]

    @property
    def id(self) -> str:
        return str(self.meta["id"])

    @property
    def preview(self) -> str:
        """The first words of the user, or what the thread is for."""
        for turn in self.turns:
            for item in turn.items:
                if item.get("type") == "userMessage":
                    return next(
                        (str(part.get("text", "")) for part in item["content"] if part.get("type") == "text"), ""
                    )
        return "" if self.goal is None else self.goal.objective


class NoSuchCall(ValueError):
    """A line answers a call that is not in the history."""


class NotAThread(ValueError):
    """The lines do not begin as those of a thread; the text says what is wrong."""


def line(kind: str, payload: Any, timestamp: str) -> bytes:
    """One line, with its end."""
    content = {"timestamp": timestamp, "type": kind, "payload": payload}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def read(lines: Iterable[bytes], *, whole: bool = True) -> StoredThread:
    """What the lines add up to.

    Args:
        whole: False for a look at the beginning: what looks unfinished then is not judged.

    Raises:
        NotAThread: There is no usable first line.
    """
    thread: StoredThread | None = None
    problems: list[str] = []
    open_turn: StoredTurn | None = None
    for number, raw in enumerate(lines, 1):
        torn = not raw.endswith(b"\n")
        try:
            entry = json.loads(raw)
            kind, payload = entry["type"], entry["payload"]
            if thread is None:
                thread = _begun(kind, payload)
            else:
                open_turn = _apply(thread, open_turn, kind, payload)
        except NotAThread:
            raise
        except NoSuchCall:
            problems.append(f"line {number} answers a call that is not there, and is left out")
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
            if thread is None:
                raise NotAThread("the first line is not that of a thread") from None
            what = "was torn by a crash" if torn else "cannot be read"
            problems.append(f"line {number} {what}, and is left out")
    if thread is None:
        raise NotAThread("it is empty")
    thread.problems = problems
    if whole:
        _close(thread, open_turn)
    return thread


def _begun(kind: str, payload: Any) -> StoredThread:
    if kind != META or not isinstance(payload, dict) or not isinstance(payload.get("id"), str):
        raise NotAThread("the first line is not that of a thread")
    if payload.get("countersign") != FORMAT:
        raise NotAThread("it was written by another program or version")
    return StoredThread(dict(payload))


# Of our lines, in the first of them.
FORMAT = 1


def _apply(thread: StoredThread, turn: StoredTurn | None, kind: str, payload: Any) -> StoredTurn | None:
    """Take in one line; the turn that is open after it."""
    match kind:
        case "response_item":
            item = _object(payload)
            # What a goal is for is an output that answers nothing.
            answers = item.get("type") in OUTPUT_TYPES.values() and "call_id" in item
            if answers and item["call_id"] not in thread.calls:
                raise NoSuchCall  # its line is lost; with the output alone the service refuses the history
            thread.history.append(item)
            thread.calls |= _calls_in((item,))
        case "turn_started":
            turn = StoredTurn(_object(payload["turn"]), [], len(thread.history), total=thread.total, last=thread.last)
            turn.model, turn.after = payload.get("model"), thread.meta.get("answered_by")
            thread.turns.append(turn)
        case "thread_item":
            _object(payload["item"])["type"]
            if (known := thread.turn(payload["turn_id"])) is not None:
                known.items.append(payload["item"])
        case "turn_ended":
            ended = _object(payload["turn"])
            if (known := thread.turn(ended["id"])) is not None:
                known.wire = ended
                if ended["status"] == "completed" and known.model is not None:
                    thread.meta["answered_by"] = known.model
            turn = None
        case "token_usage":
            thread.total = _usage(payload)
            thread.last = _usage(payload["last"]) if "last" in payload else TokenUsage()
            if thread.turns:
                thread.turns[-1].total, thread.turns[-1].last = thread.total, thread.last
        case "read_state":
            _object(_object(payload).get("firstUnread") or {})
            thread.read_state = payload
        case "thread_updated":
            thread.meta |= _object(payload)
        case "goal":
            thread.goal = None if payload is None else Goal.of(payload)
        case "compacted":
            history = [_object(item) for item in payload["history"]]
            for known in thread.turns:
                known.compacted, known.history_start = known.before(thread.history), 0
            thread.history, thread.calls = history, _calls_in(history)
            thread.window += 1
        case "reverted":
            for index, known in enumerate(thread.turns):
                if known.wire["id"] == payload["turn_id"]:
                    thread.history = known.before(thread.history)
                    thread.calls = _calls_in(thread.history)
                    thread.meta["answered_by"] = known.after
                    thread.reverted |= {one.wire["id"] for one in thread.turns[index:]}
                    del thread.turns[index:]
                    break
        case _:
            raise KeyError(kind)
    return turn


def _calls_in(items: Iterable[Item]) -> set[Any]:
    return {item.get("call_id") for item in items if item.get("type") in OUTPUT_TYPES}


_COUNTS = ("total", "input", "cached_input", "output", "reasoning_output")


def usage_payload(total: TokenUsage, last: TokenUsage) -> dict[str, Any]:
    """For a line of USAGE: of all turns, and of the last response."""
    return {**_counts(total), "last": _counts(last)}


def entries(history: Sequence[Item], turns: Sequence[StoredTurn]) -> Iterator[tuple[str, Any]]:
    """Kind and payload of the lines that add up to this history with these turns."""
    starts: dict[int, list[StoredTurn]] = {turn.history_start: [] for turn in turns}
    for turn in turns:
        starts[turn.history_start].append(turn)
    for number, item in enumerate(history):
        for turn in starts.pop(number, ()):
            yield from _entries_of(turn)
        yield HISTORY, item
    for late in starts.values():
        for turn in late:
            yield from _entries_of(turn)


def _entries_of(turn: StoredTurn) -> Iterator[tuple[str, Any]]:
    yield TURN_STARTED, {"turn": turn.wire, "model": turn.model}
    for item in turn.items:
        yield ITEM, {"turn_id": turn.wire["id"], "item": item}
    yield USAGE, usage_payload(turn.total, turn.last)
    yield TURN_ENDED, {"turn": turn.wire}


def _counts(usage: TokenUsage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in _COUNTS}


def _usage(payload: Any) -> TokenUsage:
    return TokenUsage(*(int(payload[name]) for name in _COUNTS))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object is needed")
    return value


def _close(thread: StoredThread, turn: StoredTurn | None) -> None:
    """A crash may have come in the middle of a turn: it is interrupted, and each call gets an output."""
    answered = {item.get("call_id") for item in thread.history if item.get("type") in OUTPUT_TYPES.values()}
    for item in list(thread.history):
        kind = OUTPUT_TYPES.get(str(item.get("type")))
        if kind is not None and item.get("call_id") not in answered:
            output = {"type": kind, "call_id": item.get("call_id", ""), "output": ABORTED_CALL}
            thread.history.append(output)
            thread.closing.append((HISTORY, output))
    if turn is not None:
        turn.wire = {**turn.wire, "status": "interrupted"}
        thread.closing.append((TURN_ENDED, {"turn": turn.wire}))
        thread.problems.append("the last turn was interrupted by the end of the process")
