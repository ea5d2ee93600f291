"""The configuration as clients are shown it: every member that the original answers with, and no secret. Pure."""

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from agent.features import STAGES, is_on
from agent.unknown_keys import KNOWN, TABLES

# Ours; nothing in it is a client's business, and credentials of the proxy may be.
_OUR_TABLE = "countersign"
_HIDDEN = "(not shown)"
# How the names of texts end, and of addresses that may have credentials; and tables of texts, environments among them.
_SECRET_TEXTS = ("token", "secret", "password", "api_key")
_ADDRESSES = ("url", "endpoint")
_SECRET_TABLES = ("http_headers", "query_params", "headers", "env", "set")

# What counts here where nobody says anything; of the original's defaults those that are true of us.
_DEFAULTS: dict[str, Any] = {
    "allow_login_shell": True,
    "cli_auth_credentials_store": "file",
    "hide_agent_reasoning": False,
    "include_environment_context": True,
    "marketplaces": {},
    "mcp_servers": {},
    "model_providers": {},
    "plugins": {},
    "profiles": {},
    "project_doc_fallback_filenames": [],
    "project_doc_max_bytes": 32 * 1024,
    "project_root_markers": [".git"],
    "shell_environment_policy": {},
}
_DEFAULTS_WITHIN: dict[str, dict[str, Any]] = {
    "model_providers": {
        "wire_api": "responses",
        "requires_openai_auth": False,
        "supports_websockets": False,
        "supports_standalone_web_search": False,
    },
    "sandbox_workspace_write": {
        "writable_roots": [],
        "network_access": False,
        "exclude_tmpdir_env_var": False,
        "exclude_slash_tmp": False,
    },
}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as JSON, without what is ours."""
    return {name: _json(value) for name, value in config.items() if name != _OUR_TABLE}


def without_secrets(value: Any, name: str = "") -> Any:
    """The same with a mark in the place of each text that may be a secret."""
    if isinstance(value, dict):
        hides = name in _SECRET_TABLES
        return {key: _HIDDEN if hides else without_secrets(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one, name) for one in value]
    if isinstance(value, str):
        has_credentials = name.endswith(_ADDRESSES) and ("@" in value or "?" in value)
        return _HIDDEN if has_credentials or name.endswith(_SECRET_TEXTS) else value
    return value


def in_full(config: dict[str, Any]) -> dict[str, Any]:
    """A plain configuration with all members that there can be, null where nothing is said and nothing is true.

    What nobody knows is left out, as in the original; of features that is kept.
    """
    full = {name: config.get(name, _DEFAULTS.get(name)) for name in KNOWN}
    switched = config.get("features")
    flags = {name: is_on(config, name) for name in STAGES}
    full["features"] = flags | switched if isinstance(switched, dict) else flags
    if isinstance(tools := full["tools"], dict):
        search = tools.get("web_search")
        full["tools"] = {"web_search": search if isinstance(search, dict) else None}
    for place, members in TABLES.items():
        if place != ("features",):
            full[place[0]] = _filled(full[place[0]], place[1:], members, _DEFAULTS_WITHIN.get(place[0], {}))
    return full


def _filled(within: Any, place: tuple[str, ...], members: tuple[str, ...], defaults: Mapping[str, Any]) -> Any:
    if not isinstance(within, dict):
        return within
    if not place:
        return {name: within.get(name, defaults.get(name)) for name in members}
    inner = within if place[0] == "*" else {place[0]} & within.keys()
    return within | {name: _filled(within[name], place[1:], members, defaults) for name in inner}


def _json(value: Any) -> Any:
    """A TOML value as JSON: dates and the numbers that JSON has not are texts."""
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_json(one) for one in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
