"""What happens in a thread: written down first, and then told to its clients."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from agent.core import rollout
from agent.core.store import Journal
from agent.core.surroundings import Surroundings
from agent.core.thread import Thread
from agent.core.tooling import OUTPUT_TYPES, ToolCall, ToolOutput
from agent.model.wire import Item


class Chronicle:
    """Writes and tells.

    Args:
        journal: None for an ephemeral thread.
        answering: The model that the turn which runs asks; None if it asks none.
    """

    def __init__(
        self, around: Surroundings, thread: Thread, journal: Journal | None, answering: Callable[[], str | None]
    ) -> None:
        self._around = around
        self._thread = thread
        self._journal = journal
        self._answering = answering
        self._written: list[str] = []  # calls with an output on disk that is not in the history yet
        self._problem_told = False

    @property
    def is_kept(self) -> bool:
        """Whether it is written down at all."""
        return self._journal is not None

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a file yet."""
        return self._journal is not None and self._journal.is_on_disk

    def write(self, kind: str, payload: Any) -> None:
        """Append a line to the thread's file, if it has one."""
        if self._journal is not None:
            self._journal.write(kind, payload)

    def close(self) -> None:
        """Let go of the file."""
        if self._journal is not None:
            self._journal.close()

    def add_to_history(self, item: Item) -> None:
        """What the model reads from now on; written down at once."""
        self._thread.history.append(item)
        if item.get("type") in OUTPUT_TYPES.values() and item.get("call_id") in self._written:
            self._written.remove(item["call_id"])
        else:
            self.write(rollout.HISTORY, item)

    def add_output(self, call: ToolCall, output: ToolOutput) -> None:
        """Write it down before its place in the history has come: a crash in between must not tell the model that
        the call was not done."""
        self.write(rollout.HISTORY, output.item(call))
        self._written.append(call.id)

    def replace_history(self, history: list[Item]) -> None:
        """The model reads this from now on."""
        self._thread.history[:] = history
        self._thread.window += 1
        self.write(rollout.COMPACTED, {"history": history})

    def publish(self, method: str, params: dict[str, Any]) -> None:
        """Write down what a resumed thread must know, and only then tell it."""
        match method:
            case "turn/started" if params["turn"]["rootTurnId"] == params["turn"]["id"]:  # else it is part of another
                self.write(rollout.TURN_STARTED, {"turn": params["turn"], "model": self._answering()})
            case "item/completed":
                self.write(rollout.ITEM, {"turn_id": params["turnId"], "item": params["item"]})
            case "turn/completed":
                self.write(rollout.TURN_ENDED, {"turn": {**params["turn"], "items": []}})
            case "thread/tokenUsage/updated":
                self.write(rollout.USAGE, rollout.usage_payload(self._thread.total, self._thread.last))
            case "thread/readState/changed":
                self._thread.read_state = params["readState"]
                self.write(rollout.READ_STATE, params["readState"])
        if (problem := self._unsaved()) is not None:
            self._around.publish(self._thread.id, "warning", {"threadId": self._thread.id, "message": problem})
        self._around.publish(self._thread.id, method, params)

    def _unsaved(self) -> str | None:
        """Why the thread is not saved any more; told once."""
        if self._journal is None or self._journal.problem is None or self._problem_told:
            return None
        self._problem_told = True
        return self._journal.problem

    @contextlib.contextmanager
    def waiting(self, flag: str) -> Iterator[None]:
        """The status of the thread shows `flag` inside."""
        self._flag(flag, 1)
        try:
            yield
        finally:
            self._flag(flag, -1)

    def _flag(self, flag: str, more: int) -> None:
        flags = self._thread.flags
        before = [name for name, count in flags.items() if count]
        flags[flag] = flags.get(flag, 0) + more
        now = [name for name, count in flags.items() if count]
        if now != before and self._thread.status == "active":
            params = {"threadId": self._thread.id, "status": {"type": "active", "activeFlags": now}}
            self._around.publish(self._thread.id, "thread/status/changed", params)
