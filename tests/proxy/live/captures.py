"""Runs that are captured for a test: written by the log that also writes them in production."""

import contextlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.capture.log import CaptureLog
from proxy.capture.observation import Piece
from tests.proxy.live.exchanges import POST, SOCKET, answered, decided

EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1"}},
    {"type": "response.output_text.delta", "delta": "Hel"},
    {"type": "response.output_text.delta", "delta": "lo"},
    {"type": "response.completed", "response": {"id": "resp_1", "usage": {"input_tokens": 7, "output_tokens": 2}}},
]


@contextlib.contextmanager
def captured(base: Path, *, bodies: bool = False) -> Iterator[CaptureLog]:
    """A run that is being captured."""
    log = CaptureLog(base, "run", bodies=bodies)
    log.start()
    try:
        yield log
    finally:
        log.close()


def post_with_events(log: CaptureLog, events: Sequence[Mapping[str, Any]] = EVENTS) -> None:
    """Exchange 1: a POST and its answer."""
    head = replace(POST, request_headers=(("content-type", "application/json"),))
    log.changed(replace(decided(head), request_headers=head.request_headers))
    log.piece(Piece(1, True, b'{"model": "a-model", "input": "hello"}'))
    log.changed(answered(head))
    for event in events:
        log.piece(Piece(1, False, f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()))
    log.changed(head)


def socket_with_turn(log: CaptureLog, number: int = 1) -> None:
    """A WebSocket that carries one question and EVENTS."""
    socket = replace(SOCKET, number=number)
    log.changed(decided(socket))
    log.changed(answered(replace(socket, response_headers=())))
    log.piece(Piece(number, True, _frame(json.dumps({"type": "response.create", "model": "a-model"}), True)))
    for event in EVENTS:
        log.piece(Piece(number, False, _frame(json.dumps(event), False)))
    log.changed(socket)


def _frame(text: str, masked: bool) -> bytes:
    content = text.ljust(130).encode()  # long enough for a length of two bytes
    size = struct.pack("!BBH", 0x81, 0x80 * masked | 126, len(content))
    # Masked with zeros: what a client sends must be masked, and this says nothing.
    return size + (b"\0\0\0\0" if masked else b"") + content
