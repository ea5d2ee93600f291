"""What can go wrong with a request to the model service, and which of it is worth another try. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.model.limits import RateLimits, number_of, parse_limits


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
        retry_after_s=number_of(lowered.get("retry-after")),
        resets_at=resets_at if type(resets_at) is int else None,
        limits=parse_limits(lowered),
    )


def refused_by_proxy(host: str, status: int) -> UpstreamError | StreamBroken:
    """The failure that our proxy's answer to CONNECT stands for: 5xx means that the host could not be reached."""
    if status >= 500:
        return StreamBroken(f"the proxy could not connect to {host}")
    return UpstreamError(f"the proxy refused to connect to {host} with {status}", status=status)


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
