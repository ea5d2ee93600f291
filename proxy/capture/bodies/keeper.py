"""Keeps what exchanges carry: decoded, without known secrets, bounded. Runs on the thread that writes.

Of exchange NNNN there may be, in the folder of bodies: NNNN.request.* and NNNN.response.* (the decoded bodies),
NNNN.events.jsonl (server-sent events), NNNN.frames.jsonl (messages of a WebSocket) and NNNN.summary.json.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from proxy.capture.bodies.body import Body
from proxy.capture.bodies.output import Output
from proxy.capture.bodies.responses import MOST_PARSED_BYTES, EventSplitter, Responses, event_type, parsed
from proxy.capture.bodies.websocket import WebSocket
from proxy.capture.exchange import Exchange, Phase, Transport
from proxy.capture.folder import RunFolder
from proxy.capture.limits import Limits
from proxy.capture.redact import Redactor

logger = logging.getLogger(__name__)

_MOST_SUMMARY = 4 * 1024 * 1024


class BodyKeeper:
    """Is told of exchanges and of the pieces that they carry, and writes the files.

    Args:
        breathe: Called between two short pieces of work.

    All methods raise OSError: the disk is full, or gone. Whatever else goes wrong costs the one body.
    """

    def __init__(self, folder: RunFolder, redactor: Redactor, limits: Limits, breathe: Callable[[], None]) -> None:
        self._folder = folder
        self._redactor = redactor
        self._limits = limits
        self._breathe = breathe
        self._carried: dict[int, _Carried] = {}

    def changed(self, exchange: Exchange) -> None:
        """One more phase of an exchange."""
        number = exchange.number
        if exchange.phase is Phase.ENDED:
            if (carried := self._carried.pop(number, None)) is not None:
                with _guarded(carried):
                    carried.finish(exchange)
        elif exchange.transport is not Transport.TUNNEL:
            if (carried := self._carried.get(number)) is None:
                carried = _Carried(exchange, self._folder, self._redactor, self._limits, self._breathe)
                self._carried[number] = carried
            with _guarded(carried):
                carried.changed(exchange)

    def piece(self, number: int, from_client: bool, at: float, data: bytes) -> None:
        """Some bytes of one direction, at this Unix time."""
        if (carried := self._carried.get(number)) is not None:
            with _guarded(carried):
                carried.piece(from_client, at, data)

    def miss(self, number: int, from_client: bool) -> None:
        """From here on not all of this direction gets here."""
        if (carried := self._carried.get(number)) is not None:
            carried.miss(from_client)

    def flush(self) -> None:
        """Write what waits, so that it can be read while the exchanges go on."""
        for carried in self._carried.values():
            for output in carried.outputs():
                output.flush()

    def close(self) -> None:
        """The run ends, and with it what is still under way."""
        for carried in self._carried.values():
            with _guarded(carried):
                carried.finish(None)
        self._carried.clear()


@contextlib.contextmanager
def _guarded(carried: "_Carried") -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as exc:
        # A bug in the looking; its text might quote the body.
        logger.error("capture of a body failed number=%d error=%s", carried.number, type(exc).__name__)
        carried.give_up()


class _Carried:
    """What one exchange carries."""

    def __init__(
        self, exchange: Exchange, folder: RunFolder, redactor: Redactor, limits: Limits, breathe: Callable[[], None]
    ) -> None:
        self.number = exchange.number
        self._started_at = exchange.started_at
        self._folder, self._redactor, self._limits, self._breathe = folder, redactor, limits, breathe
        self._stem = f"{exchange.number:04d}"
        self._responses = Responses()
        self._question = bytearray()  # the beginning of the request's text, parsed when it is complete
        self._request = self._body("request", exchange.request_headers, self._asked)
        self._response: Body | None = None
        self._socket: WebSocket | None = None
        self._events: Output | None = None
        self._splitter = EventSplitter()
        self._event_count = 0
        self._answer = bytearray()
        self._at = 0.0  # of the piece under way
        self._is_given_up = False

    def changed(self, exchange: Exchange) -> None:
        """The answer's head is there."""
        if exchange.phase is not Phase.ANSWERED or self._response is not None or self._socket is not None:
            return
        headers = exchange.response_headers
        if exchange.status == 101:
            agreed = ",".join(value for name, value in headers if name.lower() == "sec-websocket-extensions")
            self._socket = WebSocket(
                self._folder, self._stem, agreed, self._started_at, self._limits, self._redactor, self._responses,
                self._breathe,
            )  # fmt: skip
            return
        self._response = self._body("response", headers, self._answered)
        if self._response.media_type == "text/event-stream":
            self._events = Output(self._folder, f"{self._stem}.events.jsonl", self._limits.body_bytes)

    def piece(self, from_client: bool, at: float, data: bytes) -> None:
        self._at = at
        if self._is_given_up:
            return
        if self._socket is not None:
            self._socket.feed(from_client, at, data)
        elif from_client:
            self._request.feed(data)
        elif self._response is not None:
            self._response.feed(data)

    def miss(self, from_client: bool) -> None:
        if self._socket is not None:
            self._socket.miss(from_client)
        elif from_client:
            self._request.miss()
        elif self._response is not None:
            self._response.miss()

    def give_up(self) -> None:
        """Keep nothing more of it."""
        self._is_given_up = True

    def outputs(self) -> Iterator[Output]:
        """All files that are being written."""
        parts = (self._request, self._response, self._socket)
        yield from (part.output for part in parts if part is not None)
        if self._events is not None:
            yield self._events

    def finish(self, exchange: Exchange | None) -> None:
        """Write what is left, and the summary if anything was carried.

        Args:
            exchange: As it ended; None if the run ends before it does.
        """
        if self._is_given_up:
            return
        if self._socket is not None:
            self._socket.finish()
            content = self._socket.as_json()
        else:
            content = self._finished_bodies()
        carried = sum(content[name]["bytes"] or 0 for name in ("request", "response") if content[name] is not None)
        if not carried and not any(output.kept for output in self.outputs()):
            return
        summary = {"number": self.number, **content, "responses": self._responses.as_json()}
        if exchange is None:
            summary["problem"] = "the run ended before it did"
        output = Output(self._folder, f"{self._stem}.summary.json", _MOST_SUMMARY)
        output.write(json.dumps(summary, indent=1).encode() + b"\n")
        output.flush()

    def _finished_bodies(self) -> dict[str, Any]:
        self._request.finish()
        if self._question:
            self._responses.asked_by_body(bytes(self._question))
        if self._response is not None:
            self._response.finish()
        if self._answer:
            self._responses.answered(bytes(self._answer), parsed(bytes(self._answer)))
        content: dict[str, Any] = {
            "request": self._request.as_json(),
            "response": None if self._response is None else self._response.as_json(),
        }
        if self._events is not None:
            self._events.flush()
            content["events"] = {
                "file": self._events.name if self._events.kept else None,
                "kept_bytes": self._events.kept,
                "events": self._event_count,
                "dropped": self._splitter.dropped,
                "problem": self._events.full,
            }
        return content

    def _body(self, side: str, headers: tuple[tuple[str, str], ...], told: Callable[[bytes], None]) -> Body:
        own: dict[str, str] = {}
        for name, value in ((name.lower(), value) for name, value in headers):
            own[name] = f"{own[name]}, {value}" if name in own else value  # as RFC 9110 5.3 joins them
        return Body(
            self._folder, f"{self._stem}.{side}", own, self._limits, self._redactor, told, self._breathe
        )  # fmt: skip

    def _asked(self, text: bytes) -> None:
        # One byte more than is parsed tells that it is too long.
        self._question += text[: MOST_PARSED_BYTES + 1 - len(self._question)]

    def _answered(self, text: bytes) -> None:
        assert self._response is not None
        if self._events is None:
            if self._response.output.name.endswith(".json"):
                self._answer += text[: MOST_PARSED_BYTES + 1 - len(self._answer)]
            return
        for event in self._splitter.feed(text):
            self._event_count += 1
            self._keep_event(self._events, event)
            self._breathe()

    def _keep_event(self, events: Output, event: bytes) -> None:
        content = parsed(event)
        line = f'{{"t":{max(self._at - self._started_at, 0.0):.6f}'.encode()
        if content is not None:
            kind = content.get("type")
            line += b',"type":' + json.dumps(kind if isinstance(kind, str) else None).encode()
            # As it came: a line end in it can only be a blank between two of its tokens.
            line += b',"data":' + event.replace(b"\n", b" ").replace(b"\r", b" ") + b"}\n"
        elif len(event) > MOST_PARSED_BYTES:
            line += b',"type":' + json.dumps(event_type(event)).encode() + b',"bytes":%d}\n' % len(event)
        else:
            line += b',"type":null,"text":' + json.dumps(event.decode("utf-8", "replace")).encode() + b"}\n"
        events.write_line(line)
        self._responses.answered(event, content)
