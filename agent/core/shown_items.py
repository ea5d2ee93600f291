"""What the model says and does in a response, as clients see it while it comes. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.core.steps import Notify
from agent.core.views import item_wire
from agent.model.wire import Item, SummaryDelta, SummaryPartAdded, TextDelta

# Responses item types that clients are shown, and as what.
_KINDS = {"message": "agentMessage", "reasoning": "reasoning", "web_search_call": "webSearch"}


@dataclass(frozen=True, slots=True)
class _OpenItem:
    kind: str
    started_ms: int


class ShownItems:
    """Those of one turn.

    Args:
        new_id: Makes the id of an item that comes without one.
    """

    def __init__(self, thread_id: str, turn_id: str, new_id: Callable[[], str]) -> None:
        self.last_message: dict[str, Any] | None = None
        self._about = {"threadId": thread_id, "turnId": turn_id}
        self._new_id = new_id
        self._open: dict[str, _OpenItem] = {}

    def begin(self, item: Item, now_ms: int) -> list[Notify]:
        """It has begun, with what is there of it."""
        kind = _KINDS.get(item["type"])
        item_id = item.get("id")
        if kind is None or not isinstance(item_id, str):
            return []
        self._open[item_id] = _OpenItem(kind, now_ms)
        shown = item_wire(kind, item_id, item, started_ms=now_ms, completed_ms=None)
        return [Notify("item/started", {"item": shown, **self._about, "startedAtMs": now_ms})]

    def piece(self, event: TextDelta | SummaryPartAdded | SummaryDelta) -> list[Notify]:
        """A piece of one; nothing of what is not shown."""
        opened = self._open.get(event.item_id)
        about = {**self._about, "itemId": event.item_id}
        match event:
            case _ if opened is None:
                return []
            case TextDelta():
                # The original says nothing of an empty piece (observed).
                if opened.kind != "agentMessage" or not event.delta:
                    return []
                return [Notify("item/agentMessage/delta", {**about, "delta": event.delta})]
            case SummaryPartAdded():
                return [Notify("item/reasoning/summaryPartAdded", {**about, "summaryIndex": event.summary_index})]
            case SummaryDelta():
                told = {**about, "delta": event.delta, "summaryIndex": event.summary_index}
                return [Notify("item/reasoning/summaryTextDelta", told)]

    def end(self, item: Item, now_ms: int) -> list[Notify]:
        """It is complete; one that did not come in pieces begins only now (observed)."""
        kind = _KINDS.get(item["type"])
        if kind is None:
            return []
        if not isinstance(item.get("id"), str):
            item = {**item, "id": self._new_id()}
        told = [] if item["id"] in self._open else self.begin(item, now_ms)
        opened = self._open.pop(item["id"])
        shown = item_wire(kind, item["id"], item, started_ms=opened.started_ms, completed_ms=now_ms)
        if kind == "agentMessage":
            self.last_message = shown
        completed = {"item": shown, **self._about, "contentTokenCount": None, "completedAtMs": now_ms}
        return [*told, Notify("item/completed", completed)]

    def drop_open(self) -> None:
        """The response is over: an item that is open never completes (observed)."""
        self._open.clear()
