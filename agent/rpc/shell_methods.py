"""The user's own commands ("!") in a thread."""

from typing import Any

from agent.core.session import Core
from agent.core.surroundings import ThreadNotFound
from agent.rpc.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.shapes import optional, struct, text, whole
from agent.rpc.thread_pages import checked_id, given

_COMMAND = struct(
    "struct ThreadShellCommandParams",
    3,
    {"threadId": text, "command": text, "timeoutMs": optional(whole)},
    ("threadId", "command"),
)


class ShellMethods:
    """The method."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def table(self) -> Methods:
        """The row."""
        return {"thread/shellCommand": Method(given(_COMMAND), self._command)}

    async def _command(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        if not wanted["command"].strip():
            raise RequestFailed(INVALID_REQUEST, "command must not be empty")
        timeout_ms = wanted.get("timeoutMs")
        if timeout_ms is not None and timeout_ms < 0:
            text = f"thread/shellCommand timeoutMs must be non-negative, got {timeout_ms}"
            raise RequestFailed(INVALID_PARAMS, text)
        thread_id = checked_id(wanted["threadId"])
        try:
            begin = self._core.start_command(thread_id, wanted["command"], timeout_ms)
        except ThreadNotFound as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}") from exc
        return Answer({}, begin)
