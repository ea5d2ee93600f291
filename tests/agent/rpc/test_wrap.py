import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rpc.handshake import Capabilities, ClientInfo, Initialize
from agent.rpc.jsonrpc import ErrorResponse, Response
from agent.rpc.wrap import MOST_TRIES, FromDesktop, Handshake, ToDesktop

PREFIX = "countersign-0123456789abcdef-"
OURS = PREFIX + "7"


def line(**message):
    return json.dumps(message).encode() + b"\n"


def initialize(request_id=1, **capabilities):
    return line(
        id=request_id,
        method="initialize",
        params={"clientInfo": {"name": "desktop", "version": "1"}, "capabilities": capabilities},
    )


def over():
    """A handshake after which nothing but answers is looked for."""
    handshake = Handshake()
    handshake.asked(initialize(requestAttestation=True))
    handshake.answered(line(id=1, result={}))
    assert handshake.is_over
    return handshake


def from_desktop(handshake=None, **more):
    return FromDesktop(PREFIX, handshake or Handshake(), **more)


def through(tap, stream, cuts=()):
    """(what the child gets, our answers) of the whole stream, which comes in pieces."""
    passed, answers = b"", []
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        content, found = tap.receive(stream[start:end])
        passed += content
        answers += found
    return passed + tap.end(), answers


# From the desktop to the child

STRANGE = [
    b'{"id":1,"method":"x"}\r\n',
    b"\n",
    b"\r\n",
    b"  \t \n",
    b"{not json\n",
    b"\xff\xfe\x00\n",
    b"Content-Length: 12\r\n\r\n{}",
    b"[]\n[1,2]\n",
    b'{"id":1,"result":{"token":"the child\'s own"}}\n',
    b"no newline at the end",
    b'{"id":"countersign","result":{}}\n',
    "é😀\u2028\x85\n".encode(),
    b"x" * 5000 + b"\n" + b"y" * 5000,
    b"\x00" * 100,
]


@pytest.mark.parametrize("is_over", [False, True], ids=["before the handshake", "after it"])
@pytest.mark.parametrize("stream", STRANGE)
def test_whatever_the_desktop_writes_reaches_the_child_as_it_is_at_every_cut(stream, is_over):
    for cut in range(min(len(stream), 300)):
        tap = from_desktop(over() if is_over else None, max_held_bytes=1000)
        assert through(tap, stream, [cut]) == (stream, [])


@given(st.lists(st.sampled_from([*STRANGE, initialize(), line(id=2, result={})])), st.binary(), st.data())
def test_any_stream_in_any_pieces_is_passed_unchanged(pieces, tail, data):
    stream = b"".join(pieces) + tail
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    handshake = data.draw(st.sampled_from([Handshake, over]))()
    assert through(from_desktop(handshake, max_held_bytes=64), stream, cuts) == (stream, [])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(STRANGE[:4] + STRANGE[8:9]))), st.data())
def test_answers_to_us_are_taken_out_and_the_rest_is_as_if_they_had_never_been_there(lines, data):
    answer = line(id=OURS, result={"token": "t"})
    stream = b"".join(answer if ours else theirs for ours, theirs in lines)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    passed, answers = through(from_desktop(over()), stream, cuts)
    assert passed == b"".join(theirs for ours, theirs in lines if not ours)
    assert answers == [Response(OURS, {"token": "t"})] * sum(ours for ours, _ in lines)


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (line(id=OURS, result={"token": "t"}), Response(OURS, {"token": "t"})),
        (line(result={"token": "t"}, id=OURS, jsonrpc="2.0"), Response(OURS, {"token": "t"})),
        (b"  " + line(id=OURS, result=None).replace(b"\n", b"\r\n"), Response(OURS, None)),
        (line(id=OURS, error={"code": -1, "message": "no"}), ErrorResponse(OURS, -1, "no")),
        (line(id=PREFIX + "never asked", result=1), Response(PREFIX + "never asked", 1)),
    ],
)
def test_an_answer_to_us_is_ours_alone(answer, event):
    assert through(from_desktop(over()), b"\n" + answer + b"after\n") == (b"\nafter\n", [event])


@pytest.mark.parametrize(
    "broken",
    [
        line(id=OURS),
        line(id=OURS, error="no"),
        line(id=OURS, error={"code": "x"}),
        b'[{"id":"%s","result":{"token":"secret"}}]\n' % OURS.encode(),
        b'{"id":"%s","result":{"token":"secret"}\n' % OURS.encode(),
        b'{"id":"%s","result":{"token":"\xff"}}\n' % OURS.encode(),
        b'{"id":"%s","result":NaN}\n' % OURS.encode(),
        b'{"id":"%s","result":%s}\n' % (OURS.encode(), b"[" * 100_000),
        b'{"id":"%s","result":{"token":"secret"}}' % OURS.encode(),  # and no end of the line
    ],
    ids=["neither", "text", "code", "batch", "cut", "utf8", "nan", "deep", "unended"],
)
def test_a_broken_answer_to_us_reaches_nobody(broken):
    """The child would drop it too, but might put it into its log, with the token."""
    for cut in (0, 10, len(broken) - 1, len(broken)):
        tap = from_desktop(over())
        passed, answers = through(tap, b"before\n" + broken, [7 + cut])
        assert passed == b"before\n" and all(isinstance(one, ErrorResponse) for one in answers)
        if broken.endswith(b"\n"):
            assert tap.receive(b"after\n") == (b"after\n", [])


def test_an_answer_to_us_that_is_longer_than_any_token_reaches_nobody():
    tap = from_desktop(over(), max_held_bytes=100)
    stream = b"before\n" + line(id=OURS, result={"token": "x" * 300}) + b"after\n"
    assert through(tap, stream, range(20, len(stream), 20)) == (b"before\nafter\n", [])


@pytest.mark.parametrize(
    "theirs",
    [
        line(id=5, method="feedback/upload", params={"log": f"asked {OURS}"}),
        line(method="note", params=OURS),
        line(id=5, result=f"about {OURS}"),
        line(id="x" + OURS, result={}),
        line(id=OURS, method="attestation/generate", params={}),
        line(id=5, error={"code": 1, "message": OURS}),
    ],
)
def test_a_message_to_the_child_that_quotes_an_id_of_ours_is_the_childs(theirs):
    assert through(from_desktop(over()), theirs) == (theirs, [])


def test_a_line_is_held_until_its_end_but_one_that_is_too_long_streams():
    tap = from_desktop(over(), max_held_bytes=100)
    assert tap.receive(b"x" * 100) == (b"", [])
    assert tap.receive(b"x") == (b"x" * 101, [])
    assert tap.receive(b"y" * 1000) == (b"y" * 1000, [])
    assert tap.receive(b"z\nnext") == (b"z\n", [])
    assert tap.receive(b"\n") == (b"next\n", [])


def test_an_id_of_ours_behind_what_is_held_of_a_long_line_is_too_late():
    """It has gone out already; the child drops an answer to what it did not ask."""
    stream = b'{"result":"%s","id":"%s"}\n' % (b"x" * 300, OURS.encode())
    assert through(from_desktop(over(), max_held_bytes=100), stream, [200]) == (stream, [])


# From the child to the desktop


def drained(waiting, count=3, of_line=False):
    written = b""
    while len(waiting):
        first = waiting.first(count, of_line=of_line)
        waiting.written(len(first))
        written += first
    return written


@given(st.lists(st.one_of(st.binary(), st.sampled_from(STRANGE))), st.integers(1, 50), st.booleans())
def test_whatever_the_child_writes_reaches_the_desktop_as_it_is(pieces, count, of_line):
    waiting = ToDesktop(Handshake(), max_held_bytes=64)
    for piece in pieces:
        waiting.extend(piece)
    assert drained(waiting, count, of_line) == b"".join(pieces)


@given(st.lists(st.sampled_from([b"", b"\n", b"ab", b"abc\n", b"a\nb\n\nc"])), st.integers(1, 9))
def test_a_line_of_ours_comes_only_where_a_line_starts(pieces, count):
    """Put in wherever it may be; taken out again the child's bytes are what they were."""
    waiting, written, ours = ToDesktop(Handshake()), b"", b"OURS\n"
    for piece in [*pieces, b"end\n"]:
        waiting.extend(piece)
        while len(waiting):
            asks = waiting.at_line_start and not waiting.first(5, of_line=False).startswith(ours)
            if asks and written.count(ours) < 20:
                waiting.put_first(ours)
            first = waiting.first(count, of_line=True)
            waiting.written(len(first))
            written += first
            if written.endswith(ours) and len(waiting):
                rest = waiting.first(1, of_line=True)  # something of the child's between two of ours
                waiting.written(len(rest))
                written += rest
    assert b"".join(part for part in written.splitlines(keepends=True) if part != ours) == b"".join([*pieces, b"end\n"])


def test_in_the_middle_of_a_line_of_the_child_there_is_no_place_for_ours():
    waiting = ToDesktop(Handshake())
    assert waiting.at_line_start
    waiting.extend(b"abc")
    waiting.written(2)
    assert not waiting.at_line_start
    with pytest.raises(AssertionError, match="a part of a line"):
        waiting.put_first(b"ours\n")
    waiting.extend(b"d\nnext\n")
    assert waiting.first(100, of_line=True) == b"cd\n"
    waiting.written(3)
    waiting.put_first(b"ours\n")
    assert waiting.first(100, of_line=False) == b"ours\nnext\n"


# What the desktop said of itself


def declared(*capabilities, attests=False):
    return Initialize(ClientInfo("desktop", "1"), Capabilities(request_attestation=attests))


def exchanged(*lines):
    """The handshake after these lines: those that start with ">" are the child's, and come in pieces of 3 bytes."""
    handshake = Handshake()
    desktop, child = FromDesktop(PREFIX, handshake), ToDesktop(handshake, max_held_bytes=1000)
    for content in lines:
        side = child.extend if content.startswith(b">") else desktop.receive
        content = content.removeprefix(b">")
        for start in range(0, len(content), 3):
            side(content[start : start + 3])
    return handshake


ACCEPTED = b">" + line(id=1, result={"userAgent": "x"})
REFUSED = b">" + line(id=1, error={"code": -32600, "message": "no"})


@pytest.mark.parametrize("attests", [True, False])
def test_what_the_child_accepted_counts(attests):
    handshake = exchanged(initialize(requestAttestation=attests), ACCEPTED)
    assert handshake.is_over and handshake.accepted == declared(attests=attests)


def test_a_method_whose_name_is_escaped_is_the_same_method():
    """codex takes it, and was then sent on unattested."""
    escaped = initialize(requestAttestation=True).replace(b'"initialize"', rb'"initi\u0061lize"')
    assert exchanged(escaped, ACCEPTED).accepted == declared(attests=True)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [initialize(requestAttestation=True)],
        [initialize(requestAttestation=True), REFUSED],
        [initialize(requestAttestation=True), b">" + line(id="1", result={})],
        [initialize(requestAttestation=True), b">" + line(id=2, result={})],
        [initialize(requestAttestation=True), b">" + line(method="initialize", id=1, params={})],
        [initialize(requestAttestation=True), ACCEPTED.replace(b"\n", b"")],
        [b">" + initialize(requestAttestation=True), ACCEPTED],
        [ACCEPTED, initialize(requestAttestation=True)],
        [initialize(requestAttestation=True).replace(b"\n", b"")],
        [b"x" + initialize(requestAttestation=True), ACCEPTED],
        [b'{"method":"initialize","params":{"capabilities":{"requestAttestation":true}}}\n', ACCEPTED],
        [line(id=1, method="initialized", params={"capabilities": {"requestAttestation": True}}), ACCEPTED],
    ],
)
def test_without_an_accepted_initialize_nothing_was_said(lines):
    handshake = exchanged(*lines)
    assert handshake.accepted is None and not handshake.is_over


@pytest.mark.parametrize(
    "capabilities", [{"requestAttestation": "yes"}, {"requestAttestation": 1}, {"experimentalApi": 3}]
)
def test_what_a_lenient_child_accepts_and_we_cannot_read_is_no_capability(capabilities):
    handshake = exchanged(initialize(**capabilities), ACCEPTED)
    assert handshake.is_over and handshake.accepted is None


def test_a_refused_initialize_does_not_lend_its_capability_to_the_next_one():
    handshake = exchanged(initialize(requestAttestation=True), REFUSED, initialize(), ACCEPTED)
    assert handshake.accepted == declared(attests=False)


def test_of_two_initialize_with_one_id_the_first_is_the_one_that_is_answered():
    handshake = exchanged(initialize(), initialize(requestAttestation=True), ACCEPTED, ACCEPTED)
    assert handshake.accepted == declared(attests=False)


def test_after_the_first_that_was_accepted_no_other_counts():
    handshake = exchanged(initialize(), ACCEPTED, initialize(2, requestAttestation=True), b">" + line(id=2, result={}))
    assert handshake.accepted == declared(attests=False)


def test_a_long_line_of_the_child_before_its_answer_is_not_kept_and_does_not_hide_it():
    noise = b">" + b"x" * 5000
    handshake = exchanged(initialize(requestAttestation=True), noise, noise, b">\n", ACCEPTED)
    assert handshake.accepted == declared(attests=True)


@pytest.mark.parametrize(("number", "known"), [(MOST_TRIES, True), (MOST_TRIES + 1, False)])
def test_tries_that_nobody_answers_are_not_kept_without_end(number, known):
    tries = [initialize(each, requestAttestation=True) for each in range(1, MOST_TRIES + 50)]
    handshake = exchanged(*tries, b">" + line(id=number, result={}))
    assert (handshake.accepted is not None) is known
