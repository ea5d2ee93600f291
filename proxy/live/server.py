"""The live page: a web server on loopback that shows a source to whoever has its token.

The token stands in the fragment of the page's address, which browsers send to nobody; the page takes it from there and
sends it as a header.
"""

import asyncio
import errno
import importlib.resources
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from proxy.capture.store import CaptureError
from proxy.live.guard import SECURITY_HEADERS, Area, Asked, Guard
from proxy.live.rows import detail, messages
from proxy.live.source import Source

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("page", "stream", "summary", "table", "detail", "words")
    },
}

# Pages that follow at a time. Each costs a connection and what one message takes.
MOST_STREAMS = 32
# Seconds. A page that takes nothing for so long is let go; it comes back by itself.
WRITE_TIMEOUT_S = 20.0
# Seconds without news after which a line says that we are still there; the page waits for a few of them.
HEARTBEAT_S = 5.0
# Seconds in which news are collected before they are sent: nobody sees more than that.
GATHER_S = 0.04
_STOP_TIMEOUT_S = 1.0


class LivePage:
    """Serves the page; an async context manager. Entered again, it is the same page at the same address.

    Args:
        port: 0 for any free port.

    Attributes:
        streams: How many pages follow now.
    """

    def __init__(self, source: Source, port: int = 0) -> None:
        self._source = source
        self._token: Final = secrets.token_urlsafe(32)
        self.streams = 0
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self.port = port

    def __repr__(self) -> str:
        return f"LivePage(port={self.port})"

    @property
    def url(self) -> str:
        """The page's address with its token; for the user's eyes, never for a log or argv."""
        return f"http://{LOOPBACK}:{self.port}/#token={self._token}"

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: It cannot; the text says why and what to do.
        """
        self._closing.clear()
        files = importlib.resources.files("proxy.live") / "page"
        self._assets = {path: (files / name).read_bytes() for path, (name, _) in ASSETS.items()}
        server = _Server(self._answer, access_log=None, keepalive_timeout=30.0)
        self._runner = web.ServerRunner(server, shutdown_timeout=_STOP_TIMEOUT_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self.port)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            reason = "it is in use" if exc.errno == errno.EADDRINUSE else os.strerror(exc.errno or 0)
            raise OSError(
                exc.errno,
                f"the live page cannot listen on {LOOPBACK}:{self.port}: {reason}; name another port, or none",
            ) from exc
        self.port = self._runner.addresses[0][1]
        self._guard = Guard(self.port, self._token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        area, handler = self._route(request.path)
        refusal = self._guard.refusal(_asked(request), area)
        if refusal is not None:
            response: web.StreamResponse = _text(refusal.status, refusal.reason)
            if refusal.status is HTTPStatus.UNAUTHORIZED:
                response.headers["WWW-Authenticate"] = 'Bearer realm="countersign live"'
            elif refusal.status is HTTPStatus.METHOD_NOT_ALLOWED:
                response.headers["Allow"] = "GET"
        else:
            try:
                response = await handler(request)
            except CaptureError as exc:
                response = _text(HTTPStatus.INTERNAL_SERVER_ERROR, str(exc))
            except Exception as exc:
                # Its text may quote what was captured.
                logger.error("live page failed path=%s error=%s", request.path[:100], type(exc).__name__)
                response = _text(HTTPStatus.INTERNAL_SERVER_ERROR, f"this could not be shown: {type(exc).__name__}")
        return response

    def _route(self, path: str) -> tuple[Area, "_Handler"]:
        if path in ASSETS:
            return Area.PAGE if path == "/" else Area.ASSET, self._asset
        if path in (handlers := {"/api/exchanges": self._snapshot, "/api/stream": self._stream, "/api/har": self._har}):
            return Area.API, handlers[path]
        # What does not exist needs the token as well: nobody is to try names here.
        return Area.API, self._exchange if path.startswith("/api/exchanges/") else _nothing

    async def _asset(self, request: web.BaseRequest) -> web.Response:
        content_type = ASSETS[request.path][1]
        return web.Response(body=self._assets[request.path], headers={**SECURITY_HEADERS, "Content-Type": content_type})

    async def _snapshot(self, _: web.BaseRequest) -> web.Response:
        whole: dict[str, Any] = {"exchanges": []}
        for message in messages(self._source.feed.since(0)):
            whole = {**message, **whole, "exchanges": message["exchanges"] + whole["exchanges"]}
            await asyncio.sleep(0)
        return _json(whole)

    async def _exchange(self, request: web.BaseRequest) -> web.Response:
        digits = request.path.removeprefix("/api/exchanges/")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else 0
        feed = self._source.feed
        followed = feed.find(number)
        if followed is None:
            return _text(HTTPStatus.NOT_FOUND, "there is no such exchange, or it is not kept any more")
        carried = await self._source.carried(followed.exchange)
        content = detail(feed.find(number) or followed, feed.notices_of(number))
        content["carried"] = carried.as_json()
        if carried.verdict is not None:
            content["verdict"] = asdict(carried.verdict)
        return _json(content)

    async def _har(self, _: web.BaseRequest) -> web.Response:
        own = {"Content-Type": "application/json", "Content-Disposition": 'attachment; filename="countersign.har"'}
        return web.Response(body=await self._source.har(), headers={**SECURITY_HEADERS, **own})

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.streams >= MOST_STREAMS:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_STREAMS} pages follow already; close one of them")
        response = web.StreamResponse(headers={**SECURITY_HEADERS, "Content-Type": "application/x-ndjson"})
        self.streams += 1
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await response.prepare(request)
            await self._follow(response)
        except (ConnectionError, TimeoutError):
            # The page left, or takes nothing; what it missed it gets when it comes back.
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.streams -= 1
        return response

    async def _follow(self, response: web.StreamResponse) -> None:
        closing = asyncio.create_task(self._closing.wait())
        cursor = 0
        try:
            while not closing.done():
                news = asyncio.create_task(self._source.feed.next(cursor))
                try:
                    await asyncio.wait((news, closing), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                    if news.done():
                        changes = news.result()
                        cursor = changes.cursor
                        for message in messages(changes):
                            await _write(response, message)
                            await asyncio.sleep(0)  # others on this loop may be in a hurry
                        await asyncio.wait((closing,), timeout=GATHER_S)
                    elif not closing.done():
                        await _write(response, {"kind": "alive"})
                finally:
                    news.cancel()
            await _write(response, {"kind": "bye"})
        finally:
            closing.cancel()


class _RequestHandler(web.RequestHandler):
    """aiohttp's own, but of what is no HTTP nothing is quoted, neither in the answer nor in the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        response = _text(HTTPStatus(status), "this request cannot be answered")
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _RequestHandler(self, loop=self._loop, **self._kwargs)


_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def _write(response: web.StreamResponse, message: dict[str, Any]) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await response.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


async def _nothing(_: web.BaseRequest) -> web.Response:
    return _text(HTTPStatus.NOT_FOUND, "there is nothing of that name")


def _asked(request: web.BaseRequest) -> Asked:
    def values(name: str) -> list[str]:
        return request.headers.getall(name, [])

    return Asked(
        request.method,
        request.raw_path,
        values("Host"),
        values("Origin"),
        values("Authorization"),
        values("Sec-Fetch-Site"),
        values("Sec-Fetch-Mode"),
        values("Sec-Fetch-Dest"),
    )


def _text(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, text=f"countersign live: {text}\n", headers=SECURITY_HEADERS)


def _json(content: Any) -> web.Response:
    return web.Response(
        text=json.dumps(content, separators=(",", ":")),
        headers={**SECURITY_HEADERS, "Content-Type": "application/json"},
    )
