"""An HTTP/2 client that sends the headers it is given, also wrong ones, over a `Wire`."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from proxy.server import ProxyServer
from tests.proxy.wire import RESPONSES, Wire, tunnel

Header = tuple[bytes, bytes]


@dataclass
class Stream:
    """What came back on one stream. `ended_by` is "end", "reset", or "connection" when that was ended as a whole."""

    status: int | None = None
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    ended_by: str | None = None


class H2Wire:
    """One HTTP/2 connection to the proxy; nothing that is sent is validated or normalised."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                header_encoding=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self._streams: dict[int, Stream] = {}

    async def start(self) -> None:
        self._connection.initiate_connection()
        await self._flush()

    async def send(
        self, headers: Sequence[Header], body: bytes | None = b"{}", trailers: Sequence[Header] | None = None
    ) -> int:
        """Open a stream with these headers; the body is left open if it is None."""
        number = self._connection.get_next_available_stream_id()
        self._streams[number] = Stream()
        self._connection.send_headers(number, headers)
        if body is not None:
            self._connection.send_data(number, body, end_stream=trailers is None)
        if trailers is not None:
            self._connection.send_headers(number, trailers, end_stream=True)
        await self._flush()
        return number

    async def send_body(self, number: int, body: bytes) -> None:
        """The rest of a body that was left open."""
        self._connection.send_data(number, body, end_stream=True)
        await self._flush()

    async def reset(self, number: int) -> None:
        self._connection.reset_stream(number)
        await self._flush()

    async def answer(self, number: int) -> Stream:
        """What comes back on this stream, until it ends."""
        stream = self._streams[number]
        while stream.ended_by is None:
            arrived = await self._wire.receive()
            if not arrived:
                self._end_all()
                break
            try:
                events = self._connection.receive_data(arrived)
            except h2.exceptions.ProtocolError:
                self._end_all()
                break
            for event in events:
                self._take(event)
            await self._flush()
        return stream

    async def exchange(
        self, headers: Sequence[Header], body: bytes = b"{}", trailers: Sequence[Header] | None = None
    ) -> Stream:
        """Send a request and read its answer."""
        return await self.answer(await self.send(headers, body, trailers))

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._end_all()
            return
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = list(event.headers)
            stream.status = int(dict(stream.headers)[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended_by = "end"
        elif isinstance(event, h2.events.StreamReset):
            stream.ended_by = "reset"

    def _end_all(self) -> None:
        for stream in self._streams.values():
            stream.ended_by = stream.ended_by or "connection"

    async def _flush(self) -> None:
        await self._wire.send(self._connection.data_to_send())


def h2_post(path: str = RESPONSES, *more: Header) -> list[Header]:
    """The headers of an ordinary POST."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"chatgpt.com"),
        (b":path", path.encode("latin-1")),
        (b"content-length", b"2"),
        *more,
    ]


@contextlib.asynccontextmanager
async def h2_tunnel(proxy: ProxyServer) -> AsyncIterator[H2Wire]:
    """A tunnel to chatgpt.com in which HTTP/2 was negotiated."""
    async with tunnel(proxy, alpn=("h2",)) as wire:
        assert wire.tls.selected_alpn_protocol() == "h2"
        client = H2Wire(wire)
        await client.start()
        yield client
