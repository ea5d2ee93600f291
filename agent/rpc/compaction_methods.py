"""Compaction at a client's wish."""

from typing import Any

from agent.core.session import Core
from agent.core.surroundings import ThreadNotFound
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.shapes import struct, text
from agent.rpc.thread_pages import checked_id, given

_COMPACT = struct("struct ThreadCompactStartParams", 1, {"threadId": text}, ("threadId",))


class CompactionMethods:
    """The method."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def table(self) -> Methods:
        """The row."""
        return {"thread/compact/start": Method(given(_COMPACT), self._compact)}

    async def _compact(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        try:
            started = self._core.start_compaction(thread_id)
        except ThreadNotFound as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}") from exc
        return Answer({}, started.begin)
