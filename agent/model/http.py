"""POST with SSE, and plain JSON requests, through the proxy. aiohttp is imported when the first request needs it.

Only what a model provider has at a plain http URL is sent past the proxy, which takes CONNECT alone.
"""

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.model.endpoint import ProxyEndpoint
from agent.model.failures import StreamBroken, UpstreamError, failure, refused_by_proxy
from agent.model.limits import parse_limits
from agent.model.sse import SseDecoder
from agent.model.wire import Completed, LimitsSeen, ResponseEvent, TurnState, parse_event

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
JSON_TIMEOUT_S = 20.0
# Seconds before the first of the inner retries; it doubles. (observed)
RETRY_DELAY_S = 0.2
MAX_ERROR_BODY_BYTES = 64 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
ZSTD_LEVEL = 3


class HttpClient:
    """HTTP for the agent.

    Args:
        endpoint: Gives the proxy; awaited before the first request.
    """

    def __init__(self, endpoint: Callable[[], Awaitable[ProxyEndpoint]]) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self._direct: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._tunnel_context: ssl.SSLContext | None = None

    async def aclose(self) -> None:
        for session in (self._session, self._direct):
            if session is not None:
                await session.close()

    async def request_json(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        tunnelled: bool = False,
        timeout_s: float = JSON_TIMEOUT_S,
        form: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """(status, decoded answer; None if it is not JSON).

        Args:
            tunnelled: The host's own certificate is expected, and not the proxy's.
            form: Sent as a form, in the place of `body`.

        Raises:
            StreamBroken: No complete answer within `timeout_s`.
        """
        aiohttp = await _aiohttp()
        session, endpoint = await self._open(aiohttp)
        context = await self._roots(endpoint) if tunnelled else endpoint.context
        try:
            async with asyncio.timeout(timeout_s):
                async with session.request(
                    method,
                    url,
                    json=body,
                    data=form,
                    headers=headers,
                    allow_redirects=False,
                    ssl=context,
                    proxy_headers=_credentials(aiohttp, endpoint),
                ) as response:
                    content = await _read(response.content, MAX_JSON_BYTES)
        except (TimeoutError, OSError, aiohttp.ClientError) as exc:
            raise StreamBroken(f"{method} {_host(url)} failed ({type(exc).__name__})") from exc
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, None

    async def post(
        self, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float = JSON_TIMEOUT_S
    ) -> tuple[int, dict[str, str], str]:
        """(status, headers by their lower-case names, body) of what is answered.

        Raises:
            UpstreamError, StreamBroken: The proxy refused it, or no complete answer came within `timeout_s`.
        """
        aiohttp = await _aiohttp()
        session, endpoint = await self._open(aiohttp)
        try:
            async with asyncio.timeout(timeout_s):
                async with session.post(
                    url,
                    data=content,
                    headers=headers,
                    allow_redirects=False,
                    proxy_headers=_credentials(aiohttp, endpoint),
                ) as response:
                    body = await _read(response.content, MAX_JSON_BYTES)
        except aiohttp.ClientHttpProxyError as exc:
            raise refused_by_proxy(_host(url), exc.status) from exc
        except (TimeoutError, OSError, aiohttp.ClientError) as exc:
            raise StreamBroken(f"POST {_host(url)} failed ({type(exc).__name__})") from exc
        answered = {name.lower(): value for name, value in response.headers.items()}
        return response.status, answered, body.decode("utf-8", "replace")

    async def post_json_tunnelled(self, url: str, body: dict[str, Any]) -> tuple[int, Any]:
        """(status, answer) of a host whose own certificate is expected; (0, None) if it gave none."""
        try:
            return await self.request_json("POST", url, body, tunnelled=True)
        except StreamBroken as exc:
            logger.warning("%s", exc)
            return 0, None

    async def post_form_tunnelled(self, url: str, form: dict[str, str]) -> tuple[int, Any]:
        """The same for a form."""
        try:
            return await self.request_json("POST", url, tunnelled=True, form=form)
        except StreamBroken as exc:
            logger.warning("%s", exc)
            return 0, None

    async def respond(
        self,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        *,
        compress: bool,
        idle_timeout_s: float,
        retries: int,
    ) -> AsyncGenerator[ResponseEvent]:
        """POST a model request and yield its events, response.completed last.

        A 5xx before the stream is retried up to `retries` times, each time as a request of its own (and so, at the
        proxy, with a fresh token: the original sends the same one again).

        Raises:
            UpstreamError, StreamBroken: It failed or broke off.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        sent = {**headers, "Accept": "text/event-stream", "Content-Type": "application/json"}
        if compress:
            import zstandard

            content = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)
            sent["Content-Encoding"] = "zstd"
        delay_s = RETRY_DELAY_S
        for attempt in range(retries + 1):
            started = False
            try:
                async with contextlib.aclosing(self._stream(url, sent, content, idle_timeout_s)) as events:
                    async for event in events:
                        started = True
                        yield event
                return
            except UpstreamError as exc:
                if started or attempt == retries or exc.status is None or exc.status < 500:
                    raise
            await asyncio.sleep(delay_s)
            delay_s *= 2

    async def _stream(
        self, url: str, headers: Mapping[str, str], content: bytes, idle_timeout_s: float
    ) -> AsyncGenerator[ResponseEvent]:
        aiohttp = await _aiohttp()
        way = await self.way_to(url)
        session = self._open_direct(aiohttp) if way is None else (await self._open(aiohttp))[0]
        decoder = SseDecoder()
        posting = session.post(
            url,
            data=content,
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=("Accept-Encoding",),
            ssl=True if way is None else way.context,
            proxy_headers=None if way is None else _credentials(aiohttp, way),
        )
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(idle_timeout_s):
                    response = await stack.enter_async_context(posting)
                    answered = {name.lower(): value for name, value in response.headers.items()}
                    if response.status != 200:
                        body = await _read(response.content, MAX_ERROR_BODY_BYTES)
                        raise failure(response.status, answered, body.decode("utf-8", "replace"))
                if "x-codex-turn-state" in answered:
                    yield TurnState(answered["x-codex-turn-state"])
                yield LimitsSeen(parse_limits(answered))
                while True:
                    async with asyncio.timeout(idle_timeout_s):
                        chunk = await response.content.readany()
                    if not chunk:
                        raise StreamBroken("the response ended before it was complete")
                    for text in decoder.feed(chunk):
                        event = parse_event(text)
                        if event is not None:
                            yield event
                        if isinstance(event, Completed):
                            return
        except TimeoutError as exc:
            raise StreamBroken("idle timeout waiting for SSE") from exc
        except aiohttp.ClientHttpProxyError as exc:
            raise refused_by_proxy(_host(url), exc.status) from exc
        except aiohttp.ClientConnectorError as exc:
            where = f"{exc.host}:{exc.port}"
            raise StreamBroken(f"the request broke off (no connection to {where}: {type(exc).__name__})") from exc
        except (OSError, aiohttp.ClientError) as exc:
            raise StreamBroken(f"the request broke off ({type(exc).__name__})") from exc

    async def way_to(self, url: str) -> ProxyEndpoint | None:
        """The proxy, with the certificates that are to be expected behind it; None for plain http: directly."""
        parts = urlsplit(url)
        if parts.scheme in ("http", "ws"):
            return None
        endpoint = await self._endpoint()
        if endpoint.admit(parts.hostname or "", parts.port or 443):
            return endpoint
        return dataclasses.replace(endpoint, context=await self._roots(endpoint))

    async def _roots(self, endpoint: ProxyEndpoint) -> ssl.SSLContext:
        """A context for hosts behind a tunnel; loading some hundred roots takes long enough to be worth a thread."""
        if self._tunnel_context is None:
            load = functools.partial(ssl.create_default_context, cafile=endpoint.roots_file)
            self._tunnel_context = await asyncio.to_thread(load)
        return self._tunnel_context

    def _open_direct(self, aiohttp: Any) -> "aiohttp.ClientSession":
        if self._direct is None:
            self._direct = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._direct

    async def _open(self, aiohttp: Any) -> tuple["aiohttp.ClientSession", ProxyEndpoint]:
        endpoint = await self._endpoint()
        async with self._opening:
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=endpoint.context, limit=0),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                    proxy=endpoint.url,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                )
        return self._session, endpoint


def _credentials(aiohttp: Any, endpoint: ProxyEndpoint) -> dict[str, str]:
    """For the proxy only, and not in its URL: aiohttp's error texts would print the secret."""
    return {"Proxy-Authorization": aiohttp.encode_basic_auth(endpoint.user, endpoint.secret)}


async def _read(content: "aiohttp.StreamReader", max_bytes: int) -> bytes:
    """The body, or as much of it as is allowed; aiohttp's own read(n) gives what has arrived so far."""
    body = bytearray()
    while len(body) < max_bytes and (chunk := await content.readany()):
        body += chunk
    return bytes(body[:max_bytes])


async def _aiohttp() -> Any:
    """The module; its first import takes long enough to be worth a thread."""
    return await asyncio.to_thread(importlib.import_module, "aiohttp")


def _host(url: str) -> str:
    return url.split("/")[2]
