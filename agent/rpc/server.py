"""The server that answers desktop clients.

The reader of a connection never awaits a handler: while a turn waits for its token, the desktop's answer comes in on
the same reader (house plan 5.6). One queue for each connection keeps the order of what a client sees.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from agent.rpc.connections import ClientGone, Connection, Connections, MessageStream
from agent.rpc.experimental import needs_experimental
from agent.rpc.handshake import Identity, initialize_result, parse_initialize, refusal_of_name
from agent.rpc.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_SUPPORTED,
    ErrorResponse,
    Request,
    RequestFailed,
    Response,
    fail,
    reply,
)
from agent.rpc.method_names import METHOD_NAMES
from agent.rpc.serde_text import InvalidParams, unknown_variant

__all__ = ["Answer", "AppServer", "ClientGone", "Connection", "Connections", "MessageStream", "Method", "Methods"]

logger = logging.getLogger(__name__)

# Seconds that requests get to be answered after the client has closed its end.
LAST_ANSWERS_S = 1.0

# What is done to one thread is done in the order in which it was asked for, whoever asks (observed). Not what stops a
# turn: that need not wait for what others wait for.
_IN_ORDER = frozenset(
    """
    thread/resume thread/fork thread/archive thread/unarchive thread/delete thread/unsubscribe thread/name/set
    thread/inject_items thread/metadata/update thread/revert thread/goal/set thread/goal/get thread/goal/clear
    thread/compact/start thread/shellCommand review/start turn/start turn/steer
    """.split()
)

# Requests of one client that may be unanswered at a time; more are refused at once, for the client to ask again later.
MOST_UNANSWERED = 1024
# The original's code for that, and its text.
OVERLOADED = -32001
OVERLOADED_TEXT = "Server overloaded; retry later."


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request, and what to start once it is queued: its notifications must come behind it."""

    result: dict[str, Any]
    then: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """One supported method: `parse` raises InvalidParams, `handle` RequestFailed."""

    parse: Callable[[Any], Any]
    handle: Callable[[Connection, Any], Awaitable[Answer]]


Methods = Mapping[str, Method]


class AppServer:
    """Answers clients.

    Args:
        name: Who says that something is not supported.
        codex_home: As told to clients.
        identity: Given the first client's name, the identity of this process.
        method: Given its name, a supported method besides `initialize`, or None; awaited, so that what it imports need
            not be there for the first answer.
        on_initialized: Called after a client got its answer to `initialize`.
    """

    def __init__(
        self,
        *,
        name: str,
        codex_home: str,
        connections: Connections,
        identity: Callable[[str], Identity],
        method: Callable[[str], Awaitable[Method | None]],
        on_initialized: Callable[[Connection], None],
    ) -> None:
        self._name = name
        self._codex_home = codex_home
        self._connections = connections
        self._make_identity = identity
        self._identity: Identity | None = None
        self._method = method
        self._orders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by thread, while one is held
        self._on_initialized = on_initialized

    @property
    def identity(self) -> Identity | None:
        """Who this process is, once a client has initialised."""
        return self._identity

    async def serve(self, stream: MessageStream, *, greeted: bool = False) -> None:
        """Serve one connection until its stream ends.

        Args:
            greeted: The `initialize` that the stream starts with was answered already, see `agent.rpc.greeting`.
        """
        connection = self._connections.open(stream)
        writer = asyncio.create_task(connection.write())
        guard = asyncio.create_task(connection.let_go_when_overflowed())
        handlers: set[asyncio.Task[None]] = set()
        try:
            async for text in stream:
                event = connection.peer.receive(text)
                if isinstance(event, Request):
                    if event.method == "initialize":
                        self._initialize(connection, event, answered=greeted)
                        greeted = False
                        continue
                    if event.method not in METHOD_NAMES:
                        text = f"Invalid request: {unknown_variant(event.method, METHOD_NAMES)}"
                        connection.send(fail(event.id, INVALID_REQUEST, text))
                        continue
                    if len(handlers) >= MOST_UNANSWERED:
                        connection.send(fail(event.id, OVERLOADED, OVERLOADED_TEXT))
                        continue
                    # In a task of its own: the reader must be back for the answers that a handler waits for.
                    initialized = connection.initialized is not None
                    task = asyncio.create_task(self._handle(connection, event, initialized, len(text)))
                    handlers.add(task)
                    task.add_done_callback(handlers.discard)
                elif isinstance(event, Response | ErrorResponse):
                    connection.answered(event)
            # What was asked before the end is answered: `printf ... | countersign app-server` shows the answers.
            await _within(LAST_ANSWERS_S, handlers)
            await _within(LAST_ANSWERS_S, {asyncio.create_task(connection.outbox.drained())})
        except ConnectionError as exc:
            logger.info("client %d left: %s", connection.number, exc)
        finally:
            self._connections.close(connection)
            tasks = (*handlers, writer, guard)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await stream.aclose()

    def _initialize(self, connection: Connection, request: Request, *, answered: bool) -> None:
        try:
            wanted = parse_initialize(request.params)
        except InvalidParams as exc:
            connection.send(fail(request.id, INVALID_REQUEST, f"Invalid request: {exc}"))
            return
        if connection.initialized is not None:
            connection.send(fail(request.id, INVALID_REQUEST, "Already initialized"))
            return
        if (refusal := refusal_of_name(wanted.client.name)) is not None:
            connection.send(fail(request.id, INVALID_REQUEST, refusal))
            return
        if self._identity is None:
            self._identity = self._make_identity(wanted.client.name)
        connection.initialized = wanted
        if not answered:
            result = initialize_result(self._identity, wanted.client, self._codex_home, sys.platform)
            connection.send(reply(request.id, result))
        self._on_initialized(connection)

    async def _handle(self, connection: Connection, request: Request, initialized: bool, size: int) -> None:
        """Answer one request of this many characters; every way out of here sends exactly one answer."""
        await connection.outbox.room(size)
        try:
            async with self._order(request):
                answer = await self._answer(connection, request, initialized)
        except InvalidParams as exc:
            connection.send(fail(request.id, INVALID_REQUEST, f"Invalid request: {exc}"))
        except RequestFailed as exc:
            connection.send(fail(request.id, exc.code, exc.message, exc.about))
        except Exception as exc:
            logger.exception("request failed method=%s", request.method)
            connection.send(fail(request.id, INTERNAL_ERROR, f"{request.method} failed: {type(exc).__name__}"))
        else:
            connection.send(reply(request.id, answer.result))
            if answer.then is not None:
                answer.then()

    def _order(self, request: Request) -> AbstractAsyncContextManager[object]:
        """What to wait for before a request is handled, and to keep others out of until it is."""
        if request.method not in _IN_ORDER or not isinstance(request.params, dict):
            return nullcontext()
        named = request.params.get("path") or request.params.get("threadId")  # a file's name ends with the id
        if not isinstance(named, str):
            return nullcontext()
        return self._orders.setdefault(named.removesuffix(".jsonl")[-36:].lower(), asyncio.Lock())

    async def _answer(self, connection: Connection, request: Request, initialized: bool) -> Answer:
        # Parsed before the check for `initialize`, as in the original.
        method = await self._method(request.method)
        params = None if method is None else method.parse(request.params)
        if not initialized:
            raise RequestFailed(INVALID_REQUEST, "Not initialized")
        assert connection.initialized is not None
        wants = needs_experimental(request.method, request.params)
        if wants is not None and not connection.initialized.capabilities.experimental_api:
            raise RequestFailed(INVALID_REQUEST, f"{wants} requires experimentalApi capability")
        if method is None:
            raise RequestFailed(METHOD_NOT_SUPPORTED, f"{request.method} is not supported by {self._name}")
        return await method.handle(connection, params)


async def _within(seconds: float, tasks: set[asyncio.Task[None]]) -> None:
    """Wait for the tasks, but not longer than this; those that are not done are cancelled."""
    if tasks:
        _, late = await asyncio.wait(set(tasks), timeout=seconds)
        for task in late:
            task.cancel()
