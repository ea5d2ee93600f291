"""Follows exchanges from the request head to their end, and tells of them. Knows no flow: it is given plain facts."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from proxy.attestation import open_envelope
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport
from proxy.capture.observation import Observation, Piece
from proxy.scope import Covered
from proxy.tunnel import HEAD_SENT, Tunnel


@dataclass(slots=True)
class Record:
    """An exchange while it is under way.

    Args:
        connection_id: Of the client's connection.
        metadata: Of the flow; tells whether the head of the request went upstream.
        method, path: As on the wire; the path without its query.
    """

    number: int
    tunnel: Tunnel
    connection_id: str
    metadata: Mapping[str, Any]
    started_at: float
    started: float
    method: str
    path: str
    http_version: str
    covered: Covered | None = None
    is_upgrade: bool = False
    stamp: Stamp = Stamp.NOT_SCOPED
    header: str | None = None  # stays in here: an exchange gets its status and the length of its token
    thread_id: str | None = None
    status: int | None = None
    waited_s: float | None = None
    connect_s: float | None = None
    sent_s: float | None = None
    first_byte_s: float | None = None
    error: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    told: bool = False  # to whoever wants one call for each

    @property
    def is_sent(self) -> bool:
        """Whether the head of the request went upstream, and with it the header; a body may have been cut."""
        return HEAD_SENT in self.metadata


class Recorder:
    """The exchanges that are under way.

    Args:
        numbers: Gives each exchange its number.
        on_exchange: Called once for each request inside an intercepted tunnel, when its answer is complete or has
            failed; for a WebSocket when its handshake is answered.
        observation: Told of each phase, and of what is carried; None if nobody observes.
    """

    def __init__(
        self, numbers: Iterator[int], on_exchange: Callable[[Exchange], None], observation: Observation | None
    ) -> None:
        self._numbers = numbers
        self._on_exchange = on_exchange
        self._observation = observation
        self._records: dict[str, Record] = {}
        self._sockets: dict[str, Record] = {}  # open WebSockets by the client's connection

    def begin(
        self,
        flow_id: str,
        tunnel: Tunnel,
        connection_id: str,
        metadata: Mapping[str, Any],
        method: bytes,
        target: bytes,
        http_version: str,
        connect_s: float | None,
    ) -> Record:
        """A request head has come."""
        record = Record(
            next(self._numbers),
            tunnel,
            connection_id,
            metadata,
            time.time(),
            time.monotonic(),
            _visible(method),
            _visible(target.partition(b"?")[0]),
            http_version,
            connect_s=connect_s,
        )
        self._records[flow_id] = record
        return record

    def find(self, flow_id: str) -> Record | None:
        return self._records.get(flow_id)

    def decided(self, record: Record, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The head is about to go out, or was refused."""
        if self._observation is not None:
            record.request_headers = self._observation.redactor.headers(headers)
            self._observation.tell(_exchange(record, Phase.DECIDED))

    def answered(self, record: Record, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The answer's head has come."""
        record.status, record.first_byte_s = status, time.monotonic() - record.started
        if self._observation is not None:
            record.response_headers = self._observation.redactor.headers(headers)
            self._observation.tell(_exchange(record, Phase.ANSWERED))

    def carried(self, record: Record, from_client: bool, data: bytes) -> None:
        """A piece of a body goes by."""
        if from_client:
            record.request_bytes += len(data)
        else:
            record.response_bytes += len(data)
        if self._observation is not None and self._observation.pieces and data:
            self._observation.pass_on(Piece(record.number, from_client, data))

    def relayed(self, connection_id: str, from_client: bool, data: bytes) -> None:
        """A piece of an open WebSocket goes by."""
        record = self._sockets.get(connection_id)
        if record is not None:
            self.carried(record, from_client, data)

    def finish(self, flow_id: str, error: str | None) -> None:
        """The answer is complete, or has failed."""
        record = self._records.pop(flow_id, None)
        if record is None:
            return
        record.error = error
        self._settle(record)
        if record.status == 101 and error is None:
            self._sockets[record.connection_id] = record
        elif self._observation is not None:
            self._observation.tell(_exchange(record, Phase.ENDED))

    def disconnected(self, connection_id: str) -> None:
        """A client's connection is closed, and with it the WebSocket on it."""
        record = self._sockets.pop(connection_id, None)
        if record is not None and self._observation is not None:
            self._observation.tell(_exchange(record, Phase.ENDED))

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """A CONNECT to a host that is not intercepted was admitted."""
        tunnel.number, tunnel.started_at, tunnel.started = next(self._numbers), time.time(), time.monotonic()
        self._on_exchange(_tunnel_exchange(tunnel, Phase.DECIDED))
        if self._observation is not None:
            self._observation.tell(_tunnel_exchange(tunnel, Phase.DECIDED))

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Its connection is closed."""
        if self._observation is not None:
            self._observation.tell(_tunnel_exchange(tunnel, Phase.ENDED))

    def close(self) -> None:
        """Report what is still under way, when the proxy stops."""
        for record in list(self._records.values()):
            record.error = "the proxy stopped"
            self._settle(record)
            if self._observation is not None:
                self._observation.tell(_exchange(record, Phase.ENDED))
        self._records.clear()
        for connection_id in list(self._sockets):
            self.disconnected(connection_id)

    def _settle(self, record: Record) -> None:
        if not record.told:
            record.told = True
            self._on_exchange(_exchange(record, Phase.ENDED))


def _exchange(record: Record, phase: Phase) -> Exchange:
    stamp, header = record.stamp, record.header
    if phase is not Phase.DECIDED and not record.is_sent and stamp not in (Stamp.REFUSED, Stamp.NOT_SCOPED):
        stamp, header = Stamp.UNSENT, None  # what was set on it is no proof that it arrived
    opened = None if header is None else open_envelope(header)
    route = record.covered.route if record.covered is not None else None
    if route is not None:
        transport = Transport(route.transport)
    else:
        transport = Transport.WEBSOCKET if record.is_upgrade else Transport.HTTP
    return Exchange(
        number=record.number,
        started_at=record.started_at,
        transport=transport,
        host=record.tunnel.target.host,
        port=record.tunnel.target.port,
        method=record.method,
        path=record.path,
        route=None if route is None else route.name,
        stamp=stamp,
        attestation=opened.status if opened is not None else None,
        token_bytes=len(opened.token or "") if opened is not None else 0,
        thread_id=record.thread_id,
        status=record.status,
        waited_s=record.waited_s,
        first_byte_s=record.first_byte_s,
        duration_s=None if phase is Phase.DECIDED else time.monotonic() - record.started,
        error=record.error,
        phase=phase,
        sent_s=record.sent_s,
        connect_s=record.connect_s,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        http_version=record.http_version,
        request_headers=record.request_headers,
        response_headers=record.response_headers,
    )


def _tunnel_exchange(tunnel: Tunnel, phase: Phase) -> Exchange:
    return Exchange(
        number=tunnel.number,
        started_at=tunnel.started_at,
        transport=Transport.TUNNEL,
        host=tunnel.target.host,
        port=tunnel.target.port,
        method="CONNECT",
        path="",
        route=None,
        stamp=Stamp.NOT_SCOPED,
        duration_s=time.monotonic() - tunnel.started if phase is Phase.ENDED else None,
        phase=phase,
        request_bytes=tunnel.sent_bytes,
        response_bytes=tunnel.received_bytes,
    )


_VISIBLE = "".join(chr(octet) for octet in range(0x21, 0x7F))


def _visible(raw: bytes) -> str:
    """What a client wrote, percent-encoded where it is no visible ASCII: it must not forge the fields of a log line."""
    return quote(raw, safe=_VISIBLE)
