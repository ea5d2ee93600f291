"""Rate limits, as the headers of an answer or an event of a WebSocket tell them. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

PLANS = frozenset(
    """
    free go plus pro prolite promax team self_serve_business_prolite self_serve_business_usage_based business ent26
    enterprise_cbp_automation enterprise_cbp_usage_based enterprise edu edu_plus edu_pro sci sci_plus unknown
    """.split()
)


def plan_wire(plan: object) -> str:
    """A plan that the protocol knows."""
    return plan if isinstance(plan, str) and plan in PLANS else "unknown"


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """`used_percent` of a window of `minutes`, which starts anew at `resets_at` (Unix seconds)."""

    used_percent: int
    minutes: int | None
    resets_at: int | None


@dataclass(frozen=True, slots=True)
class Credits:
    """What was bought beside the plan; `balance` as the service writes it."""

    has_credits: bool
    unlimited: bool
    balance: str | None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The two windows of a plan, credits and the plan's name; None where the service named none."""

    primary: LimitWindow | None = None
    secondary: LimitWindow | None = None
    credits: Credits | None = None
    plan: str | None = None
    limit_id: str = "codex"

    def after(self, before: "RateLimits | None") -> "RateLimits":
        """With the credits and the plan of those known before, where these name none (observed)."""
        if before is None:
            return self
        return replace(self, credits=self.credits or before.credits, plan=self.plan or before.plan)


def parse_limits(headers: Mapping[str, str]) -> RateLimits:
    """From the `x-codex-primary-*`, `-secondary-*` and `-credits-*` headers (names in lower case)."""

    def window(name: str) -> LimitWindow | None:
        used = number_of(headers.get(f"x-codex-{name}-used-percent"))
        if used is None:
            return None
        minutes = number_of(headers.get(f"x-codex-{name}-window-minutes"))
        resets = number_of(headers.get(f"x-codex-{name}-reset-at"))
        return LimitWindow(_percent(used), _whole(minutes), _whole(resets))

    return RateLimits(window("primary"), window("secondary"), _credits(headers))


def _credits(headers: Mapping[str, str]) -> Credits | None:
    has, unlimited = (_flag(headers.get(f"x-codex-credits-{name}")) for name in ("has-credits", "unlimited"))
    if has is None or unlimited is None:
        return None
    return Credits(has, unlimited, headers.get("x-codex-credits-balance"))


def _flag(text: str | None) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get((text or "").lower())


def limits_of_event(event: Mapping[str, Any]) -> RateLimits:
    """From an event `codex.rate_limits` of a WebSocket, where there are no headers of a response.

    Raises:
        TypeError, KeyError, AttributeError, ValueError: It is not as the original needs it.
    """
    told = event.get("rate_limits") or {}
    bought = event.get("credits")
    plan = event.get("plan_type")
    limit_id = event.get("metered_limit_name") or event.get("limit_name") or "codex"
    if not isinstance(plan, str | None) or not isinstance(limit_id, str):
        raise TypeError("a plan and a limit are names")
    credits = None
    if bought is not None:
        balance = None if bought.get("balance") is None else str(bought["balance"])
        credits = Credits(bool(bought["has_credits"]), bool(bought["unlimited"]), balance)
    limit_id = limit_id.strip().lower().replace("-", "_")
    return RateLimits(_told(told.get("primary")), _told(told.get("secondary")), credits, plan, limit_id)


def _told(window: Any) -> LimitWindow | None:
    if window is None:
        return None
    minutes, resets = (_whole(window.get(name)) for name in ("window_minutes", "reset_at"))
    return LimitWindow(_percent(window["used_percent"]), minutes, resets)


def _percent(used: float) -> int:
    return math.floor(used + 0.5)


def number_of(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e12 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
