"""Server-sent events, cut wherever a network may cut them (WHATWG HTML 9.2.6)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.failures import StreamBroken
from agent.model.sse import SseDecoder

# What the recorded backend sent for one answer, with everything in it that the format allows.
RECORDED = (
    "\ufeff: a comment\n"
    "event: response.created\n"
    'data: {"type":"response.created"}\n'
    "\n"
    "id: 7\r\n"
    'data: {"delta":"häßlich 😀"}\r\n'
    "\r\n"
    "data:no blank\r"
    "data:  two blanks\r"
    "data\r"
    "\r"
    ": another comment\r\n"
    "retry: 10\n"
    "\n"
    "datas: not data\n"
    "data: last\n"
    "\n"
    "data: never ended"
).encode()
EVENTS = ['{"type":"response.created"}', '{"delta":"häßlich 😀"}', "no blank\n two blanks\n", "last"]


def decoded(*chunks):
    decoder = SseDecoder()
    return [text for chunk in chunks for text in decoder.feed(chunk)]


@pytest.mark.parametrize("offset", range(len(RECORDED) + 1))
def test_the_events_are_the_same_wherever_the_bytes_are_cut(offset):
    assert decoded(RECORDED[:offset], RECORDED[offset:]) == EVENTS


def test_the_events_are_the_same_byte_by_byte():
    assert decoded(*(bytes([byte]) for byte in RECORDED)) == EVENTS


@given(st.lists(st.integers(0, len(RECORDED)), max_size=12))
def test_the_events_are_the_same_in_any_pieces(offsets):
    edges = [0, *sorted(offsets), len(RECORDED)]

    assert decoded(*(RECORDED[a:b] for a, b in zip(edges, edges[1:], strict=False))) == EVENTS


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=4))
def test_any_lines_of_data_come_back_as_they_were(lines):
    body = "".join(f"data: {line}\n" for line in lines) + "\n"

    assert decoded(body.encode()) == (["\n".join(lines)] if lines else [])


def test_an_event_is_given_as_soon_as_its_blank_line_has_come():
    decoder = SseDecoder()

    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\n") == ["x"]


def test_a_carriage_return_at_the_end_of_a_chunk_ends_the_line_at_once():
    """Waiting for a line feed that may never come would hold back the last event of a stream."""
    assert decoded(b"data: x\r\r") == ["x"]


def test_a_line_feed_in_the_next_chunk_belongs_to_the_carriage_return():
    assert decoded(b"data: x\r", b"\ndata: y\r", b"\n\r", b"\n") == ["x\ny"]


def test_a_byte_order_mark_is_dropped_only_at_the_start():
    assert decoded(b"\xef\xbb\xbfdata: \xef\xbb\xbfx\n\n") == ["\ufeffx"]


def test_bytes_that_are_no_text_do_not_stop_the_stream():
    assert decoded(b"data: \xff\n\ndata: y\n\n") == ["\ufffd", "y"]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"data: " + b"x" * 95], id="a line that never ends"),
        pytest.param([b"data: xxxx\n"] * 20, id="an event that never ends"),
        pytest.param([b": xxxx\n"] * 20, id="comments that never end"),
    ],
)
def test_an_event_that_is_too_large_breaks_the_stream(chunks):
    decoder = SseDecoder(max_event_bytes=100)

    with pytest.raises(StreamBroken, match="larger than 100 bytes"):
        for chunk in chunks:
            decoder.feed(chunk)


def test_many_small_events_are_not_one_large_one():
    assert len(decoded(*([b"data: xxxx\n\n"] * 50))) == 50
    decoder = SseDecoder(max_event_bytes=100)

    assert sum(len(decoder.feed(b"data: xxxx\n\n" * 5)) for _ in range(50)) == 250


def test_json_of_an_event_may_be_spread_over_lines():
    (text,) = decoded(b'data: {"a":\ndata: 1}\n\n')

    assert json.loads(text) == {"a": 1}
