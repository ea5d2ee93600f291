"""The parameters of what is done to threads besides turns. Pure."""

import re
from collections.abc import Callable
from typing import Any

from agent.core.thread import SANDBOX_POLICIES
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.messages import SHARED_SETTINGS, path
from agent.rpc.shapes import anything, flag, list_of, one_of, optional, struct, table, text
from agent.rpc.thread_pages import TURNS_PAGE, checked_id, given

_SETTINGS = {
    **SHARED_SETTINGS,
    "baseInstructions": optional(text),
    "config": optional(table),
    "cwd": optional(text),
    "developerInstructions": optional(text),
    "excludeTurns": flag,
    "modelProvider": optional(text),
    "path": optional(path),
    "sandbox": optional(one_of(*SANDBOX_POLICIES)),
    "threadId": text,
}
RESUME = struct(
    "struct ThreadResumeParams",
    18,
    {**_SETTINGS, "history": optional(list_of(anything)), "initialTurnsPage": optional(TURNS_PAGE)},
    ("threadId",),
)
FORK = struct(
    "struct ThreadForkParams",
    23,
    {
        **_SETTINGS,
        "beforeTurnId": optional(text),
        "ephemeral": flag,
        "lastTurnId": optional(text),
        "threadSource": optional(text),
    },
    ("threadId",),
)
NAME = struct("struct ThreadSetNameParams", 2, {"threadId": text, "name": text}, ("threadId", "name"))
INJECT = struct(
    "struct ThreadInjectItemsParams", 2, {"threadId": text, "items": list_of(anything)}, ("threadId", "items")
)
_GIT = dict.fromkeys(("sha", "branch", "originUrl"), optional(text))
METADATA = struct(
    "struct ThreadMetadataUpdateParams",
    2,
    {"threadId": text, "gitInfo": optional(struct("struct ThreadMetadataGitInfoUpdateParams", 3, _GIT))},
    ("threadId",),
)
REVERT = struct("struct ThreadRevertParams", 2, {"threadId": text, "beforeTurnId": text}, ("threadId", "beforeTurnId"))


def of_one(name: str) -> Callable[[Any], dict[str, Any]]:
    """For `Method.parse`, of those that name a thread and nothing else."""
    return given(struct(f"struct Thread{name}Params", 1, {"threadId": text}, ("threadId",)))


def session_id(given_id: str) -> str:
    """The id of a thread, or the error that clients of the original know."""
    return checked_id(given_id, "session")


def id_of(wanted: dict[str, Any]) -> str:
    """The thread that is meant: that of the path, if there is one, else of the id."""
    if wanted.get("path") is None:
        return session_id(wanted["threadId"])
    name = re.search(r"([0-9a-f-]{36})[.]jsonl$", wanted["path"])
    if name is None:
        raise RequestFailed(INVALID_REQUEST, f"no rollout found at path {wanted['path']}")
    return session_id(name[1])
