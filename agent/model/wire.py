"""What is said to the model service and what comes back, as data. Pure.

Only what the original was observed to send and to need (codex-cli 0.169.0); unknown events are ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent.model.failures import FILTERED, StreamBroken, UpstreamError, failure
from agent.model.limits import RateLimits, limits_of_event

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """One model request: the whole input, and what shapes the answer.

    Args:
        input: All items from the start; a transport may send only what the service does not know yet.
        thread_id: Also the session and the prompt cache key, unless `session_id` is another.
        session_id: The thread that this one works for; None for itself.
        subagent: What it does for that thread, as the service calls it; None if it works for itself.
        turn_metadata: The JSON text of the original's `x-codex-turn-metadata`, sent as a header and in the body.
        client_metadata: Further entries of the body's `client_metadata`.
        generate: False for the prewarm, which only makes the service load the input.
        turn_state: What the service wants back within this turn, see `TurnState`.
    """

    model: str
    input: tuple[Item, ...]
    thread_id: str
    turn_metadata: str
    client_metadata: Mapping[str, str]
    tools: tuple[Item, ...] = ()
    effort: str | None = None
    summary: str | None = None
    verbosity: str | None = "low"
    output_schema: Item | None = None
    service_tier: str | None = None
    generate: bool = True
    turn_state: str | None = None
    session_id: str | None = None
    subagent: str | None = None

    def shape(self) -> Item:
        """All of the body but its input and metadata, in the order of the original.

        Two requests of the same shape may continue one another by `previous_response_id`.
        """
        reasoning: Item = {}
        if self.effort is not None:
            reasoning["effort"] = self.effort
        if self.summary is not None:
            reasoning["summary"] = self.summary
        text: Item = {}
        if self.verbosity is not None:
            text["verbosity"] = self.verbosity
        if self.output_schema is not None:
            text["format"] = {
                "type": "json_schema",
                "strict": True,
                "schema": self.output_schema,
                "name": "codex_output_schema",
            }
        shape: Item = {
            "service_tier": self.service_tier,
            "tools": list(self.tools),
            "tool_choice": "auto",
            "parallel_tool_calls": bool(self.tools),
            "reasoning": reasoning or None,
            "store": False,
            "include": ["reasoning.encrypted_content"] if reasoning else [],
            "prompt_cache_key": self.session_id or self.thread_id,
            "text": text or None,
        }
        return {"model": self.model, **{key: value for key, value in shape.items() if value is not None}}

    def body(self, new_input: tuple[Item, ...] | None = None, previous_response_id: str | None = None) -> Item:
        """The JSON body. With `new_input` only these items are sent, behind `previous_response_id`."""
        shape = self.shape()
        body: Item = {"model": shape.pop("model"), "stream": True}
        if "service_tier" in shape:
            body["service_tier"] = shape.pop("service_tier")
        if previous_response_id is not None:
            body["previous_response_id"] = previous_response_id
        body["input"] = list(self.input if new_input is None else new_input)
        body.update(shape)
        if not self.generate:
            body["generate"] = False
        body["client_metadata"] = dict(self.client_metadata)
        return body

    def compact_body(self) -> Item:
        """The JSON body of the unary compaction: no stream, nothing to include, nothing to choose."""
        names = ("tools", "parallel_tool_calls", "reasoning", "service_tier", "prompt_cache_key", "text")
        shape = self.shape()
        return {
            "model": self.model,
            "input": list(self.input),
            **{name: shape[name] for name in names if name in shape},
        }


# What comes back


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one response, or summed over a thread."""

    total: int = 0
    input: int = 0
    cached_input: int = 0
    output: int = 0
    reasoning_output: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.total + other.total,
            self.input + other.input,
            self.cached_input + other.cached_input,
            self.output + other.output,
            self.reasoning_output + other.reasoning_output,
        )


@dataclass(frozen=True, slots=True)
class Created:
    response_id: str


@dataclass(frozen=True, slots=True)
class ItemAdded:
    item: Item


@dataclass(frozen=True, slots=True)
class TextDelta:
    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class SummaryPartAdded:
    item_id: str
    summary_index: int


@dataclass(frozen=True, slots=True)
class SummaryDelta:
    item_id: str
    summary_index: int
    delta: str


@dataclass(frozen=True, slots=True)
class ItemDone:
    item: Item


@dataclass(frozen=True, slots=True)
class Completed:
    """The response has ended; with `goes_on` the model has more to say, and is asked again."""

    response_id: str
    usage: TokenUsage | None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class TurnState:
    """The service wants this text back on the later requests of the same turn."""

    value: str


@dataclass(frozen=True, slots=True)
class LimitsSeen:
    """The rate limits as the service told them."""

    limits: RateLimits


ResponseEvent = (
    Created
    | ItemAdded
    | TextDelta
    | SummaryPartAdded
    | SummaryDelta
    | ItemDone
    | Completed
    | TurnState
    | LimitsSeen
)  # fmt: skip


# What a response ends with: unlike the others these cannot be done without.
_LAST_EVENTS = frozenset({"response.completed", "response.done", "response.failed", "response.incomplete", "error"})


def json_of(text: str | bytes) -> Any:
    r"""As json.loads, with U+FFFD for half a surrogate pair ("\ud800"): no UTF-8 can carry that on to a client.

    Raises:
        ValueError, RecursionError: It is not JSON, or too deep.
    """
    value = json.loads(text)
    written = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return whole(value) if "\\ud" in written or "\\uD" in written else value


def whole(value: Any) -> Any:
    """The value with U+FFFD for each half of a surrogate pair."""
    match value:
        case str() if not value.isascii():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case list():
            return [whole(one) for one in value]
        case dict():
            return {whole(name): whole(one) for name, one in value.items()}
    return value


def parse_event(text: str | bytes) -> ResponseEvent | None:
    """One event, or None for those that nobody needs.

    Raises:
        UpstreamError: The event says that the response failed.
        StreamBroken: It is not JSON, or it ends the response and lacks what that needs.
    """
    try:
        event = json_of(text)
    except (ValueError, RecursionError) as exc:
        raise StreamBroken("an event is not JSON") from exc
    if not isinstance(event, dict):
        raise StreamBroken("an event is not a JSON object")
    try:
        return _event(event)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as exc:
        if event.get("type") not in _LAST_EVENTS:  # the original does without it (observed)
            return None
        raise StreamBroken(f"the event {event.get('type')!r} lacks {exc}") from exc


def _event(event: dict[str, Any]) -> ResponseEvent | None:
    match event.get("type"):
        case "response.created":
            return Created(_text(event["response"].get("id", "")))
        case "response.output_item.added":
            return ItemAdded(_item(event["item"]))
        case "response.output_text.delta":
            return TextDelta(_text(event.get("item_id", "")), _text(event["delta"]))
        case "response.reasoning_summary_part.added":
            return SummaryPartAdded(_text(event.get("item_id", "")), int(event.get("summary_index", 0)))
        case "response.reasoning_summary_text.delta":
            return SummaryDelta(
                _text(event.get("item_id", "")), int(event.get("summary_index", 0)), _text(event["delta"])
            )
        case "response.output_item.done":
            return ItemDone(_item(event["item"]))
        case "response.completed" | "response.done":
            response = event["response"]
            goes_on = response.get("end_turn") is False
            return Completed(_text(response["id"]), parse_usage(response.get("usage")), goes_on)
        case "codex.rate_limits":
            return LimitsSeen(limits_of_event(event))
        case "response.metadata":
            headers = event.get("headers") or {}
            value = next((value for name, value in headers.items() if name.lower() == "x-codex-turn-state"), None)
            return None if value is None else TurnState(_text(value))
        case "response.failed":
            error = (event.get("response") or {}).get("error") or {}
            raise UpstreamError(_text(error.get("message", "")), code=_text(error.get("code") or ""))
        case "response.incomplete":
            details = (event.get("response") or {}).get("incomplete_details") or {}
            reason = _text(details.get("reason", "unknown"))
            code = FILTERED if reason == FILTERED else "incomplete"
            raise UpstreamError(f"the response is incomplete: {reason}", code=code)
        case "error":
            status = event.get("status")
            raise failure(status if isinstance(status, int) else None, event.get("headers") or {}, json.dumps(event))
        case _:
            return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text, found {type(value).__name__}")
    return value


def _item(value: Any) -> Item:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise TypeError("an item with a type")
    return value


def parse_usage(usage: Any) -> TokenUsage | None:
    """Token counts from the service's `usage` object; None where there is none."""
    if not isinstance(usage, dict):
        return None

    def count(*path: str) -> int:
        value: Any = usage
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value if type(value) is int else 0

    return TokenUsage(
        total=count("total_tokens"),
        input=count("input_tokens"),
        cached_input=count("input_tokens_details", "cached_tokens"),
        output=count("output_tokens"),
        reasoning_output=count("output_tokens_details", "reasoning_tokens"),
    )


def history_item(item: Item) -> Item:
    """An item of a response as it is sent back: without its id, since nothing is stored under it (store: false)."""
    return {name: value for name, value in item.items() if name not in ("id", "status")}
