"""What was kept of the bodies of an exchange, read back. Files may be missing, half-written or of anybody: all of it
is checked, and nothing outside the folder of bodies is read."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proxy.capture.folder import BODIES_DIRECTORY
from proxy.capture.store import CaptureError, Run

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_SUMMARY = 4 * 1024 * 1024
_NAME = re.compile(r"[0-9]{4,}\.[a-z.]{1,30}")


@dataclass(frozen=True, slots=True)
class Part:
    """One direction.

    Args:
        size: In bytes, as it travelled; None if not all of it was seen.
        sha256: Of the raw bytes, in hexadecimal.
        secrets: How many were taken out.
        problem: Why less is kept than went by.
        file: Its decoded text in the folder of bodies; None where there is none, and for a WebSocket.
    """

    size: int | None
    sha256: str | None
    secrets: int
    problem: str | None
    media_type: str | None
    file: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What an exchange carried.

    Args:
        responses: Of each model response: model, response_id, previous_response_id, status and usage.
        problem: Of the whole, None if there is none.
    """

    request: Part | None
    response: Part | None
    responses: tuple[dict[str, Any], ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, or one message of a WebSocket.

    Args:
        t: Seconds from the request head.
        kind: The type of the event, or of the JSON in a text message; else "text", "binary", "ping", "pong", "close".
        size: In bytes, decoded.
        text: Its content; None of what has none or is too large.
        is_message: Of a WebSocket.
        opcode: Of a message: "text", "binary", ...; "" of an event.
    """

    t: float
    from_client: bool
    kind: str
    size: int
    text: str | None
    is_message: bool
    opcode: str = ""
    is_cut: bool = False


def read_summary(run: Run, number: int) -> Summary | None:
    """None if nothing of its bodies was kept, or not yet.

    Raises:
        CaptureError: It cannot be read.
    """
    text = _text(run, f"{number:04d}.summary.json", _MOST_SUMMARY)
    if text is None:
        return None
    try:
        content = json.loads(text)
        responses = tuple(dict(one) for one in content["responses"])
        problem = content.get("problem")
        return Summary(_part(content["request"]), _part(content["response"]), responses, _told(problem))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CaptureError(f"the summary of {number} in {run.id} is damaged") from None


def read_text(run: Run, number: int, part: Part, most_bytes: int) -> bytes | None:
    """The decoded body of one direction, its first `most_bytes`; None where none was kept. Raises CaptureError."""
    if part.file is None or not part.file.startswith(f"{number:04d}."):
        return None
    return _text(run, part.file, most_bytes)


def read_events(run: Run, number: int) -> Iterator[Event]:
    """The events of an answer, or the messages of a WebSocket, as far as they are written; damaged lines are left out.

    Raises:
        CaptureError: They cannot be read.
    """
    for suffix, read in (("events.jsonl", _event), ("frames.jsonl", _message)):
        for line in _lines(run, f"{number:04d}.{suffix}"):
            try:
                yield read(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue


def _event(content: dict[str, Any]) -> Event:
    data, text = content.get("data"), content.get("text")
    if data is not None:
        text = json.dumps(data, ensure_ascii=False)
    size = content.get("bytes")
    if not isinstance(size, int):
        size = len(str(text or "").encode("utf-8", "replace"))
    return Event(float(content["t"]), False, str(content.get("type") or "text"), size, _told(text), False)


def _message(content: dict[str, Any]) -> Event:
    text, opcode = content.get("text"), str(content["opcode"])
    kind = opcode
    if opcode == "text" and isinstance(text, str):
        found = _TYPE.search(text, 0, 4096)
        kind = opcode if found is None else found[1]
    from_client = content["from"] == "client"
    is_cut = content.get("cut") is True
    return Event(
        float(content["t"]), from_client, kind, int(content["bytes"]), _told(text), True, opcode, is_cut
    )  # fmt: skip


_TYPE = re.compile(r'"type"\s*:\s*"([A-Za-z0-9_.-]{1,100})"')


def _part(content: Any) -> Part | None:
    if content is None:
        return None
    size, file = content["bytes"], _told(content.get("file"))
    return Part(
        size=None if size is None else int(size),
        sha256=_told(content["sha256"]),
        secrets=int(content["secrets"]),
        problem=_told(content["problem"]),
        media_type=_told(content.get("media_type")),
        file=file if file is not None and _NAME.fullmatch(file) else None,
    )


def _told(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _open(run: Run, name: str) -> int | None:
    path = run.path / BODIES_DIRECTORY / name
    try:
        return os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CaptureError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc


def _text(run: Run, name: str, most_bytes: int) -> bytes | None:
    descriptor = _open(run, name)
    if descriptor is None:
        return None
    with open(descriptor, "rb") as file:
        return file.read(most_bytes)


def _lines(run: Run, name: str) -> Iterator[bytes]:
    descriptor = _open(run, name)
    if descriptor is None:
        return
    with open(descriptor, "rb") as file:
        yield from file
