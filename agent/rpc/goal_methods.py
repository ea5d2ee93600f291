"""Goals of threads: set, read and taken back by clients. What a thread does about its goal is agent/core/pursuit.py."""

from typing import Any

from agent.core import rollout
from agent.core.goals import Goal, GoalRefused, changed
from agent.core.session import Core
from agent.core.store import StoreFailed, ThreadArchived, ThreadBusy, ThreadNotStored
from agent.core.surroundings import now_ms
from agent.features import is_on
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Connections, Method, Methods
from agent.rpc.shapes import one_of, optional, struct, text, whole
from agent.rpc.thread_pages import checked_id, given

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
    """The methods."""

    def __init__(self, core: Core, connections: Connections, config: dict[str, Any]) -> None:
        self._core = core
        self._connections = connections
        self._is_on = is_on(config, "goals")

    def table(self) -> Methods:
        """The rows."""
        return {
            "thread/goal/set": Method(given(_SET), self._set),
            "thread/goal/get": Method(given(_GET), self._get),
            "thread/goal/clear": Method(given(_CLEAR), self._clear),
        }

    def taken_up(self, thread_id: str) -> None:
        """Somebody has resumed the thread: clients are told of the goal anew, and it is pursued."""
        if self._is_on:
            self._tell(thread_id, self._core.pursuit(thread_id).goal)
            self._core.pursue(thread_id)

    def _tell(self, thread_id: str, goal: Goal | None) -> None:
        if goal is None:
            self._connections.publish(thread_id, "thread/goal/cleared", {"threadId": thread_id})
        else:
            told = {"threadId": thread_id, "turnId": None, "goal": goal.wire()}
            self._connections.publish(thread_id, "thread/goal/updated", told)

    async def _set(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        changes = {name: wanted[name] for name in ("objective", "status") if wanted.get(name) is not None}
        if "tokenBudget" in wanted:
            changes["tokenBudget"] = wanted["tokenBudget"]
        thread_id = self._thread(wanted)
        try:
            if self._core.is_loaded(thread_id):
                goal = self._core.pursuit(thread_id).set(changes)
            else:
                goal = changed(await self._stored(thread_id), thread_id, changes, now_ms() // 1000)
                self._write(thread_id, goal)
        except GoalRefused as exc:
            raise RequestFailed(INVALID_REQUEST, str(exc)) from exc

        def then() -> None:
            self._tell(thread_id, goal)
            self._core.pursue(thread_id)

        return Answer({"goal": goal.wire()}, then)

    async def _get(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = self._thread(wanted)
        if self._core.is_loaded(thread_id):
            goal = self._core.pursuit(thread_id).goal
        else:
            goal = await self._stored(thread_id)
        return Answer({"goal": None if goal is None else goal.wire()})

    async def _stored(self, thread_id: str) -> Goal | None:
        try:
            stored, found = await self._core.stored(thread_id)
        except ThreadNotStored as exc:
            raise _not_found(thread_id) from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        if found.archived:
            raise _not_found(thread_id)
        return stored.goal

    def _write(self, thread_id: str, goal: Goal | None) -> None:
        """Of a thread that is not loaded; no turn runs for that."""
        try:
            self._core.write(thread_id, rollout.GOAL, None if goal is None else goal.wire())
        except (ThreadNotStored, ThreadArchived) as exc:
            raise _not_found(thread_id) from exc
        except ThreadBusy as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread {thread_id}: {exc}") from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc

    async def _clear(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = self._thread(wanted)
        if self._core.is_loaded(thread_id):
            cleared = self._core.pursuit(thread_id).clear()
        elif cleared := await self._stored(thread_id) is not None:
            self._write(thread_id, None)
        return Answer({"cleared": cleared}, (lambda: self._tell(thread_id, None)) if cleared else None)

    def _thread(self, wanted: dict[str, Any]) -> str:
        if not self._is_on:
            raise RequestFailed(INVALID_REQUEST, "goals feature is disabled")
        thread_id = checked_id(wanted["threadId"])
        if self._core.is_loaded(thread_id) and self._core.thread(thread_id).ephemeral:
            raise RequestFailed(INVALID_REQUEST, f"ephemeral thread does not support goals: {thread_id}")
        return thread_id


def _not_found(thread_id: str) -> RequestFailed:
    return RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}")
