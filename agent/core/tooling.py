"""What the core knows of tools: a call of the model, where it runs, and what comes of it. Pure."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agent.core.goals import GoalKeeper
from agent.core.thread import Thread
from agent.model.wire import Item, whole

# Types of calls in a response, and of the items that answer them.
OUTPUT_TYPES = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants something done.

    Args:
        kind: "function_call" or "custom_tool_call".
        namespace: Of the tool, where the model named one.
        text: Its arguments: a function's as JSON text, a custom tool's as they are.
    """

    id: str
    kind: str
    name: str
    text: str
    namespace: str | None = None

    @classmethod
    def of(cls, item: Item) -> "ToolCall":
        """The call that a response's item is. What is missing in it is empty, and the tool says so to the model."""
        text = item.get("arguments" if item["type"] == "function_call" else "input")
        namespace = item.get("namespace")
        return cls(
            id=str(item.get("call_id") or item.get("id") or ""),
            kind=item["type"],
            name=str(item.get("name") or "?"),
            text=text if isinstance(text, str) else "",
            namespace=namespace if isinstance(namespace, str) else None,
        )


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What the model is told of a call; there always is one, also of a failure.

    Args:
        content: A text, or a list of content parts (input_text, input_image).
        stops_turn: The user wants the turn to end instead of another request.
    """

    content: str | list[dict[str, Any]]
    stops_turn: bool = False

    def item(self, call: ToolCall) -> Item:
        """As the item that answers the call."""
        # What a name on disk is that is no UTF-8, no request could carry, and no later one of the thread.
        return {"type": OUTPUT_TYPES[call.kind], "call_id": call.id, "output": whole(self.content)}


@dataclass(frozen=True, slots=True)
class CallContext:
    """Where a call runs.

    Args:
        notify: Tells the clients of the thread: (method, params).
        ask: Asks them, (method, params), and gives the first answer; raises Exception with its text for an error.
        waiting: A context in which the status of the thread shows what is waited for: "waitingOnApproval" or
            "waitingOnUserInput".
        now_ms: Unix time in milliseconds.
        new_id: Makes the next identifier.
        session: What tools keep for later calls of the thread.
        goals: The thread's goal; None for a thread that is not kept.
    """

    thread: Thread
    turn_id: str
    notify: Callable[[str, dict[str, Any]], None]
    ask: Callable[[str, dict[str, Any]], Awaitable[Any]]
    waiting: Callable[[str], AbstractContextManager[None]]
    now_ms: Callable[[], int]
    new_id: Callable[[], str]
    session: dict[str, Any]
    goals: GoalKeeper | None = None

    def item(self, method: str, item: dict[str, Any]) -> None:
        """Tell of an item of the turn: `method` is "item/started" or "item/completed"."""
        about: dict[str, Any] = {"item": item, "threadId": self.thread.id, "turnId": self.turn_id}
        if method == "item/started":
            about["startedAtMs"] = item["startedAtMs"]
        else:
            about |= {"contentTokenCount": None, "completedAtMs": item["completedAtMs"]}
        self.notify(method, about)

    def delta(self, method: str, item_id: str, **more: Any) -> None:
        """Tell of a piece of an item, or of something about it."""
        self.notify(method, {"threadId": self.thread.id, "turnId": self.turn_id, "itemId": item_id, **more})


class UserCommand(Protocol):
    """A command that the user has started, not the model."""

    async def run(self) -> Item:
        """Show it and run it; what the model is told of it. Cancelled, it is stopped first."""
        ...

    def abort(self) -> Item:
        """Show at once that it was stopped; what the model is told. `run` has to be cancelled then."""
        ...


class ToolBox(Protocol):
    """All tools."""

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        """What the model is told it may call."""
        ...

    async def run(self, call: ToolCall, context: CallContext) -> ToolOutput:
        """Do it. Whatever fails becomes an output; cancelled, everything it started is stopped first."""
        ...

    def user_command(self, command: str, timeout_ms: int | None, context: CallContext) -> UserCommand:
        """A command of the user, who is not asked about it; None for the usual time."""
        ...

    def is_busy(self, session: dict[str, Any]) -> bool:
        """Whether something runs that its calls have left."""
        ...

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        """The thread is over: stop what its calls left running."""
        ...


class NoTools:
    """A `ToolBox` without any."""

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return ()

    async def run(self, call: ToolCall, context: CallContext) -> ToolOutput:
        return ToolOutput(unsupported(call))

    def user_command(self, command: str, timeout_ms: int | None, context: CallContext) -> UserCommand:
        raise LookupError("there is nothing here that runs commands")

    def is_busy(self, session: dict[str, Any]) -> bool:
        return False

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass


def unsupported(call: ToolCall) -> str:
    """What the model is told of a call of something that is not there (observed)."""
    return f"unsupported call: {call.name}"
