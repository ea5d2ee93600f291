"""mitmproxy addon: strip, match, ask, set. The product's one act.

mitmproxy logs an exception of a hook and lets the request go on (addonmanager.safecall, 12.2): a hook that raised
would forward whatever the client wrote into the header. So the header is stripped first, each hook catches
everything, and the answer to the unforeseen is 502 with nothing sent.
"""

import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping

from mitmproxy import http, tcp
from mitmproxy.connection import Client

from proxy.attestation import (
    ATTESTATION_HEADER,
    AttestationProvider,
    AttestationStatus,
    attest,
    open_envelope,
)
from proxy.capture.exchange import Stamp
from proxy.modes import OnFailure, StampMode
from proxy.realtime_calls import RealtimeCalls
from proxy.recorder import Record, Recorder
from proxy.scope import REALTIME_CALL, Covered, Refused, RequestHead, Scope, is_websocket_upgrade
from proxy.tunnel import Tunnel

logger = logging.getLogger(__name__)


class Stamper:
    """The addon.

    Args:
        tunnels: The admitted tunnels by client connection id.
        timeout_s: Seconds to wait for a token.
        recorder: Is told what becomes of each request.
    """

    def __init__(
        self,
        scope: Scope,
        tunnels: Mapping[str, Tunnel],
        provider: AttestationProvider,
        mode: StampMode,
        on_failure: OnFailure,
        timeout_s: float,
        recorder: Recorder,
    ) -> None:
        self._scope = scope
        self._tunnels = tunnels
        self._provider = provider
        self._mode = mode
        self._on_failure = on_failure
        self._timeout_s = timeout_s
        self._recorder = recorder
        self._calls = RealtimeCalls()

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide, ask and stamp; from here the request body streams."""
        try:
            native = _strip(flow.request, self._mode)
            tunnel = self._tunnels.get(flow.client_conn.id)
            if flow.error is not None:
                # mitmproxy found it malformed and answers itself; nobody is asked for a token
                if tunnel is not None:
                    record = self._begin(flow, tunnel)
                    record.stamp, record.status = Stamp.REFUSED, 400
                    self._recorder.decided(record, flow.request.headers.fields)
                return
            if tunnel is None:
                flow.response = _answer(400, "this proxy takes CONNECT requests only")
                return
            record = self._begin(flow, tunnel)
            refused = await self._stamp(flow, record, native)
            if refused is not None:
                record.stamp, record.header = Stamp.REFUSED, None
                logger.warning("request refused number=%d status=%d", record.number, refused.status)
                flow.response = _answer(refused.status, refused.reason)
            else:
                flow.request.stream = self._watched(record, True)
            self._recorder.decided(record, flow.request.headers.fields)
        except Exception as exc:
            # The type, and at DEBUG the places: a text might quote the header.
            logger.error("stamping failed error=%s", type(exc).__name__)
            logger.debug("stamping failed at\n%s", "".join(traceback.format_tb(exc.__traceback__)))
            flow.request.headers.pop(ATTESTATION_HEADER, None)
            flow.request.stream = False
            flow.response = _answer(502, "the proxy failed to stamp this request; nothing was sent")
            if (known := self._recorder.find(flow.id)) is not None:
                known.stamp, known.header = Stamp.REFUSED, None

    def _begin(self, flow: http.HTTPFlow, tunnel: Tunnel) -> Record:
        server = flow.server_conn
        connect_s = None
        if not tunnel.used and server.timestamp_start is not None and server.timestamp_tls_setup is not None:
            connect_s = server.timestamp_tls_setup - server.timestamp_start
        tunnel.used = True
        raw = flow.request.data
        return self._recorder.begin(
            flow.id,
            tunnel,
            flow.client_conn.id,
            flow.metadata,
            raw.method,
            raw.path,
            flow.request.http_version,
            connect_s,
        )

    def _watched(self, record: Record, from_client: bool) -> Callable[[bytes], bytes]:
        """For mitmproxy's `stream`: passes each piece on as it is."""

        def see(data: bytes) -> bytes:
            self._recorder.carried(record, from_client, data)
            return data

        return see

    async def _stamp(self, flow: http.HTTPFlow, record: Record, native: list[str]) -> Refused | None:
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
            if (route := self._scope.resembled(head)) is not None:
                record.covered, record.stamp = Covered(route), Stamp.ABSENT
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
            if (record := self._recorder.find(flow.id)) is not None:
                record.sent_s = time.monotonic() - record.started
            if flow.request.trailers:
                _drop(flow.request.trailers, {_ATTESTATION, *_OURS_ALONE})
        except Exception as exc:
            logger.error("trailers failed error=%s", type(exc).__name__)
            flow.request.trailers = None

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """From here the response body streams, on all routes: a buffered SSE stream would hold every delta back."""
        try:
            record = self._recorder.find(flow.id)
            if record is None or flow.response is None:
                return
            status = flow.response.status_code
            self._recorder.answered(record, status, flow.response.headers.fields)
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
            flow.response.stream = status != 101 and self._watched(record, False)
        except Exception as exc:
            logger.error("response failed error=%s", type(exc).__name__)
            flow.kill()

    def response(self, flow: http.HTTPFlow) -> None:
        self._recorder.finish(flow.id, None)

    def error(self, flow: http.HTTPFlow) -> None:
        self._recorder.finish(flow.id, _without_peer_bytes(flow.error.msg) if flow.error else "unknown")

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """A piece of an open WebSocket goes by. It is relayed as it is; nothing of it is kept here."""
        for message in flow.messages:
            self._recorder.relayed(flow.client_conn.id, message.from_client, message.content)
        flow.messages.clear()

    def client_disconnected(self, client: Client) -> None:
        self._recorder.disconnected(client.id)

    def close(self) -> None:
        """Report what is still under way, when the proxy stops."""
        self._recorder.close()


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
