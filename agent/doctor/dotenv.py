"""`$CODEX_HOME/.env` as the original reads it. Pure.

The original (codex-rs, arg0) sets each variable of this file that does not begin with CODEX_, over whatever its
environment had, and passes over what it cannot parse without a word. Which lines those are was observed with codex-cli
0.163, by `codex sandbox -- env`; an interop test compares the two.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# The original does not let the file set these, in any case.
IGNORED_PREFIX = "CODEX_"


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable that the file sets, or would set.

    Args:
        line: Where it begins, from 1.
        value: With quotes and escapes resolved. Never to be shown.
    """

    line: int
    name: str
    value: str = field(repr=False)

    @property
    def is_ignored(self) -> bool:
        """The original leaves it alone."""
        return self.name.upper().startswith(IGNORED_PREFIX)


@dataclass(frozen=True, slots=True)
class Dotenv:
    """What is in the file.

    Args:
        variables: In order; of several of one name the last counts.
        passed_over: The numbers of lines that the original skips without a word.
        not_text: Those among them that are no UTF-8.
        unclosed: Where a quote was opened that is never closed: nothing from there on is read. None if there is none.
    """

    variables: tuple[Variable, ...]
    passed_over: tuple[int, ...] = ()
    not_text: tuple[int, ...] = ()
    unclosed: int | None = None

    def last(self) -> dict[str, Variable]:
        """name -> the variable that counts, without those that the original ignores."""
        return {one.name: one for one in self.variables if not one.is_ignored}


def parse_dotenv(content: bytes, environ: Mapping[str, str]) -> Dotenv:
    """Read the file.

    Args:
        environ: What `$NAME` may stand for, besides what the file has set before.
    """
    variables: list[Variable] = []
    passed_over: list[int] = []
    not_text: list[int] = []
    unclosed: int | None = None
    known = dict(environ)
    ignored: dict[str, str] = {}
    for number, logical in _logical_lines(content):
        if logical is None:
            not_text.append(number)
            passed_over.append(number)
            continue
        if isinstance(logical, _Unclosed):
            unclosed = number
            passed_over.append(number)
            break
        try:
            pair = _pair(logical, {**ignored, **known})
        except _NotUnderstood:
            passed_over.append(number)
            continue
        if pair is None:
            continue
        variable = Variable(number, *pair)
        variables.append(variable)
        (ignored if variable.is_ignored else known)[variable.name] = variable.value
    return Dotenv(tuple(variables), tuple(passed_over), tuple(not_text), unclosed)


class _NotUnderstood(Exception):
    """A line that the original passes over."""


class _Unclosed:
    """A quote that is open at the end of the file."""


class _Reading(enum.Enum):
    """Where the search for the end of a logical line is; a blank before "#" makes it a comment."""

    PLAIN = enum.auto()
    BLANK = enum.auto()
    ESCAPED = enum.auto()
    SINGLE = enum.auto()
    SINGLE_ESCAPED = enum.auto()
    DOUBLE = enum.auto()
    DOUBLE_ESCAPED = enum.auto()


def _logical_lines(content: bytes) -> Iterator[tuple[int, str | _Unclosed | None]]:
    """(number of its first line, text) of each logical line: an open quote goes on over line ends. None: no UTF-8."""
    kept: list[str] = []
    first, reading = 1, _Reading.PLAIN
    for number, raw in enumerate(_lines(content), 1):
        if not kept:
            first = number
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            # What was open before is dropped with it.
            yield number, None
            kept, reading = [], _Reading.PLAIN
            continue
        if "".join((*kept, text)).lstrip().startswith("#"):
            kept, reading = [], _Reading.PLAIN
            continue
        reading, comment_at = _scan(text, reading)
        if comment_at is not None:
            kept.append(text[:comment_at])
        else:
            kept.append(text)
            if reading is not _Reading.PLAIN:
                continue
        yield first, _without_line_end("".join(kept)) if comment_at is None else "".join(kept)
        kept, reading = [], _Reading.PLAIN
    if kept:
        yield first, _Unclosed()


def _lines(content: bytes) -> list[bytes]:
    """Lines end at LF only; a CR by itself is part of one."""
    parts = content.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return lines + ([parts[-1]] if parts[-1] else [])


def _without_line_end(text: str) -> str:
    if not text.endswith("\n"):
        return text
    return text[:-1].removesuffix("\r")


def _scan(text: str, reading: _Reading) -> tuple[_Reading, int | None]:
    """The state after this physical line, and where a comment begins in it."""
    for at, char in enumerate(text):
        if reading is _Reading.BLANK and char == "#":
            return _Reading.PLAIN, at
        reading = _next(reading, char)
    return reading, None


def _next(reading: _Reading, char: str) -> _Reading:
    match reading:
        case _Reading.PLAIN | _Reading.BLANK:
            opened = {"\\": _Reading.ESCAPED, '"': _Reading.DOUBLE, "'": _Reading.SINGLE}.get(char, _Reading.PLAIN)
            # Only the first of several blanks: behind two of them a "#" is no comment.
            if reading is _Reading.PLAIN and char.isspace() and char not in "\r\n":
                return _Reading.BLANK
            return opened
        case _Reading.ESCAPED:
            return _Reading.PLAIN
        case _Reading.SINGLE:
            return {"\\": _Reading.SINGLE_ESCAPED, "'": _Reading.PLAIN}.get(char, _Reading.SINGLE)
        case _Reading.SINGLE_ESCAPED:
            return _Reading.SINGLE
        case _Reading.DOUBLE:
            return {"\\": _Reading.DOUBLE_ESCAPED, '"': _Reading.PLAIN}.get(char, _Reading.DOUBLE)
        case _Reading.DOUBLE_ESCAPED:
            return _Reading.DOUBLE


def _pair(line: str, known: Mapping[str, str]) -> tuple[str, str] | None:
    """(name, value) of a logical line; None if it is blank. Raises _NotUnderstood."""
    rest = line.lstrip()
    if not rest or rest.startswith("#"):
        return None
    name, rest = _name(rest)
    rest = rest.lstrip()
    if name == "export" and not rest.startswith("="):
        name, rest = _name(rest)
        rest = rest.lstrip()
    if not rest.startswith("="):
        raise _NotUnderstood
    rest = rest[1:].lstrip()
    if not rest or rest.startswith("#"):
        return name, ""
    return name, _value(rest.rstrip(), known)


def _name(text: str) -> tuple[str, str]:
    """The name that `text` begins with, and what is behind it. Raises _NotUnderstood."""
    end = 0
    while end < len(text) and text[end].isascii() and (text[end].isalnum() or text[end] in "_."):
        end += 1
    if end == 0 or not (text[0].isalpha() or text[0] == "_"):
        raise _NotUnderstood
    return text[:end], text[end:]


def _value(text: str, known: Mapping[str, str]) -> str:
    """A value with its quotes, escapes and `$NAME`s resolved. Raises _NotUnderstood."""
    output: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if quote == "'":
            if char == quote:
                quote = ""
            else:
                output.append(char)
        elif char == "$":
            name, at = _substituted(text, at + 1)
            output.append(known.get(name, ""))
            if text[at - 1] != "}" and text[at : at + 1] not in ("", "$"):
                # Whatever ends a bare name stands for itself, also a quote, a blank or a backslash.
                output.append(text[at])
                at += 1
            continue
        elif char == "\\":
            at += 1
            if at < len(text):
                output.append(_escaped(text[at]))
        elif char == '"':
            quote = "" if quote else char
        elif char == "'" and not quote:
            quote = char
        elif char in " \t" and not quote:
            # Behind a blank there may be more blanks and a comment, and nothing else.
            behind = text[at:].lstrip(" \t")
            if behind and not behind.startswith("#"):
                raise _NotUnderstood
            break
        else:
            output.append(char)
        at += 1
    if quote:
        raise _NotUnderstood
    return "".join(output)


def _substituted(text: str, at: int) -> tuple[str, int]:
    """The name behind a "$", and where it ends. Raises _NotUnderstood."""
    if text[at : at + 1] == "{":
        end = text.find("}", at)
        if end < 0:
            raise _NotUnderstood
        return text[at + 1 : end], end + 1
    end = at
    while end < len(text) and text[end].isalnum():
        end += 1
    return text[at:end], end


def _escaped(char: str) -> str:
    if char == "n":
        return "\n"
    if char in "\\'\"$ ":
        return char
    raise _NotUnderstood
