"""What a turn has been told and the model was not asked about yet. Pure."""

from collections.abc import Callable

from agent.core.steps import Notify, Record, Steered


class Inputs:
    """Of one turn, in order.

    Args:
        new_id: Makes the id of a userMessage item.
    """

    def __init__(self, thread_id: str, turn_id: str, new_id: Callable[[], str]) -> None:
        self._about = {"threadId": thread_id, "turnId": turn_id}
        self._new_id = new_id
        self._waiting: list[Steered] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def has_words(self) -> bool:
        """Whether something of it is the user's word, and not what a command said."""
        return any(one.content for one in self._waiting)

    def add(self, one: Steered) -> None:
        self._waiting.append(one)

    def take(self, now_ms: int) -> list[Notify | Record]:
        """Turn all of it into items."""
        waiting, self._waiting = self._waiting, []
        return [command for one in waiting for command in self._item(one, now_ms)]

    def leave(self) -> list[Record]:
        """What is not the user's word, for the next turn to read; the rest stays."""
        left = [Record(one.item) for one in self._waiting if not one.content]
        self._waiting = [one for one in self._waiting if one.content]
        return left

    def _item(self, one: Steered, now_ms: int) -> list[Notify | Record]:
        if not one.content:
            return [Record(one.item)]
        begun = {
            "type": "userMessage",
            "id": self._new_id(),
            "clientId": one.client_id,
            "content": one.content,
            "startedAtMs": now_ms,
            "completedAtMs": None,
        }
        started = {"item": begun, **self._about, "startedAtMs": now_ms}
        item = {**begun, "completedAtMs": now_ms}
        completed = {"item": item, **self._about, "contentTokenCount": None, "completedAtMs": now_ms}
        return [Notify("item/started", started), Notify("item/completed", completed), Record(one.item)]
