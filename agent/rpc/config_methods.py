"""What clients may know of the configuration: config.toml and `-c`, requirements, profiles, providers, features."""

import asyncio
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from agent.features import STAGES, is_on
from agent.model.provider import OPENAI, Provider
from agent.providers import ProviderError, provider_of, providers_of
from agent.rpc.input import NAME
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, MISSING, RequestFailed
from agent.rpc.messages import approval_policy
from agent.rpc.serde_text import InvalidParams, invalid_type, unknown_variant
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.shapes import Shape, count, flag, list_of, one_of, optional, size, struct, table, text
from agent.rpc.shown_config import in_full, plain, without_secrets
from agent.rpc.thread_pages import given
from agent.sandbox.policy import PolicyError
from agent.sandbox.profile_toml import named_profile

_WORKSPACE_WRITE = struct(
    "struct SandboxWorkspaceWrite",
    4,
    {
        "writable_roots": list_of(text),
        "network_access": flag,
        "exclude_tmpdir_env_var": flag,
        "exclude_slash_tmp": flag,
    },
)


def _workspaces(value: Any) -> Any:
    """One id, or several."""
    return value if isinstance(value, str) else list_of(text)(value)


def _approval_policy(value: Any) -> Any:
    """A policy of config.toml: "on-failure" is an older name of "on-request" there."""
    known = ("untrusted", "on-failure", "on-request", "granular", "never")
    if isinstance(value, str) and value not in known:
        raise InvalidParams(unknown_variant(value, known))
    return approval_policy("on-request" if value == "on-failure" else value)


# The members that come first, in the original's order, and what the schema says of each.
_KNOWN: dict[str, Shape] = {
    "model": text,
    "review_model": text,
    "model_context_window": size,
    "model_auto_compact_token_limit": size,
    "model_auto_compact_token_limit_scope": one_of("total", "body_after_prefix"),
    "model_provider": text,
    "approval_policy": _approval_policy,
    "approvals_reviewer": one_of("user", "auto_review", "guardian_subagent"),
    "sandbox_mode": one_of("read-only", "workspace-write", "danger-full-access"),
    "sandbox_workspace_write": _WORKSPACE_WRITE,
    "forced_chatgpt_workspace_id": _workspaces,
    "forced_login_method": one_of("chatgpt", "api"),
    "web_search": one_of("disabled", "cached", "indexed", "live"),
    "client_search_provider": one_of("standalone", "search_mcp"),
    "tools": table,
    "instructions": text,
    "developer_instructions": text,
    "compact_prompt": text,
    "model_reasoning_effort": text,
    "model_reasoning_summary": one_of("auto", "concise", "detailed", "none"),
    "model_verbosity": one_of("low", "medium", "high"),
    "service_tier": text,
    "analytics": table,
    "browser_use": table,
    "computer_use": table,
    "desktop": table,
}

_READ = struct("struct ConfigReadParams", 2, {"includeLayers": flag, "cwd": optional(text)})
_PROFILES = struct(
    "struct PermissionProfileListParams", 3, {"cursor": optional(text), "limit": optional(count), "cwd": optional(text)}
)
_FEATURES = struct(
    "struct ExperimentalFeatureListParams",
    3,
    {"cursor": optional(text), "limit": optional(count), "threadId": optional(text)},
)
_NOTHING = struct("struct ModelProviderListParams", 0, {})

_BUILT_IN_PROFILES = (":read-only", ":workspace", ":danger-full-access")


def unit(value: Any) -> None:
    """For methods without parameters: there are none, or null; an empty object is let pass."""
    if value is not MISSING and value is not None and value != {}:
        raise InvalidParams(invalid_type(value, "unit"))


class ConfigMethods:
    """The methods.

    The answers tell what this process runs with: config.toml as it was at the start, since that is what threads get.

    Args:
        home: CODEX_HOME.
        config: config.toml with the `-c` overrides.
        flags: The overrides alone, as nested tables.
        problem: Why there is nothing of config.toml in `config`; None where it is in order.
        origin: The ChatGPT origin.
        system: The directory of the machine's own configuration.
    """

    def __init__(
        self,
        home: str,
        config: dict[str, Any],
        flags: dict[str, Any],
        problem: str | None,
        origin: str,
        system: str = "/etc/codex",
    ) -> None:
        self._home = home
        self._config = plain(config)
        self._flags = plain(flags)
        self._problem = problem
        self._origin = origin
        self._system = system

    def table(self) -> Methods:
        """The rows."""
        return {
            "config/read": Method(given(_READ), self._read),
            "configRequirements/read": Method(unit, self._requirements),
            "permissionProfile/list": Method(given(_PROFILES), self._profiles),
            "modelProvider/list": Method(given(_NOTHING), self._providers),
            "experimentalFeature/list": Method(given(_FEATURES), self._features),
        }

    async def _read(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        self._check()
        config: dict[str, Any] = {}
        for name, shape in _KNOWN.items():
            value = self._config.get(name)
            try:
                config[name] = None if value is None else shape(value)
            except InvalidParams as exc:
                raise RequestFailed(INTERNAL_ERROR, f"invalid configuration: {exc}\nin `{name}`\n") from exc
        full = in_full(self._config | config)
        full["chatgpt_base_url"] = full["chatgpt_base_url"] or f"{self._origin}/backend-api/"
        config = without_secrets({name: full[name] for name in _KNOWN} | full)
        layers = await asyncio.to_thread(self._layers)
        origins: dict[str, Any] = {}
        for layer in layers[::-1]:
            source = {"name": layer["name"], "version": layer["version"]}
            origins |= dict.fromkeys(_leaves(layer["config"]), source)
        answer: dict[str, Any] = {"config": config, "origins": origins}
        if wanted.get("includeLayers"):
            answer["layers"] = layers
        return Answer(answer)

    def _check(self) -> None:
        if self._problem is not None:
            raise RequestFailed(INTERNAL_ERROR, f"failed to load configuration: {self._problem}")

    def _layers(self) -> list[dict[str, Any]]:
        """The strongest first."""
        user = os.path.join(self._home, "config.toml")
        system = os.path.join(self._system, "config.toml")
        last = _layer({"type": "system", "file": system}, {})
        if os.path.exists(system):
            last["disabledReason"] = f"{NAME} does not read {system}"
        of_file = without_secrets(_without(self._config, self._flags))
        layers = [_layer({"type": "user", "file": user, "profile": None}, of_file), last]
        flags = without_secrets(self._flags)
        return [_layer({"type": "sessionFlags"}, flags), *layers] if flags else layers

    async def _requirements(self, connection: Connection, wanted: None) -> Answer:
        managed = os.path.join(self._system, "requirements.toml")
        if await asyncio.to_thread(os.path.exists, managed):
            # To say that nothing is required would be wrong.
            raise RequestFailed(INTERNAL_ERROR, f"the requirements in {managed!r} are not supported by {NAME}")
        return Answer({"supportsIndependentSpeedModes": True, "requirements": None})

    async def _profiles(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        self._check()
        return Answer(_page(await asyncio.to_thread(self._profile_rows, wanted.get("cwd")), wanted))

    def _profile_rows(self, cwd: str | None) -> list[dict[str, Any]]:
        """The built-in profiles and those of `[permissions]`, which must be in order."""
        tables = self._config.get("permissions", {})
        own = tables if isinstance(tables, dict) else {}
        rows: list[dict[str, Any]] = []
        for name in (*_BUILT_IN_PROFILES, *sorted(own)):
            try:
                named_profile(name, self._config, os.path.expanduser("~"), os.path.abspath(cwd or "."))
            except PolicyError as exc:
                raise RequestFailed(INTERNAL_ERROR, f"failed to load configuration: {exc}") from exc
            about = own[name].get("description") if name in own else None
            rows.append({"id": name, "description": about if isinstance(about, str) else None, "allowed": True})
        return rows

    async def _providers(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        self._check()
        try:
            providers, default = providers_of(self._config), provider_of(self._config)
        except ProviderError as exc:
            raise RequestFailed(INTERNAL_ERROR, f"failed to load configuration: {exc}") from exc
        # Nothing can be edited: there is no modelProvider/config/write.
        rows = [_provider_row(provider) for provider in providers.values()]
        return Answer({"data": rows, "defaultProviderId": default.id, "canChangeDefault": False})

    async def _features(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        self._check()
        return Answer(_page([self._feature(name, stage) for name, stage in STAGES.items()], wanted))

    def _feature(self, name: str, stage: str) -> dict[str, Any]:
        described = {"stage": stage, "displayName": None, "description": None, "announcement": None}
        is_default, enabled = is_on({}, name), is_on(self._config, name)
        return {"name": name, **described, "enabled": enabled, "defaultEnabled": is_default}


def _provider_row(provider: Provider) -> dict[str, Any]:
    settings: dict[str, Any] = {"type": "openai"}
    if provider.id != OPENAI.id:
        has_auth = provider.env_key or provider.bearer_token or provider.needs_openai_auth
        mode = {"mode": "externallyConfigured", "envKey": provider.env_key} if has_auth else {"mode": "none"}
        settings = {"type": "customGateway", "auth": mode}
    about = {"id": provider.id, "name": provider.name, "canEdit": False, "baseUrl": provider.base_url}
    return {**about, "settings": settings}


def _layer(name: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": _version(config), "config": config}


def _version(config: dict[str, Any]) -> str:
    """As the original makes it (observed): the digest of compact JSON with sorted keys."""
    content = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def _without(config: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The config without what the flags have set, which may have replaced what config.toml says."""
    left: dict[str, Any] = {}
    for name, value in config.items():
        flag_value = flags.get(name, MISSING)
        if flag_value is MISSING:
            left[name] = value
        elif isinstance(value, dict) and isinstance(flag_value, dict) and (inner := _without(value, flag_value)):
            left[name] = inner
    return left


def _leaves(config: dict[str, Any], above: str = "") -> list[str]:
    """The dotted paths of all values that are no tables; elements of lists are numbered."""
    paths: list[str] = []
    for name, value in config.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            paths += _leaves(value, f"{path}.")
        elif isinstance(value, list):
            paths += _leaves({str(number): one for number, one in enumerate(value)}, f"{path}.")
        else:
            paths.append(path)
    return paths


def _page(rows: Sequence[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any]:
    """A page; a cursor is the number of rows before it (observed)."""
    start = 0
    if (cursor := wanted.get("cursor")) is not None:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
            raise RequestFailed(INVALID_REQUEST, f"invalid cursor: {cursor}")
        start = int(cursor)
        if start > len(rows):
            raise RequestFailed(INVALID_REQUEST, f"cursor {start} exceeds total {len(rows)}")
    limit = wanted.get("limit")
    end = len(rows) if limit is None else min(start + max(limit, 1), len(rows))
    return {"data": list(rows[start:end]), "nextCursor": None if end == len(rows) else str(end)}
