"""A client that writes exactly the bytes it is told to, also malformed ones, through a tunnel of the proxy."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

from certs.trust import client_context
from proxy.credentials import Credentials
from proxy.server import LOOPBACK, ProxyServer


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP/1 response. `body` is without its framing."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of all headers of this name (lower case)."""
        return [value for key, value in self.headers if key.lower() == name]


class ConnectionEnded(Exception):
    """The peer closed before what was waited for had come; `rest` is what did come."""

    def __init__(self, rest: bytes) -> None:
        super().__init__(f"the connection ended after {rest!r}")
        self.rest = rest


class Wire:
    """One connection, byte by byte: plain at first, inside TLS after `start_tls`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._buffer = b""

    async def send(self, content: bytes) -> None:
        """Write these bytes; that the peer has gone already is no error here, the next read shows it."""
        if self._tls is not None:
            self._tls.write(content)
            content = self._outgoing.read()
        await self.send_below(content)

    async def send_below(self, content: bytes) -> None:
        """Write these bytes to the TCP connection, below any TLS."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(content)
            await self._writer.drain()

    async def receive(self) -> bytes:
        """The next bytes, whatever came; b"" at the end."""
        if self._buffer:
            taken, self._buffer = self._buffer, b""
            return taken
        while True:
            if self._tls is not None:
                try:
                    return self._tls.read(65536)
                except ssl.SSLWantReadError:
                    await self._flush()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            try:
                arrived = await self._reader.read(65536)
            except ConnectionError:
                arrived = b""
            if self._tls is None:
                return arrived
            if arrived:
                self._incoming.write(arrived)
            else:
                self._incoming.write_eof()

    async def receive_until(self, marker: bytes) -> bytes:
        """Everything up to and with `marker`; what follows stays for the next read."""
        text = b""
        while marker not in text:
            arrived = await self.receive()
            if not arrived:
                raise ConnectionEnded(text)
            text += arrived
        found, _, self._buffer = text.partition(marker)
        return found + marker

    async def receive_rest(self) -> bytes:
        """Everything until the peer closes."""
        text = b""
        while arrived := await self.receive():
            text += arrived
        return text

    async def answer(self) -> Answer:
        """The next HTTP/1 response, read as its framing says."""
        head = await self.receive_until(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(b":") for line in lines))
        status = int(start.split(b" ", 2)[1])
        answer = Answer(status, headers, b"")
        if status in (101, 204, 304) or (status < 200):
            return answer
        if answer.values(b"transfer-encoding") == [b"chunked"]:
            body = b""
            while size := int((await self.receive_until(b"\r\n")).strip(), 16):
                body += await self._exactly(size)
                await self._exactly(2)
            await self._exactly(2)
        elif lengths := answer.values(b"content-length"):
            body = await self._exactly(int(lengths[0]))
        else:
            body = await self.receive_rest()
        return Answer(status, headers, body)

    async def exchange(self, request: bytes) -> Answer:
        """Write a request and read its response."""
        await self.send(request)
        return await self.answer()

    async def start_tls(self, context: ssl.SSLContext, sni: str | None) -> None:
        """Do a TLS handshake as a client. Raises ssl.SSLError or ConnectionEnded."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=sni)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
            try:
                arrived = await self._reader.read(65536)
            except ConnectionError:
                arrived = b""
            if not arrived:
                raise ConnectionEnded(b"")
            self._incoming.write(arrived)
        await self._flush()
        self._tls = tls

    @property
    def tls(self) -> ssl.SSLObject:
        assert self._tls is not None
        return self._tls

    async def end_writing(self) -> None:
        """Half-close the TCP connection."""
        self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self.send_below(self._outgoing.read())

    async def _exactly(self, count: int) -> bytes:
        text = b""
        while len(text) < count:
            arrived = await self.receive()
            if not arrived:
                raise ConnectionEnded(text)
            text += arrived
        text, self._buffer = text[:count], text[count:] + self._buffer
        return text


async def dial(port: int) -> Wire:
    """A plain connection to this port of loopback."""
    return Wire(*await asyncio.open_connection(LOOPBACK, port))


def basic(credentials: Credentials) -> bytes:
    """The value of Proxy-Authorization for these credentials."""
    return b"Basic " + base64.b64encode(f"{credentials.user}:{credentials.secret}".encode())


def connect_head(proxy: ProxyServer, target: str = "chatgpt.com:443") -> bytes:
    """A CONNECT request with the right credentials."""
    authorization = basic(proxy.credentials)
    return b"CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: %s\r\n\r\n" % (
        target.encode(), target.encode(), authorization,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def connected(proxy: ProxyServer, target: str = "chatgpt.com:443") -> AsyncIterator[Wire]:
    """An admitted tunnel, without TLS in it yet."""
    async with await dial(proxy.port) as wire:
        await wire.send(connect_head(proxy, target))
        head = await wire.receive_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        yield wire


@contextlib.asynccontextmanager
async def tunnel(
    proxy: ProxyServer,
    host: str = "chatgpt.com",
    *,
    alpn: Sequence[str] = ("http/1.1",),
    trusted: bytes | None = None,
) -> AsyncIterator[Wire]:
    """A tunnel with TLS in it, verified against the proxy's authority (or `trusted`) and the name of the host."""
    async with connected(proxy, f"{host}:443") as wire:
        context = client_context(proxy.ca_pem if trusted is None else trusted)
        context.set_alpn_protocols(list(alpn))
        await wire.start_tls(context, host)
        yield wire


RESPONSES = "/backend-api/codex/responses"
WEBSOCKET_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def post(
    path: str = RESPONSES, headers: Sequence[str] = (), body: bytes = b"{}", *, host: str = "chatgpt.com"
) -> bytes:
    """An ordinary POST over HTTP/1.1, with these lines added to its head."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    return "".join(line + "\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


def upgrade(path: str = RESPONSES, headers: Sequence[str] = (), *, host: str = "chatgpt.com") -> bytes:
    """A WebSocket handshake over HTTP/1.1, with these lines added to its head."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {WEBSOCKET_KEY}",
        *headers,
    ]
    return "".join(line + "\r\n" for line in lines).encode("latin-1") + b"\r\n"
