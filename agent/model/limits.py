"""Rate limits, as the headers of an answer tell them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass


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


def parse_limits(headers: Mapping[str, str]) -> RateLimits:
    """Rate limits from the `x-codex-primary-*` and `x-codex-secondary-*` headers (names in lower case)."""

    def window(name: str) -> LimitWindow | None:
        used = number_of(headers.get(f"x-codex-{name}-used-percent"))
        if used is None:
            return None
        minutes = number_of(headers.get(f"x-codex-{name}-window-minutes"))
        resets = number_of(headers.get(f"x-codex-{name}-reset-at"))
        return LimitWindow(round(used), _whole(minutes), _whole(resets))

    return RateLimits(window("primary"), window("secondary"))


def number_of(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e12 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
