"""What a request says of a thread that is taken up or forked, in its members and its `config`; all else stays."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from agent.core.thread import Thread, ThreadDefaults, sandbox_policy
from agent.home import laid_over
from agent.model.provider import OPENAI
from agent.rpc.permissions import absolute, assign, check_combined, configured

# (the `config` of a request, a provider) -> what they and config.toml say of a thread; raises RequestFailed
Defaults = Callable[[dict[str, Any], str | None], Awaitable[ThreadDefaults]]
# (a thread, the `config` of its request) -> its files of instructions, and what clients are warned of
Settle = Callable[[Thread, dict[str, Any]], Awaitable[tuple[list[str], list[str]]]]

# What a fork does not have from its source (observed).
_OF_MODEL = {
    "model": "model",
    "model_reasoning_effort": "effort",
    "model_reasoning_summary": "summary",
    "service_tier": "service_tier",
}
_SETTINGS = {**_OF_MODEL, "approval_policy": "approval_policy", "model_verbosity": "verbosity"}
_MEMBERS = {
    "model": "model",
    "approvalPolicy": "approval_policy",
    "baseInstructions": "base_instructions",
    "developerInstructions": "developer_instructions",
    "serviceTier": "service_tier",
}


class Configure(Protocol):
    """Gives a thread what was said of it."""

    def __call__(self, thread: Thread, *, is_new: bool = False) -> None:
        """`is_new`: it is a fork. Raises RequestFailed: its permission profile cannot be used."""


async def configuring(config: dict[str, Any], wanted: dict[str, Any], defaults: Defaults) -> Configure:
    """What gives a thread the settings that a request names (observed).

    Args:
        config: config.toml with the overrides.

    Raises:
        RequestFailed: The configuration cannot be used.
    """
    check_combined(wanted.get("permissions"), wanted.get("sandbox"), "sandbox")
    own = wanted.get("config") or {}
    # Whatever provider is the default one: that of the thread is looked at when it is known.
    found = await defaults(own, OPENAI.id)
    said = laid_over({}, own)
    merged = laid_over(config, own) if own else config
    profile, _ = configured(merged, "/")
    cwd = None if wanted.get("cwd") is None else absolute(wanted["cwd"])
    sandbox, permissions = wanted.get("sandbox"), wanted.get("permissions")
    if sandbox is None and permissions is None:
        if "default_permissions" in said:
            permissions = profile
        elif "sandbox_mode" in said:
            sandbox = found.sandbox_mode

    def configure(thread: Thread, *, is_new: bool = False) -> None:
        for key, attribute in _SETTINGS.items():
            if key in said or (is_new and key in _OF_MODEL):
                setattr(thread, attribute, getattr(found, attribute))
        for name, attribute in _MEMBERS.items():
            if wanted.get(name) is not None:
                setattr(thread, attribute, wanted[name])
        if own:
            thread.config = merged
        if cwd is not None:
            thread.cwd = cwd
        if permissions is not None:
            assign(thread, permissions, merged)
        elif sandbox is not None:
            thread.sandbox, thread.profile = sandbox_policy(sandbox, found.workspace_write), None

    return configure
