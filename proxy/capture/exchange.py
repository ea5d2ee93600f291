"""One request and its answer, as plain facts. No token, no credential, no query, no body."""

import enum
from dataclasses import dataclass

from proxy.attestation import AttestationStatus


class Stamp(enum.StrEnum):
    """What became of the attestation header on the way through."""

    NOT_SCOPED = "not scoped"
    STAMPED = "stamped"  # asked the desktop and set the answer; its status says whether it is a token
    CARRIED = "carried"  # the value of the realtime call, again on its sideband
    NATIVE = "native"  # the client's own envelope, left as it was
    FOREIGN = "foreign"  # the client's own value, left as it was, and no envelope
    ABSENT = "absent"  # in scope, and nobody to ask (or, when only observing, nothing there)
    REFUSED = "refused"  # answered here; nothing was sent upstream
    UNSENT = "unsent"  # in scope, and the upstream or the client was gone before the request went out


class Phase(enum.StrEnum):
    """How far an exchange has come. Of one number each later one replaces the earlier."""

    DECIDED = "decided"  # the request head was judged, and is about to go out
    ANSWERED = "answered"  # the answer's head is there
    ENDED = "ended"  # nothing more will come; for a WebSocket when it is closed


class Transport(enum.StrEnum):
    """How a request travelled."""

    WEBSOCKET = "websocket"
    POST = "post"
    HTTP = "http"
    TUNNEL = "tunnel"  # end-to-end TLS of somebody else's, bytes only


@dataclass(frozen=True, slots=True)
class SocketTurn:
    """A question on a WebSocket and its answer, by their times alone: what was said is not looked at.

    Args:
        number: Counts from 1 on each socket.
        asked_s: Seconds from the request head to the first byte of the question.
        first_s, last_s: To the first byte of the answer, and to the last by now; None as long as there is none.
        quiet_from_s, quiet_until_s: The longest time within the answer in which nothing came; equal if there is none.
    """

    number: int
    asked_s: float
    first_s: float | None = None
    last_s: float | None = None
    quiet_from_s: float = 0.0
    quiet_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request through the proxy and what came of it.

    Args:
        number: Counts from 1 in the order of arrival.
        started_at: Unix time in seconds, at the request head.
        path: Without query and fragment, which may hold secrets.
        route: The row of the scope, or None if it is not in scope.
        status: The HTTP status of the answer, None if there was none.
        attestation: The status in the envelope that went upstream, None if none did.
        token_bytes: The length of the token that went upstream, 0 if none did.
        waited_s: Seconds that were spent on asking the desktop, None if it was not asked.
        first_byte_s, duration_s: Seconds from the request head to the answer's head, and to its end.
        error: Why there was no complete answer, None if there was one.
        sent_s: Seconds from the request head to the end of the request's body.
        connect_s: Seconds that opening the upstream connection took, TLS included, before the request head; only of the
            first request on it.
        request_bytes, response_bytes: Of the bodies as they travelled; for a WebSocket all after the handshake; for a
            tunnel all of it.
        http_version: As the client spoke it, such as "HTTP/1.1".
        request_headers, response_headers: Redacted (`Redactor`), in order; empty unless the run is observed.
        turns: Of a WebSocket to the model, the last ones; empty unless the run is observed.
    """

    number: int
    started_at: float
    transport: Transport
    host: str
    port: int
    method: str
    path: str
    route: str | None
    stamp: Stamp
    attestation: AttestationStatus | None = None
    token_bytes: int = 0
    thread_id: str | None = None
    status: int | None = None
    waited_s: float | None = None
    first_byte_s: float | None = None
    duration_s: float | None = None
    error: str | None = None
    phase: Phase = Phase.ENDED
    sent_s: float | None = None
    connect_s: float | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    http_version: str = ""
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    turns: tuple[SocketTurn, ...] = ()

    @property
    def attested(self) -> bool:
        """Whether a token, and not a failure status, went upstream."""
        return self.attestation is AttestationStatus.OK and self.stamp in (Stamp.STAMPED, Stamp.CARRIED, Stamp.NATIVE)

    def log_line(self) -> str:
        """The exchange for a log, in one line."""
        attestation = str(self.stamp) if self.attestation is None else f"{self.stamp}:{self.attestation.name}"
        fields = {
            "number": self.number,
            "route": self.route,
            "transport": self.transport,
            "host": self.host,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "attestation": None if self.stamp is Stamp.NOT_SCOPED else attestation.replace(" ", "-"),
            "token_bytes": self.token_bytes,
            "waited_ms": None if self.waited_s is None else round(self.waited_s * 1000),
            "error": self.error,
        }
        return "exchange " + " ".join(
            f"{name}={'-' if value in (None, '') else value}" for name, value in fields.items()
        )
