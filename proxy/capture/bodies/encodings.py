"""Undoes a Content-Encoding piece by piece. A small input that becomes a large output is given up early."""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import zstandard

# What comes out at once at most, whatever goes in.
CHUNK_BYTES = 128 * 1024

# Beyond the first MiB: prompts and event streams become ten to fifty times as large, bombs a thousand times and more.
_MOST_RATIO = 250
_RATIO_FROM_BYTES = 1024 * 1024

# RFC 9659: nobody may send "zstd" with a larger window, and nobody need keep one.
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
# A block of zstd takes four bytes at least and is 128 KiB at most: of so much input at once no more than 4 MiB come.
_ZSTD_STEP_BYTES = 128

_MOST_CODINGS = 3


class Undecodable(Exception):
    """The rest cannot be decoded; the text says why, in words without anything of the body."""


class _Coding(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out. Raises Undecodable."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether it could end here."""
        ...


class Decoder:
    """Undoes all codings of a body.

    Args:
        content_encoding: The value of the header; "" for none.
        ratio: How many times as large as its input the output may be, beyond its first MiB.

    Raises:
        Undecodable: One of them is not known here.
    """

    def __init__(self, content_encoding: str, ratio: int = _MOST_RATIO) -> None:
        names = [name.strip().lower() for name in content_encoding.split(",")]
        names = [name for name in names if name not in ("", "identity")]
        if len(names) > _MOST_CODINGS:
            raise Undecodable(f"it has {len(names)} content encodings one in the other")
        self.is_plain = not names
        self._codings = [_coding(name) for name in reversed(names)]
        self._ratio = ratio
        self._in = self._out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes become, in chunks; an empty one where a long time may have gone by without any.

        Raises:
            Undecodable: They are broken, or become too much.
        """
        self._in += len(data)
        pieces: Iterator[bytes] = iter((data,))
        for coding in self._codings:
            pieces = _through(coding, pieces)
        if self.is_plain:
            return pieces
        return self._watched(pieces)

    def finish(self) -> None:
        """Nothing more comes. Raises Undecodable if something was to come."""
        if self._in and not all(coding.is_whole for coding in self._codings):
            raise Undecodable("it is cut off in the middle")

    def _watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._out += len(piece)
            if self._out > _RATIO_FROM_BYTES and self._out > self._ratio * self._in:
                raise Undecodable(f"it becomes more than {self._ratio} times as large, as bombs do")
            yield piece


def _through(coding: _Coding, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if piece:
            yield from coding.feed(piece)
        else:
            yield piece


class _Zlib:
    """gzip, with any number of members, and deflate in both of its meanings."""

    def __init__(self, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._inflate: zlib._Decompress | None = None

    @property
    def is_whole(self) -> bool:
        return self._inflate is None or self._inflate.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate is None or self._inflate.eof:
                self._inflate = zlib.decompressobj(self._window(data[0]))
            try:
                made = self._inflate.decompress(data, CHUNK_BYTES)
            except zlib.error:
                raise Undecodable("it is no gzip or deflate stream, or a broken one") from None
            yield made
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if not data and len(made) == CHUNK_BYTES:
                yield from self._rest()

    def _rest(self) -> Iterator[bytes]:
        """The window of zlib may hold more than it gave while there was input."""
        assert self._inflate is not None
        while made := self._inflate.decompress(b"", CHUNK_BYTES):
            yield made

    def _window(self, first: int) -> int:
        if self._is_gzip:
            return 16 + zlib.MAX_WBITS
        # The name means a zlib stream (RFC 9110), and some send a bare one: they differ in the lower half of a byte.
        return zlib.MAX_WBITS if first & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS


class _Zstd:
    """zstd, with any number of frames."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdDecompressionObj | None = None

    @property
    def is_whole(self) -> bool:
        return self._frame is None or bool(self._frame.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        rest = memoryview(data)
        while rest:
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
            step = rest[:_ZSTD_STEP_BYTES]
            try:
                made = self._frame.decompress(step)
            except zstandard.ZstdError:
                raise Undecodable("it is no zstd stream, or a broken one, or one with too large a window") from None
            yield made
            used = len(step) - (len(self._frame.unused_data) if self._frame.eof else 0)
            rest = rest[used:]


class _Brotli:
    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # in mitmproxy's closure

        self._stream = brotli.Decompressor()
        if not hasattr(self._stream, "can_accept_more_data"):  # before 1.2 nothing bounds its output
            raise Undecodable("br needs a newer brotli than the one that is installed")
        self._error: type[Exception] = brotli.error

    @property
    def is_whole(self) -> bool:
        return bool(self._stream.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                made: bytes = self._stream.process(data, output_buffer_limit=CHUNK_BYTES)
            except self._error:
                raise Undecodable("it is no br stream, or a broken one") from None
            if not made:  # `can_accept_more_data` alone does not tell that something is left (brotli 1.2)
                return
            yield made
            data = b""


_CODINGS: dict[str, Callable[[], _Coding]] = {
    "zstd": _Zstd,
    "gzip": lambda: _Zlib(is_gzip=True),
    "x-gzip": lambda: _Zlib(is_gzip=True),
    "deflate": lambda: _Zlib(is_gzip=False),
    "br": _Brotli,
}


def _coding(name: str) -> _Coding:
    make = _CODINGS.get(name)
    if make is None:
        known = name if name.isascii() and name.isalnum() and len(name) < 20 else "of that name"
        raise Undecodable(f"no content encoding {known} is known here")
    return make()
