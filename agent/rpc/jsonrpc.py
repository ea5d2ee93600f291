"""The dialect itself, without I/O: text in, events out; and the texts of what we send. Pure.

As observed of codex-cli 0.169.0: a message is one JSON object, `jsonrpc` and unknown members are ignored, ids are
strings or integers, and whatever is not a message is dropped without a reply.
"""

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

RequestId = int | str

INVALID_REQUEST = -32600
METHOD_NOT_SUPPORTED = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class _Missing(enum.Enum):
    MISSING = enum.auto()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING  # told apart from null: `params` and `result` may be null


@dataclass(frozen=True, slots=True)
class Request:
    """The peer wants an answer."""

    id: RequestId
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Notification:
    """The peer tells something."""

    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class Response:
    """The peer answered our request `id`."""

    id: RequestId
    result: Any


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The peer answered our request `id` with an error."""

    id: RequestId
    code: int
    message: str


Event = Request | Notification | Response | ErrorResponse


class RequestFailed(Exception):
    """The answer to a request is an error: its JSON-RPC code, a text for the peer, and at times what it is about."""

    def __init__(self, code: int, message: str, about: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.about = about


class Peer:
    """One side of a connection.

    Args:
        ids: Where our request ids come from; the original counts from 0 for the whole process.

    `dropped` counts texts that were no message, `late` answers to nothing that is being waited for.
    """

    def __init__(self, ids: Iterator[int]) -> None:
        self._ids = ids
        self._pending: set[RequestId] = set()
        self.dropped = 0
        self.late = 0

    def receive(self, text: str) -> Event | None:
        """Take one text apart; None for whatever is to be ignored. Never raises."""
        event = parse(text)
        if event is None:
            self.dropped += 1
            return None
        if isinstance(event, Response | ErrorResponse):
            if event.id not in self._pending:
                self.late += 1
                return None
            self._pending.discard(event.id)
        return event

    def request(self, method: str, params: dict[str, Any]) -> tuple[RequestId, str]:
        """The id and text of a new request of ours."""
        request_id = next(self._ids)
        self._pending.add(request_id)
        return request_id, encode({"method": method, "id": request_id, "params": params})

    def expect(self, request_id: RequestId) -> None:
        """Wait for an answer to a request whose id and text were made elsewhere."""
        self._pending.add(request_id)

    def forget(self, request_id: RequestId) -> None:
        """Stop waiting for an answer; one that comes later is dropped and counted."""
        self._pending.discard(request_id)


def reply(request_id: RequestId, result: Any) -> str:
    """The text of an answer."""
    return encode({"id": request_id, "result": result})


def fail(request_id: RequestId, code: int, message: str, about: dict[str, Any] | None = None) -> str:
    """The text of an error answer; `about` is its `data`."""
    told = {} if about is None else {"data": about}
    return encode({"error": {"code": code, **told, "message": message}, "id": request_id})


def notify(method: str, params: dict[str, Any], emitted_at_ms: int) -> str:
    """The text of a notification; the original stamps each with the Unix time in milliseconds."""
    return encode({"method": method, "params": params, "emittedAtMs": emitted_at_ms})


def encode(message: dict[str, Any]) -> str:
    """One line of compact JSON; newlines can only be inside strings, escaped."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def parse(text: str) -> Event | None:
    """A message, or None for whatever is none."""
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or _has_lone_surrogate(text, message):
        return None
    method = message.get("method")
    if isinstance(method, str):
        if "id" not in message or message["id"] is None:
            return Notification(method, message.get("params", MISSING))
        if _is_id(message["id"]):
            return Request(message["id"], method, message.get("params", MISSING))
        return None
    if not _is_id(message.get("id")) or method is not None:
        return None
    if "result" in message:
        return Response(message["id"], message["result"])
    if "error" not in message:
        return None
    error = message["error"]
    if isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str):
        return ErrorResponse(message["id"], error["code"], error["message"])
    # The original drops it, and what waits for the answer waits for ever (observed).
    return ErrorResponse(message["id"], INVALID_REQUEST, "an error that is no object with `code` and `message`")


def _is_id(value: object) -> bool:
    return isinstance(value, str) or (type(value) is int and -(2**63) <= value < 2**63)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _has_lone_surrogate(text: str, message: dict[str, Any]) -> bool:
    r"""Whether a string holds half a surrogate pair (from "\ud800"), which no UTF-8 can carry back."""
    if "\\ud" not in text and "\\uD" not in text:
        return False
    try:
        encode(message).encode()
    except UnicodeEncodeError:
        return True
    return False
