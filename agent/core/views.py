"""Items, errors and figures in the shapes that clients see. Pure."""

from typing import Any

from agent.model.limits import Credits, LimitWindow, RateLimits, plan_wire
from agent.model.wire import Item, TokenUsage


def item_wire(kind: str, item_id: str, item: Item, *, started_ms: int, completed_ms: int | None) -> dict[str, Any]:
    """A Responses item as clients see it."""
    times = {"startedAtMs": started_ms, "completedAtMs": completed_ms}
    if kind == "reasoning":
        return {
            "type": "reasoning",
            "id": item_id,
            "summary": _texts(item.get("summary"), "summary_text"),
            "content": _texts(item.get("content"), "reasoning_text"),
            **times,
        }
    if kind == "webSearch":
        action = _search_action(item.get("action"))
        return {"type": kind, "id": item_id, "query": _searched(action), "action": action, "results": None, **times}
    return {
        "type": "agentMessage",
        "moderation": None,
        "id": item_id,
        "text": words_of(item),
        "phase": item.get("phase"),
        "memoryCitation": None,
        "delivery": None,
        "questions": None,
        **times,
    }


def words_of(item: Item, kind: str = "output_text") -> str:
    """What the model says in a message; with "input_text" what the user says."""
    return "".join(_texts(item.get("content"), kind))


# What the model did on the web: its name, that of clients, and its members.
_ON_THE_WEB = {
    "search": ("search", ("query", "queries")),
    "open_page": ("openPage", ("url",)),
    "find_in_page": ("findInPage", ("url", "pattern")),
}


def _search_action(action: Any) -> dict[str, Any]:
    if not isinstance(action, dict) or action.get("type") not in _ON_THE_WEB:
        return {"type": "other"}
    kind, members = _ON_THE_WEB[action["type"]]
    return {"type": kind, **{name: action.get(name) for name in members}}


def _searched(action: dict[str, Any]) -> str:
    """In a line."""
    match action:
        case {"type": "search", "query": str(query)}:
            return query
        case {"type": "search", "queries": [str(first), *more]}:
            return f"{first} ..." if more else first
        case {"type": "openPage", "url": str(url)}:
            return url
        case {"type": "findInPage", "pattern": str(pattern), "url": str(url)}:
            return f"'{pattern}' in {url}"
        case _:
            return ""


def _texts(parts: Any, kind: str) -> list[str]:
    if not isinstance(parts, list):
        return []
    return [str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == kind]


def turn_wire(
    turn_id: str, status: str, *, started_ms: int | None, completed_ms: int | None = None, error: Any = None
) -> dict[str, Any]:
    """A turn without its items; `started_ms` is None before it has begun."""
    took_ms = None if completed_ms is None or started_ms is None else completed_ms - started_ms
    return {
        "id": turn_id,
        "rootTurnId": turn_id,
        "items": [],
        "itemsView": "notLoaded",
        "status": status,
        "error": error,
        "startedAt": None if started_ms is None else started_ms // 1000,
        "completedAt": None if completed_ms is None else completed_ms // 1000,
        "durationMs": took_ms,
    }


def error_wire(text: str, info: Any, details: str | None = None) -> dict[str, Any]:
    return {"message": text, "codexErrorInfo": info, "additionalDetails": details, "misalignment": None}


def token_usage_wire(total: TokenUsage, last: TokenUsage, window: int) -> dict[str, Any]:
    """What a thread has used, and its last response, as clients see it; `window` as in `agent.core.meter.Meter`."""
    return {"total": _usage(total), "last": _usage(last), "modelContextWindow": window}


def _usage(usage: TokenUsage) -> dict[str, int]:
    return {
        "totalTokens": usage.total,
        "inputTokens": usage.input,
        "cachedInputTokens": usage.cached_input,
        "cacheWriteInputTokens": 0,
        "outputTokens": usage.output,
        "reasoningOutputTokens": usage.reasoning_output,
    }


def limits_wire(limits: RateLimits) -> dict[str, Any]:
    """Rate limits as clients see them."""
    return {
        "limitId": limits.limit_id,
        "limitName": None,
        "normalModelSlug": None,
        "primary": _window(limits.primary),
        "secondary": _window(limits.secondary),
        "credits": None if limits.credits is None else _credits(limits.credits),
        "individualLimit": None,
        "spendControlReached": None,
        "planType": None if limits.plan is None else plan_wire(limits.plan),
        "rateLimitReachedType": None,
    }


def _credits(credits: Credits) -> dict[str, Any]:
    return {"hasCredits": credits.has_credits, "unlimited": credits.unlimited, "balance": credits.balance}


def _window(window: LimitWindow | None) -> dict[str, Any] | None:
    if window is None:
        return None
    return {"usedPercent": window.used_percent, "windowDurationMins": window.minutes, "resetsAt": window.resets_at}
