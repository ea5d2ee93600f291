"""The models we know without asking, and the service's own list when it gives one. Pure.

Names, efforts and windows are facts of the service (as codex-cli 0.169.0 listed them); the descriptions are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

EFFORTS = {
    "minimal": "Hardly any reasoning; the quickest answers",
    "low": "Little reasoning; quick answers",
    "medium": "A balance of speed and depth",
    "high": "Deep reasoning for hard problems",
    "xhigh": "Very deep reasoning",
    "max": "As deep as the model goes",
    "ultra": "As deep as the model goes, with delegation where the client offers it",
}
# The share of a context window that input may fill, as the original reports it.
USABLE_PERCENT = 95
DEFAULT_WINDOW = 272_000


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    Args:
        efforts: Reasoning efforts it takes, weakest first.
        window: Context window in tokens.
        tiers: Service tiers that it is offered in besides those of every model.
        default_effort, default_summary: Asked for where nobody says; None for nothing.
    """

    slug: str
    name: str
    description: str
    efforts: tuple[str, ...]
    default_effort: str | None
    window: int = DEFAULT_WINDOW
    hidden: bool = False
    upgrade: str | None = None
    tiers: tuple[str, ...] = ("priority",)
    default_summary: str | None = None
    takes_verbosity: bool = True

    @property
    def usable_window(self) -> int:
        """Tokens of input that clients are told they have."""
        return self.window * USABLE_PERCENT // 100


_TIERS_OF_ALL = ("flex", "default")
_TO_XHIGH = ("low", "medium", "high", "xhigh")
_TO_MAX = (*_TO_XHIGH, "max")
_TO_ULTRA = (*_TO_MAX, "ultra")

BUILT_IN = (
    Model("gpt-6.1-sol", "GPT-6.1-Sol", "The usual choice for coding and everyday work", _TO_ULTRA, "low"),
    Model("gpt-6-astra", "GPT-6-Astra", "The strongest model, for the hardest work", _TO_ULTRA, "low"),
    Model("gpt-6-sol", "GPT-6-Sol", "The previous everyday model", _TO_ULTRA, "medium"),
    Model("gpt-6-luna", "GPT-6-Luna", "Small and quick", _TO_MAX, "medium"),
    Model("gpt-5.6-sol", "GPT-5.6-Sol", "An older everyday model", _TO_ULTRA, "low", upgrade="gpt-6-sol"),
    Model("gpt-6.1-terra", "GPT-6.1 Terra", "A middle way between speed and strength", _TO_ULTRA, "low"),
    Model("gpt-5.6-terra", "GPT-5.6-Terra", "An older middle way", _TO_ULTRA, "medium", upgrade="gpt-6-sol"),
    Model("gpt-5.6-luna", "GPT-5.6-Luna", "An older small model", _TO_MAX, "medium", upgrade="gpt-6-luna"),
    Model("gpt-5.5", "GPT-5.5", "An older coding model", _TO_XHIGH, "medium", upgrade="gpt-6-sol"),
)
DEFAULT_MODEL = BUILT_IN[0].slug


class Catalog:
    """The models that are offered. The first that is not hidden is the default."""

    def __init__(self, models: Sequence[Model] = BUILT_IN) -> None:
        self.models = tuple(models)

    @classmethod
    def from_service(cls, answer: Any) -> Self | None:
        """The service's list (`{"models": [...]}`); None where it gives none, so that ours stands."""
        listed = _list(answer.get("models")) if isinstance(answer, dict) else []
        models = [model for entry in listed if (model := _listed(entry)) is not None]
        return cls(models) if models else None

    def lists(self, slug: str) -> bool:
        """Whether the model is one of those that are offered."""
        return any(model.slug == slug for model in self.models)

    def has_tier(self, slug: str, tier: str) -> bool:
        """Whether a service tier may be asked for with the model; another is left out, as in the original."""
        offered = self.find(slug).tiers if self.lists(slug) else ()
        return tier in _TIERS_OF_ALL or tier in offered

    def find(self, slug: str) -> Model:
        """The model; of one that is not listed little is known, and little asked of it, as in the original."""
        for model in self.models:
            if model.slug == slug:
                return model
        return Model(slug, slug, "", _TO_XHIGH, None, default_summary="auto", takes_verbosity=False)

    @property
    def default(self) -> str:
        """The slug of the default model."""
        return next((model.slug for model in self.models if not model.hidden), DEFAULT_MODEL)


def _listed(entry: Any) -> Model | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("slug"), str):
        return None
    levels = _list(entry.get("supported_reasoning_levels"))
    efforts = tuple(
        level["effort"] for level in levels if isinstance(level, dict) and isinstance(level.get("effort"), str)
    )
    window = entry.get("context_window")
    default = entry.get("default_reasoning_level")
    return Model(
        slug=entry["slug"],
        name=str(entry.get("display_name") or entry["slug"]),
        description=str(entry.get("description") or ""),
        efforts=efforts or _TO_XHIGH,
        default_effort=default if isinstance(default, str) else "medium",
        window=window if type(window) is int and window > 0 else DEFAULT_WINDOW,
        hidden=entry.get("visibility", "list") != "list",
        tiers=_tiers(entry),
    )


def _tiers(entry: dict[str, Any]) -> tuple[str, ...]:
    """Those that the service names; where it names none, what all models had that were seen."""
    named = [tier.get("id") for tier in _list(entry.get("service_tiers")) if isinstance(tier, dict)]
    return tuple(tier for tier in named if isinstance(tier, str)) or ("priority",)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
