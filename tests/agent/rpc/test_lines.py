import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rpc.lines import Lines


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ([b"a\n"], ["a"]),
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a\r\n"], ["a\r"]),  # the blank is JSON's to ignore
        ([b"a", b"b", b"\n"], ["ab"]),
        ([b"a\nb", b"c\n"], ["a", "bc"]),
        ([b"\n\n"], ["", ""]),
        ([b"a"], []),
        ([b""], []),
        (["é😀\n".encode()], ["é😀"]),
        (["é".encode()[:1], "é".encode()[1:] + b"\n"], ["é"]),
        (["a\u2028b\x85c\n".encode()], ["a\u2028b\x85c"]),  # no line ends here
    ],
)
def test_a_line_ends_at_its_newline_and_nowhere_else(pieces, texts):
    lines = Lines()
    assert [text for piece in pieces for text in lines.receive(piece)] == texts


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xe2\x82"])
def test_a_line_that_is_not_utf8_is_dropped_and_the_next_one_is_read(bad, caplog):
    """The original dies of it."""
    with caplog.at_level(logging.WARNING):
        assert Lines().receive(b"a\n{" + bad + b"}\nb\n") == ["a", "b"]
    assert "not UTF-8" in caplog.text


def test_a_line_without_end_is_dropped_whole_and_the_next_one_is_read():
    lines = Lines(max_line_bytes=10)
    assert lines.receive(b"x" * 11) == []
    assert lines.receive(b"y" * 1000) == []
    assert lines.receive(b"z\nnext\n") == ["next"]
    assert lines.receive(b"x" * 10) == [] and lines.receive(b"\n") == ["x" * 10]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n"))), st.data())
def test_however_the_bytes_are_cut_the_texts_are_the_same(texts, data):
    stream = "".join(text + "\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    lines, received = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += lines.receive(stream[start:end])
    assert received == texts
