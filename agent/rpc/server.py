"""Connections of desktop clients, and the server that answers them.

The reader of a connection never awaits a handler: while a turn waits for its token, the desktop's answer comes in on
the same reader (house plan 5.6). One queue for each connection keeps the order of what a client sees.

Longer than most modules: a connection, their register and the loop that serves them hold one another.
"""

import asyncio
import itertools
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.rpc.experimental import needs_experimental
from agent.rpc.handshake import Identity, Initialize, initialize_result, parse_initialize, refusal_of_name
from agent.rpc.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_SUPPORTED,
    ErrorResponse,
    Peer,
    Request,
    RequestFailed,
    RequestId,
    Response,
    fail,
    notify,
    reply,
)
from agent.rpc.method_names import METHOD_NAMES
from agent.rpc.outbox import Outbox
from agent.rpc.questions import Questions
from agent.rpc.serde_text import InvalidParams, unknown_variant

logger = logging.getLogger(__name__)

# Seconds that requests get to be answered after the client has closed its end.
LAST_ANSWERS_S = 1.0

# Requests of one client that may be unanswered at a time; more are refused at once, for the client to ask again later.
MOST_UNANSWERED = 1024
# The original's code for that, and its text.
OVERLOADED = -32001
OVERLOADED_TEXT = "Server overloaded; retry later."

# Notifications that only clients of the experimental API get (observed).
EXPERIMENTAL_NOTIFICATIONS = ("thread/readState/changed", "thread/realtime/")


class MessageStream(Protocol):
    """One text for each message, whatever carries them."""

    def __aiter__(self) -> AsyncIterator[str]: ...

    async def send(self, text: str) -> None:
        """Send one text; returns when there is room for more. Raises ConnectionError when the client has gone."""
        ...

    async def aclose(self) -> None: ...


class ClientGone(ConnectionError):
    """The client closed its connection before it answered."""


class Connection:
    """One connected client.

    Args:
        number: Counts from 1 over all connections of the process; the lowest is the oldest.
    """

    def __init__(self, number: int, stream: MessageStream, ids: Iterator[int]) -> None:
        self.number = number
        self.peer = Peer(ids)
        self.initialized: Initialize | None = None
        self._stream = stream
        self.outbox = Outbox()
        self._answers: dict[RequestId, asyncio.Future[Any]] = {}
        self._own: dict[RequestId, asyncio.Future[Any]] = {}  # of these, what nobody else was asked
        self._closed = False

    @property
    def attests(self) -> bool:
        """Whether the client said at `initialize` that it can make tokens, and is still there."""
        return not self._closed and self.initialized is not None and self.initialized.capabilities.request_attestation

    def send(self, text: str) -> None:
        """Queue a text for the client; dropped when it has gone. What no UTF-8 can carry (file names) becomes "?"."""
        self.outbox.put(text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8"))

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Tell the client, unless it has not initialised, has opted out, or does not know the method."""
        if self.initialized is None or method in self.initialized.capabilities.opted_out:
            return
        if method.startswith(EXPERIMENTAL_NOTIFICATIONS) and not self.initialized.capabilities.experimental_api:
            return
        self.send(notify(method, params, time.time_ns() // 1_000_000))

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Ask the client and wait for its answer; give it a deadline from outside.

        Raises:
            RequestFailed: It answered with an error.
            ClientGone: It left first.
        """
        if self._closed:
            raise ClientGone(f"the client left before {method} was sent")
        request_id, text = self.peer.request(method, params)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = self._own[request_id] = answer
        self.send(text)
        try:
            return await answer
        finally:
            del self._own[request_id]
            self.forget(request_id)

    def ask(self, request_id: RequestId, text: str, answer: "asyncio.Future[Any]") -> None:
        """See `agent.rpc.questions.Asked`. Whether it opted out of notifications is of no account here."""
        self.peer.expect(request_id)
        self._answers[request_id] = answer
        self.send(text)

    def forget(self, request_id: RequestId) -> None:
        """See `agent.rpc.questions.Asked`."""
        self._answers.pop(request_id, None)
        self.peer.forget(request_id)

    def answered(self, event: Response | ErrorResponse) -> None:
        """Hand the client's answer to whoever asked."""
        answer = self._answers.get(event.id)
        if answer is None or answer.done():
            return
        if isinstance(event, Response):
            answer.set_result(event.result)
        else:
            answer.set_exception(RequestFailed(event.code, event.message))

    def closed(self) -> None:
        """The stream has ended: nothing is sent any more, and what only this client was asked fails."""
        self._closed = True
        self.outbox.close()
        for answer in self._own.values():
            if not answer.done():
                answer.set_exception(ClientGone("the client closed its connection"))

    async def let_go_when_overflowed(self) -> None:
        """Close the stream of a client that does not read, once too much waits for it."""
        await self.outbox.overflowed.wait()
        logger.warning("client %d does not read: let go with %d characters", self.number, self.outbox.waiting)
        self.closed()
        await self._stream.aclose()  # ends its reader

    async def write(self) -> None:
        """Send what is queued, in order, until the client has gone or this is cancelled."""
        try:
            await self.outbox.send_all(self._stream.send)
        except ConnectionError as exc:
            logger.info("client %d does not read any more: %s", self.number, exc)
            self.closed()  # it is not asked for anything from here on
            await self._stream.aclose()  # ends its reader too


class Connections:
    """The live connections, and which threads they follow. Made first and empty: it breaks the ring (house 5.8)."""

    def __init__(self) -> None:
        self._live: dict[int, Connection] = {}
        self._threads: dict[str, set[int]] = {}
        self._parents: dict[str, str] = {}
        self._left = asyncio.Event()
        self._numbers = itertools.count(1)
        # One counter for the process, over all connections and all kinds of request (observed).
        self._request_ids = itertools.count(0)
        self.questions = Questions(self._request_ids, self._followers, self.publish)

    def open(self, stream: MessageStream) -> Connection:
        """A new connection on this stream."""
        connection = Connection(next(self._numbers), stream, self._request_ids)
        self._live[connection.number] = connection
        return connection

    def close(self, connection: Connection) -> None:
        """The connection has ended."""
        self._live.pop(connection.number, None)
        for followers in self._threads.values():
            followers.discard(connection.number)
        self._left.set()
        connection.closed()

    def subscribe(self, thread_id: str, connection: Connection) -> None:
        """From now on `connection` gets the notifications of the thread, and may be asked for its tokens.

        One that left while its request was handled follows nothing.
        """
        if connection.number not in self._live:
            return
        self._threads.setdefault(thread_id, set()).add(connection.number)
        self.questions.follow(thread_id, connection)

    def unsubscribe(self, thread_id: str, connection: Connection) -> bool:
        """The connection gets nothing more of the thread; False if it did not follow it."""
        followers = self._threads.get(thread_id, set())
        was = connection.number in followers
        followers.discard(connection.number)
        self._left.set()
        return was

    async def deserted(self, thread_id: str) -> None:
        """Wait until nobody follows the thread."""
        while self._threads.get(thread_id):
            self._left.clear()
            await self._left.wait()

    def follows(self, thread_id: str, connection: Connection) -> bool:
        """Whether it gets what happens in the thread."""
        return connection.number in self._threads.get(thread_id, ())

    def _followers(self, thread_id: str) -> list[Connection]:
        return [self._live[number] for number in sorted(self._threads.get(thread_id, ()))]

    def publish(self, thread_id: str, method: str, params: dict[str, Any]) -> None:
        """Notify the followers of a thread; of its status all clients hear (observed: two_clients_ws)."""
        if method == "thread/status/changed":
            self.broadcast(method, params)
            return
        for connection in self._followers(thread_id):
            connection.notify(method, params)

    def broadcast(self, method: str, params: dict[str, Any]) -> None:
        """Notify every client."""
        for connection in self._live.values():
            connection.notify(method, params)

    def adopt(self, thread_id: str, parent_id: str) -> None:
        """For the tokens of a thread that nobody follows, the clients of the thread that it works for are asked."""
        self._parents[thread_id] = parent_id

    def disown(self, thread_id: str) -> None:
        """The thread makes no more requests."""
        self._parents.pop(thread_id, None)

    def attester_for(self, thread_id: str | None) -> Connection | None:
        """The client to ask for a token of this thread: the oldest live one that follows it and can attest."""
        followed = self._parents.get(thread_id or "", thread_id or "")
        return next((one for one in self._followers(followed) if one.attests), None)

    def any_attester(self) -> Connection | None:
        """The oldest live client that can attest, whatever it follows: where nobody here knows the threads."""
        return next((connection for _, connection in sorted(self._live.items()) if connection.attests), None)


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
        methods: The supported methods besides `initialize`; awaited when the first is needed, so that what they
            import need not be there for the first answer.
        on_initialized: Called after a client got its answer to `initialize`.
    """

    def __init__(
        self,
        *,
        name: str,
        codex_home: str,
        connections: Connections,
        identity: Callable[[str], Identity],
        methods: Callable[[], Awaitable[Methods]],
        on_initialized: Callable[[Connection], None],
    ) -> None:
        self._name = name
        self._codex_home = codex_home
        self._connections = connections
        self._make_identity = identity
        self._identity: Identity | None = None
        self._methods = methods
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
            answer = await self._answer(connection, request, initialized)
        except InvalidParams as exc:
            connection.send(fail(request.id, INVALID_REQUEST, f"Invalid request: {exc}"))
        except RequestFailed as exc:
            connection.send(fail(request.id, exc.code, exc.message))
        except Exception as exc:
            logger.exception("request failed method=%s", request.method)
            connection.send(fail(request.id, INTERNAL_ERROR, f"{request.method} failed: {type(exc).__name__}"))
        else:
            connection.send(reply(request.id, answer.result))
            if answer.then is not None:
                answer.then()

    async def _answer(self, connection: Connection, request: Request, initialized: bool) -> Answer:
        # Parsed before the check for `initialize`, as in the original.
        method = (await self._methods()).get(request.method)
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
