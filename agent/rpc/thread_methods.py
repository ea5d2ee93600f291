"""What is done to threads besides turns: resume, fork, archive, name, revert and their like."""

import asyncio
import itertools
import os
from typing import Any

from agent.core import rollout
from agent.core.git_info import git_info
from agent.core.rollout import StoredThread, StoredTurn
from agent.core.session import Core
from agent.core.store import Found, StoreFailed, ThreadArchived, ThreadBusy, ThreadNotStored
from agent.core.thread import Thread, thread_of
from agent.rpc.goal_methods import Goals
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Connections, Method, Methods
from agent.rpc.thread_config import Defaults, Settle, configuring
from agent.rpc.thread_pages import (
    TAKES_UP_ALL_TURNS,
    checked_id,
    given,
    newest,
    stored_wire,
    turn_wire,
    turns_page,
)
from agent.rpc.thread_params import FORK, INJECT, METADATA, NAME, RESUME, REVERT, id_of, of_one, session_id
from agent.rpc.thread_providers import former_provider, new_provider


class ThreadMethods:
    """The methods.

    Args:
        default_model: The model of a fork that names none (observed).
        now_s: Unix seconds.
    """

    def __init__(
        self,
        core: Core,
        connections: Connections,
        default_model: Any,
        now_s: Any,
        config: dict[str, Any],
        defaults: Defaults,
        settle: Settle,
    ) -> None:
        self._core = core
        self._connections = connections
        self._default_model = default_model
        self._now_s = now_s
        self._config = config
        self._defaults = defaults
        self._settle = settle
        self._goals = Goals(core, connections, config)

    def table(self) -> Methods:
        """The rows."""
        return {
            "thread/resume": Method(given(RESUME), self._resume),
            "thread/fork": Method(given(FORK), self._fork),
            "thread/archive": Method(of_one("Archive"), self._archive),
            "thread/unarchive": Method(of_one("Unarchive"), self._unarchive),
            "thread/delete": Method(of_one("Delete"), self._delete),
            "thread/unsubscribe": Method(of_one("Unsubscribe"), self._unsubscribe),
            "thread/name/set": Method(given(NAME), self._set_name),
            "thread/inject_items": Method(given(INJECT), self._inject),
            "thread/metadata/update": Method(given(METADATA), self._update),
            "thread/revert": Method(given(REVERT), self._revert),
            **self._goals.table(),
        }

    # Taking up

    async def _resume(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = id_of(wanted)
        configure = await configuring(self._config, wanted, self._defaults)
        loaded = self._core.is_loaded(thread_id)
        if wanted.get("history") is not None:
            text = "a thread cannot be resumed with a history of the client's by countersign; start one and inject it"
            raise RequestFailed(INVALID_REQUEST, text)
        try:
            thread = self._core.resume(thread_id, lambda name: former_provider(self._config, wanted, name))
        except ThreadNotStored as exc:
            raise _no_rollout(thread_id) from exc
        except ThreadArchived as exc:
            raise _archived(thread_id) from exc
        except ThreadBusy as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread {thread_id}: {exc}") from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        self._connections.touch(thread_id)  # it will be followed: it must not be unloaded in between
        warnings: list[str] = []
        if loaded:
            sources = list((await self._core.instructions(thread)).sources)
        else:
            before = thread.meta()
            try:
                configure(thread)
            except RequestFailed:  # or it would stay as it was for the next that takes it up
                await self._core.unload(thread_id)
                raise
            sources, warnings = await self._settle(thread, wanted.get("config") or {})
            changed = {name: value for name, value in thread.meta().items() if before[name] != value}
            if changed:
                self._core.write(thread_id, rollout.UPDATED, changed)
        stored = await self._stored(thread_id)  # last: what is told from here on reaches the client
        if not self._core.is_loaded(thread_id):
            text = f"thread {thread_id}: it was unloaded while it was read; retry thread/resume"
            raise RequestFailed(INVALID_REQUEST, text)
        answer = {
            **thread.settings_wire(sources),
            "collaborationMode": thread.collaboration_wire(),
            "initialTurnsPage": turns_page(thread_id, stored, wanted.get("initialTurnsPage")),
            "turnsBackwardsCursor": newest(thread_id, "turns") if stored.turns else None,
            "itemsBackwardsCursor": newest(thread_id, "itemsByCreatedAtOrdinal") if stored.turns else None,
        }
        if not wanted.get("excludeTurns"):
            connection.notify("deprecationNotice", TAKES_UP_ALL_TURNS)
            answer["thread"]["turns"] = [turn_wire(turn, "full") for turn in stored.turns]
        for warning in warnings:
            connection.notify("warning", {"threadId": thread_id, "message": warning})
        if not loaded:
            self._tell_status(thread_id, "idle")
        self._connections.subscribe(thread_id, connection)
        if thread.problems and not loaded:
            told = "; ".join(thread.problems)
            message = f"thread {thread_id} was not whole on disk: {told}"
            connection.notify("warning", {"threadId": thread_id, "message": message})

        def then() -> None:
            if not loaded or not wanted.get("excludeTurns"):
                self._tell_usage(connection, thread_id, stored.turns)
            if not loaded:
                self._core.prewarm(thread_id)
            self._goals.taken_up(thread_id)

        return Answer(answer, then)

    def _tell_usage(self, connection: Connection, thread_id: str, turns: list[StoredTurn]) -> None:
        if turns and self._core.is_loaded(thread_id):
            usage = self._core.usage_wire(thread_id, turns[-1].wire["id"])
            connection.notify("thread/tokenUsage/updated", usage)

    async def _fork(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        source_id = id_of(wanted)
        configure = await configuring(self._config, wanted, self._defaults)
        if wanted.get("beforeTurnId") is not None and wanted.get("lastTurnId") is not None:
            raise RequestFailed(INVALID_REQUEST, "`beforeTurnId` cannot be combined with `lastTurnId`")
        found = await self._found(source_id)
        if found.archived:
            raise _archived(source_id)
        stored = await self._read(found)
        if wanted.get("ephemeral") and not wanted.get("excludeTurns"):
            raise RequestFailed(INVALID_REQUEST, "ephemeral paginated thread/fork requires `excludeTurns: true`")
        before = _first_left_out(stored, wanted)
        thread = thread_of({**stored.meta, "id": self._core.new_id(), "created_at": self._now_s()})
        thread.forked_from, thread.source = source_id, wanted.get("threadSource")
        thread.ephemeral = bool(wanted.get("ephemeral"))
        thread.provider = new_provider(self._config, wanted)
        thread.model_provider = thread.provider.id
        configure(thread, is_new=True)
        thread.model = thread.model or self._default_model()
        sources, warnings = await self._settle(thread, wanted.get("config") or {})
        thread.git_info = None if thread.ephemeral else await asyncio.to_thread(git_info, thread.cwd)
        self._core.fork(stored, thread, before)
        self._connections.subscribe(thread.id, connection)
        answer = thread.settings_wire(sources)
        kept = list(itertools.takewhile(lambda turn: turn.wire["id"] != before, stored.turns))
        if not wanted.get("excludeTurns"):
            connection.notify("deprecationNotice", TAKES_UP_ALL_TURNS)
            answer["thread"]["turns"] = [turn_wire(turn, "full") for turn in kept]

        def then() -> None:
            if not wanted.get("excludeTurns"):
                self._tell_usage(connection, thread.id, kept)
            self._connections.broadcast("thread/started", {"thread": thread.wire()})
            for warning in warnings:
                self._connections.publish(thread.id, "warning", {"threadId": thread.id, "message": warning})
            self._core.prewarm(thread.id)

        return Answer(answer, then)

    async def _stored(self, thread_id: str) -> StoredThread:
        try:
            return (await self._core.stored(thread_id))[0]
        except ThreadNotStored as exc:
            raise _no_rollout(thread_id) from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc

    async def _read(self, found: Found) -> StoredThread:
        """A thread as if its process had ended now."""
        try:
            return await asyncio.to_thread(self._core.store.read, found)
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc

    async def _found(self, thread_id: str) -> Found:
        try:
            return await asyncio.to_thread(self._core.store.find, thread_id)
        except ThreadNotStored as exc:
            raise _no_rollout(thread_id) from exc

    # Putting away

    async def _archive(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = session_id(wanted["threadId"])
        if not self._is_unwritten(thread_id) and (await self._found(thread_id)).archived:
            raise _no_rollout(thread_id)
        if (found := await self._put_away(thread_id)) is not None:
            self._move(found, archived=True)
        return Answer({}, lambda: self._connections.broadcast("thread/archived", {"threadId": thread_id}))

    async def _unarchive(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = session_id(wanted["threadId"])
        missing = f"no archived rollout found for thread id {thread_id}"
        try:
            found = await self._found(thread_id)
        except RequestFailed as exc:
            raise RequestFailed(INVALID_REQUEST, missing) from exc
        if not found.archived:
            raise RequestFailed(INVALID_REQUEST, missing)
        path = self._move(found, archived=False)
        thread = stored_wire(await self._stored(thread_id), path)
        told = {"threadId": thread_id}
        return Answer({"thread": thread}, lambda: self._connections.broadcast("thread/unarchived", told))

    async def _delete(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        if self._is_ephemeral(thread_id):
            raise RequestFailed(INVALID_REQUEST, f"thread is not persisted and cannot be deleted: {thread_id}")
        if (found := await self._put_away(thread_id)) is not None:
            try:
                self._core.store.delete(found)
            except StoreFailed as exc:
                raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        return Answer({}, lambda: self._connections.broadcast("thread/deleted", {"threadId": thread_id}))

    def _is_ephemeral(self, thread_id: str) -> bool:
        return self._core.is_loaded(thread_id) and self._core.thread(thread_id).ephemeral

    def _is_unwritten(self, thread_id: str) -> bool:
        """Whether it will be written down, and nothing has happened in it yet."""
        if not self._core.is_loaded(thread_id) or self._is_ephemeral(thread_id):
            return False
        return not os.path.exists(self._core.thread(thread_id).path or "")

    async def _put_away(self, thread_id: str) -> Found | None:
        """Unload a thread; where its file is then, if it has one: the end of a turn may be all that is in it."""
        unwritten = self._is_unwritten(thread_id)
        if not unwritten:
            await self._found(thread_id)
        if await self._core.unload(thread_id):
            self._tell_status(thread_id, "notLoaded")
            self._connections.part(thread_id)
        try:
            return await self._found(thread_id)
        except RequestFailed:
            if unwritten:
                return None
            raise

    def _tell_status(self, thread_id: str, kind: str) -> None:
        status = {"threadId": thread_id, "status": {"type": kind}}
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
            what = "thread metadata update" if update is None else "gitInfo"
            raise RequestFailed(INVALID_REQUEST, f"{what} must include at least one field")
        for name, value in update.items():
            if value is not None and not value.strip():
                raise RequestFailed(INVALID_REQUEST, f"gitInfo.{name} must not be empty")
        if self._core.is_loaded(thread_id):
            known = self._core.thread(thread_id).git_info
        else:
            known = (await self._stored(thread_id)).meta.get("git_info")
        git = {"sha": None, "branch": None, "originUrl": None, **(known or {}), **update}
        await self._change(thread_id, {"git_info": git})
        if self._core.is_loaded(thread_id):
            return Answer({"thread": {**self._core.thread(thread_id).wire(), "canAcceptDirectInput": None}})
        found = await self._found(thread_id)
        return Answer({"thread": stored_wire(await self._stored(thread_id), str(found.path))})

    async def _change(self, thread_id: str, changes: dict[str, Any]) -> None:
        """Change what is written down of a thread, which need not be loaded."""
        if self._is_ephemeral(thread_id):
            text = f"ephemeral thread does not support metadata updates: {thread_id}"
            raise RequestFailed(INVALID_REQUEST, text)
        if not self._core.is_loaded(thread_id):
            await self._stored(thread_id)  # it must be one of ours
        try:
            self._core.write(thread_id, rollout.UPDATED, changes)
        except (ThreadNotStored, ThreadArchived) as exc:
            raise _no_rollout(thread_id) from exc
        except (ThreadBusy, StoreFailed) as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        if self._core.is_loaded(thread_id):
            for name, value in changes.items():
                setattr(self._core.thread(thread_id), name, value)

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
        stored = await self._stored(thread.id)
        turn = next((one for one in stored.turns if one.wire["id"] == wanted["beforeTurnId"]), None)
        if turn is None:
            raise RequestFailed(INVALID_REQUEST, f"turn not found: {wanted['beforeTurnId']}")
        self._core.revert(thread.id, turn)
        thread.status = "idle"
        for kind in ("notLoaded", "idle"):  # the original unloads it for that, and loads it again
            self._tell_status(thread.id, kind)
        some = turn is not stored.turns[0]
        answer = {
            "thread": thread.wire(),
            "turnsBackwardsCursor": newest(thread.id, "turns") if some else None,
            "itemsBackwardsCursor": newest(thread.id, "itemsByCreatedAtOrdinal") if some else None,
        }
        return Answer(answer, lambda: self._connections.broadcast("thread/reverted", {"threadId": thread.id}))

    def _loaded(self, given_id: str) -> Thread:
        thread_id = checked_id(given_id)
        if not self._core.is_loaded(thread_id):
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {thread_id}")
        return self._core.thread(thread_id)


def _first_left_out(stored: StoredThread, wanted: dict[str, Any]) -> str | None:
    """The turn that a fork goes up to; None if it has all."""
    named = wanted.get("beforeTurnId") or wanted.get("lastTurnId")
    if named is None:
        return None
    ids = [turn.wire["id"] for turn in stored.turns]
    if named not in ids:
        raise RequestFailed(INVALID_REQUEST, f"turn not found: {named}")
    index = ids.index(named) + (wanted.get("beforeTurnId") is None)
    return ids[index] if index < len(ids) else None


def _archived(thread_id: str) -> RequestFailed:
    text = f"session {thread_id} is archived. Run `codex unarchive {thread_id}` to unarchive it first."
    return RequestFailed(INVALID_REQUEST, text)


def _no_rollout(thread_id: str) -> RequestFailed:
    return RequestFailed(INVALID_REQUEST, f"no rollout found for thread id {thread_id}")
