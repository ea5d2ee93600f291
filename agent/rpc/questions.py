"""Questions to the followers of a thread: approvals, input, permissions, dynamic tools.

All followers are asked with one id; the first answer counts, all are told that it is settled, and later answers are
ignored. Whoever comes to follow the thread while it is open is asked too (observed: two_clients_approval,
approval_reconnect). A question to nobody waits for somebody to come.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.rpc.jsonrpc import RequestId, encode

# Questions whose end the original does not tell (observed: tool_dynamic).
_NOT_TOLD = frozenset({"item/tool/call"})
# Members of a question that only clients of the experimental API get (observed).
_EXPERIMENTAL = ("additionalPermissions",)


class Asked(Protocol):
    """What of a connection is needed."""

    @property
    def is_experimental(self) -> bool:
        """Whether the client wants what is experimental."""

    def ask(self, request_id: RequestId, text: str, answer: "asyncio.Future[Any]") -> None:
        """Send a request with this id; its answer or error settles the future, unless that is settled already."""

    def forget(self, request_id: RequestId) -> None:
        """Drop an answer that is not waited for any more."""


@dataclass(slots=True)
class _Question:
    thread_id: str
    text: str
    stable_text: str  # without what is experimental
    answer: "asyncio.Future[Any]"
    asked: list[Asked] = field(default_factory=list)


class Questions:
    """The open questions of a process.

    Args:
        ids: Where request ids come from.
        followers: The live connections of a thread, oldest first.
        publish: Tells the followers of a thread: (thread id, method, params).
    """

    def __init__(
        self,
        ids: Iterator[int],
        followers: Callable[[str], Iterable[Asked]],
        publish: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        self._ids = ids
        self._followers = followers
        self._publish = publish
        self._open: dict[RequestId, _Question] = {}

    async def ask(self, thread_id: str, method: str, params: dict[str, Any]) -> Any:
        """The first answer. Cancelled, the question is taken back: nobody's answer counts any more.

        Raises:
            RequestFailed: The first that answered did so with an error.
        """
        request_id = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        text = encode({"method": method, "id": request_id, "params": params})
        stable = {name: value for name, value in params.items() if name not in _EXPERIMENTAL}
        stable_text = encode({"method": method, "id": request_id, "params": stable})
        question = self._open[request_id] = _Question(thread_id, text, stable_text, answer)
        for connection in self._followers(thread_id):
            self._put(request_id, question, connection)
        try:
            return await answer
        finally:
            del self._open[request_id]
            for connection in question.asked:
                connection.forget(request_id)
            if method not in _NOT_TOLD:
                self._publish(thread_id, "serverRequest/resolved", {"threadId": thread_id, "requestId": request_id})

    def follow(self, thread_id: str, connection: Asked) -> None:
        """A connection follows the thread from now on: put to it what is open there."""
        for request_id, question in self._open.items():
            if question.thread_id == thread_id and connection not in question.asked:
                self._put(request_id, question, connection)

    def _put(self, request_id: RequestId, question: _Question, connection: Asked) -> None:
        question.asked.append(connection)
        text = question.text if connection.is_experimental else question.stable_text
        connection.ask(request_id, text, question.answer)
