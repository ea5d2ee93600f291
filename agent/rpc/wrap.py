"""What passes between a desktop and another app-server: all of it, and our questions and their answers. Pure.

Our questions go between two lines of the child; their ids begin with a prefix that is made anew for each run, so that
they can be nobody else's. The desktop's answers to them are taken out of what the child gets. Both streams are looked
at for nothing else, but for what the desktop says of itself at `initialize`.
"""

import enum
import re

from agent.rpc.handshake import Initialize, parse_initialize
from agent.rpc.jsonrpc import ErrorResponse, Event, Request, RequestId, Response, parse
from agent.rpc.serde_text import InvalidParams

Answer = Response | ErrorResponse

# A line is held until its end, which may show that it answers a question of ours, but no longer one than this: no token
# that fits into a header (proxy.attestation.MAX_HEADER_BYTES) makes one, however it is escaped.
MAX_HELD_BYTES = 1024 * 1024
# Tries at `initialize` that are remembered at once.
MOST_TRIES = 100

_LINE_END = b"\n"
# A writer may escape any letter of it.
_INITIALIZE = re.compile(rb"initialize|\\u")


class Handshake:
    """What the desktop said of itself in the `initialize` that the child accepted.

    The child is the judge: what it refused was not said. `accepted` stays None where it took parameters that cannot be
    read here.
    """

    def __init__(self) -> None:
        self.accepted: Initialize | None = None
        self.is_over = False
        self._tries: dict[RequestId, Initialize | None] = {}

    @property
    def is_awaited(self) -> bool:
        """Whether a line of the child may answer a try."""
        return bool(self._tries)

    def may_be_in(self, lines: bytes) -> bool:
        """Whether `asked` should see these lines one by one."""
        return not self.is_over and _INITIALIZE.search(lines) is not None

    def asked(self, line: bytes) -> None:
        """The desktop wrote this line."""
        if not self.may_be_in(line) or len(self._tries) >= MOST_TRIES:
            return
        request = _parsed(line)
        if isinstance(request, Request) and request.method == "initialize":
            # Of two with one id the first is answered first.
            self._tries.setdefault(request.id, _said(request))

    def answered(self, line: bytes) -> None:
        """The child wrote this line."""
        match _parsed(line):
            case Response(id=request_id) if request_id in self._tries:
                self.accepted = self._tries[request_id]
                self.is_over = True
                self._tries.clear()
            case ErrorResponse(id=request_id):
                self._tries.pop(request_id, None)


class _Rest(enum.Enum):
    """What becomes of the rest of the desktop's line."""

    HELD = enum.auto()  # until its end
    PASSED = enum.auto()  # it is too long to be held
    DROPPED = enum.auto()  # too long, and with one of our ids in it


class FromDesktop:
    """The desktop's bytes on their way to the child.

    Args:
        prefix: What the ids of our questions begin with; ASCII that no JSON writer escapes.
    """

    def __init__(self, prefix: str, handshake: Handshake, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._prefix = prefix
        self._mark = prefix.encode("ascii")
        self._handshake = handshake
        self._max = max_held_bytes
        self._held = bytearray()
        self._rest = _Rest.HELD

    def receive(self, content: bytes) -> tuple[bytes, list[Answer]]:
        """(what the child gets, the answers to our questions) of the next bytes."""
        passed, content = self._end_of_long_line(content)
        end = content.rfind(_LINE_END) + 1
        answers: list[Answer] = []
        if end:
            complete = bytes(self._held) + content[:end]
            self._held.clear()
            lines, answers = self._sorted(complete)
            passed += lines
        self._held += content[end:]
        if len(self._held) > self._max:
            self._rest = _Rest.DROPPED if self._mark in self._held else _Rest.PASSED
            if self._rest is _Rest.PASSED:
                passed += bytes(self._held)
            self._held.clear()
        return passed, answers

    def end(self) -> bytes:
        """What the child gets of a last line without its end, once the desktop has closed its end."""
        held = bytes(self._held)
        self._held.clear()
        return b"" if self._is_for_us(held) else held

    def _end_of_long_line(self, content: bytes) -> tuple[bytes, bytes]:
        """(what the child gets of a line that was too long to be held, what follows it)."""
        if self._rest is _Rest.HELD:
            return b"", content
        end = content.find(_LINE_END) + 1 or len(content)
        head, content = content[:end], content[end:]
        passed = head if self._rest is _Rest.PASSED else b""
        if head.endswith(_LINE_END):
            self._rest = _Rest.HELD
        return passed, content

    def _sorted(self, complete: bytes) -> tuple[bytes, list[Answer]]:
        """Complete lines: those for the child, and the answers among the others."""
        if self._mark not in complete and not self._handshake.may_be_in(complete):
            return complete, []
        passed, answers = [], []
        for piece in complete.split(_LINE_END)[:-1]:
            line = piece + _LINE_END
            self._handshake.asked(line)
            if not self._is_for_us(line):
                passed.append(line)
            elif isinstance(answer := _parsed(line), Answer):
                answers.append(answer)
        return b"".join(passed), answers

    def _is_for_us(self, line: bytes) -> bool:
        """Whether this answers a question of ours, rightly or not.

        A request that quotes one of our ids is the child's, and so is an answer to the child. What is no message at all
        can only be a broken answer; the child, which would drop it too, might put the token in it into its log.
        """
        if self._mark not in line:
            return False
        message = _parsed(line)
        if isinstance(message, Answer):
            return isinstance(message.id, str) and message.id.startswith(self._prefix)
        return message is None


class ToDesktop:
    """What waits to be written to the desktop: the child's bytes, and lines of ours between its lines."""

    def __init__(self, handshake: Handshake, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._handshake = handshake
        self._max = max_held_bytes
        self._waiting = bytearray()
        self._seen = bytearray()  # of the child's line, while a try waits for its answer
        self._is_seen_whole = True
        self.at_line_start = True

    def __len__(self) -> int:
        return len(self._waiting)

    def extend(self, content: bytes) -> None:
        """The child wrote this."""
        if self._handshake.is_awaited:
            self._look_at(content)
        else:  # what answers a try begins after it
            self._seen.clear()
            self._is_seen_whole = content.endswith(_LINE_END)
        self._waiting += content

    def put_first(self, lines: bytes) -> None:
        """Put complete lines of ours before all that waits; only where the desktop is at the start of a line."""
        assert self.at_line_start, "the desktop has read a part of a line"
        self._waiting[:0] = lines

    def first(self, count: int, *, of_line: bool) -> bytes:
        """The first bytes, at most `count`, and with `of_line` none behind the end of the first line."""
        content = bytes(self._waiting[:count])
        return content[: content.find(_LINE_END) + 1 or count] if of_line else content

    def written(self, count: int) -> None:
        """The first `count` bytes, at least one, are the desktop's now."""
        self.at_line_start = self._waiting[count - 1 : count] == _LINE_END
        del self._waiting[:count]

    def clear(self) -> None:
        """Nobody reads any more."""
        self._waiting.clear()

    def _look_at(self, content: bytes) -> None:
        *ended, rest = content.split(_LINE_END)
        for piece in ended:
            if self._is_seen_whole and len(self._seen) + len(piece) <= self._max:
                self._handshake.answered(bytes(self._seen) + piece)
            self._seen.clear()
            self._is_seen_whole = True
        self._is_seen_whole = self._is_seen_whole and len(self._seen) + len(rest) <= self._max
        if self._is_seen_whole:
            self._seen += rest
        else:
            self._seen.clear()


def _said(request: Request) -> Initialize | None:
    try:
        return parse_initialize(request.params)
    except InvalidParams:
        return None


def _parsed(line: bytes) -> Event | None:
    try:
        return parse(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None
