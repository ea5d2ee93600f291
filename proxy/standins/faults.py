"""How the stand-in of ChatGPT misbehaves on request. Pure."""

import enum
from dataclasses import dataclass, field
from typing import Self

from proxy.standins.answers import Event


class Where(enum.StrEnum):
    """Which requests a fault hits."""

    WEBSOCKET = "websocket"  # the handshake, or for faults inside a stream each model request on an open socket
    POST = "post"
    ANY = "any"
    TOKEN = "token"  # POST /oauth/token
    CALL = "call"  # POST .../realtime/calls
    REALTIME = "realtime"  # the handshake of a realtime socket


class Kind(enum.StrEnum):
    """What goes wrong, besides a plain HTTP status."""

    USAGE_LIMIT = "usage-limit"  # 429 with the body of a spent plan
    CUT = "cut"  # the connection is dropped after the first delta
    STALL = "stall"  # nothing comes after response.created
    FAILED = "failed"  # response.failed with a server error
    CONTEXT = "context"  # response.failed: the context window is full
    INCOMPLETE = "incomplete"  # response.incomplete
    GARBAGE = "garbage"  # an event that is not JSON
    BAD_FRAME = "bad-frame"  # WebSocket: a frame with reserved bits; POST: a body that breaks its own encoding
    ERROR_EVENT = "error-500"  # an error event with status 500
    RESET = "reset"  # the TCP connection is reset before an answer


@dataclass(slots=True)
class Fault:
    """One fault. `status` is set for a plain HTTP status; `times` counts down, None is for ever."""

    where: Where
    kind: Kind | None
    status: int | None = None
    times: int | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "[WHERE:]KIND[:TIMES]", such as "websocket:426", "post:500:2", "cut:1".

        Raises:
            ValueError: An unknown place or kind, or a count that is no positive number.
        """
        parts = text.split(":")
        where = Where.ANY
        if parts[0] in list(Where):
            where = Where(parts.pop(0))
        wanted = (
            f"a fault must be [WHERE:]KIND[:TIMES] with WHERE one of {', '.join(Where)} and KIND an HTTP status "
            f"or one of {', '.join(Kind)}; found {text!r}"
        )
        if not 1 <= len(parts) <= 2:
            raise ValueError(wanted)
        times: int | None = None
        if len(parts) == 2:
            if not parts[1].isdecimal() or int(parts[1]) < 1:
                raise ValueError(wanted)
            times = int(parts[1])
        if parts[0].isdecimal() and 300 <= int(parts[0]) <= 599:
            return cls(where, None, int(parts[0]), times)
        if parts[0] in list(Kind):
            return cls(where, Kind(parts[0]), None, times)
        raise ValueError(wanted)

    @property
    def in_stream(self) -> bool:
        """Whether it shows inside an accepted stream, and not as the answer to its head."""
        return self.kind not in (None, Kind.USAGE_LIMIT, Kind.RESET)

    def spend(self) -> bool:
        """Use it once; False when it is used up."""
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Faults:
    """Faults in the order given; the first that fits is used until it is used up."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = list(faults)

    def add(self, fault: Fault) -> None:
        """One more, after the others."""
        self._faults.append(fault)

    def next(self, where: Where, *, in_stream: bool) -> Fault | None:
        """The fault that hits this request, if any."""
        for fault in self._faults:
            fits = fault.where is where or (fault.where is Where.ANY and where in (Where.WEBSOCKET, Where.POST))
            if fits and fault.in_stream is in_stream and fault.times != 0 and fault.spend():
                return fault
        return None


def broken_events(kind: Kind, events: list[Event]) -> list[Event]:
    """The events that are still sent under this fault, before it strikes."""
    if kind is Kind.CUT:
        for index, event in enumerate(events):
            if event["type"] == "response.output_text.delta":
                return events[: index + 1]
        return events[:1]
    failures: dict[Kind, Event] = {
        Kind.FAILED: {
            "type": "response.failed",
            "response": {"id": "resp_failed", "error": {"code": "server_error", "message": "the stand-in failed"}},
        },
        Kind.CONTEXT: {
            "type": "response.failed",
            "response": {
                "id": "resp_failed",
                "error": {"code": "context_length_exceeded", "message": "the input is too long"},
            },
        },
        Kind.INCOMPLETE: {
            "type": "response.incomplete",
            "response": {"id": "resp_incomplete", "incomplete_details": {"reason": "content_filter"}},
        },
        Kind.ERROR_EVENT: {
            "type": "error",
            "status": 500,
            "error": {"type": "server_error", "message": "the stand-in failed"},
            "headers": {},
        },
    }
    return [*events[:1], failures[kind]] if kind in failures else events[:1]
