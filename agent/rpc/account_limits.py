"""What the service says about a plan's use (`wham/usage`), in the protocol's shape. Pure."""

import math
from typing import Any

from agent.model.limits import plan_wire

_REACHED = (
    "rate_limit_reached",
    "workspace_owner_credits_depleted",
    "workspace_member_credits_depleted",
    "workspace_owner_usage_limit_reached",
    "workspace_member_usage_limit_reached",
)


def limits_wire(usage: dict[str, Any]) -> dict[str, Any]:
    """The answer to `account/rateLimits/read`. Members that are missing or of another kind are null."""
    plan = plan_wire(usage.get("plan_type"))
    reached = _table(usage.get("rate_limit_reached_type"))
    kind = reached.get("type") or reached.get("kind")
    main = {
        **_snapshot("codex", None, usage.get("rate_limit"), plan),
        "credits": _credits(usage.get("credits")),
        "rateLimitReachedType": kind if kind in _REACHED else None,
    }
    by_id = {"codex": main}
    others = usage.get("additional_rate_limits")
    for other in map(_table, others if isinstance(others, list) else ()):
        limit_id = other.get("metered_feature")
        if isinstance(limit_id, str) and limit_id not in by_id:
            by_id[limit_id] = _snapshot(limit_id, _text(other.get("limit_name")), other.get("rate_limit"), plan)
    resets = _whole(_table(usage.get("rate_limit_reset_credits")).get("available_count"))
    return {
        "rateLimits": main,
        "rateLimitsByLimitId": by_id,
        "rateLimitResetCredits": None if resets is None else {"availableCount": resets, "credits": None},
        "ordinaryUsageAllowed": None,
        "accountId": _text(usage.get("account_id")),
    }


def _snapshot(limit_id: str, name: str | None, limit: Any, plan: str) -> dict[str, Any]:
    limit = _table(limit)
    return {
        "limitId": limit_id,
        "limitName": name,
        "primary": _window(limit.get("primary_window")),
        "secondary": _window(limit.get("secondary_window")),
        "credits": None,
        "individualLimit": None,
        "spendControlReached": None,
        "normalModelSlug": None,
        "planType": plan,
        "rateLimitReachedType": None,
    }


def _window(window: Any) -> dict[str, Any] | None:
    window = _table(window)
    used, seconds = _whole(window.get("used_percent")), _whole(window.get("limit_window_seconds"))
    if used is None:
        return None
    minutes = None if not seconds else -(-seconds // 60)
    return {"usedPercent": used, "windowDurationMins": minutes, "resetsAt": _whole(window.get("reset_at"))}


def _credits(given: Any) -> dict[str, Any] | None:
    given = _table(given)
    if not isinstance(given.get("has_credits"), bool) or not isinstance(given.get("unlimited"), bool):
        return None
    balance = given.get("balance")
    return {"hasCredits": given["has_credits"], "unlimited": given["unlimited"], "balance": _text(balance)}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    """A number that 32 bits hold, or a time; rounded."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(value) if 0 <= value < 2**31 else None
