"""Reviews."""

from typing import Any

from agent.core.review import target_of
from agent.core.session import Core
from agent.core.surroundings import ThreadNotFound
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Connections, Method, Methods
from agent.rpc.shapes import one_of, optional, struct, tagged, text
from agent.rpc.thread_pages import checked_id, given

_TARGET = tagged(
    {
        "uncommittedChanges": {},
        "baseBranch": {"branch": text},
        "commit": {"sha": text, "title": optional(text)},
        "custom": {"instructions": text},
    },
    {"baseBranch": ("branch",), "commit": ("sha",), "custom": ("instructions",)},
    "ReviewTarget",
)
_REVIEW = struct(
    "struct ReviewStartParams",
    3,
    {"threadId": text, "target": _TARGET, "delivery": optional(one_of("inline", "detached"))},
    ("threadId", "target"),
)
# The members of a target that say what is reviewed.
_MEMBERS = {"baseBranch": "branch", "commit": "sha", "custom": "instructions"}


class ReviewMethods:
    """The method."""

    def __init__(self, core: Core, connections: Connections) -> None:
        self._core = core
        self._connections = connections

    def table(self) -> Methods:
        """The row."""
        return {"review/start": Method(given(_REVIEW), self._review)}

    async def _review(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        if wanted.get("delivery") == "detached":
            raise RequestFailed(INVALID_REQUEST, "a detached review is not supported by countersign; ask for it inline")
        target = target_of(wanted["target"])
        if target is None:
            raise RequestFailed(INVALID_REQUEST, f"{_MEMBERS[wanted['target']['type']]} must not be empty")
        reviewer_id = self._core.new_id()
        # Its requests name it and not the thread: the original stamps none of them.
        self._connections.adopt(reviewer_id, thread_id)
        try:
            started = self._core.start_review(
                thread_id, reviewer_id, target, lambda: self._connections.disown(reviewer_id)
            )  # fmt: skip
        except ThreadNotFound as exc:
            self._connections.disown(reviewer_id)
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}") from exc
        shown = {
            "type": "userMessage",
            "id": started.wire["id"],
            "clientId": None,
            "content": [{"type": "text", "text": target.hint, "text_elements": []}],
            "startedAtMs": None,
            "completedAtMs": None,
        }
        turn = {**started.wire, "rootTurnId": None, "items": [shown]}
        return Answer({"turn": turn, "reviewThreadId": thread_id}, started.begin)
