"""What is in the bodies of model requests: events, and of each response its model, chain and token usage. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any

# A larger event or request is not parsed: the parser holds up the whole process meanwhile, 5 ms for so much.
MOST_PARSED_BYTES = 512 * 1024
_MOST_EVENT_BYTES = 4 * 1024 * 1024
_MOST_RESPONSES = 1000
_MOST_TEXT = 200

_TYPE = re.compile(rb'"type"\s*:\s*"([A-Za-z0-9_.-]{1,100})"')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,100})"')
_PREVIOUS = re.compile(rb'"previous_response_id"\s*:\s*"([^"\\]{1,200})"')
_HEAD_BYTES = 4096


class EventSplitter:
    """The data of server-sent events (WHATWG HTML 9.2.6): bytes in, split anywhere, data out."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self.dropped = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that `chunk` completes; one that is too long is counted in `dropped`."""
        first, *others = chunk.split(b"\n")
        if len(self._line) < _MOST_EVENT_BYTES:
            self._line += first
        if not others:
            return
        lines = [bytes(self._line), *others[:-1]]
        self._line = bytearray(others[-1])
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                if self._size >= _MOST_EVENT_BYTES:
                    self.dropped += 1
                elif self._data:
                    yield b"\n".join(self._data)
                self._data, self._size = [], 0
            elif line.startswith(b"data:"):
                self._size += len(line)
                if self._size < _MOST_EVENT_BYTES:
                    self._data.append(line[5:].removeprefix(b" "))


def event_type(text: bytes) -> str | None:
    """The type of an event that is not parsed, None if it has none in front."""
    found = _TYPE.search(text, 0, _HEAD_BYTES)
    return None if found is None else found[1].decode()


def parsed(text: bytes) -> dict[str, Any] | None:
    """The JSON object; None if it is none, or too large to be parsed here."""
    if len(text) > MOST_PARSED_BYTES:
        return None
    try:
        content = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refused)  # NaN and the like, which other readers refuse


class Responses:
    """The responses of an exchange, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._known: list[dict[str, Any]] = []
        self.forgotten = 0

    def asked(self, text: bytes) -> None:
        """A message of the client. What is no `response.create` does not count."""
        question = _question(text)
        if question is not None:
            self._add(*question)

    def asked_by_body(self, text: bytes) -> None:
        """The body of a request, which is known when its answer is: it belongs to the first response."""
        question = _question(text)
        if question is None:
            return
        model, previous = question
        first = self._known[0] if self._known else self._add(None, None)
        first["model"] = first["model"] or model
        first["previous_response_id"] = first["previous_response_id"] or previous

    def answered(self, text: bytes, content: dict[str, Any] | None) -> None:
        """An event of the server, or the body of its answer.

        Args:
            content: The same parsed; None if it could not be.
        """
        kind = event_type(text) if content is None else content.get("type")
        if content is None:
            if isinstance(kind, str) and kind in _LAST:
                self._ended({"usage": _usage_in(text)}, kind)
            return
        response = content.get("response") if isinstance(kind, str) else content
        if not isinstance(response, dict):
            return
        if kind == "response.created":
            self._current(unnamed=True)["response_id"] = _short(response.get("id"))
        elif kind in _LAST:
            self._ended(response, str(kind))
        elif kind is None and isinstance(response.get("usage"), dict):
            self._ended(response, "response.completed")

    def as_json(self) -> list[dict[str, Any]]:
        """One object for each: model, response_id, previous_response_id, status and usage, null where unknown."""
        return self._known

    def _ended(self, response: dict[str, Any], kind: str) -> None:
        current = self._current(unnamed=False)
        for name, member in (("response_id", "id"), ("model", "model")):
            current[name] = current[name] or _short(response.get(member))
        current["previous_response_id"] = current["previous_response_id"] or _short(
            response.get("previous_response_id")
        )
        current["status"] = kind.removeprefix("response.")
        current["usage"] = _numbers(response.get("usage"))

    def _add(self, model: str | None, previous: str | None) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "model": model,
            "response_id": None,
            "previous_response_id": previous,
            "status": None,
            "usage": None,
        }
        if len(self._known) < _MOST_RESPONSES:
            self._known.append(entry)
        else:
            self.forgotten += 1
        return entry

    def _current(self, unnamed: bool) -> dict[str, Any]:
        """The first that is still to be named, or to be ended. An answer without a question gets an entry too."""
        for entry in self._known:
            if entry["status"] is None and not (unnamed and entry["response_id"]):
                return entry
        return self._add(None, None)


def _question(text: bytes) -> tuple[str, str | None] | None:
    """(model, previous response id) of a model request, None if it is none."""
    content = parsed(text)
    if content is not None:
        model = _short(content.get("model"))
        if content.get("type", "response.create") != "response.create" or model is None:
            return None
        return model, _short(content.get("previous_response_id"))
    if len(text) <= MOST_PARSED_BYTES:
        return None
    named, previous = _MODEL.search(text, 0, _HEAD_BYTES), _PREVIOUS.search(text, 0, _HEAD_BYTES)
    if named is None:
        return None
    return named[1].decode(errors="replace"), None if previous is None else previous[1].decode(errors="replace")


_LAST = frozenset({"response.completed", "response.done", "response.failed", "response.incomplete"})


def _short(value: Any) -> str | None:
    return value[:_MOST_TEXT] if isinstance(value, str) else None


def _numbers(usage: Any, depth: int = 0) -> dict[str, Any] | None:
    """The numbers of a usage object, nested as they are."""
    if not isinstance(usage, dict):
        return None
    found: dict[str, Any] = {}
    for name, value in list(usage.items())[:32]:
        if type(value) is int:
            found[str(name)[:_MOST_TEXT]] = value
        elif isinstance(value, dict) and depth < 2:
            found[str(name)[:_MOST_TEXT]] = _numbers(value, depth + 1)
    return found


def _usage_in(text: bytes) -> dict[str, Any] | None:
    """Of an event that is too large to be parsed; it has its usage near its end."""
    start = text.rfind(b'"usage"')
    if start < 0:
        return None
    tail = text[start + len(b'"usage"') : start + _HEAD_BYTES].decode(errors="replace").lstrip(" \t\r\n:")
    try:
        content, _ = _DECODER.raw_decode(tail)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
