"""mitmproxy addon: strip, match, ask, set. The product's one act.

mitmproxy logs an exception of a hook and lets the request go on (addonmanager.safecall, 12.2): a hook that raised
would forward whatever the client wrote into the header. So the header is stripped first, each hook catches
everything, and the answer to the unforeseen is 502 with nothing sent.
"""

import logging
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mitmproxy import http, tcp

from proxy.attestation import (
    ATTESTATION_HEADER,
    AttestationProvider,
    AttestationStatus,
    attest,
    open_envelope,
)
from proxy.capture.exchange import Exchange, Stamp, Transport
from proxy.gate import HEAD_SENT, Tunnel
from proxy.modes import OnFailure, StampMode
from proxy.realtime_calls import RealtimeCalls
from proxy.scope import REALTIME_CALL, Covered, Refused, RequestHead, Scope, is_websocket_upgrade

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Record:
    """An exchange while it is under way."""

    number: int
    tunnel: Tunnel
    metadata: Mapping[str, Any]  # of the flow
    started_at: float
    started: float
    covered: Covered | None = None
    is_upgrade: bool = False
    stamp: Stamp = Stamp.NOT_SCOPED
    header: str | None = None  # stays in this module: an exchange gets its status and the length of its token
    thread_id: str | None = None
    waited_s: float | None = None
    first_byte_s: float | None = None

    @property
    def is_sent(self) -> bool:
        """Whether the head of the request went upstream, and with it the header; a body may have been cut."""
        return HEAD_SENT in self.metadata


class Stamper:
    """The addon.

    Args:
        tunnels: The admitted tunnels by client connection id.
        timeout_s: Seconds to wait for a token.
        numbers: Gives each exchange its number.
        on_exchange: Called once for each request inside an intercepted tunnel, when its answer is complete or has
            failed; for a WebSocket when its handshake is answered.
    """

    def __init__(
        self,
        scope: Scope,
        tunnels: Mapping[str, Tunnel],
        provider: AttestationProvider,
        mode: StampMode,
        on_failure: OnFailure,
        timeout_s: float,
        numbers: Iterator[int],
        on_exchange: Callable[[Exchange], None],
    ) -> None:
        self._scope = scope
        self._tunnels = tunnels
        self._provider = provider
        self._mode = mode
        self._on_failure = on_failure
        self._timeout_s = timeout_s
        self._numbers = numbers
        self._on_exchange = on_exchange
        self._records: dict[str, _Record] = {}
        self._calls = RealtimeCalls()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide, ask and stamp; from here the request body streams."""
        try:
            native = _strip(flow.request, self._mode)
            if flow.error is not None:
                return  # mitmproxy found it malformed and answers itself; nobody is asked for a token
            tunnel = self._tunnels.get(flow.client_conn.id)
            if tunnel is None:
                flow.response = _answer(400, "this proxy takes CONNECT requests only")
                return
            record = _Record(next(self._numbers), tunnel, flow.metadata, time.time(), time.monotonic())
            self._records[flow.id] = record
            refused = await self._stamp(flow, record, native)
            if refused is not None:
                record.stamp, record.header = Stamp.REFUSED, None
                logger.warning("request refused number=%d status=%d", record.number, refused.status)
                flow.response = _answer(refused.status, refused.reason)
                return
            flow.request.stream = True
        except Exception as exc:
            # The type, and at DEBUG the places: a text might quote the header.
            logger.error("stamping failed error=%s", type(exc).__name__)
            logger.debug("stamping failed at\n%s", "".join(traceback.format_tb(exc.__traceback__)))
            flow.request.headers.pop(ATTESTATION_HEADER, None)
            flow.request.stream = False
            flow.response = _answer(502, "the proxy failed to stamp this request; nothing was sent")
            if flow.id in self._records:
                self._records[flow.id].stamp = Stamp.REFUSED

    async def _stamp(self, flow: http.HTTPFlow, record: _Record, native: list[str]) -> Refused | None:
        """Set the header where it belongs. A returned refusal is answered instead of forwarding."""
        if flow.request.is_http10:  # no Host needed, no upgrade possible: nothing of the scope was written for it
            return Refused(505, "inside a tunnel HTTP/1.1 or HTTP/2 must be spoken")
        if flow.request.is_http11 and flow.request.data.authority:
            return Refused(400, "inside a tunnel the request target must be a path")
        head = _head(flow.request, record.tunnel)
        record.is_upgrade = is_websocket_upgrade(head)
        decision = self._scope.decide(head)
        if isinstance(decision, Refused):
            return decision
        if not isinstance(decision, Covered):
            if self._mode is not StampMode.NEVER:
                flow.request.headers.pop(ATTESTATION_HEADER, None)
            return None
        record.covered = decision
        record.thread_id = _thread_id(head)
        if native and self._mode is StampMode.MISSING and open_envelope(native[0]).status is None:
            flow.request.headers.pop(ATTESTATION_HEADER, None)  # no envelope: not ours to vouch for
            native = []
        if native:
            record.header = native[0] if len(native) == 1 else None  # of several, who knows which one counts?
            is_envelope = record.header is not None and open_envelope(record.header).status is not None
            record.stamp = Stamp.NATIVE if is_envelope else Stamp.FOREIGN
            return None
        record.stamp = Stamp.ABSENT
        if self._mode is StampMode.NEVER:
            return None
        if decision.call_id is not None:
            header = self._calls.value(decision.call_id, time.monotonic())
            record.stamp = Stamp.ABSENT if header is None else Stamp.CARRIED
        else:
            if problem := flow.server_conn.error:
                # The upstream could not be reached or verified: no token is made for a request that cannot go out.
                return Refused(502, f"the upstream connection failed: {problem}")
            asked = time.monotonic()
            attestation = await attest(self._provider, record.thread_id, self._timeout_s)
            if attestation is None:
                return None
            record.waited_s = time.monotonic() - asked
            logger.info(
                "attestation status=%s thread=%s waited_s=%.3f",
                attestation.status.name, record.thread_id, record.waited_s,
            )  # fmt: skip
            if attestation.status is not AttestationStatus.OK and self._on_failure is OnFailure.REFUSE:
                return Refused(503, f"no attestation token: {attestation.status.name.lower()}")
            record.stamp, header = Stamp.STAMPED, attestation.header
        if header is not None:
            flow.request.headers[ATTESTATION_HEADER] = header
            record.header = header
        return None

    def request(self, flow: http.HTTPFlow) -> None:
        """The body is through. HTTP/2 trailers follow, which an upstream may merge into the headers."""
        try:
            if flow.request.trailers:
                _drop(flow.request.trailers, {_ATTESTATION, *_OURS_ALONE})
        except Exception as exc:
            logger.error("trailers failed error=%s", type(exc).__name__)
            flow.request.trailers = None

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """From here the response body streams, on all routes: a buffered SSE stream would hold every delta back."""
        try:
            record = self._records.get(flow.id)
            if record is None or flow.response is None:
                return
            record.first_byte_s = time.monotonic() - record.started
            status = flow.response.status_code
            if status == 101 and not record.is_upgrade:
                # Else mitmproxy would make a raw tunnel of the connection, past every check.
                logger.warning("connection closed number=%d reason=unasked-101", record.number)
                flow.kill()
                return
            if record.covered is not None and record.header is not None:
                if record.covered.route is REALTIME_CALL and status in (200, 201):
                    location = flow.response.headers.get("location", "")
                    self._calls.opened(location, record.header, time.monotonic())
                elif record.covered.call_id is not None and status == 101:
                    self._calls.joined(record.covered.call_id)
            flow.response.stream = status != 101
        except Exception as exc:
            logger.error("response failed error=%s", type(exc).__name__)
            flow.kill()

    def response(self, flow: http.HTTPFlow) -> None:
        self._finish(flow, None)

    def error(self, flow: http.HTTPFlow) -> None:
        self._finish(flow, _without_peer_bytes(flow.error.msg) if flow.error else "unknown")

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """A piece of an open WebSocket went by. It is relayed as it is; nothing of it is kept."""
        flow.messages.clear()

    def close(self) -> None:
        """Report what is still under way, when the proxy stops."""
        for record in list(self._records.values()):
            self._emit(record, None, None, "the proxy stopped")
        self._records.clear()

    def _finish(self, flow: http.HTTPFlow, error: str | None) -> None:
        record = self._records.pop(flow.id, None)
        if record is not None:
            self._emit(record, flow.request, flow.response, error)

    def _emit(
        self, record: _Record, request: http.Request | None, response: http.Response | None, error: str | None
    ) -> None:
        stamp, header = record.stamp, record.header
        if not record.is_sent and stamp not in (Stamp.REFUSED, Stamp.NOT_SCOPED):
            stamp, header = Stamp.UNSENT, None  # what was set on it is no proof that it arrived
        opened = None if header is None else open_envelope(header)
        route = record.covered.route if record.covered is not None else None
        if route is not None:
            transport = Transport(route.transport)
        else:
            transport = Transport.WEBSOCKET if record.is_upgrade else Transport.HTTP
        self._on_exchange(
            Exchange(
                number=record.number,
                started_at=record.started_at,
                transport=transport,
                host=record.tunnel.target.host,
                port=record.tunnel.target.port,
                method=_visible(request.data.method) if request is not None else "",
                path=_visible(request.data.path.partition(b"?")[0]) if request is not None else "",
                route=None if route is None else route.name,
                stamp=stamp,
                attestation=opened.status if opened is not None else None,
                token_bytes=len(opened.token or "") if opened is not None else 0,
                thread_id=record.thread_id,
                status=None if response is None else response.status_code,
                waited_s=record.waited_s,
                first_byte_s=record.first_byte_s,
                duration_s=time.monotonic() - record.started,
                error=error,
            )
        )


# Hop-by-hop towards us; inside a tunnel mitmproxy would forward the proxy's own secret (facts: security 3).
_OURS_ALONE = (b"proxy-authorization", b"proxy-connection")
_ATTESTATION = ATTESTATION_HEADER.encode()


def _strip(request: http.Request, mode: StampMode) -> list[str]:
    """Remove what must not go upstream; what stays of the client's own attestation is returned.

    That is nothing unless somebody asked for it: one value where the missing ones are stamped, and everything as it
    came where we only observe.
    """
    _drop(request.headers, set(_OURS_ALONE))
    values = request.headers.get_all(ATTESTATION_HEADER)
    if mode is StampMode.NEVER:
        return values
    if mode is StampMode.MISSING and len(values) == 1:
        _drop(request.headers, {_ATTESTATION}, but=_ATTESTATION)
        return values
    _drop(request.headers, {_ATTESTATION})
    return []


def _drop(headers: http.Headers, names: set[bytes], *, but: bytes | None = None) -> None:
    """Remove these headers, also where they are spelled with "_": CGI and what imitates it take both for the same.

    Args:
        but: The spelling (lower case) that stays.
    """
    kept = tuple(
        (name, value)
        for name, value in headers.fields
        if name.lower() == but or name.lower().replace(b"_", b"-") not in names
    )
    if len(kept) != len(headers.fields):
        headers.fields = kept


def _head(request: http.Request, tunnel: Tunnel) -> RequestHead:
    raw = request.data
    return RequestHead(
        connect=tunnel.target,
        sni=tunnel.sni,
        method=raw.method,
        target=raw.path,
        authority=None if request.is_http11 else raw.authority,
        headers=request.headers.fields,
    )


_VISIBLE = "".join(chr(octet) for octet in range(0x21, 0x7F))


def _visible(raw: bytes) -> str:
    """What a client wrote, percent-encoded where it is no visible ASCII: it must not forge the fields of a log line."""
    return quote(raw, safe=_VISIBLE)


# mitmproxy quotes what a peer wrote as the repr of bytes: a response head with cookies, a header line.
_PEER_BYTES = re.compile(r"[:\s]*(?:bytearray\()?\[?b['\"].*", re.DOTALL)


def _without_peer_bytes(text: str) -> str:
    return _PEER_BYTES.sub("", text)


_THREAD_ID = re.compile(rb"[0-9A-Za-z-]{1,64}")


def _thread_id(head: RequestHead) -> str | None:
    values = head.values(b"thread-id")
    return values[0].decode("ascii") if len(values) == 1 and _THREAD_ID.fullmatch(values[0]) else None


def _answer(status: int, reason: str) -> http.Response:
    body = f"countersign: {reason}\n".encode("ascii", "backslashreplace")
    return http.Response.make(status, body, {"Content-Type": "text/plain", "Connection": "close"})
