"""What is done to threads besides turns: resume, fork, archive, name, revert and their like."""

import asyncio
import itertools
from typing import Any

from agent.core import rollout
from agent.core.rollout import StoredThread, StoredTurn
from agent.core.session import Core
from agent.core.store import Found, StoreFailed, ThreadArchived, ThreadBusy, ThreadNotStored
from agent.core.thread import SANDBOX_POLICIES, Thread, thread_of
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.messages import approval_policy
from agent.rpc.server import Answer, Connection, Connections, Method, Methods
from agent.rpc.shapes import anything, flag, list_of, one_of, optional, size, struct, table, text
from agent.rpc.thread_pages import TAKES_UP_ALL_TURNS, checked_id, given, newest, stored_wire, turn_wire

_SETTINGS = {
    "approvalPolicy": optional(approval_policy),
    "baseInstructions": optional(text),
    "config": optional(table),
    "cwd": optional(text),
    "developerInstructions": optional(text),
    "excludeTurns": flag,
    "model": optional(text),
    "modelProvider": optional(text),
    "sandbox": optional(one_of(*SANDBOX_POLICIES)),
    "serviceTier": optional(text),
    "threadId": text,
}
_RESUME = struct("struct ThreadResumeParams", 14, _SETTINGS, ("threadId",))
_FORK = struct(
    "struct ThreadForkParams",
    15,
    {**_SETTINGS, "ephemeral": flag, "lastTurnId": optional(text), "threadSource": optional(text)},
    ("threadId",),
)
_ONE = struct("struct ThreadIdParams", 1, {"threadId": text}, ("threadId",))
_NAME = struct("struct ThreadSetNameParams", 2, {"threadId": text, "name": text}, ("threadId", "name"))
_INJECT = struct(
    "struct ThreadInjectItemsParams", 2, {"threadId": text, "items": list_of(anything)}, ("threadId", "items")
)
_GIT = {"sha": anything, "branch": anything, "originUrl": anything}
_METADATA = struct(
    "struct ThreadMetadataUpdateParams",
    2,
    {"threadId": text, "gitInfo": optional(struct("struct ThreadMetadataGitInfoUpdateParams", 3, _GIT))},
    ("threadId",),
)
_REVERT = struct("struct ThreadRevertParams", 2, {"threadId": text, "beforeTurnId": text}, ("threadId", "beforeTurnId"))
_GOAL = struct(
    "struct ThreadGoalSetParams",
    5,
    {
        "threadId": text,
        "objective": optional(text),
        "status": optional(one_of("active", "paused", "budgetLimited", "usageLimited", "blocked", "complete")),
        "tokenBudget": optional(size),
    },
    ("threadId",),
)


class ThreadMethods:
    """The methods.

    Args:
        default_model: The model of a fork that names none (observed).
        now_s: Unix seconds.
    """

    def __init__(self, core: Core, connections: Connections, default_model: Any, now_s: Any) -> None:
        self._core = core
        self._connections = connections
        self._default_model = default_model
        self._now_s = now_s
        self._goals: dict[str, dict[str, Any]] = {}

    def table(self) -> Methods:
        """The rows."""
        return {
            "thread/resume": Method(given(_RESUME), self._resume),
            "thread/fork": Method(given(_FORK), self._fork),
            "thread/archive": Method(given(_ONE), self._archive),
            "thread/unarchive": Method(given(_ONE), self._unarchive),
            "thread/delete": Method(given(_ONE), self._delete),
            "thread/unsubscribe": Method(given(_ONE), self._unsubscribe),
            "thread/name/set": Method(given(_NAME), self._set_name),
            "thread/inject_items": Method(given(_INJECT), self._inject),
            "thread/metadata/update": Method(given(_METADATA), self._update),
            "thread/revert": Method(given(_REVERT), self._revert),
            "thread/goal/set": Method(given(_GOAL), self._set_goal),
            "thread/goal/get": Method(given(_ONE), self._get_goal),
            "thread/goal/clear": Method(given(_ONE), self._clear_goal),
        }

    # Taking up

    async def _resume(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        loaded = self._core.is_loaded(thread_id)
        try:
            thread = self._core.resume(thread_id)
        except ThreadNotStored as exc:
            raise _no_rollout(thread_id) from exc
        except ThreadArchived as exc:
            text = f"session {thread_id} is archived. Run `codex unarchive {thread_id}` to unarchive it first."
            raise RequestFailed(INVALID_REQUEST, text) from exc
        except ThreadBusy as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread {thread_id}: {exc}") from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        if not loaded:
            before = thread.meta()
            _override(thread, wanted)
            changed = {name: value for name, value in thread.meta().items() if before[name] != value}
            if changed:
                self._core.write(thread_id, rollout.UPDATED, changed)
        stored = await self._stored(thread_id)
        answer = {
            **thread.settings_wire(),
            "collaborationMode": {
                "mode": "default",
                "settings": {
                    "model": thread.model,
                    "reasoning_effort": thread.effort,
                    "developer_instructions": None,
                },
            },
            "initialTurnsPage": None,
            "turnsBackwardsCursor": newest(thread_id, "turns") if stored.turns else None,
            "itemsBackwardsCursor": newest(thread_id, "itemsByCreatedAtOrdinal") if stored.turns else None,
        }
        if not wanted.get("excludeTurns"):
            connection.notify("deprecationNotice", TAKES_UP_ALL_TURNS)
            answer["thread"]["turns"] = [turn_wire(turn, "full") for turn in stored.turns]
        if not loaded:
            connection.notify("thread/status/changed", {"threadId": thread_id, "status": {"type": "idle"}})
        self._connections.subscribe(thread_id, connection)
        if thread.problems and not loaded:
            told = "; ".join(thread.problems)
            message = f"thread {thread_id} was not whole on disk: {told}"
            connection.notify("warning", {"threadId": thread_id, "message": message})

        def then() -> None:
            if not wanted.get("excludeTurns"):
                self._tell_usage(connection, thread_id, stored.turns)
            self._tell_goal(thread_id)
            if not loaded:
                self._core.prewarm(thread_id)

        return Answer(answer, then)

    def _tell_usage(self, connection: Connection, thread_id: str, turns: list[StoredTurn]) -> None:
        if turns and self._core.is_loaded(thread_id):
            usage = self._core.usage_wire(thread_id, turns[-1].wire["id"])
            connection.notify("thread/tokenUsage/updated", usage)

    def _tell_goal(self, thread_id: str) -> None:
        """All who follow the thread are told anew (observed)."""
        goal = self._goals.get(thread_id)
        if goal is None:
            self._connections.publish(thread_id, "thread/goal/cleared", {"threadId": thread_id})
        else:
            told = {"threadId": thread_id, "turnId": None, "goal": goal}
            self._connections.publish(thread_id, "thread/goal/updated", told)

    async def _fork(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        source_id = checked_id(wanted["threadId"])
        stored = await self._stored(source_id)
        before = _turn_after(stored, wanted.get("lastTurnId"))
        thread = thread_of({**stored.meta, "id": self._core.new_id(), "created_at": self._now_s()})
        thread.forked_from, thread.source = source_id, wanted.get("threadSource")
        thread.ephemeral = bool(wanted.get("ephemeral"))
        thread.model = self._default_model()
        _override(thread, wanted)
        self._core.fork(stored, thread, before)
        self._connections.subscribe(thread.id, connection)
        answer = thread.settings_wire()
        kept = list(itertools.takewhile(lambda turn: turn.wire["id"] != before, stored.turns))
        if not wanted.get("excludeTurns"):
            connection.notify("deprecationNotice", TAKES_UP_ALL_TURNS)
            answer["thread"]["turns"] = [turn_wire(turn, "full") for turn in kept]

        def then() -> None:
            if not wanted.get("excludeTurns"):
                self._tell_usage(connection, thread.id, kept)
            self._connections.broadcast("thread/started", {"thread": thread.wire()})
            self._core.prewarm(thread.id)

        return Answer(answer, then)

    async def _stored(self, thread_id: str) -> StoredThread:
        try:
            return await asyncio.to_thread(lambda: self._core.store.read(self._core.store.find(thread_id)))
        except ThreadNotStored as exc:
            raise _no_rollout(thread_id) from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc

    async def _found(self, thread_id: str) -> Found:
        try:
            return await asyncio.to_thread(self._core.store.find, thread_id)
        except ThreadNotStored as exc:
            raise _no_rollout(thread_id) from exc

    # Putting away

    async def _archive(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        found = await self._found(thread_id)
        if not found.archived:
            await self._unload(thread_id)
            self._move(found, archived=True)
        return Answer({}, lambda: self._connections.broadcast("thread/archived", {"threadId": thread_id}))

    async def _unarchive(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        found = await self._found(thread_id)
        if not found.archived:
            raise RequestFailed(INVALID_REQUEST, f"no archived rollout found for thread id {thread_id}")
        path = self._move(found, archived=False)
        thread = stored_wire(await self._stored(thread_id), path)
        told = {"threadId": thread_id}
        return Answer({"thread": thread}, lambda: self._connections.broadcast("thread/unarchived", told))

    async def _delete(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        found = await self._found(thread_id)
        await self._unload(thread_id)
        try:
            self._core.store.delete(found)
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        return Answer({}, lambda: self._connections.broadcast("thread/deleted", {"threadId": thread_id}))

    async def _unload(self, thread_id: str) -> None:
        if await self._core.unload(thread_id):
            status = {"threadId": thread_id, "status": {"type": "notLoaded"}}
            self._connections.publish(thread_id, "thread/status/changed", status)

    def _move(self, found: Found, *, archived: bool) -> str:
        try:
            return str(self._core.store.move(found, archived=archived))
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc

    async def _unsubscribe(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        if not self._core.is_loaded(thread_id):
            return Answer({"status": "notLoaded"})
        followed = self._connections.unsubscribe(thread_id, connection)
        return Answer({"status": "unsubscribed" if followed else "notSubscribed"})

    # Changing

    async def _set_name(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        name = wanted["name"].strip()
        if not name:
            raise RequestFailed(INVALID_REQUEST, "thread name must not be empty")
        await self._change(thread_id, {"name": name})
        told = {"threadId": thread_id, "threadName": name}
        return Answer({}, lambda: self._connections.broadcast("thread/name/updated", told))

    async def _update(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        update = wanted.get("gitInfo")
        if not update:
            raise RequestFailed(INVALID_REQUEST, "gitInfo must include at least one field")
        stored = await self._stored(thread_id)
        git = {"sha": None, "branch": None, "originUrl": None, **(stored.meta.get("git_info") or {}), **update}
        await self._change(thread_id, {"git_info": git})
        if self._core.is_loaded(thread_id):
            return Answer({"thread": {**self._core.thread(thread_id).wire(), "canAcceptDirectInput": None}})
        found = await self._found(thread_id)
        return Answer({"thread": stored_wire(await self._stored(thread_id), str(found.path))})

    async def _change(self, thread_id: str, changes: dict[str, Any]) -> None:
        """Change what is written down of a thread, which is loaded for it if need be."""
        loaded = self._core.is_loaded(thread_id)
        try:
            thread = self._core.resume(thread_id)
        except (ThreadNotStored, ThreadArchived) as exc:
            if not loaded:
                raise _no_rollout(thread_id) from exc
            thread = self._core.thread(thread_id)
        except (ThreadBusy, StoreFailed) as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        for name, value in changes.items():
            setattr(thread, name, value)
        self._core.write(thread_id, rollout.UPDATED, changes)
        if not loaded:
            await self._core.unload(thread_id)

    async def _inject(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread = self._loaded(wanted["threadId"])
        for number, item in enumerate(wanted["items"]):
            if not isinstance(item, dict) or not isinstance(item.get("type"), str):
                raise RequestFailed(INVALID_REQUEST, f"items[{number}] is not a valid response item")
        if not wanted["items"]:
            raise RequestFailed(INVALID_REQUEST, "items must not be empty")
        self._core.inject(thread.id, wanted["items"])
        return Answer({})

    async def _revert(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread = self._loaded(wanted["threadId"])
        if thread.status == "active":
            raise RequestFailed(INVALID_REQUEST, "a turn runs in this thread; interrupt it first")
        stored = await self._stored(thread.id)
        turn = next((one for one in stored.turns if one.wire["id"] == wanted["beforeTurnId"]), None)
        if turn is None:
            raise RequestFailed(INVALID_REQUEST, f"turn not found: {wanted['beforeTurnId']}")
        thread.history[:] = turn.before(thread.history)
        thread.context_tokens = 0
        self._core.write(thread.id, rollout.REVERTED, {"turn_id": turn.wire["id"]})
        kept = (await self._stored(thread.id)).turns
        wire = {**thread.wire(), "turns": [turn_wire(one, "full") for one in kept]}
        return Answer({"thread": wire})

    def _loaded(self, given_id: str) -> Thread:
        thread_id = checked_id(given_id)
        if not self._core.is_loaded(thread_id):
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}")
        return self._core.thread(thread_id)

    # Goals: kept as long as the process lives, and told to clients; the model is not told.

    async def _set_goal(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread = self._loaded(wanted["threadId"])
        now = self._now_s()
        fresh = {"threadId": thread.id, "status": "active", "tokenBudget": None, "tokensUsed": 0, "timeUsedSeconds": 0}
        goal = self._goals.get(thread.id)
        if goal is None:
            if not (wanted.get("objective") or "").strip():
                raise RequestFailed(INVALID_REQUEST, "goal objective must not be empty")
            goal = {**fresh, "createdAt": now}
        for name in ("objective", "status", "tokenBudget"):
            if wanted.get(name) is not None:
                goal[name] = wanted[name]
        order = ("threadId", "objective", "status", "tokenBudget", "tokensUsed", "timeUsedSeconds", "createdAt")
        goal = {**{name: goal[name] for name in order}, "updatedAt": now}
        self._goals[thread.id] = goal
        told = {"threadId": thread.id, "turnId": None, "goal": goal}
        return Answer({"goal": goal}, lambda: self._connections.publish(thread.id, "thread/goal/updated", told))

    async def _get_goal(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        return Answer({"goal": self._goals.get(self._loaded(wanted["threadId"]).id)})

    async def _clear_goal(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread = self._loaded(wanted["threadId"])
        cleared = self._goals.pop(thread.id, None) is not None
        told = {"threadId": thread.id}
        then = (lambda: self._connections.publish(thread.id, "thread/goal/cleared", told)) if cleared else None
        return Answer({"cleared": cleared}, then)


def _override(thread: Thread, wanted: dict[str, Any]) -> None:
    named = {
        "model": "model",
        "approvalPolicy": "approval_policy",
        "baseInstructions": "base_instructions",
        "developerInstructions": "developer_instructions",
        "serviceTier": "service_tier",
        "cwd": "cwd",
    }
    for name, attribute in named.items():
        if wanted.get(name) is not None:
            setattr(thread, attribute, wanted[name])
    if wanted.get("sandbox") is not None:
        thread.sandbox, thread.profile = dict(SANDBOX_POLICIES[wanted["sandbox"]]), None


def _turn_after(stored: StoredThread, last_turn_id: str | None) -> str | None:
    """The turn behind this one, None if it is the last or none is named."""
    if last_turn_id is None:
        return None
    ids = [turn.wire["id"] for turn in stored.turns]
    if last_turn_id not in ids:
        raise RequestFailed(INVALID_REQUEST, f"turn not found: {last_turn_id}")
    index = ids.index(last_turn_id) + 1
    return ids[index] if index < len(ids) else None


def _no_rollout(thread_id: str) -> RequestFailed:
    return RequestFailed(INVALID_REQUEST, f"no rollout found for thread id {thread_id}")
