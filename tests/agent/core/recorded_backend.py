"""A backend that a test drives line by line: what arrives waits until the test says what is answered."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import trustme
import zstandard
from aiohttp import WSMsgType, web

NAMES = ("chatgpt.com", "api.openai.com", "auth.openai.com")


@dataclass
class Call:
    """A handshake ("ws-handshake"), a message on an accepted socket ("ws-message") or another request ("http")."""

    kind: str
    path: str
    headers: Mapping[str, str]
    body: Any = None
    socket: web.WebSocketResponse | None = None
    request: web.Request | None = None
    answers: asyncio.Queue[tuple[str, Any]] = field(default_factory=asyncio.Queue)

    def cut(self) -> None:
        """Drop the connection."""
        assert self.request is not None
        if self.request.transport is not None:
            self.request.transport.abort()


class RecordedBackend:
    """An async context manager that listens on loopback.

    Args:
        sockets: False refuses every handshake with 426 by itself.
    """

    def __init__(self, *, sockets: bool) -> None:
        self.port = 0
        self._sockets = sockets
        self._authority = trustme.CA()
        self._calls: dict[str, asyncio.Queue[Call]] = {
            kind: asyncio.Queue() for kind in ("ws-handshake", "ws-message", "http")
        }

    @property
    def ca_pem(self) -> bytes:
        return self._authority.cert_pem.bytes()

    async def next(self, kind: str, path: str = "") -> Call:
        """The next call of this kind and path (any, if none is given), once it has come."""
        calls = self._calls[kind]
        others = []
        while (call := await calls.get()).path.partition("?")[0] != path and path:
            others.append(call)
        for other in others:
            calls.put_nowait(other)
        return call

    @property
    def waiting(self) -> list[str]:
        """The kinds of the calls that nobody has asked for."""
        return [kind for kind, calls in self._calls.items() for _ in range(calls.qsize())]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, auto_decompress=False)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*NAMES).configure_cert(context)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("upgrade", "").lower() == "websocket":
            return await self._serve_socket(request)
        content = await request.read()
        if request.headers.get("content-encoding") == "zstd":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        if request.path.startswith("/backend-api/wham/"):
            return web.json_response({"detail": "nope"}, status=404)  # as the recorded one
        call = Call("http", request.path_qs, request.headers, json.loads(content or b"null"), request=request)
        self._calls["http"].put_nowait(call)
        what, (status, headers, body) = await call.answers.get()
        assert what == "head"
        if body is not None or status != 200:
            return web.json_response(body, status=status, headers=headers)
        response = web.StreamResponse(headers=headers)
        with contextlib.suppress(ConnectionError):  # the client gave up: an interrupt, or a timeout
            await response.prepare(request)
            while (answer := await call.answers.get())[0] == "event":
                await response.write(f"data: {json.dumps(answer[1])}\n\n".encode())
            if answer[0] == "cut":
                call.cut()
            else:
                await response.write_eof()
        return response

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        if not self._sockets:
            return web.json_response({"detail": "upgrade required"}, status=426)
        call = Call("ws-handshake", request.path_qs, request.headers, request=request)
        self._calls["ws-handshake"].put_nowait(call)
        what, answer = await call.answers.get()
        if what == "refused":
            status, body = answer
            return web.json_response(body, status=status)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                body = json.loads(message.data)
                self._calls["ws-message"].put_nowait(
                    Call("ws-message", request.path, request.headers, body, socket, request)
                )
        return socket
