"""A run as HAR 1.2, which browsers and other viewers open. Pure.

Names of our own begin with an underscore, as the format wants it. Times are in ms, and -1 where they are not known.
"""

import base64
import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from proxy.capture.exchange import Exchange, Transport

CREATOR = "countersign"


@dataclass(frozen=True, slots=True)
class HarMessage:
    """One message of a WebSocket.

    Args:
        at: Unix time in seconds.
        text: None of what is no text; then only its size is told.
    """

    from_client: bool
    at: float
    opcode: int
    text: str | None
    size: int


@dataclass(frozen=True, slots=True)
class HarBodies:
    """What an exchange carried; None of what was not kept.

    Args:
        request, response: Decoded.
        note: What is missing, "" if nothing is.
    """

    request: bytes | None = None
    response: bytes | None = None
    messages: tuple[HarMessage, ...] | None = None
    note: str = ""


type BodiesOf = Callable[[Exchange], HarBodies]


def har(exchanges: Iterable[Exchange], bodies: BodiesOf | None = None, version: str = "") -> dict[str, Any]:
    """All of it as one object.

    Args:
        bodies: What an exchange carried; None leaves bodies out.
        version: Of us.
    """
    return {"log": {**_head(version), "entries": [entry(exchange, bodies) for exchange in exchanges]}}


def har_text(exchanges: Iterable[Exchange], bodies: BodiesOf | None = None, version: str = "") -> Iterator[str]:
    """The same as JSON text in pieces, of which only one is in memory at a time."""
    head = json.dumps(_head(version), indent=1)
    yield f'{{"log": {head[:-2]},\n "entries": ['
    separator = "\n"
    for exchange in exchanges:
        yield separator + json.dumps(entry(exchange, bodies))
        separator = ",\n"
    yield "\n]}}\n"


def entry(exchange: Exchange, bodies: BodiesOf | None = None) -> dict[str, Any]:
    """One exchange."""
    carried = HarBodies() if bodies is None else bodies(exchange)
    timings = _timings(exchange)
    content: dict[str, Any] = {
        "startedDateTime": _iso(exchange.started_at - (exchange.connect_s or 0.0)),
        "time": round(sum(value for name, value in timings.items() if value > 0 and name in _COUNTED), 3),
        "request": _request(exchange, carried),
        "response": _response(exchange, carried),
        "cache": {},
        "timings": timings,
        "_number": exchange.number,
        "_resourceType": _RESOURCE_TYPES.get(exchange.transport, "fetch"),
        "_transport": str(exchange.transport),
        "_route": exchange.route,
        "_stamp": str(exchange.stamp),
        "_attestation_status": None if exchange.attestation is None else exchange.attestation.name.lower(),
        "_thread_id": exchange.thread_id,
        "_phase": str(exchange.phase),
    }
    if exchange.error is not None:
        content["_error"] = exchange.error
    if carried.messages is not None:
        content["_webSocketMessages"] = [_message(message) for message in carried.messages]
    if note := "; ".join(filter(None, (exchange.error, carried.note))):
        content["comment"] = note
    return content


def _head(version: str) -> dict[str, Any]:
    return {"version": "1.2", "creator": {"name": CREATOR, "version": version or "0"}}


_RESOURCE_TYPES = {Transport.WEBSOCKET: "websocket", Transport.TUNNEL: "other"}  # the words of Chrome
_COUNTED = frozenset({"blocked", "connect", "send", "wait", "receive"})  # "ssl" is within "connect"


def _timings(exchange: Exchange) -> dict[str, float]:
    """What an exchange waited for, in its order.

    The upstream connection was opened before the request head came, and for this request only if it was the first on
    it; the client's own TLS handshake lies between the two and is in none of them. The wait for a token is what holds a
    request back, so it is `blocked`.
    """
    asked = exchange.waited_s or 0.0
    end = exchange.duration_s
    first = exchange.first_byte_s if exchange.first_byte_s is not None else end
    sent = max(asked, exchange.sent_s if exchange.sent_s is not None else asked)
    if first is not None:
        sent = min(sent, max(first, asked))  # an answer may come before the request is complete
    wait = 0.0 if first is None else max(first - sent, 0.0)
    receive = 0.0 if end is None or first is None else max(end - first, 0.0)
    if exchange.transport is Transport.TUNNEL:
        sent, wait, receive = 0.0, 0.0, end or 0.0
    return {
        "blocked": -1.0 if exchange.waited_s is None else _ms(asked),
        "dns": -1.0,
        "connect": -1.0 if exchange.connect_s is None else _ms(exchange.connect_s),
        "ssl": -1.0,
        "send": _ms(max(sent - asked, 0.0)),
        "wait": _ms(wait),
        "receive": _ms(receive),
        "_attestation": -1.0 if exchange.waited_s is None else _ms(asked),
    }


def _request(exchange: Exchange, carried: HarBodies) -> dict[str, Any]:
    content: dict[str, Any] = {
        "method": exchange.method,
        "url": _url(exchange),
        "httpVersion": exchange.http_version or "unknown",
        "cookies": [],
        "headers": _headers(exchange.request_headers),
        "queryString": [],
        "headersSize": -1,
        "bodySize": exchange.request_bytes,
    }
    if carried.request is not None:
        text, is_base64 = _text(carried.request)
        content["postData"] = {"mimeType": _value(exchange.request_headers, "content-type"), "text": text}
        if is_base64:
            content["postData"]["_encoding"] = "base64"
    return content


def _response(exchange: Exchange, carried: HarBodies) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "size": exchange.response_bytes if carried.response is None else len(carried.response),
        "mimeType": _value(exchange.response_headers, "content-type"),
    }
    if carried.response is not None:
        text, is_base64 = _text(carried.response)
        shown["text"] = text
        if is_base64:
            shown["encoding"] = "base64"
    return {
        "status": exchange.status or 0,  # 0 is what browsers write where there was no answer
        "statusText": "",
        "httpVersion": exchange.http_version or "unknown",
        "cookies": [],
        "headers": _headers(exchange.response_headers),
        "content": shown,
        "redirectURL": _value(exchange.response_headers, "location"),
        "headersSize": -1,
        "bodySize": exchange.response_bytes,
    }


def _message(message: HarMessage) -> dict[str, Any]:
    """As Chrome writes them."""
    content: dict[str, Any] = {
        "type": "send" if message.from_client else "receive",
        "time": message.at,
        "opcode": message.opcode,
        "data": message.text or "",
    }
    if message.text is None:
        content["_size"] = message.size
    return content


def _headers(headers: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers]


def _value(headers: tuple[tuple[str, str], ...], wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")


def _url(exchange: Exchange) -> str:
    scheme = "wss" if exchange.transport is Transport.WEBSOCKET else "https"
    host = f"[{exchange.host}]" if ":" in exchange.host else exchange.host
    port = "" if exchange.port == 443 else f":{exchange.port}"
    return f"{scheme}://{host}{port}{exchange.path or '/'}"


def _text(body: bytes) -> tuple[str, bool]:
    """(the body, whether it is base64)."""
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode("ascii"), True


def _iso(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
