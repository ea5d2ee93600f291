"""A connection inside of the process: a `MessageStream` for the server, and a client for whoever is in here with it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agent.rpc.jsonrpc import (
    ErrorResponse,
    Notification,
    Peer,
    Request,
    RequestFailed,
    RequestId,
    Response,
    encode,
    fail,
)


class PipeStream:
    """The server's end."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[str | None] = asyncio.Queue()
        self.to_client: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self.to_server.get()) is not None:
            yield text

    async def send(self, text: str) -> None:
        await self.to_client.put(text)

    async def aclose(self) -> None:
        self.to_server.put_nowait(None)


class PipeClient:
    """The client's end: requests with answers, and what the server tells. It answers no request of the server.

    Attributes:
        stream: For `App.serve`.
        told: The notifications, in order.
    """

    def __init__(self) -> None:
        self.stream = PipeStream()
        self.told: asyncio.Queue[Notification] = asyncio.Queue()
        self._ids = iter(range(1, 1 << 62))
        self._peer = Peer(self._ids)
        self._answers: dict[RequestId, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Raises RequestFailed."""
        request_id, text = self._peer.request(method, params)
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self.stream.to_server.put_nowait(text)
        try:
            return await answer
        finally:
            del self._answers[request_id]
            self._peer.forget(request_id)

    def notify(self, method: str) -> None:
        """Tell the server something without parameters."""
        self.stream.to_server.put_nowait(encode({"method": method}))

    async def aclose(self) -> None:
        """The server sees the end."""
        self.stream.to_server.put_nowait(None)
        self._reading.cancel()
        await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        while (text := await self.stream.to_client.get()) is not None:
            match self._peer.receive(text):
                case Request() as asked:
                    refusal = fail(asked.id, -32000, f"{asked.method} is not supported here: nobody can be asked")
                    self.stream.to_server.put_nowait(refusal)
                case Notification() as told:
                    self.told.put_nowait(told)
                case Response() as answered:
                    self._settle(answered.id).set_result(answered.result)
                case ErrorResponse() as failed:
                    self._settle(failed.id).set_exception(RequestFailed(failed.code, failed.message))
                case None:
                    pass

    def _settle(self, request_id: RequestId) -> "asyncio.Future[Any]":
        return self._answers.get(request_id) or asyncio.get_running_loop().create_future()
