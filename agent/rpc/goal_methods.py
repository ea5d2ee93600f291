"""Goals of threads: kept as long as the process lives, and told to clients; the model is not told."""

from collections.abc import Callable
from typing import Any

from agent.core.session import Core
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Connections, Method, Methods
from agent.rpc.shapes import one_of, optional, struct, text, whole
from agent.rpc.thread_pages import checked_id, given

MOST_CHARACTERS = 4000

_STATUS = optional(one_of("active", "paused", "blocked", "usageLimited", "budgetLimited", "complete"))
_SET = struct(
    "struct ThreadGoalSetParams",
    5,
    {"threadId": text, "objective": optional(text), "status": _STATUS, "tokenBudget": optional(whole)},
    ("threadId",),
)
_GET = struct("struct ThreadGoalGetParams", 1, {"threadId": text}, ("threadId",))
_CLEAR = struct("struct ThreadGoalClearParams", 2, {"threadId": text}, ("threadId",))


class Goals:
    """The methods.

    Args:
        now_s: Unix seconds.
    """

    def __init__(self, core: Core, connections: Connections, now_s: Callable[[], int]) -> None:
        self._core = core
        self._connections = connections
        self._now_s = now_s
        self._goals: dict[str, dict[str, Any]] = {}

    def table(self) -> Methods:
        """The rows."""
        return {
            "thread/goal/set": Method(given(_SET), self._set),
            "thread/goal/get": Method(given(_GET), self._get),
            "thread/goal/clear": Method(given(_CLEAR), self._clear),
        }

    def tell(self, thread_id: str) -> None:
        """All who follow the thread are told anew."""
        goal = self._goals.get(thread_id)
        if goal is None:
            self._connections.publish(thread_id, "thread/goal/cleared", {"threadId": thread_id})
        else:
            told = {"threadId": thread_id, "turnId": None, "goal": goal}
            self._connections.publish(thread_id, "thread/goal/updated", told)

    async def _set(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = self._thread(wanted)
        now = self._now_s()
        goal = self._goals.get(thread_id)
        changes = {name: wanted[name] for name in ("objective", "status") if wanted.get(name) is not None}
        if "tokenBudget" in wanted:
            changes["tokenBudget"] = wanted["tokenBudget"]
        _check(changes)
        if goal is None:
            if "objective" not in changes:
                text = f"cannot update goal for thread {thread_id}: no goal exists"
                raise RequestFailed(INVALID_REQUEST, text)
            fresh = {"threadId": thread_id, "objective": "", "status": "active", "tokenBudget": None}
            goal = {**fresh, "tokensUsed": 0, "timeUsedSeconds": 0, "createdAt": now}
        self._goals[thread_id] = goal = {**goal, **changes, "updatedAt": now}
        return Answer({"goal": goal}, lambda: self.tell(thread_id))

    async def _get(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        return Answer({"goal": self._goals.get(self._thread(wanted))})

    async def _clear(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = self._thread(wanted)
        cleared = self._goals.pop(thread_id, None) is not None
        return Answer({"cleared": cleared}, (lambda: self.tell(thread_id)) if cleared else None)

    def _thread(self, wanted: dict[str, Any]) -> str:
        thread_id = checked_id(wanted["threadId"])
        if not self._core.is_loaded(thread_id):
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}")
        if self._core.thread(thread_id).ephemeral:
            raise RequestFailed(INVALID_REQUEST, f"ephemeral thread does not support goals: {thread_id}")
        return thread_id


def _check(changes: dict[str, Any]) -> None:
    objective, budget = changes.get("objective"), changes.get("tokenBudget")
    if objective is not None and not objective.strip():
        raise RequestFailed(INVALID_REQUEST, "goal objective must not be empty")
    if objective is not None and len(objective) > MOST_CHARACTERS:
        raise RequestFailed(INVALID_REQUEST, f"goal objective must be at most {MOST_CHARACTERS} characters")
    if budget is not None and budget <= 0:
        raise RequestFailed(INVALID_REQUEST, "goal budgets must be positive when provided")
