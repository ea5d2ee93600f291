"""What the `config` of a request says of a thread that is taken up or forked; all else of the thread stays."""

from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.thread import Thread, ThreadDefaults, sandbox_policy
from agent.home import laid_over
from agent.model.provider import OPENAI
from agent.rpc.permissions import assign, configured

# (the `config` of a request, a provider) -> what they and config.toml say of a thread; raises RequestFailed
Defaults = Callable[[dict[str, Any], str | None], Awaitable[ThreadDefaults]]

_SETTINGS = {
    "model": "model",
    "approval_policy": "approval_policy",
    "model_reasoning_effort": "effort",
    "model_reasoning_summary": "summary",
    "model_verbosity": "verbosity",
}


async def configuring(config: dict[str, Any], own: dict[str, Any], defaults: Defaults) -> Callable[[Thread], None]:
    """What gives a thread the settings that the `config` of a request names (observed).

    Args:
        config: config.toml with the overrides.

    Raises:
        RequestFailed: The configuration cannot be used.
    """
    # Whatever provider is the default one: that of the thread is looked at when it is known.
    found = await defaults(own, OPENAI.id)
    said = laid_over({}, own)
    merged = laid_over(config, own) if own else config
    profile, _ = configured(merged, "/")

    def configure(thread: Thread) -> None:
        for key, attribute in _SETTINGS.items():
            if key in said:
                setattr(thread, attribute, getattr(found, attribute))
        if own:
            thread.config = merged
        if "default_permissions" in said:
            assign(thread, profile, merged)
        elif "sandbox_mode" in said and found.sandbox_mode is not None:
            thread.sandbox, thread.profile = sandbox_policy(found.sandbox_mode, found.workspace_write), None

    return configure
