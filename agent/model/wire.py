"""What is said to the model service and what comes back, as data. Pure.

Only what the original was observed to send and to need (codex-cli 0.169.0); unknown events are ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """One model request: the whole input, and what shapes the answer.

    Args:
        input: All items from the start; a transport may send only what the service does not know yet.
        thread_id: Also the session and the prompt cache key.
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
            "parallel_tool_calls": True,
            "reasoning": reasoning or None,
            "store": False,
            "include": ["reasoning.encrypted_content"] if reasoning else [],
            "prompt_cache_key": self.thread_id,
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
class LimitWindow:
    """`used_percent` of a window of `minutes`, which starts anew at `resets_at` (Unix seconds)."""

    used_percent: int
    minutes: int | None
    resets_at: int | None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The two windows of a plan; None where the headers named none."""

    primary: LimitWindow | None = None
    secondary: LimitWindow | None = None


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
    response_id: str
    usage: TokenUsage | None


@dataclass(frozen=True, slots=True)
class TurnState:
    """The service wants this text back on the later requests of the same turn."""

    value: str


@dataclass(frozen=True, slots=True)
class LimitsSeen:
    """The rate limits as the headers of an answer told them."""

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


class UpstreamError(Exception):
    """The service refused or failed a request.

    Args:
        status: The HTTP status, or that of an error event; None where there is none.
        code: The service's own word, such as "usage_limit_reached"; "" where there is none.
        retry_after_s: When the service wants to be asked again.
        limits: The rate limits that came with the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        retry_after_s: float | None = None,
        resets_at: int | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.resets_at = resets_at
        self.limits = limits


class StreamBroken(Exception):
    """The stream ended before response.completed; the text says how."""


class UpgradeRefused(Exception):
    """The service wants POST instead of a WebSocket (426)."""


class Unavailable(Exception):
    """A request cannot be made at all, and a retry would not help; `info` is the original's codexErrorInfo."""

    def __init__(self, reason: str, info: Any) -> None:
        super().__init__(reason)
        self.info = info


_USAGE_LIMIT = "usage_limit_reached"
_CONTEXT_FULL = "context_length_exceeded"


def parse_event(text: str | bytes) -> ResponseEvent | None:
    """One event, or None for those that nobody needs.

    Raises:
        UpstreamError: The event says that the response failed.
        StreamBroken: It is not JSON, or lacks what its type promises.
    """
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise StreamBroken("an event is not JSON") from exc
    if not isinstance(event, dict):
        raise StreamBroken("an event is not a JSON object")
    try:
        return _event(event)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as exc:
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
            return Completed(_text(response.get("id", "")), parse_usage(response.get("usage")))
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
            raise UpstreamError(f"the response is incomplete: {reason}", code="incomplete")
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


def failure(status: int | None, headers: Mapping[str, Any], body: str) -> UpstreamError:
    """The error that an answer with this status, these headers and this body stands for.

    The message is the service's own where it sent one. Bodies are cut: some proxies answer with whole web pages.
    """
    lowered = {name.lower(): str(value) for name, value in headers.items()}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    error = content.get("error") if isinstance(content, dict) else None
    error = error if isinstance(error, dict) else {}
    code = str(error.get("type") or error.get("code") or "")
    message = str(error.get("message") or (content.get("detail") if isinstance(content, dict) else "") or "").strip()
    if not message:
        message = body.strip()[:500] or "no reason was given"
    resets_at = error.get("resets_at")
    return UpstreamError(
        message,
        status=status,
        code=code,
        retry_after_s=_seconds(lowered.get("retry-after")),
        resets_at=resets_at if type(resets_at) is int else None,
        limits=parse_limits(lowered),
    )


def refused_by_proxy(host: str, status: int) -> UpstreamError | StreamBroken:
    """The failure that our proxy's answer to CONNECT stands for: 5xx means that the host could not be reached."""
    if status >= 500:
        return StreamBroken(f"the proxy could not connect to {host}")
    return UpstreamError(f"the proxy refused to connect to {host} with {status}", status=status)


def parse_limits(headers: Mapping[str, str]) -> RateLimits:
    """Rate limits from the `x-codex-primary-*` and `x-codex-secondary-*` headers (names in lower case)."""

    def window(name: str) -> LimitWindow | None:
        used = _seconds(headers.get(f"x-codex-{name}-used-percent"))
        if used is None:
            return None
        minutes = _seconds(headers.get(f"x-codex-{name}-window-minutes"))
        resets = _seconds(headers.get(f"x-codex-{name}-reset-at"))
        return LimitWindow(round(used), _whole(minutes), _whole(resets))

    return RateLimits(window("primary"), window("secondary"))


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e12 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def history_item(item: Item) -> Item:
    """An item of a response as it is sent back: without its id, since nothing is stored under it (store: false)."""
    return {name: value for name, value in item.items() if name not in ("id", "status")}


@dataclass(frozen=True, slots=True)
class Retry:
    """May this failure be retried, and how is it told to a client?

    Args:
        info: The original's codexErrorInfo.
        tells_limits: The rate limits that came with the failure are told.
        window_full: The input has filled the context window.
    """

    retryable: bool
    message: str
    info: Any = "other"
    retry_after_s: float | None = None
    tells_limits: bool = False
    window_full: bool = False


def judge(failed: UpstreamError | StreamBroken) -> Retry:
    """Sort a failure: the table of retries as observed (facts/protocol.md 5.6)."""
    if isinstance(failed, StreamBroken):
        return Retry(True, f"stream disconnected before completion: {failed}", tells_limits=True)
    status, code = failed.status, failed.code
    if code == _USAGE_LIMIT:
        return Retry(False, _usage_limit_text(failed.resets_at), "usageLimitExceeded", tells_limits=True)
    if code == _CONTEXT_FULL:
        text = "The input no longer fits the model's context window; start a new thread or shorten the history."
        return Retry(False, text, "contextWindowExceeded", window_full=True)
    if code == "incomplete":
        return Retry(False, failed.message)
    if status == 401:
        return Retry(True, f"unauthorized: {failed.message}", "unauthorized")
    if status == 429:
        return Retry(True, f"rate limited: {failed.message}", "rateLimitExceeded", failed.retry_after_s)
    if status is None or status >= 500:
        text = f"the model service failed{'' if status is None else f' with status {status}'}: {failed.message}"
        return Retry(True, text, "internalServerError", failed.retry_after_s)
    return Retry(False, failed.message)


def _usage_limit_text(resets_at: int | None) -> str:
    import datetime

    try:
        when = None if resets_at is None else datetime.datetime.fromtimestamp(resets_at, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # a number that is no date
        when = None
    if when is None:
        return "The usage limit of this plan is reached; try again later."
    return f"The usage limit of this plan is reached; it resets at {when:%Y-%m-%d %H:%M} UTC."
