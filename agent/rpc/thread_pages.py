"""Reading threads: lists, pages of turns and of items, what is loaded. From disk, also where a thread is loaded."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.core.ids import parse_uuid
from agent.core.rollout import StoredThread, StoredTurn
from agent.core.session import Core
from agent.core.store import StoreFailed, ThreadNotStored
from agent.core.thread import thread_of
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.shapes import Shape, anything, count, flag, list_of, one_of, optional, params, struct, text

_PAGE = 25
_MOST = 100

_DIRECTION = optional(one_of("asc", "desc"))
_LIST = struct(
    "struct ThreadListParams",
    14,
    {
        "archived": optional(flag),
        "cursor": optional(text),
        "cwd": anything,
        "excludedThreadIds": optional(list_of(text)),
        "limit": optional(count),
        "modelProviders": optional(list_of(text)),
        "originators": optional(list_of(text)),
        "searchTerm": optional(text),
        "sortDirection": _DIRECTION,
        "sortKey": optional(one_of("created_at", "updated_at", "recency_at", "section_entered_at")),
        "sourceKinds": optional(list_of(text)),
    },
)
_READ = struct("struct ThreadReadParams", 2, {"threadId": text, "includeTurns": flag}, ("threadId",))
_LOADED = struct("struct ThreadLoadedListParams", 2, {"cursor": optional(text), "limit": optional(count)})
_TURNS = struct(
    "struct ThreadTurnsListParams",
    5,
    {
        "threadId": text,
        "cursor": optional(text),
        "itemsView": optional(one_of("notLoaded", "summary", "full")),
        "limit": optional(count),
        "sortDirection": _DIRECTION,
    },
    ("threadId",),
)
_ITEMS = struct(
    "struct ThreadItemsListParams",
    6,
    {
        "threadId": text,
        "cursor": optional(text),
        "limit": optional(count),
        "sortDirection": _DIRECTION,
        "turnId": optional(text),
    },
    ("threadId",),
)


# Of the turns that thread/resume answers with.
TURNS_PAGE = struct(
    "struct ThreadResumeInitialTurnsPageParams",
    3,
    {
        "itemsView": optional(one_of("notLoaded", "summary", "full")),
        "limit": optional(count),
        "sortDirection": _DIRECTION,
    },
)


def deprecated_turns(instead: str) -> dict[str, Any]:
    """What clients are told that ask for all turns at once."""
    summary = (
        f"Full-history hydration is deprecated for paginated threads; {instead}, "
        "then page with `thread/turns/list` and `thread/items/list`."
    )
    return {"summary": summary, "details": None}


READS_ALL_TURNS = deprecated_turns("omit `includeTurns` or set it to `false`")
TAKES_UP_ALL_TURNS = deprecated_turns("use `excludeTurns: true`")


def given(shape: Shape) -> Callable[[Any], dict[str, Any]]:
    """For `Method.parse`."""
    return lambda value: params(value, shape)


class ThreadPages:
    """The reading methods."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def table(self) -> Methods:
        """The rows."""
        return {
            "thread/list": Method(given(_LIST), self._list),
            "thread/read": Method(given(_READ), self._read),
            "thread/loaded/list": Method(given(_LOADED), self._loaded),
            "thread/turns/list": Method(given(_TURNS), self._turns),
            "thread/items/list": Method(given(_ITEMS), self._items),
        }

    async def _list(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        key = {"created_at": "createdAt"}.get(wanted.get("sortKey") or "created_at", "updatedAt")
        descending = wanted.get("sortDirection") != "asc"
        found = await asyncio.to_thread(lambda: list(self._core.store.look(archived=bool(wanted.get("archived")))))
        rows = []
        for stored, file in found:
            if _fits(stored, wanted):
                rows.append((self._wire(stored, str(file.path)), stored.read_state))
        rows.sort(key=lambda row: (row[0][key], row[0]["id"]), reverse=descending)
        start = 0
        if (cursor := wanted.get("cursor")) is not None:
            after = _list_cursor(cursor)
            past = [
                (row[0][key], row[0]["id"]) < after if descending else (row[0][key], row[0]["id"]) > after
                for row in rows
            ]
            start = past.index(True) if True in past else len(rows)
        page = rows[start : start + _size(wanted)]
        more = start + len(page) < len(rows)
        return Answer(
            {
                "data": [wire for wire, _ in page],
                "readStates": {wire["id"]: state for wire, state in page if state is not None},
                "nextCursor": f"{_iso(page[-1][0][key])}|{page[-1][0]['id']}" if more and page else None,
                "backwardsCursor": _iso(page[0][0][key]) if page else None,
            }
        )

    def _wire(self, stored: StoredThread, path: str) -> dict[str, Any]:
        """A thread in a list: without what only a loaded one has, unless it is."""
        if self._core.is_loaded(stored.id):
            return {**self._core.thread(stored.id).wire(), "canAcceptDirectInput": None}
        return stored_wire(stored, path)

    async def _read(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        turns = bool(wanted.get("includeTurns"))
        state = None
        if self._core.is_loaded(thread_id):
            thread = self._core.thread(thread_id)
            if turns and thread.ephemeral:
                raise RequestFailed(INVALID_REQUEST, "ephemeral threads do not support includeTurns")
            wire, state = thread.wire(), thread.read_state
        else:
            stored, path = await self._stored(thread_id, f"thread not loaded: {thread_id}")
            wire, state = stored_wire(stored, path), stored.read_state
        if turns:
            connection.notify("deprecationNotice", READS_ALL_TURNS)
            try:
                stored, _ = await self._stored(thread_id, "")
            except RequestFailed:
                pass  # nothing was written down yet
            else:
                wire["turns"] = [turn_wire(turn, "full") for turn in stored.turns]
        return Answer({"thread": wire, "readState": state})

    async def _loaded(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        ids = sorted(self._core.loaded)
        start = 0
        if (cursor := wanted.get("cursor")) is not None:
            if cursor not in ids:
                raise RequestFailed(INVALID_REQUEST, f"invalid cursor: {cursor}")
            start = ids.index(cursor) + 1
        limit = wanted.get("limit")
        page = ids[start:] if limit is None else ids[start : start + max(limit, 1)]
        return Answer({"data": page, "nextCursor": page[-1] if page and start + len(page) < len(ids) else None})

    async def _turns(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        stored, _ = await self._stored(thread_id, self._nothing_yet(thread_id, "thread/turns/list"))
        return Answer(turns_page(thread_id, stored, wanted) or {})

    async def _items(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        thread_id = checked_id(wanted["threadId"])
        stored, _ = await self._stored(thread_id, self._nothing_yet(thread_id, "thread/items/list"))
        only = wanted.get("turnId")
        entries = [
            {
                "turnId": turn.wire["id"],
                "item": item,
                "startedAtMs": item.get("startedAtMs"),
                "completedAtMs": item.get("completedAtMs"),
            }
            for turn in stored.turns
            if only is None or turn.wire["id"] == only
            for item in turn.items
        ]
        ordered = entries[::-1] if wanted.get("sortDirection") == "desc" else entries
        page, following, backwards = _page(thread_id, "itemsByCreatedAtOrdinal", ordered, wanted)
        return Answer({"data": list(page), "nextCursor": following, "backwardsCursor": backwards})

    def _nothing_yet(self, thread_id: str, method: str) -> str:
        """Why there are no turns to list."""
        if not self._core.is_loaded(thread_id):
            return f"no rollout found for thread id {thread_id}"
        if self._core.thread(thread_id).ephemeral:
            return f"ephemeral threads do not support {method}"
        return f"thread {thread_id} is not materialized yet; {method} is unavailable before first user message"

    async def _stored(self, thread_id: str, missing: str) -> tuple[StoredThread, str]:
        """A thread from disk, also an archived one; `missing` is what is said where there is none."""
        try:
            stored, found = await self._core.stored(thread_id)
            return stored, str(found.path)
        except ThreadNotStored as exc:
            raise RequestFailed(INVALID_REQUEST, missing) from exc
        except StoreFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc


def checked_id(given_id: str, what: str = "thread") -> str:
    """A thread's id in its usual spelling, or the error that clients of the original know.

    Args:
        what: The original calls it "session" here and there.
    """
    try:
        return parse_uuid(given_id)
    except ValueError as exc:
        raise RequestFailed(INVALID_REQUEST, f"invalid {what} id: {exc}") from exc


def stored_wire(stored: StoredThread, path: str) -> dict[str, Any]:
    """A thread that is not loaded, as clients see it."""
    thread = thread_of(stored.meta)
    thread.preview, thread.updated_at, thread.path = stored.preview, stored.updated_at, path
    status = {"type": "notLoaded"}
    return {**thread.wire(), "environments": None, "status": status, "canAcceptDirectInput": None}


def turns_page(thread_id: str, stored: StoredThread, wanted: dict[str, Any] | None) -> dict[str, Any] | None:
    """A page of turns; None where none is wanted."""
    if wanted is None:
        return None
    view = wanted.get("itemsView") or "summary"
    ordered = stored.turns[::-1] if wanted.get("sortDirection") != "asc" else stored.turns
    page, following, backwards = _page(thread_id, "turns", ordered, wanted)
    data = [turn_wire(turn, view) for turn in page]
    return {"data": data, "nextCursor": following, "backwardsCursor": backwards}


def turn_wire(turn: StoredTurn, view: str) -> dict[str, Any]:
    """A turn as clients see it.

    Args:
        view: "notLoaded" without items, "summary" with the first of the user and the last of the agent, "full".
    """
    items: Sequence[dict[str, Any]] = turn.items
    if view == "summary":
        first = next((item for item in items if item["type"] == "userMessage"), None)
        last = next((item for item in reversed(items) if item["type"] == "agentMessage"), None)
        items = [item for item in (first, last) if item is not None]
    return {**turn.wire, "items": [] if view == "notLoaded" else list(items), "itemsView": view}


def _fits(stored: StoredThread, wanted: dict[str, Any]) -> bool:
    meta = stored.meta
    cwds = wanted.get("cwd")
    providers, sources = wanted.get("modelProviders"), wanted.get("sourceKinds")
    originators, term = wanted.get("originators"), wanted.get("searchTerm")
    return (
        (not cwds or meta.get("cwd") in ([cwds] if isinstance(cwds, str) else cwds))
        and (not providers or meta.get("model_provider") in providers)
        and (not sources or bool({"vscode", "appServer"} & set(sources)))
        and (not originators or meta.get("originator") in originators)
        and stored.id not in (wanted.get("excludedThreadIds") or ())
        and (not term or term.lower() in f"{meta.get('name') or ''}\n{stored.preview}".lower())
        and bool(stored.turns)
    )


def _size(wanted: dict[str, Any]) -> int:
    limit = wanted.get("limit")
    return _PAGE if limit is None else min(max(int(limit), 1), _MOST)


def _iso(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def _list_cursor(cursor: str) -> tuple[int, str]:
    moment, bar, thread_id = cursor.partition("|")
    try:
        if not bar:
            raise ValueError
        return int(datetime.fromisoformat(moment).timestamp()), parse_uuid(thread_id)
    except ValueError as exc:
        raise RequestFailed(INVALID_REQUEST, f"invalid cursor: {cursor}") from exc


def newest(thread_id: str, kind: str) -> str:
    """The cursor of the pages that go back from the end: `sortDirection` "desc"."""
    return _cursor(thread_id, kind, 0, "desc")


def _cursor(thread_id: str, kind: str, ordinal: int, direction: str | None) -> str:
    scope = {"kind": kind, "direction": direction}
    return json.dumps({"requestedThreadId": thread_id, "ordinal": ordinal, "scope": scope}, separators=(",", ":"))


def _page[Row](
    thread_id: str, kind: str, rows: Sequence[Row], wanted: dict[str, Any]
) -> tuple[Sequence[Row], str | None, str | None]:
    """A page, the cursor of the next and that of the way back. A cursor counts rows from the beginning."""

    def cursor(ordinal: int) -> str:
        return _cursor(thread_id, kind, ordinal, wanted.get("sortDirection"))

    start = 0
    if (text := wanted.get("cursor")) is not None:
        try:
            opened = json.loads(text)
            start = opened["ordinal"]
            if type(start) is not int or start < 0 or text != cursor(start):
                raise ValueError
        except (ValueError, KeyError, TypeError) as exc:
            raise RequestFailed(INVALID_REQUEST, f"invalid cursor: {text}") from exc
    page = rows[start : start + _size(wanted)]
    end = start + len(page)
    return page, cursor(end) if end < len(rows) else None, cursor(start) if page else None
