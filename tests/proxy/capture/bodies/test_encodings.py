"""Content encodings, undone piece by piece, whole, broken and as bombs."""

import gzip
import zlib

import brotli
import pytest
import zstandard

from proxy.capture.bodies.encodings import CHUNK_BYTES, Decoder, Undecodable

MIB = 1024 * 1024
TEXT = b"".join(b'{"number": %d, "text": "some words"}\n' % number for number in range(20_000))


def raw_deflate(data):
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


def in_frames(data):
    """Two zstd frames, one behind the other."""
    compressor = zstandard.ZstdCompressor()
    return compressor.compress(data[:1000]) + compressor.compress(data[1000:])


ENCODED = {
    "zstd": zstandard.ZstdCompressor().compress,
    "ZSTD ": in_frames,
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "deflate": zlib.compress,
    "deflate ": raw_deflate,
    "br": lambda data: brotli.compress(data, quality=4),
    "gzip, zstd": lambda data: zstandard.ZstdCompressor().compress(gzip.compress(data)),
    "": bytes,
    "identity": bytes,
}


def decoded(coding, data, step, ratio=250):
    decoder = Decoder(coding, ratio)
    made = b"".join(piece for at in range(0, len(data), step) for piece in decoder.feed(data[at : at + step]))
    decoder.finish()
    return made


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
@pytest.mark.parametrize("coding", ENCODED)
def test_a_body_is_decoded_however_it_is_split(coding, step):
    text = TEXT[:20_000] if step == 1 else TEXT
    assert decoded(coding, ENCODED[coding](text), step) == text


@pytest.mark.parametrize("coding", [name for name in ENCODED if name not in ("", "identity")])
def test_a_body_that_is_cut_off_gives_what_is_there_and_says_so(coding):
    decoder, made = Decoder(coding), b""
    for piece in decoder.feed(ENCODED[coding](TEXT)[:-9]):
        made += piece
    assert TEXT.startswith(made)
    with pytest.raises(Undecodable, match="cut off in the middle"):
        decoder.finish()


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate", "br"])
def test_what_is_of_no_such_coding_is_told(coding):
    with pytest.raises(Undecodable, match="broken"):
        decoded(coding, b"\x00\x01garbage" * 100, 10**9)


def test_a_coding_that_nobody_knows_is_told_without_repeating_it():
    with pytest.raises(Undecodable, match="no content encoding compress is known"):
        Decoder("compress")
    with pytest.raises(Undecodable, match="no content encoding of that name"):
        Decoder("\x1b[31m canary")
    with pytest.raises(Undecodable, match="4 content encodings"):
        Decoder("gzip, gzip, gzip, gzip")


BOMBS = {
    "zstd": zstandard.ZstdCompressor(level=3).compress(bytes(32 * MIB)),
    "gzip": gzip.compress(bytes(32 * MIB)),
    "deflate": zlib.compress(bytes(32 * MIB)),
    "br": brotli.compress(bytes(32 * MIB), quality=5),
    "gzip, zstd": zstandard.ZstdCompressor().compress(gzip.compress(bytes(32 * MIB))),
}


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_is_given_up_early_and_never_in_memory(coding):
    decoder, sizes = Decoder(coding), []
    with pytest.raises(Undecodable, match="as bombs do"):
        for piece in decoder.feed(BOMBS[coding]):
            sizes.append(len(piece))
    assert sum(sizes) < 32 * MIB and max(sizes, default=0) <= 4 * MIB


def test_the_same_is_no_bomb_where_so_much_is_allowed():
    assert decoded("gzip", BOMBS["gzip"], 10**9, ratio=10**6) == bytes(32 * MIB)


def test_what_comes_out_at_once_is_little(coding="gzip"):
    assert max(len(piece) for piece in Decoder(coding, 10**6).feed(BOMBS[coding])) <= CHUNK_BYTES


@pytest.mark.parametrize("coding", ["deflate", "deflate ", "gzip", "br", "zstd"])
def test_a_body_whose_end_falls_on_a_chunk_is_whole(coding):
    """zlib may hold the end of a long repetition when all input is taken."""
    for size in range(CHUNK_BYTES - 3, CHUNK_BYTES + 300):
        assert len(decoded(coding, ENCODED[coding](b"x" * size), 10**9)) == size


def test_a_zstd_frame_that_wants_a_large_window_is_refused():
    """RFC 9659. A header of 18 bytes would make this process reserve 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=False)
    large = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(Undecodable, match="too large a window"):
        decoded("zstd", large.compress(TEXT) + large.flush(), 10**9)


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate"])
def test_others_come_to_their_turn_in_a_body_of_many_empty_parts(coding):
    """Nothing came out of them, so that a quarter of a second went by in one go for each 64 KiB."""
    part = ENCODED[coding](b"")
    assert sum(1 for _ in Decoder(coding).feed(part * 1000)) >= 1000 * len(part) / 128
    assert b"".join(Decoder(coding).feed(part * 1000)) == b""
