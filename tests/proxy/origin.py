"""An upstream that keeps the exact bytes which reach it, over HTTP/1 or HTTP/2, with a certificate of trustme."""

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import trustme

from proxy.server import LOOPBACK

NAMES = ("chatgpt.com", "api.openai.com")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(slots=True)
class Request:
    """One request as it arrived. In HTTP/2 the pseudo headers are among the headers, and `head` is empty."""

    head: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    complete: bool = False

    def values(self, name: str) -> list[str]:
        """The values of all headers of this name, in order."""
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name.lower().encode()]

    @property
    def attestation(self) -> list[str]:
        """The values of all `x-oai-attestation` headers."""
        return self.values("x-oai-attestation")


class Visit:
    """One connection to the origin; a behaviour reads and writes it."""

    def __init__(self, origin: "Origin", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.origin = origin
        self.received = bytearray()
        self.closed = False
        self._reader, self._writer = reader, writer
        self._unread = bytearray()

    async def head(self) -> Request | None:
        """The next request head; None when the client has gone."""
        while b"\r\n\r\n" not in self._unread:
            if not await self._more():
                return None
        end = self._unread.index(b"\r\n\r\n") + 4
        head = bytes(self._unread[:end])
        del self._unread[:end]
        pairs = (line.partition(b":") for line in head[:-4].split(b"\r\n")[1:])
        request = Request(head, tuple((name, value.strip(b" ")) for name, _, value in pairs))
        await self.origin.note(request)
        return request

    async def body(self, request: Request) -> bytes:
        """The body that the head announces, chunked or by its length."""
        lengths = request.values("content-length")
        if request.values("transfer-encoding"):
            body = b""
            while True:
                while b"\r\n" not in self._unread:
                    if not await self._more():
                        return body
                line, _, rest = bytes(self._unread).partition(b"\r\n")
                size = int(line, 16)
                while len(rest) < size + 2:
                    if not await self._more():
                        return body
                    rest = bytes(self._unread)[len(line) + 2 :]
                body += rest[:size]
                del self._unread[: len(line) + 2 + size + 2]
                if size == 0:
                    break
        else:
            wanted = int(lengths[0]) if lengths else 0
            while len(self._unread) < wanted:
                if not await self._more():
                    break
            body = bytes(self._unread[:wanted])
            del self._unread[:wanted]
        request.body, request.complete = body, True
        await self.origin.note(None)
        return body

    async def frames(self) -> bytes:
        """The next bytes of a connection that was upgraded; b"" at its end."""
        if not self._unread and not await self._more():
            return b""
        taken = bytes(self._unread)
        self._unread.clear()
        return taken

    async def write(self, content: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(content)
            await self._writer.drain()

    @property
    def alpn(self) -> str | None:
        return self._writer.get_extra_info("ssl_object").selected_alpn_protocol()

    async def _more(self) -> bool:
        try:
            arrived = await self._reader.read(65536)
        except (ConnectionError, ssl.SSLError):
            arrived = b""
        self.received += arrived
        self._unread += arrived
        await self.origin.note(None)
        return bool(arrived)


Behaviour = Callable[[Visit], Awaitable[None]]


def answering(*responses: bytes) -> Behaviour:
    """Answers complete requests with these, then with the last again and again."""

    async def behave(visit: Visit) -> None:
        number = 0
        while (request := await visit.head()) is not None:
            await visit.body(request)
            await visit.write(responses[min(number, len(responses) - 1)])
            number += 1

    return behave


async def leaving(visit: Visit) -> None:
    """Answers one request, and closes."""
    await visit.body(await visit.head())
    await visit.write(OK)


def switching_protocols(request: Request) -> bytes:
    """The answer to a WebSocket handshake, also to one without a key."""
    key = "".join(request.values("sec-websocket-key")).encode("latin-1")
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def echoing(visit: Visit) -> None:
    """Accepts every WebSocket handshake and sends back its raw bytes; answers anything else with 200."""
    while (request := await visit.head()) is not None:
        if not request.values("upgrade"):
            await visit.body(request)
            await visit.write(OK)
            continue
        await visit.write(switching_protocols(request))
        while content := await visit.frames():
            await visit.write(content)


async def speaking_h2(visit: Visit) -> None:
    """Answers each HTTP/2 request with 200 "ok"."""
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding=False, validate_inbound_headers=False)
    )
    connection.initiate_connection()
    await visit.write(connection.data_to_send())
    requests: dict[int, Request] = {}
    while content := await visit.frames():
        for event in connection.receive_data(content):
            if isinstance(event, h2.events.RequestReceived):
                requests[event.stream_id] = Request(b"", tuple(event.headers))
                await visit.origin.note(requests[event.stream_id])
            elif isinstance(event, h2.events.DataReceived):
                requests[event.stream_id].body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                requests[event.stream_id].trailers = tuple(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                requests[event.stream_id].complete = True
                await visit.origin.note(None)
                connection.send_headers(event.stream_id, [(b":status", b"200"), (b"content-length", b"2")])
                connection.send_data(event.stream_id, b"ok", end_stream=True)
        await visit.write(connection.data_to_send())


@dataclass
class Origin:
    """The upstream, an async context manager.

    Args:
        behave: What it does with a connection; for a client that negotiated "h2" it is `speaking_h2` instead.
        names: Whom its certificate is for.
        alpn: What it offers, the best first.
        expired: Whether its certificate is of yesterday.
    """

    behave: Behaviour = field(default_factory=lambda: answering(OK))
    names: Sequence[str] = NAMES
    alpn: Sequence[str] = ("http/1.1",)
    expired: bool = False
    authority: trustme.CA = field(default_factory=trustme.CA)
    visits: list[Visit] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    snis: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def ca_pem(self) -> bytes:
        return self.authority.cert_pem.bytes()

    @property
    def received(self) -> bytes:
        """Every byte that arrived inside TLS, of all connections in order of their arrival."""
        return b"".join(bytes(visit.received) for visit in self.visits)

    @property
    def only_request(self) -> Request:
        assert len(self.requests) == 1, f"one request should have arrived, and {len(self.requests)} did"
        return self.requests[0]

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._visited, LOOPBACK, 0, ssl=self._context())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to have arrived (or ended); the deadline is the test's."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def note(self, request: Request | None) -> None:
        async with self._changed:
            if request is not None:
                self.requests.append(request)
            self._changed.notify_all()

    async def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        visit = Visit(self, reader, writer)
        self.visits.append(visit)
        try:
            await (speaking_h2 if visit.alpn == "h2" else self.behave)(visit)
        except asyncio.CancelledError:
            pass  # the origin stops; a cancelled task of start_server would be reported as an error
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            visit.closed = True
            await self.note(None)

    def _context(self) -> ssl.SSLContext:
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        leaf = self.authority.issue_cert(*self.names, **({"not_after": yesterday} if self.expired else {}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        context.set_alpn_protocols(list(self.alpn))
        context.sni_callback = lambda _, sni, __: self.snis.append(sni)
        return context
