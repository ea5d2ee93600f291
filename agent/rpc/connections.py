"""Connections of desktop clients, and which threads they follow."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from agent.rpc.handshake import Initialize
from agent.rpc.jsonrpc import ErrorResponse, Peer, RequestFailed, RequestId, Response, notify
from agent.rpc.outbox import Outbox
from agent.rpc.questions import Questions

logger = logging.getLogger(__name__)

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

    @property
    def is_experimental(self) -> bool:
        """See `agent.rpc.questions.Asked`."""
        return self.initialized is not None and self.initialized.capabilities.experimental_api

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
        self._watchers: list[Callable[[str], None]] = []
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
        for thread_id in [one for one, followers in self._threads.items() if connection.number in followers]:
            self._leave(thread_id, connection)
        connection.closed()

    def subscribe(self, thread_id: str, connection: Connection) -> None:
        """From now on `connection` gets the notifications of the thread, and may be asked for its tokens.

        One that left while its request was handled follows nothing.
        """
        if connection.number in self._live:
            self._threads.setdefault(thread_id, set()).add(connection.number)
            self.questions.follow(thread_id, connection)
        self.touch(thread_id)

    def unsubscribe(self, thread_id: str, connection: Connection) -> bool:
        """The connection gets nothing more of the thread; False if it did not follow it."""
        was = self.follows(thread_id, connection)
        if was:
            self._leave(thread_id, connection)
        return was

    def _leave(self, thread_id: str, connection: Connection) -> None:
        followers = self._threads[thread_id]
        followers.discard(connection.number)
        if not followers:
            del self._threads[thread_id]
            self._left.set()
        self.touch(thread_id)

    def part(self, thread_id: str) -> None:
        """Nobody follows the thread any more: it is not loaded."""
        for number in list(self._threads.get(thread_id, ())):
            self._leave(thread_id, self._live[number])

    def watch(self, changed: Callable[[str], None]) -> None:
        """From now on `changed` hears of every thread that others may follow than before, or whose status is new."""
        self._watchers.append(changed)

    def touch(self, thread_id: str) -> None:
        """Somebody has to do with the thread."""
        for changed in self._watchers:
            changed(thread_id)

    async def deserted(self, thread_id: str) -> None:
        """Wait until nobody follows the thread."""
        while self.is_followed(thread_id):
            self._left.clear()
            await self._left.wait()

    def is_followed(self, thread_id: str) -> bool:
        """Whether anybody gets what happens in the thread."""
        return thread_id in self._threads

    def follows(self, thread_id: str, connection: Connection) -> bool:
        """Whether it gets what happens in the thread."""
        return connection.number in self._threads.get(thread_id, ())

    def _followers(self, thread_id: str) -> list[Connection]:
        return [self._live[number] for number in sorted(self._threads.get(thread_id, ()))]

    def publish(self, thread_id: str, method: str, params: dict[str, Any]) -> None:
        """Notify the followers of a thread; of its status and its goal all clients hear (observed)."""
        if method == "thread/status/changed":
            self.broadcast(method, params)
            self.touch(thread_id)
            return
        if method.startswith("thread/goal/"):
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
