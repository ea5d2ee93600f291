"""What a token looks like: types, names, lengths and digests, and nothing of what it says. Pure.

By contract a token is opaque behind its "v1.", so that whatever is read here is a guess, and called one. Nothing in it
is trusted: it is never decompressed, CBOR's tags are never acted upon, and how deep and how much is read has limits.
"""

import base64
import enum
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2

# As long as the longest header that we send (proxy/attestation.py).
MAX_TOKEN_CHARACTERS = 64 * 1024
MAX_DEPTH = 32
MAX_FIELDS = 200

# Of a shorter text the digest would tell what it is to whoever tries the likely ones.
MIN_DIGEST_BYTES = 16
DIGEST_CHARACTERS = 12


class Format(enum.StrEnum):
    """What a token may be, in the order in which it is tried."""

    JSON = "base64url of JSON"
    CBOR = "base64url of CBOR"
    RAW = "base64 of other bytes"


@dataclass(frozen=True, slots=True)
class Field:
    """One value inside a token. `length` counts members, characters or bytes, as `type` tells.

    `path` leads to it from ".", the whole; it holds `<...>` where a name looks more like a value than like a name.
    """

    path: str
    type: str
    length: int | None = None
    sha256: str | None = None
    looks_like: str | None = None


@dataclass(frozen=True, slots=True)
class Guess:
    """One format. Where it fits, `content` is what was decoded, else `why_not` says what spoke against it."""

    format: Format
    why_not: str | None = None
    content: Any = field(default=None, repr=False)
    fields: tuple[Field, ...] = ()
    # More fields than `fields` holds.
    is_cut: bool = False

    @property
    def fits(self) -> bool:
        return self.why_not is None


@dataclass(frozen=True, slots=True)
class TokenShape:
    """The outside of a token, and the guesses at its inside."""

    length: int
    sha256: str | None
    # Such as "v1", without its dot; None where there is none.
    version: str | None
    guesses: tuple[Guess, ...]

    @property
    def best(self) -> Guess | None:
        """The first guess that fits."""
        return next((guess for guess in self.guesses if guess.fits), None)


def token_shape(token: str) -> TokenShape:
    """Look at a token. Never raises: what cannot be read is a guess that does not fit."""
    version, payload = split_version(token)
    raw = None if len(token) > MAX_TOKEN_CHARACTERS else from_base64(payload)
    if raw is None:
        too_long = f"it is longer than {MAX_TOKEN_CHARACTERS} characters, and was not looked into"
        why_not = too_long if len(token) > MAX_TOKEN_CHARACTERS else "it is not base64"
        guesses = tuple(Guess(format_, why_not) for format_ in Format)
    else:
        guesses = tuple(_guess(format_, raw) for format_ in Format)
    return TokenShape(len(token), _digest(token.encode("utf-8", "surrogatepass")), version, guesses)


def split_version(token: str) -> tuple[str | None, str]:
    """("v1", the rest) of "v1.rest"; (None, token) where there is no such beginning."""
    match = re.match(r"(v[0-9]{1,3})\.", token)
    return (match[1], token[match.end() :]) if match else (None, token)


def from_base64(text: str) -> bytes | None:
    """The bytes of one line of base64 in either alphabet, padded rightly or not at all; None if it is none."""
    body = text.rstrip("=")
    padding = len(text) - len(body)
    if not re.fullmatch(r"[A-Za-z0-9+/]+|[A-Za-z0-9_-]+", body) or len(body) % 4 == 1:
        return None
    if padding and (padding > 2 or len(text) % 4):
        return None
    return base64.b64decode(body.translate(_TO_STANDARD) + "=" * (-len(body) % 4))


_TO_STANDARD = str.maketrans("-_", "+/")


class FieldMissing(LookupError):
    """A path leads nowhere; the text says where it ends, and quotes neither path nor content."""


def field_at(content: Any, path: str) -> Any:
    """What lies at a dotted path such as "device.token" or "items.0"; "." is all of it.

    Raises:
        FieldMissing: Nothing lies there.
    """
    steps = [] if path == "." else path.split(".")
    for number, step in enumerate(steps, 1):
        content = _untagged(content)
        inside = {_step(name): value for name, value in _members(content)}
        if step not in inside:
            found = _type(content)
            raise FieldMissing(f"part {number} of {len(steps)} of the path is not there, in a value of type {found!r}")
        content = inside[step]
    return _untagged(content)


# The three formats


class _Misfit(Exception):
    """The bytes are not of this format; the text says why."""


def _guess(format_: Format, raw: bytes) -> Guess:
    try:
        content = _READERS[format_](raw)
    except _Misfit as exc:
        return Guess(format_, str(exc))
    fields: list[Field] = []
    for one in _fields(content):
        if len(fields) == MAX_FIELDS:
            return Guess(format_, None, content, tuple(fields), is_cut=True)
        fields.append(one)
    return Guess(format_, None, content, tuple(fields))


def _json(raw: bytes) -> Any:
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_twins)
    except RecursionError as exc:
        raise _Misfit(_TOO_DEEP) from exc
    except ValueError as exc:  # also UnicodeDecodeError, and a number of more digits than int() takes
        raise _Misfit("it is no JSON text, or one that names a member twice") from exc
    return _structure(content)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a member is there twice")
    return content


@dataclass(frozen=True, slots=True)
class Tagged:
    """A CBOR tag that was not acted upon, and what it is on."""

    number: int
    content: Any


class _InertTags(Mapping[int, Callable[[Any, bool], Any]]):
    """For every tag: keep its number and do nothing.

    cbor2 would compile regular expressions, parse e-mails and compute powers, and a shared reference can make a
    structure that has no end.
    """

    def __getitem__(self, number: int) -> Callable[[Any, bool], Any]:
        return lambda content, immutable: Tagged(number, content)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1  # an empty one would count as none


def _cbor(raw: bytes) -> Any:
    stream = io.BytesIO(raw)
    try:
        decoder = cbor2.CBORDecoder(
            stream, semantic_decoders=_InertTags(), max_depth=MAX_DEPTH, allow_duplicate_keys=False
        )
        content = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as exc:
        raise _Misfit("it is no CBOR, or nested too deep, or names a member twice") from exc
    if stream.tell() != len(raw):
        raise _Misfit("bytes are left over behind what could be CBOR")
    return _structure(content)


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


def _structure(content: Any) -> Any:
    """It, if it has members: almost any bytes begin with something that is one number in CBOR."""
    if not isinstance(_untagged(content), dict | list | tuple):
        raise _Misfit("it would be one single value, which may be chance")
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        level = [value for one in level for _, value in _members(_untagged(one))]
        if not level:
            return content
    raise _Misfit(_TOO_DEEP)


_READERS: dict[Format, Callable[[bytes], Any]] = {Format.JSON: _json, Format.CBOR: _cbor, Format.RAW: lambda raw: raw}


# What is told of a value


def _fields(content: Any) -> Iterator[Field]:
    """Each value inside, parents before children."""
    waiting = [(".", content)]
    while waiting:
        path, value = waiting.pop()
        yield _field(path, value)
        parent = "" if path == "." else f"{path}."
        inside = [(f"{parent}{_shown(name)}", child) for name, child in _members(_untagged(value))]
        waiting += reversed(inside)


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    # A map that is itself a key comes as a `frozendict`; nobody looks into a key.
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _untagged(value: Any) -> Any:
    while isinstance(value, Tagged):
        value = value.content
    return value


def _step(name: Any) -> str | None:
    return name if isinstance(name, str) else str(name) if type(name) is int else None


def _shown(name: Any) -> str:
    """A member's name, unless it may be an identifier or a secret that is used as one."""
    text = _step(name)
    if text is None:
        return f"<{_type(name)}>"
    if type(name) is int:
        return text if len(text) <= 6 else "<integer>"
    is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,31}", text) and sum(map(str.isdigit, text)) < 4
    return text if is_name else f"<{len(text)} characters>"


def _field(path: str, value: Any) -> Field:
    inner = _untagged(value)
    if isinstance(inner, str):
        content = inner.encode("utf-8", "surrogatepass")
        return Field(path, _type(value), len(inner), _digest(content), _text_looks_like(inner))
    if isinstance(inner, bytes):
        return Field(path, _type(value), len(inner), _digest(inner), _bytes_look_like(inner))
    length = len(inner) if isinstance(inner, dict | list | tuple) else None
    return Field(path, _type(value), length)


def _type(value: Any) -> str:
    if isinstance(value, Tagged):
        return f"tag {value.number} of {_type(_untagged(value))}"
    if value is cbor2.undefined:
        return "undefined"
    return _TYPES.get(type(value), "other")


_TYPES = {
    dict: "object", list: "array", tuple: "array", str: "string", bytes: "bytes", bool: "boolean", int: "integer",
    float: "number", type(None): "null",
}  # fmt: skip


def _digest(content: bytes) -> str | None:
    """The beginning of its SHA-256, to compare two of them by."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARACTERS] if len(content) >= MIN_DIGEST_BYTES else None


def _text_looks_like(text: str) -> str | None:
    if len(text) < MIN_DIGEST_BYTES:
        return None
    for pattern, name in _TEXTS:
        if re.fullmatch(pattern, text):
            return name
    raw = from_base64(text)
    if raw is None:
        return None
    alphabet = "base64url" if re.search("[-_]", text) else "base64"
    inside = _bytes_look_like(raw)
    return f"{alphabet} of {len(raw)} bytes" + (f", {inside}" if inside else "")


_TEXTS = (
    (r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "UUID"),
    (r"([0-9A-Fa-f]{2}){8,}", "hexadecimal"),
    (r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", "JWT"),
)


def _bytes_look_like(content: bytes) -> str | None:
    return next((name for beginning, name in _BEGINNINGS if content.startswith(beginning)), None)


_BEGINNINGS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x78\x9c", "zlib"),
    (b"bplist", "binary property list"),
    (b"\x30\x82", "DER"),
    (b'{"', "JSON"),
)
