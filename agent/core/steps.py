"""What a turn is told (events), and what it wants done (commands). Pure."""

from dataclasses import dataclass
from typing import Any

from agent.core.tooling import ToolCall, ToolOutput
from agent.model.failures import StreamBroken, UpstreamError
from agent.model.wire import Item, ResponseEvent

# Commands


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the thread's clients."""

    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """Append to the history."""

    item: Item


@dataclass(frozen=True, slots=True)
class Replace:
    """Put these items in the place of the history."""

    history: list[Item]


@dataclass(frozen=True, slots=True)
class RunTool:
    """Do what the model wants done; `ToolFinished` comes of it."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Sample:
    """Ask the model with the whole history, after this many seconds."""

    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FallBack:
    """Give up WebSocket for the rest of the thread."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The turn is over."""

    status: str


TurnCommand = Notify | Record | Replace | RunTool | Sample | FallBack | Finish


# Events


@dataclass(frozen=True, slots=True)
class Received:
    """The model service said something."""

    event: ResponseEvent


@dataclass(frozen=True, slots=True)
class SampleFailed:
    """The request failed or broke off, on this transport ("websocket" or "http")."""

    failure: UpstreamError | StreamBroken
    transport: str


@dataclass(frozen=True, slots=True)
class Impossible:
    """The request could not even be made, and a retry would not help."""

    reason: str
    info: Any


@dataclass(frozen=True, slots=True)
class Steered:
    """The user added input while the turn runs; without `content` it is nothing that the user said."""

    content: list[dict[str, Any]]
    item: Item
    client_id: str | None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user stopped the turn.

    Args:
        replaced: For another one; the model is not told of it then (observed).
    """

    replaced: bool = False


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """What came of a call."""

    call: ToolCall
    output: ToolOutput


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """The command of the user that the turn was made for has ended."""


TurnEvent = ToolFinished | Received | SampleFailed | Impossible | Steered | Interrupted | CommandEnded
