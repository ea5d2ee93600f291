"""A turn's dialogue, written down and compared: events in (`>>`), commands out (`<<`). After mitmproxy's device.

    assert (
        Playbook(turn)
        >> START
        << Told("turn/started")
        ...
    )

Each command has its line; one too many or too few is a failure, and so is a playbook that was never asserted.
"""

import difflib
import itertools
from collections.abc import Mapping
from typing import Any, Self

from agent.core.steps import Notify, Record, TurnCommand, TurnEvent
from agent.core.thread import Thread
from agent.core.turn import Turn
from tests.agent.core.published_schema import misfit_of_notification

NOW_MS = 1_700_000_000_000


class _Start:
    def __repr__(self) -> str:
        return "START"


START = _Start()


class At:
    """An event that happens this many milliseconds after NOW_MS."""

    def __init__(self, after_ms: int, event: TurnEvent) -> None:
        self.after_ms, self.event = after_ms, event

    def __repr__(self) -> str:
        return f"At({self.after_ms}, {self.event!r})"


class Told:
    """A notification of this method whose params hold at least these."""

    def __init__(self, method: str, **part: Any) -> None:
        self.method, self.part = method, part

    def __repr__(self) -> str:
        return f"Told({self.method!r}, {self.part!r})"

    def fits(self, command: TurnCommand) -> bool:
        return isinstance(command, Notify) and command.method == self.method and holds(command.params, self.part)


def holds(whole: Any, part: Any) -> bool:
    """Whether `whole` has all that `part` has; lists must be of the same length."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(name in whole and holds(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part) and type(whole) is type(part)


class Playbook:
    """The dialogue with one turn. `told` and `recorded` keep what it brought, in order."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._script: list[tuple[str, Any]] = []
        self.told: list[Notify] = []
        self.recorded: list[dict[str, Any]] = []

    def __rshift__(self, event: TurnEvent | At | _Start) -> Self:
        self._script.append((">>", event))
        return self

    def __lshift__(self, command: TurnCommand | Told) -> Self:
        self._script.append(("<<", command))
        return self

    def __bool__(self) -> bool:
        """Play what was written since the last time, and compare."""
        script, self._script = self._script, []
        wanted = [f"{direction} {line!r}" for direction, line in script]
        seen: list[str] = []
        rest = script
        while rest:
            (direction, event), *rest = rest
            if direction != ">>":
                raise AssertionError("a playbook starts with an event")
            seen.append(f">> {event!r}")
            expected = list(itertools.takewhile(lambda step: step[0] == "<<", rest))
            rest = rest[len(expected) :]
            lines = [line for _, line in expected]
            for command, line in itertools.zip_longest(self.say(event), lines):
                if command is None:
                    break  # fewer than expected
                fits = line.fits(command) if isinstance(line, Told) else line == command
                seen.append(f"<< {line!r}" if fits else f"<< {command!r}")
        if wanted != seen:
            diff = "\n".join(difflib.ndiff(wanted, seen))
            raise AssertionError(f"the turn said something else (- expected, + said):\n{diff}")
        return True

    def say(self, event: TurnEvent | At | _Start) -> list[TurnCommand]:
        if isinstance(event, _Start):
            commands = self._turn.start(NOW_MS)
        elif isinstance(event, At):
            commands = self._turn.receive(event.event, NOW_MS + event.after_ms)
        else:
            commands = self._turn.receive(event, NOW_MS)
        for command in commands:
            if isinstance(command, Notify):
                self.told.append(command)
                assert (misfit := misfit_of_notification(command.method, command.params)) is None, misfit
            elif isinstance(command, Record):
                self.recorded.append(command.item)
        return commands

    def __del__(self) -> None:
        if self._script:
            self._script = []
            raise AssertionError("a playbook was written and never asserted")


def new_thread(**changes: Any) -> Thread:
    """A thread "thread-1" as thread/start makes them."""
    settings: dict[str, Any] = {
        "id": "thread-1",
        "cwd": "/work",
        "model": "gpt-6.1-sol",
        "originator": "codex_desktop",
        "approval_policy": "on-request",
        "sandbox": {"type": "readOnly", "networkAccess": False},
        "profile": ":read-only",
        "created_at": NOW_MS // 1000,
        "cli_version": "0.169.0",
    }
    return Thread(**settings | changes)


USER_SAID = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
CONTENT = [{"type": "text", "text": "hello", "text_elements": []}]


def new_turn(thread: Thread | None = None, **changes: Any) -> Turn:
    """A turn "turn-1" of "hello"; further ids are "id-1", "id-2" and so on."""
    numbers = itertools.count(1)
    settings: dict[str, Any] = {
        "id": "turn-1",
        "thread": new_thread() if thread is None else thread,
        "content": CONTENT,
        "item": USER_SAID,
        "client_id": None,
        "window": 258_400,
        "retries": 5,
        "new_id": lambda: f"id-{next(numbers)}",
    }
    return Turn(**settings | changes)


def begun(turn: Turn) -> Playbook:
    """The playbook of a turn that waits for its first answer."""
    book = Playbook(turn)
    book.say(START)
    return book
