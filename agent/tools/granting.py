"""request_permissions: the model asks the user for more than its sandbox allows, for a turn or for the session."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput
from agent.model.wire import Item
from agent.tools.command import PERMISSIONS, BadArguments, arguments
from agent.tools.confinement import Confinement
from agent.tools.grants import NOTHING, Grant, granted, keep, wanted

_SCOPES = ("turn", "session")
_FEATURE = "request_permissions_tool"


class RequestPermissions:
    """The tool."""

    name = "request_permissions"

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        if not self._confinement.has(thread, _FEATURE):
            return ()
        return (
            {
                "type": "function",
                "name": self.name,
                "description": "Ask the user to let later commands read or write more, or use the network. The user "
                "may grant a part of it, for this turn or for the session.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {
                        "permissions": PERMISSIONS,
                        "reason": {"type": "string", "description": "Why it is needed, in a few words."},
                        "environment_id": {"type": "string", "description": "Where; `local` by default."},
                    },
                    "required": ["permissions"],
                    "additionalProperties": False,
                },
            },
        )

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return {self.name: self._request} if self._confinement.has(thread, _FEATURE) else {}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass

    async def _request(self, call: ToolCall, context: CallContext) -> ToolOutput:
        given = arguments(call.text)
        if "permissions" not in given:
            raise BadArguments("failed to parse function arguments: missing field `permissions`")
        reason, environment = given.get("reason"), given.get("environment_id")
        if not isinstance(reason, str | None) or not isinstance(environment, str | None):
            raise BadArguments("failed to parse function arguments: reason and environment_id are texts")
        if environment not in (None, "local"):
            raise BadArguments(f"unknown turn environment id `{environment}`")
        asked = wanted(given["permissions"], self._confinement.absolute(context.thread.cwd))
        if not asked:
            raise BadArguments("request_permissions requires at least one permission")
        grant, scope = NOTHING, "turn"
        if _may_ask(context.thread.approval_policy):
            grant, scope = await self._ask(call, context, asked, reason)
        keep(context.session, grant, context.turn_id if scope == "turn" else None)
        told = {"permissions": grant.told(), "scope": scope}
        return ToolOutput(json.dumps(told, ensure_ascii=False, separators=(",", ":")))

    async def _ask(self, call: ToolCall, context: CallContext, asked: Grant, reason: str | None) -> tuple[Grant, str]:
        """What is granted, and for how long; nothing where the answer cannot be used."""
        params = {
            "threadId": context.thread.id,
            "turnId": context.turn_id,
            "itemId": call.id,
            "environmentId": "local",
            "startedAtMs": context.now_ms(),
            "cwd": context.thread.cwd,
            "reason": reason,
            "permissions": asked.wire(),
        }
        with context.waiting("waitingOnApproval"):
            try:
                answer = await context.ask("item/permissions/requestApproval", params)
                grant = granted(answer).narrowed_to(asked)
            except Exception:  # an error of the client's, or an answer that makes no sense
                return NOTHING, "turn"
        scope = answer.get("scope", "turn")
        if scope not in _SCOPES:
            return NOTHING, "turn"
        if answer.get("strictAutoReview"):
            text = "countersign has no automatic reviewer (strictAutoReview): the permissions were not granted"
            context.notify("warning", {"threadId": context.thread.id, "message": text})
            return NOTHING, "turn"
        return grant, scope


def _may_ask(policy: Any) -> bool:
    if isinstance(policy, dict):
        return bool(policy.get("granular", {}).get("request_permissions"))
    return bool(policy != "never")
