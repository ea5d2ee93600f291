"""Methods and members that want `capabilities.experimentalApi`, as codex-cli 0.169.0 refuses them without. Pure."""

from typing import Any

from agent.rpc.method_names import EXPERIMENTAL_METHODS

_SETTINGS = ("permissions", "runtimeWorkspaceRoots")
_TURN = ("responsesapiClientMetadata", "additionalContext")
_MEMBERS = {
    "thread/start": (
        *("allowProviderModelFallback", *_SETTINGS, "multiAgentMode", "historyMode", "environments", "projectId"),
        *("dynamicTools", "selectedCapabilityRoots", "mockExperimentalField", "experimentalRawEvents"),
    ),
    "thread/resume": ("history", "path", *_SETTINGS, "initialTurnsPage"),
    "thread/fork": ("beforeTurnId", "path", *_SETTINGS),
    "thread/list": ("ancestorThreadId", "parentThreadId"),
    "turn/start": (*_TURN, "environments", *_SETTINGS, "collaborationMode", "multiAgentMode"),
    "turn/steer": _TURN,
    "command/exec": ("permissionProfile",),
}


def needs_experimental(method: str, params: Any) -> str | None:
    """What of a request wants the capability, as its refusal names it; None if nothing does.

    Args:
        params: As the client sent them.
    """
    if method in EXPERIMENTAL_METHODS:
        return method
    if not isinstance(params, dict):
        return None
    for name in _MEMBERS.get(method, ()):
        if params.get(name) not in (None, False):
            return f"{method}.{name}"
    policy = params.get("approvalPolicy") if method in _MEMBERS else None
    return "askForApproval.granular" if isinstance(policy, dict) else None
