"""Follows exchanges from the request head to their end, and tells of them. Knows no flow: it is given plain facts."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from proxy.attestation import Envelope, open_envelope
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport
from proxy.capture.observation import Observation, Piece
from proxy.scope import RESPONSES_WEBSOCKET, Covered
from proxy.socket_turns import SocketTurns
from proxy.tunnel import HEAD_SENT, Tunnel

# Seconds until it is told that a turn began on a WebSocket, or its answer; somebody may send thousands in that time.
SOON_S = 0.1
# When upstream has said nothing for so long, it is told how far the turn has come.
QUIET_S = 1.0


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
    turns: SocketTurns | None = None
    envelope: tuple[str, Envelope] | None = None  # its header, and what that is made of
    turns_due: asyncio.TimerHandle | None = None
    has_news: bool = False  # of its turns

    @property
    def is_sent(self) -> bool:
        """Whether the head of the request went upstream, and with it the header; a body may have been cut."""
        return HEAD_SENT in self.metadata


class Recorder:
    """The exchanges that are under way.

    Args:
        numbers: Gives each exchange its number.
        on_exchange: Called once for each request inside an intercepted tunnel, when its answer is complete or has
            failed; for a WebSocket when its handshake is answered; for each other tunnel when it is admitted, and for
            any tunnel of which nothing came.
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
        self._untold: dict[int, tuple[Record, Phase]] = {}
        self._telling: asyncio.TimerHandle | None = None

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
            _visible(_QUERY_OR_FRAGMENT.split(target, maxsplit=1)[0]),
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
            self._tell_soon(self._observation, record, Phase.DECIDED)

    def answered(self, record: Record, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The answer's head has come."""
        record.status, record.first_byte_s = status, time.monotonic() - record.started
        if self._observation is not None:
            record.response_headers = self._observation.redactor.headers(headers)
            self._tell_soon(self._observation, record, Phase.ANSWERED)

    def _tell_soon(self, observation: Observation, record: Record, phase: Phase) -> None:
        # Who reads the pieces has to know what they are of before they come.
        if not observation.gather_s or observation.pieces:
            observation.tell(_exchange(record, phase))
            return
        self._untold[record.number] = record, phase
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(observation.gather_s, self._tell_untold, observation)

    def _tell_untold(self, observation: Observation) -> None:
        self._telling = None
        untold, self._untold = self._untold, {}
        for record, phase in untold.values():
            observation.tell(_exchange(record, phase))

    def _tell_end(self, record: Record, ended: Exchange | None = None) -> None:
        self._untold.pop(record.number, None)
        if self._observation is not None:
            self._observation.tell(ended or _exchange(record, Phase.ENDED))

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
        if record is None:
            return
        self.carried(record, from_client, data)
        if record.turns is None:
            return
        if record.turns.passed(time.monotonic() - record.started, from_client, data):
            if not record.has_news:
                record.has_news = True
                self._tell_turns_in(record, SOON_S)
        elif not from_client and record.turns_due is None:
            self._tell_turns_in(record, QUIET_S)

    def _tell_turns_in(self, record: Record, after_s: float) -> None:
        if record.turns_due is not None:
            record.turns_due.cancel()
        record.turns_due = asyncio.get_running_loop().call_later(after_s, self._tell_turns, record)

    def _tell_turns(self, record: Record) -> None:
        record.turns_due = None
        assert record.turns is not None and self._observation is not None
        quiet_s = time.monotonic() - record.started - record.turns.last_s
        if record.has_news or quiet_s >= QUIET_S:
            record.has_news = False
            self._observation.tell(_exchange(record, Phase.ANSWERED))
        else:
            self._tell_turns_in(record, QUIET_S - quiet_s)

    def finish(self, flow_id: str, error: str | None) -> None:
        """The answer is complete, or has failed."""
        record = self._records.pop(flow_id, None)
        if record is None:
            return
        record.error = error
        ended = self._settle(record)
        if record.status == 101 and error is None:
            self._sockets[record.connection_id] = record
            if self._observation is not None and record.covered and record.covered.route is RESPONSES_WEBSOCKET:
                record.turns = SocketTurns()
        else:
            self._tell_end(record, ended)

    def disconnected(self, connection_id: str) -> None:
        """A client's connection is closed, and with it the WebSocket on it."""
        record = self._sockets.pop(connection_id, None)
        if record is None:
            return
        if record.turns_due is not None:
            record.turns_due.cancel()
        self._tell_end(record)

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """A CONNECT was admitted. Of one whose requests are told by themselves nothing is told, unless it fails."""
        tunnel.started_at, tunnel.started = time.time(), time.monotonic()
        if not tunnel.intercepted:
            tunnel.number = next(self._numbers)
            self._tell_tunnel(tunnel, Phase.DECIDED)

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Its connection is closed, or was not made."""
        if tunnel.number or tunnel.error is not None:
            tunnel.number = tunnel.number or next(self._numbers)
            self._tell_tunnel(tunnel, Phase.ENDED)

    def _tell_tunnel(self, tunnel: Tunnel, phase: Phase) -> None:
        exchange = _tunnel_exchange(tunnel, phase)
        if phase is Phase.DECIDED or exchange.error is not None:
            self._on_exchange(exchange)
        if self._observation is not None:
            self._observation.tell(exchange)

    def close(self) -> None:
        """Report what is still under way, when the proxy stops."""
        for record in list(self._records.values()):
            record.error = "the proxy stopped"
            self._tell_end(record, self._settle(record))
        self._records.clear()
        for connection_id in list(self._sockets):
            self.disconnected(connection_id)
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _settle(self, record: Record) -> Exchange | None:
        """Tell of its end, or that it is a WebSocket, whoever wants one call for each; what was told, if it was now."""
        if record.told:
            return None
        record.told = True
        ended = _exchange(record, Phase.ENDED)
        self._on_exchange(ended)
        return ended


def _exchange(record: Record, phase: Phase) -> Exchange:
    stamp, header = record.stamp, record.header
    if phase is not Phase.DECIDED and not record.is_sent and stamp not in (Stamp.REFUSED, Stamp.NOT_SCOPED):
        stamp, header = Stamp.UNSENT, None  # what was set on it is no proof that it arrived
    opened = None if header is None else _opened(record, header)
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
        turns=record.turns.all if record.turns is not None else (),
    )


def _opened(record: Record, header: str) -> Envelope:
    if record.envelope is None or record.envelope[0] != header:
        record.envelope = header, open_envelope(header)
    return record.envelope[1]


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
        error=tunnel.error,
        phase=phase,
        request_bytes=tunnel.sent_bytes,
        response_bytes=tunnel.received_bytes,
    )


# A fragment has no business in a request; one that a client sends nevertheless may hold a secret as a query does.
_QUERY_OR_FRAGMENT = re.compile(rb"[?#]")
_VISIBLE = "".join(chr(octet) for octet in range(0x21, 0x7F))


def _visible(raw: bytes) -> str:
    """What a client wrote, percent-encoded where it is no visible ASCII: it must not forge the fields of a log line."""
    return quote(raw, safe=_VISIBLE)
