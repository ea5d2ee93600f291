"""`fuzzyFileSearch/session*`: a search that a client goes on typing in. Each query is searched for anew."""

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from agent.rpc.file_search import Match, search
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.shapes import list_of, struct, text
from agent.rpc.thread_pages import given

# Of one client; the oldest gives way.
MOST_SESSIONS = 16

_START = struct(
    "struct FuzzyFileSearchSessionStartParams", 2, {"sessionId": text, "roots": list_of(text)}, ("sessionId", "roots")
)
_UPDATE = struct(
    "struct FuzzyFileSearchSessionUpdateParams", 2, {"sessionId": text, "query": text}, ("sessionId", "query")
)
_STOP = struct("struct FuzzyFileSearchSessionStopParams", 1, {"sessionId": text}, ("sessionId",))


@dataclass(slots=True)
class _Session:
    """What is searched in; `given_up` ends the search that runs."""

    name: str
    roots: list[str]
    given_up: threading.Event = field(default_factory=threading.Event)


class SearchSessions:
    """The methods. A session belongs to its client's connection, and ends with it."""

    def __init__(self) -> None:
        self._sessions: WeakKeyDictionary[Connection, dict[str, _Session]] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def table(self) -> Methods:
        """The rows."""
        return {
            "fuzzyFileSearch/sessionStart": Method(given(_START), self._start),
            "fuzzyFileSearch/sessionUpdate": Method(given(_UPDATE), self._update),
            "fuzzyFileSearch/sessionStop": Method(given(_STOP), self._stop),
        }

    async def _start(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        name = wanted["sessionId"]
        if not name:
            raise RequestFailed(INVALID_REQUEST, "sessionId must not be empty")
        if not wanted["roots"]:
            reason = "at least one search directory is required"
            raise RequestFailed(INTERNAL_ERROR, f"failed to start fuzzy file search session: {reason}")
        self._end(connection, name)
        own = self._sessions.setdefault(connection, {})
        if len(own) >= MOST_SESSIONS:
            self._end(connection, next(iter(own)))
        session = own[name] = _Session(name, wanted["roots"])
        return Answer({}, lambda: self._search(connection, session, ""))

    async def _update(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        session = self._sessions.get(connection, {}).get(wanted["sessionId"])
        if session is None:
            text = f"fuzzy file search session not found: {wanted['sessionId']}"
            raise RequestFailed(INVALID_REQUEST, text)
        return Answer({}, lambda: self._search(connection, session, wanted["query"]))

    async def _stop(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        self._end(connection, wanted["sessionId"])
        return Answer({})

    def _end(self, connection: Connection, name: str) -> None:
        session = self._sessions.get(connection, {}).pop(name, None)
        if session is not None:
            session.given_up.set()

    def _search(self, connection: Connection, session: _Session, query: str) -> None:
        """Begin the search, in the place of the one that still runs."""
        session.given_up.set()
        given_up = session.given_up = threading.Event()
        task = asyncio.create_task(self._tell(connection, session, query, given_up))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, connection: Connection, session: _Session, query: str, given_up: threading.Event) -> None:
        roots = [os.path.abspath(root) for root in session.roots]  # noqa: ASYNC240 - a matter of the text alone
        try:
            found = await asyncio.to_thread(search, query, roots, given_up.is_set)
        except BaseException:
            given_up.set()  # the thread need not go on
            raise
        if given_up.is_set():
            return
        shown = dict(zip(roots, session.roots, strict=True))
        files = [match_wire(match, shown[match.root]) for match in found]
        with contextlib.suppress(ConnectionError):
            updated = {"sessionId": session.name, "query": query, "files": files}
            connection.notify("fuzzyFileSearch/sessionUpdated", updated)
            connection.notify("fuzzyFileSearch/sessionCompleted", {"sessionId": session.name})


def match_wire(match: Match, root: str) -> dict[str, Any]:
    """A match as clients see it: in snake case, other than the rest of the protocol."""
    return {
        "root": root,
        "path": match.path,
        "match_type": "directory" if match.is_directory else "file",
        "file_name": match.name,
        "score": match.score,
        "indices": list(match.indices),
    }
