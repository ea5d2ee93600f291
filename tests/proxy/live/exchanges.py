"""Exchanges as a recorder tells of them, for the tests of the live page."""

from dataclasses import replace
from typing import Any

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport

THREAD = "019a3b2c-1f07-7abc-8def-00aa11dead01"
BEGAN = 1_795_000_000.0

POST = Exchange(
    number=1,
    started_at=BEGAN,
    transport=Transport.POST,
    host="chatgpt.com",
    port=443,
    method="POST",
    path="/backend-api/codex/responses",
    route="responses",
    stamp=Stamp.STAMPED,
    attestation=AttestationStatus.OK,
    token_bytes=2048,
    thread_id=THREAD,
    status=200,
    waited_s=0.03,
    sent_s=0.05,
    first_byte_s=1.0,
    duration_s=3.0,
    http_version="HTTP/1.1",
    request_headers=(("host", "chatgpt.com"), ("authorization", "Bearer [redacted 9 bytes #0123456789ab]")),
    response_headers=(("content-type", "text/event-stream"),),
)
SOCKET = replace(POST, transport=Transport.WEBSOCKET, method="GET", status=101, first_byte_s=0.2, duration_s=60.0)
OTHER = replace(
    POST,
    transport=Transport.HTTP,
    method="GET",
    route=None,
    stamp=Stamp.NOT_SCOPED,
    attestation=None,
    token_bytes=0,
    waited_s=None,
    thread_id=None,
)
TUNNEL = replace(
    OTHER, transport=Transport.TUNNEL, method="CONNECT", path="", status=None, sent_s=None, first_byte_s=None
)


def numbered(exchange: Exchange, number: int, **facts: Any) -> Exchange:
    """The same under another number, a second later for each."""
    return replace(exchange, number=number, started_at=BEGAN + number, **facts)


def decided(exchange: Exchange) -> Exchange:
    """As it was told of when its head was about to go out."""
    return replace(
        exchange, phase=Phase.DECIDED, status=None, sent_s=None, first_byte_s=None, duration_s=None, response_headers=()
    )


def answered(exchange: Exchange) -> Exchange:
    """As it was told of when its answer began."""
    return replace(exchange, phase=Phase.ANSWERED, duration_s=exchange.first_byte_s)


# Several sorts, as a page shows them.
UNSTAMPED = replace(POST, stamp=Stamp.ABSENT, attestation=None, token_bytes=0, waited_s=None, thread_id=None)
LATE = replace(POST, waited_s=0.24, sent_s=0.25)
REFUSED_426 = replace(SOCKET, status=426, duration_s=0.2)
# A turn that was slow because its upgrades failed, and then because upstream was.
SLOW = [
    numbered(REFUSED_426, 1),
    numbered(replace(SOCKET, status=None, first_byte_s=None, duration_s=15.0, error="Client disconnected."), 2),
    numbered(replace(POST, first_byte_s=9.05, duration_s=10.0), 17),
]
SORTS = [
    numbered(POST, 1), numbered(answered(SOCKET), 2), numbered(OTHER, 3, path="/backend-api/codex/models"),
    numbered(TUNNEL, 4, host="ab.chatgpt.com"), numbered(UNSTAMPED, 5), numbered(replace(LATE, status=429), 6),
    numbered(replace(POST, attestation=AttestationStatus.TIMEOUT, waited_s=0.1002), 7), numbered(decided(POST), 8),
]  # fmt: skip
