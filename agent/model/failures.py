"""What can go wrong with a request to the model service, and which of it is worth another try. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.model.limits import RateLimits, number_of, parse_limits


class UpstreamError(Exception):
    """The service refused or failed a request.

    Args:
        status: The HTTP status, or that of an error event; None where there is none.
        kind: The `type` of the service's error, such as "usage_limit_reached"; "" where there is none.
        code: Its `code`, such as "previous_response_not_found"; "" where there is none.
        retry_after_s: When the service wants to be asked again.
        limits: The rate limits that came with the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str = "",
        code: str = "",
        retry_after_s: float | None = None,
        resets_at: int | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
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


@dataclass(frozen=True, slots=True)
class _Meaning:
    """Of one of the service's words: may the request be retried, its codexErrorInfo, our text ("": the service's)."""

    retryable: bool
    info: str
    text: str = ""


# Why a response that is incomplete may be asked for again: the model is told not to say that (observed).
FILTERED = "content_filter"
_USAGE_LIMIT = "usage_limit_reached"
_CONTEXT_FULL = "context_length_exceeded"
_REFUSED_BY_PROXY = "refused_by_proxy"

# The words that say more than the status does, as the type or as the code of an error (observed).
_MEANINGS = {
    _USAGE_LIMIT: _Meaning(False, "usageLimitExceeded"),
    "usage_not_included": _Meaning(False, "usageLimitExceeded", "This plan does not include the use of this model."),
    "insufficient_quota": _Meaning(
        False, "usageLimitExceeded", "The quota is used up; check the plan and its billing."
    ),
    _CONTEXT_FULL: _Meaning(
        False,
        "contextWindowExceeded",
        "The input no longer fits the model's context window; start a new thread or shorten the history.",
    ),
    "server_is_overloaded": _Meaning(False, "serverOverloaded", "The model is at capacity; try another model."),
    "cyber_policy": _Meaning(False, "cyberPolicy"),
    "invalid_prompt": _Meaning(False, "other"),
    "incomplete": _Meaning(False, "other"),
    FILTERED: _Meaning(True, "other"),
    _REFUSED_BY_PROXY: _Meaning(False, "other"),
    "slow_down": _Meaning(True, "rateLimitExceeded"),
    "rate_limit_exceeded": _Meaning(True, "rateLimitExceeded"),
    # A new socket helps: they come with status 400, which is final by itself.
    "websocket_connection_limit_reached": _Meaning(True, "other"),
    "previous_response_not_found": _Meaning(True, "other"),
}
_TRY_AGAIN_IN = re.compile(r"try again in\s*(\d+(?:\.\d+)?)\s*(ms|s)", re.IGNORECASE)


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
    message = str(error.get("message") or (content.get("detail") if isinstance(content, dict) else "") or "").strip()
    if not message:
        message = body.strip()[:500] or "no reason was given"
    resets_at = error.get("resets_at")
    return UpstreamError(
        message,
        status=status,
        kind=str(error.get("type") or ""),
        code=str(error.get("code") or ""),
        retry_after_s=number_of(lowered.get("retry-after")),
        resets_at=resets_at if type(resets_at) is int else None,
        limits=parse_limits(lowered),
    )


def refused_by_proxy(host: str, status: int) -> UpstreamError | StreamBroken:
    """The failure that our proxy's answer to CONNECT stands for: 5xx means that the host could not be reached."""
    if status >= 500:
        return StreamBroken(f"the proxy could not connect to {host}; `countersign doctor` looks at what is in the way")
    text = f"the proxy refused to connect to {host} with {status}"
    return UpstreamError(text, status=status, code=_REFUSED_BY_PROXY)


@dataclass(frozen=True, slots=True)
class Retry:
    """May this failure be retried, and how is it told to a client?

    Args:
        info: The original's codexErrorInfo, once it is final.
        status: The HTTP status that a client is told of while it is retried.
        tells_limits: The rate limits that came with the failure are told.
        window_full: The input has filled the context window.
        filtered: What the model said was held back.
    """

    retryable: bool
    message: str
    info: Any = "other"
    retry_after_s: float | None = None
    status: int | None = None
    tells_limits: bool = False
    window_full: bool = False
    filtered: bool = False


def judge(failed: UpstreamError | StreamBroken) -> Retry:
    """Sort a failure: the table of retries as observed (facts/protocol.md 5.6, and codex-cli 0.169.0 side by side)."""
    if isinstance(failed, StreamBroken):
        return Retry(True, f"stream disconnected before completion: {failed}")
    word = next((word for word in (failed.code, failed.kind) if word in _MEANINGS), None)
    if word is not None:
        return _judge_by(word, failed)
    status = failed.status
    if status == 400:
        return Retry(False, failed.message)
    if status == 429:
        text, info = f"rate limited: {failed.message}", {"responseTooManyFailedAttempts": {"httpStatusCode": status}}
        return Retry(failed.retry_after_s is not None, text, info, failed.retry_after_s, status)
    if status is None:
        return Retry(True, f"the model service failed: {failed.message}", retry_after_s=failed.retry_after_s)
    text = f"the model service failed with status {status}: {failed.message}"
    if status == 500:
        return Retry(True, text, "internalServerError", failed.retry_after_s)
    return Retry(True, text, {"httpConnectionFailed": {"httpStatusCode": status}}, failed.retry_after_s, status)


def _judge_by(word: str, failed: UpstreamError) -> Retry:
    meaning = _MEANINGS[word]
    text = _usage_limit_text(failed.resets_at) if word == _USAGE_LIMIT else meaning.text or failed.message
    wait_s = failed.retry_after_s
    if wait_s is None and meaning.info == "rateLimitExceeded":
        wait_s = _told_wait_s(failed.message)
    return Retry(
        meaning.retryable,
        text,
        meaning.info,
        wait_s if meaning.retryable else None,
        tells_limits=word == _USAGE_LIMIT,
        window_full=word == _CONTEXT_FULL,
        filtered=word == FILTERED,
    )


def _told_wait_s(message: str) -> float | None:
    """The seconds of "Please try again in 1.5s" or "in 700ms", the only place where some limits tell them."""
    told = _TRY_AGAIN_IN.search(message)
    if told is None:
        return None
    return float(told[1]) / (1000 if told[2].lower() == "ms" else 1)


def _usage_limit_text(resets_at: int | None) -> str:
    import datetime

    try:
        when = None if resets_at is None else datetime.datetime.fromtimestamp(resets_at, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # a number that is no date
        when = None
    if when is None:
        return "The usage limit of this plan is reached; try again later."
    return f"The usage limit of this plan is reached; it resets at {when:%Y-%m-%d %H:%M} UTC."
