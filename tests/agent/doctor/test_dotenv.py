"""`.env` as the original reads it. The table was compared with codex-cli 0.163; tests/interop compares it again."""

import pytest

from agent.doctor.dotenv import parse_dotenv

# (content, the variables that count)
READ = [
    (b"A=1", {"A": "1"}),
    (b"A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    (b"export A=1\nexport\tB = 2\nexport=3", {"A": "1", "B": "2", "export": "3"}),
    (b"  A = v  ", {"A": "v"}),
    (b"A.b=1\n_C9=2", {"A.b": "1", "_C9": "2"}),
    (b"A=\nB= \nC= # why", {"A": "", "B": "", "C": ""}),
    (b"A='one # two' # three\nB=\"it's\"", {"A": "one # two", "B": "it's"}),
    (b"A=x#y\nB=x #y", {"A": "x#y", "B": "x"}),
    (b'A="two\nlines"\nB=1', {"A": "two\nlines", "B": "1"}),
    (b'A="a\\nb"\nB=\\$x\nC=s\\ ix', {"A": "a\nb", "B": "$x", "C": "s ix"}),
    (b"A=1\nA=2", {"A": "2"}),
    (b"A=1\nB=${A}2\nC=$A-$HOME.", {"A": "1", "B": "12", "C": "1-/root."}),
    (b"A=1\nB='$A'", {"A": "1", "B": "$A"}),
    (b"HOME=/new\nB=${HOME}", {"HOME": "/new", "B": "/new"}),  # what was set is in the environment
    (b"B=${NOWHERE}x", {"B": "x"}),
    (b"# HTTPS_PROXY=x\n\n#\n", {}),
    (b"CODEX_HOME=/x\ncodex_ca_certificate=/y\nA=$CODEX_HOME", {"A": "_HOME"}),  # a bare name ends at "_"
    (b"CODEX_X=/x\nA=${CODEX_X}", {"A": "/x"}),
    (b"A=\xff\nB=1", {"B": "1"}),
    (b"\xef\xbb\xbfA=1\nB=2", {"B": "2"}),  # a byte order mark is no part of a name
    (b"", {}),
]


@pytest.mark.parametrize(("content", "expected"), READ)
def test_what_codex_would_set(content, expected):
    parsed = parse_dotenv(content, {"HOME": "/root"})
    assert {name: one.value for name, one in parsed.last().items()} == expected


# (content, the lines that are passed over)
PASSED_OVER = [
    (b"A", (1,)),
    (b"=1", (1,)),
    (b"9A=1", (1,)),
    (b"very bacon = yes", (1,)),
    (b"A=b c\nB=1", (1,)),
    (b"A=h\\8u", (1,)),
    (b"A=${B", (1,)),
    (b'A="$B"', (1,)),  # a bare name takes the quote behind it with it
    (b"A=1\nB=\xff\xfe", (2,)),
]


@pytest.mark.parametrize(("content", "lines"), PASSED_OVER)
def test_what_codex_passes_over_is_named_by_its_line(content, lines):
    assert parse_dotenv(content, {}).passed_over == lines


def test_lines_that_are_no_text_are_told_apart():
    parsed = parse_dotenv(b"A\nB=\xff\nC=1", {})
    assert (parsed.passed_over, parsed.not_text) == ((1, 2), (2,))


@pytest.mark.parametrize("content", [b"A=1\nB='x\nC=2\n", b'A=1\nB="x\nC=2\n', b"A=1\nB=a  # it's\nC=2\n"])
def test_nothing_is_read_behind_a_quote_that_is_not_closed(content):
    parsed = parse_dotenv(content, {})
    assert list(parsed.last()) == ["A"]
    assert parsed.unclosed == 2


def test_a_variable_is_named_by_the_line_where_it_begins():
    parsed = parse_dotenv(b'# first\n\nA="1\n2\n3"\nB=1\n', {})
    assert [(one.name, one.line) for one in parsed.variables] == [("A", 3), ("B", 6)]


def test_no_value_is_in_a_repr():
    assert "s3cret" not in repr(parse_dotenv(b"HTTPS_PROXY=http://me:s3cret@p:1", {}))
