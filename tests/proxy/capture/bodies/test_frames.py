"""WebSocket messages from raw bytes: whole, split, compressed, cut, broken and as bombs."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from proxy.capture.bodies.encodings import CHUNK_BYTES, Undecodable
from proxy.capture.bodies.frames import FrameReader, Negotiated

MIB = 1024 * 1024
PLAIN, DEFLATE = Negotiated(), Negotiated.parse("permessage-deflate; server_max_window_bits=12")
NO_TAKEOVER = Negotiated.parse(
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover; client_max_window_bits=15"
)


def peer(is_client, negotiated):
    """Who sends: wsproto itself."""
    extensions = []
    if negotiated.deflate:
        own = PerMessageDeflate(
            negotiated.client_no_context_takeover, None, negotiated.server_no_context_takeover, None
        )
        own.finalize("permessage-deflate")
        extensions = [own]
    return FrameProtocol(is_client, extensions)


def read(data, *, from_client=True, negotiated=PLAIN, step=10**9, most_bytes=MIB):
    reader = FrameReader(from_client, negotiated, most_bytes)
    messages = [one for at in range(0, len(data), step) for one in reader.feed(data[at : at + step])]
    return [(one.opcode, one.content, one.size) for one in messages], reader.is_whole


def test_what_was_agreed_on_is_read_from_the_header():
    assert (PLAIN.deflate, DEFLATE.deflate, DEFLATE.client_no_context_takeover) == (False, True, False)
    assert NO_TAKEOVER.client_no_context_takeover and NO_TAKEOVER.server_no_context_takeover
    assert Negotiated.parse("") == PLAIN
    with pytest.raises(Undecodable, match="an extension that is not known here"):
        Negotiated.parse("permessage-deflate, x-canary")


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("negotiated", [PLAIN, DEFLATE, NO_TAKEOVER], ids=["plain", "deflate", "no takeover"])
@pytest.mark.parametrize("from_client", [True, False])
def test_messages_are_read_however_they_are_split(from_client, negotiated, step):
    sender = peer(from_client, negotiated)
    data = sender.send_data("the same words again and again " * 20)
    data += sender.send_data("the same words ", fin=False) + sender.ping(b"in between") + sender.send_data("é")
    data += sender.send_data("the same words again and again " * 20)
    data += sender.send_data(bytes(range(256))) + sender.send_data("") + sender.close(1001, "bye")
    again = b"the same words again and again " * 20
    assert read(bytes(data), from_client=from_client, negotiated=negotiated, step=step) == (
        [
            ("text", again, len(again)),
            ("ping", b"in between", 10),
            ("text", "the same words é".encode(), 17),
            ("text", again, len(again)),
            ("binary", bytes(range(256)), 256),
            ("text", b"", 0),
            ("close", b"\x03\xe9bye", 5),
        ],
        True,
    )


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50), st.booleans())
def test_any_messages_are_read_however_they_are_split(contents, step, compressed):
    negotiated = DEFLATE if compressed else PLAIN
    sender = peer(False, negotiated)
    data = b"".join(bytes(sender.send_data(content)) for content in contents)
    messages, is_whole = read(data, from_client=False, negotiated=negotiated, step=step)
    assert [content for _, content, _ in messages] == contents and is_whole


@pytest.mark.parametrize("negotiated", [PLAIN, DEFLATE], ids=["plain", "deflate"])
def test_of_a_long_message_only_the_beginning_is_kept_and_the_next_is_whole(negotiated):
    sender = peer(True, negotiated)
    data = bytes(sender.send_data("0123456789" * 100_000) + sender.send_data("next 0123456789"))
    messages, _ = read(data, negotiated=negotiated, step=10_000, most_bytes=1000)
    assert messages == [("text", b"0123456789" * 100, 1_000_000), ("text", b"next 0123456789", 15)]


@pytest.mark.parametrize("step", [1000, 10**9])
def test_a_bomb_is_given_up_and_never_in_memory(step):
    sender = peer(True, DEFLATE)
    data = bytes(sender.send_data(bytes(65 * MIB)))
    assert len(data) < 100_000
    with pytest.raises(Undecodable, match="as bombs do"):
        read(data, negotiated=DEFLATE, step=step, most_bytes=1000)


def test_of_a_message_whose_end_falls_on_a_chunk_nothing_is_left_for_the_next():
    for size in range(CHUNK_BYTES - 3, CHUNK_BYTES + 300):
        sender = peer(False, DEFLATE)
        data = bytes(sender.send_data(b"x" * size) + sender.send_data(b"next"))
        messages, _ = read(data, from_client=False, negotiated=DEFLATE)
        assert [len(content) for _, content, _ in messages] == [size, 4], size


def test_a_message_that_is_cut_off_is_none_and_the_reader_is_not_whole():
    data = bytes(peer(True, PLAIN).send_data("words"))
    for end in range(1, len(data)):
        assert read(data[:end]) == ([], False)


@pytest.mark.parametrize(
    ("data", "negotiated", "reason"),
    [
        (b"\x83\x80garbage", PLAIN, "no sequence of WebSocket frames"),
        (b"\xf1\x80abcd", PLAIN, "no sequence of WebSocket frames"),
        (b"\x81\x05words", PLAIN, "no sequence of WebSocket frames"),
        (b"\x80\x80abcd", PLAIN, "goes on that has not begun"),
        (b"\x01\x80abcd\x01\x80abcd", PLAIN, "begins in the middle of another"),
        (b"\xc1\x84\0\0\0\0\xff\xff\xff\xff", DEFLATE, "cannot be inflated"),
        (b"\xc9\x80abcd", DEFLATE, "no sequence of WebSocket frames"),
        (b"HTTP/1.1 200 OK\r\n\r\n", PLAIN, "no sequence of WebSocket frames"),
    ],
    ids=["opcode", "reserved bits", "unmasked", "continuation", "two at once", "not deflate", "ping", "http"],
)
def test_garbage_is_told(data, negotiated, reason):
    with pytest.raises(Undecodable, match=reason):
        read(data, negotiated=negotiated)


def test_a_deflate_stream_that_ends_is_followed_by_a_new_one():
    """RFC 7692 7.2.3.5 allows a block that says that it is the last."""
    made = zlib.compressobj(wbits=-15)
    content = made.compress(b"first") + made.flush()
    frame = bytes([0xC1, len(content)]) + content
    messages, _ = read(frame + frame, from_client=False, negotiated=DEFLATE)
    assert [content for _, content, _ in messages] == [b"first", b"first"]
