"""One Responses WebSocket, through the proxy (a ws:// one directly)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxyStatus, InvalidStatus, WebSocketException

from agent.model.endpoint import ProxyEndpoint
from agent.model.failures import StreamBroken, UpgradeRefused, failure, refused_by_proxy
from agent.model.wire import Completed, ResponseEvent, parse_event

# Seconds. The original waits as long for a connection.
CONNECT_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 1.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class _ConnectOnce(connect):
    """Takes a redirect for the refusal it is: followed, it would carry the headers of a model request elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def connected(
    way: ProxyEndpoint | None,
    url: str,
    headers: Mapping[str, str],
    max_message_bytes: int,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> ClientConnection:
    """Connect and shake hands.

    Args:
        way: The proxy; None to connect directly, which is for ws:// alone.

    Raises:
        UpgradeRefused: 426.
        UpstreamError: Another status, of the service or of the proxy.
        StreamBroken: No connection, or no answer within `timeout_s`.
    """
    try:
        return await _ConnectOnce(
            url,
            additional_headers=dict(headers),
            user_agent_header=None,
            proxy=None if way is None else way.url_with_credentials,
            ssl=None if way is None else way.context,
            open_timeout=timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # silence is judged by the idle timeout, as in the original
            max_size=max_message_bytes,
        )
    except InvalidStatus as exc:
        response = exc.response
        if response.status_code == 426:
            raise UpgradeRefused from exc
        body = (response.body or b"").decode("utf-8", "replace")
        raise failure(response.status_code, dict(response.headers.raw_items()), body) from exc
    except InvalidProxyStatus as exc:
        raise refused_by_proxy(url.split("/")[2], exc.response.status_code) from exc
    except TimeoutError as exc:
        raise StreamBroken(f"no WebSocket within {timeout_s:g} s") from exc
    except (OSError, EOFError, WebSocketException, ValueError) as exc:
        # The type only: some of these texts quote the proxy URL, or a header.
        raise StreamBroken(f"the WebSocket handshake failed ({type(exc).__name__})") from exc


async def close(connection: ClientConnection) -> None:
    """Close with code 1000; waits a second for the answer, and not for what was sent before to be read."""
    try:
        # A deadline of our own: the library's begins once the service has read all that was sent before.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await connection.close()
    finally:
        connection.transport.abort()


class ResponsesSocket:
    """An open socket; one response at a time.

    Args:
        idle_timeout_s: The longest silence between two events, and the longest that a request may take to be sent.
    """

    def __init__(self, connection: ClientConnection, idle_timeout_s: float) -> None:
        self._connection = connection
        self._idle_timeout_s = idle_timeout_s

    @classmethod
    async def open(
        cls, way: ProxyEndpoint | None, url: str, headers: Mapping[str, str], *, timeout_s: float, idle_timeout_s: float
    ) -> "ResponsesSocket":
        """Connect and shake hands, as `connected` does it."""
        connection = await connected(way, url, headers, MAX_MESSAGE_BYTES, timeout_s)
        return cls(connection, idle_timeout_s)

    @property
    def is_open(self) -> bool:
        """Whether the next request can go over it."""
        return self._connection.state.name == "OPEN"

    async def respond(self, body: Mapping[str, Any]) -> AsyncGenerator[ResponseEvent]:
        """Send one response.create and yield its events, response.completed last.

        Raises:
            UpstreamError, StreamBroken: It failed or broke off; the socket is to be closed.
        """
        message = json.dumps({"type": "response.create", **body}, ensure_ascii=False, separators=(",", ":"))
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._connection.send(message)
            while True:
                async with asyncio.timeout(self._idle_timeout_s):
                    received = await self._connection.recv()
                event = parse_event(received)
                if event is not None:
                    yield event
                if isinstance(event, Completed):
                    return
        except TimeoutError as exc:
            raise StreamBroken("idle timeout waiting for the WebSocket") from exc
        except ConnectionClosed as exc:
            reason = f"code {exc.rcvd.code}" if exc.rcvd is not None else "without a closing handshake"
            raise StreamBroken(f"the WebSocket was closed ({reason})") from exc

    async def aclose(self) -> None:
        """As `close` does it."""
        await close(self._connection)

    def abort(self) -> None:
        """Drop the connection at once: a response is still streaming and nobody wants it."""
        self._connection.transport.abort()
