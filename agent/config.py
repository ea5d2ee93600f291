"""What config.toml, `-c` and a request's `config` say about threads. Unknown keys are ignored, as in the original.

pydantic is imported with this module, and this module only where there is something to check.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent.core.thread import ThreadDefaults
from agent.features import STAGES
from agent.home import laid_over
from agent.providers import ProviderError, provider_of


class ConfigError(ValueError):
    """A key that cannot be used; the text names it, the value and the rule.

    Args:
        key: The top-level key; "" where it is not one value that is wrong.
    """

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


class Granular(BaseModel):
    """The table approval_policy.granular: what may be asked."""

    model_config = ConfigDict(extra="ignore", strict=True)

    sandbox_approval: bool
    rules: bool
    skill_approval: bool = False
    request_permissions: bool = False
    mcp_elicitations: bool


def _approval_policy(value: Any) -> Any:
    """A policy's name, or {"granular": {...}}; "on-failure" is an older name of "on-request" (observed)."""
    if value in ("untrusted", "on-request", "never"):
        return value
    if value == "on-failure":
        return "on-request"
    if not isinstance(value, dict) or list(value) != ["granular"]:
        raise ValueError("an approval policy is untrusted, on-request or never, or a granular table")
    try:
        return {"granular": Granular.model_validate(value["granular"]).model_dump()}
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        raise ValueError(f"granular.{error['loc'][0]}: {error['msg']}" if error["loc"] else error["msg"]) from exc


def _features(value: Any) -> Any:
    """The flags; those of ours are on or off, while some of the original's have tables."""
    if not isinstance(value, dict):
        raise ValueError("the features are a table of flags")
    for name, one in value.items():
        if not isinstance(one, bool) and (name in STAGES or not isinstance(one, dict)):
            raise ValueError(f"the feature {name} is true or false")
    return value


class WorkspaceWrite(BaseModel):
    """The table sandbox_workspace_write."""

    model_config = ConfigDict(extra="ignore", strict=True)

    writable_roots: list[Annotated[str, Field(pattern="^/")]] = []
    network_access: bool = False
    exclude_tmpdir_env_var: bool = False
    exclude_slash_tmp: bool = False


_Tokens = Annotated[int, Field(gt=0)]


class ThreadConfig(BaseModel):
    """The keys that shape a new thread; names as in config.toml."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())

    model: Annotated[str, Field(min_length=1)] | None = None
    model_reasoning_effort: Annotated[str, Field(min_length=1)] | None = None
    model_reasoning_summary: Literal["auto", "concise", "detailed", "none"] | None = None
    model_verbosity: Literal["low", "medium", "high"] | None = None
    approval_policy: Annotated[Any, BeforeValidator(_approval_policy)] = "on-request"
    sandbox_mode: Literal["read-only", "workspace-write", "danger-full-access"] | None = None
    sandbox_workspace_write: WorkspaceWrite = WorkspaceWrite()
    model_context_window: _Tokens | None = None
    model_auto_compact_token_limit: _Tokens | None = None
    service_tier: str | None = None
    project_doc_max_bytes: Annotated[int, Field(ge=0)] | None = None
    project_doc_fallback_filenames: list[str] | None = None
    project_root_markers: list[str] | None = None
    features: Annotated[Any, BeforeValidator(_features)] = None
    forced_login_method: Literal["chatgpt", "api"] | None = None
    forced_chatgpt_workspace_id: str | list[str] | None = None


def thread_defaults(config: dict[str, Any], overrides: dict[str, Any]) -> ThreadDefaults:
    """The thread's configuration: config.toml, and over it the request's `config`.

    Raises:
        ConfigError: The first key that cannot be used.
    """
    legacy = config.get("profile")
    if isinstance(legacy, str):
        text = f"use `--profile {legacy}` with `{legacy}.config.toml` instead"
        raise ConfigError(f'legacy `profile = "{legacy}"` config is no longer supported; {text}', "profile")
    try:
        merged = laid_over(config, overrides)
        parsed = ThreadConfig.model_validate(merged)
        provider = provider_of(merged)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        key = ".".join(str(part) for part in error["loc"])
        # What is in a table may be secret.
        found = "" if isinstance(error["input"], dict | list) else f" is {error['input']!r}"
        said = error["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{key}{found}: {said}", str(error["loc"][0])) from exc
    except ProviderError as exc:
        raise ConfigError(str(exc), exc.key) from exc
    return ThreadDefaults(
        model=parsed.model,
        effort=parsed.model_reasoning_effort,
        summary=parsed.model_reasoning_summary,
        verbosity=parsed.model_verbosity,
        approval_policy=parsed.approval_policy,
        sandbox_mode=parsed.sandbox_mode,
        workspace_write={
            "writableRoots": list(parsed.sandbox_workspace_write.writable_roots),
            "networkAccess": parsed.sandbox_workspace_write.network_access,
            "excludeTmpdirEnvVar": parsed.sandbox_workspace_write.exclude_tmpdir_env_var,
            "excludeSlashTmp": parsed.sandbox_workspace_write.exclude_slash_tmp,
        },
        service_tier=parsed.service_tier,
        provider=provider,
    )
