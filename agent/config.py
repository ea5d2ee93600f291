"""What config.toml and `-c` say about threads. Unknown keys are ignored, as in the original."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent.core.thread import SANDBOX_POLICIES

SUPPORTED_PROVIDER = "openai"


class ConfigError(ValueError):
    """A key that cannot be used; the text names it, the value and the rule."""


def check_approval_policy(value: Any) -> Any:
    """A policy's name, or {"granular": {...}}."""
    if isinstance(value, str) and value not in ("untrusted", "on-request", "never"):
        raise ValueError("an approval policy is untrusted, on-request or never, or a granular table")
    if isinstance(value, dict) and not isinstance(value.get("granular"), dict):
        raise ValueError("an approval policy is untrusted, on-request or never, or a granular table")
    if not isinstance(value, str | dict):
        raise ValueError("an approval policy is a text or a table")
    return value


class ThreadConfig(BaseModel):
    """The keys that shape a new thread; names as in config.toml."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())

    model: Annotated[str, Field(min_length=1)] | None = None
    model_provider: str = SUPPORTED_PROVIDER
    model_reasoning_effort: Annotated[str, Field(min_length=1)] | None = None
    model_reasoning_summary: Literal["auto", "concise", "detailed", "none"] | None = None
    model_verbosity: Literal["low", "medium", "high"] | None = None
    approval_policy: Annotated[Any, BeforeValidator(check_approval_policy)] = "on-request"
    sandbox_mode: Literal["read-only", "workspace-write", "danger-full-access"] | None = None
    service_tier: str | None = None


assert set(SANDBOX_POLICIES) == {"read-only", "workspace-write", "danger-full-access"}


def thread_config(config: dict[str, Any], overrides: dict[str, Any]) -> ThreadConfig:
    """The thread's configuration: config.toml, and over it the request's `config` (dotted keys allowed).

    Raises:
        ConfigError: The first key that cannot be used.
    """
    merged = dict(config)
    for key, value in overrides.items():
        merged[key] = value  # nested keys (a.b) shape nothing here, and unknown keys are ignored
    try:
        parsed = ThreadConfig.model_validate(merged)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        key = ".".join(str(part) for part in error["loc"])
        raise ConfigError(f"{key} is {error['input']!r}: {error['msg']}") from exc
    if parsed.model_provider != SUPPORTED_PROVIDER:
        defined = config.get("model_providers")
        if isinstance(defined, dict) and parsed.model_provider in defined:
            raise ConfigError(f"Model provider `{parsed.model_provider}` is not supported by countersign; use `openai`")
        raise ConfigError(f"Model provider `{parsed.model_provider}` not found")
    return parsed
