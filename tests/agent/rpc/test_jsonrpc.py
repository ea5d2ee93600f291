"""Framing of messages as observed of the original (facts/protocol.md 1 and 2)."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rpc.jsonrpc import (
    MISSING,
    ErrorResponse,
    Notification,
    Peer,
    Request,
    Response,
    encode,
    fail,
    notify,
    parse,
    reply,
)


@pytest.fixture
def peer():
    return Peer(itertools.count())


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('{"id":1,"method":"m","params":{}}', Request(1, "m", {})),
        ('{"id":"string-id","method":"m"}', Request("string-id", "m", MISSING)),
        ('{"id":-7,"method":"m","params":null}', Request(-7, "m", None)),
        ('{"id":"","method":"m","params":[]}', Request("", "m", [])),
        ('{"jsonrpc":"2.0","id":92,"method":"m","params":{}}', Request(92, "m", {})),
        ('{"jsonrpc":"1.0","id":93,"method":"m","params":{},"extra":1,"trace":null}', Request(93, "m", {})),
        ('{"jsonrpc":5,"id":0,"method":"m"}', Request(0, "m", MISSING)),
        ('{"id":9223372036854775807,"method":"m"}', Request(2**63 - 1, "m", MISSING)),
        ('{"method":"m","params":{"a":1}}', Notification("m", {"a": 1})),
        ('{"method":"m"}', Notification("m", MISSING)),
        ('{"id":777,"result":{}}', Response(777, {})),
        ('{"id":777,"result":null}', Response(777, None)),
        ('{"id":"a","result":["x"]}', Response("a", ["x"])),
        ('{"id":778,"error":{"code":1,"message":"x"}}', ErrorResponse(778, 1, "x")),
        ('{"id":778,"error":{"code":-32000,"message":"","data":{"a":1}}}', ErrorResponse(778, -32000, "")),
        ('  {"id":96,"method":"m","params":{}}  ', Request(96, "m", {})),
        ('{"id":95,"method":"m"}\r', Request(95, "m", MISSING)),
        ('\t{"id":1,"method":"caf\\u00e9 \\ud83d\\ude00"}', Request(1, "café 😀", MISSING)),
        ('{"id":1,"method":"m","params":{"t":"\\"\\\\\\n"}}', Request(1, "m", {"t": '"\\\n'})),
    ],
)
def test_a_message_is_understood(text, event):
    assert parse(text) == event


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "",
        " ",
        "[]",
        "null",
        "5",
        "true",
        '"str"',
        '[{"id":90,"method":"model/list","params":{}}]',
        '{"id":91}',
        "{}",
        '{"id":1.5,"method":"m","params":{}}',
        '{"id":1.0,"method":"m"}',
        '{"id":true,"method":"m"}',
        '{"id":[1],"method":"m"}',
        '{"id":{},"method":"m"}',
        '{"id":9223372036854775808,"method":"m"}',
        '{"id":1,"method":5}',
        '{"id":1,"method":null}',
        '{"id":1,"method":5,"result":{}}',
        '{"id":null,"result":{}}',
        '{"result":{}}',
        '{"id":true,"result":{}}',
        '{"id":1.0,"result":{}}',
        "Content-Length: 44",
        '{"id":1,"method":"m"}{"id":2,"method":"m"}',
        '{"id":1,"method":"m"}\n{"id":2,"method":"m"}',
        '{"id":1,"method":"m","params":NaN}',
        '{"id":1,"method":"m","params":[Infinity]}',
        '{"id":1,"method":"m","params":-Infinity}',
        "{'id':1,'method':'m'}",
        '{"id":1,"method":"m",}',
        '{"id":01,"method":"m"}',
        '{"id":1,"method":"a\x00b"}',
        '{"id":1,"method":"\\ud800"}',
        '{"id":1,"method":"m","params":{"\\uDC00":1}}',
        '{"id":1,"method":"m","params":"\\ude00\\ud83d"}',
        '{"id":"\\ud800","result":{}}',
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"id":' + "9" * 5000 + ',"method":"m"}',
        "\ufeff{}",
    ],
)
def test_whatever_is_no_message_is_dropped(peer, text):
    assert parse(text) is None
    assert peer.receive(text) is None and peer.dropped == 1


@pytest.mark.parametrize(
    "error", [{}, {"code": "1", "message": "x"}, {"code": True, "message": "x"}, {"code": 1}, "nonsense", None, []]
)
def test_an_error_that_is_none_is_an_answer_all_the_same(peer, error):
    """It was dropped, and a turn whose approval was answered so waited for ever."""
    request_id, _ = peer.request("m", {})
    answer = peer.receive(json.dumps({"id": request_id, "error": error}))
    assert answer == ErrorResponse(request_id, -32600, "an error that is no object with `code` and `message`")


def test_a_null_id_makes_no_request_that_would_be_answered():
    assert parse('{"id":null,"method":"model/list","params":{}}') == Notification("model/list", {})


def test_a_message_after_dropped_ones_is_understood(peer):
    for text in ("{not json", "", "[]"):
        peer.receive(text)
    assert peer.receive('{"id":1,"method":"m"}') == Request(1, "m", MISSING)
    assert peer.dropped == 3


@given(text=st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner)).map(json.dumps))
def test_receiving_never_raises(text):
    Peer(itertools.count()).receive(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner)
    ),
    max_leaves=8,
)


@given(value=json_values)
def test_what_one_peer_asks_and_another_answers_arrives_unchanged(value):
    """Two peers back to back, each with ids of its own that happen to be the same."""
    ours, theirs = Peer(itertools.count()), Peer(itertools.count())
    theirs.request("their/own", {})
    request_id, asked = ours.request("m", {"value": value})
    assert "\n" not in asked
    request = theirs.receive(asked)
    assert request == Request(request_id, "m", {"value": value})
    assert ours.receive(reply(request.id, value)) == Response(request_id, value)
    assert ours.receive(reply(request.id, value)) is None and ours.late == 1


def test_an_answer_counts_once_and_only_if_it_was_waited_for(peer):
    request_id, _ = peer.request("m", {})
    other = reply(99, {})
    assert peer.receive(other) is None
    assert peer.receive(fail(request_id, -32000, "no")) == ErrorResponse(request_id, -32000, "no")
    assert peer.receive(reply(request_id, {})) is None
    assert (peer.late, peer.dropped) == (2, 0)


def test_an_answer_to_a_forgotten_request_is_late(peer):
    request_id, _ = peer.request("m", {})
    peer.forget(request_id)
    peer.forget(request_id)
    assert peer.receive(reply(request_id, {})) is None and peer.late == 1


@pytest.mark.parametrize("text", ['{"id":"0","result":{}}', '{"id":false,"result":{}}', '{"id":0.0,"result":{}}'])
def test_an_answer_with_an_id_that_is_merely_like_ours_is_not_ours(peer, text):
    request_id, _ = peer.request("m", {})
    assert request_id == 0
    assert peer.receive(text) is None
    assert peer.receive('{"id":0,"result":{}}') == Response(0, {})


def test_ids_come_from_one_counter_for_all_connections():
    ids = itertools.count()
    one, other = Peer(ids), Peer(ids)
    assert [peer.request("m", {})[0] for peer in (one, other, one)] == [0, 1, 2]
    assert one.receive(reply(1, {})) is None  # asked on the other connection


def test_members_are_in_the_order_of_the_original():
    assert reply(1, {}) == '{"id":1,"result":{}}'
    assert fail("a", -32600, "no") == '{"error":{"code":-32600,"message":"no"},"id":"a"}'
    assert notify("m", {"a": 1}, 5) == '{"method":"m","params":{"a":1},"emittedAtMs":5}'
    assert Peer(itertools.count()).request("m", {})[1] == '{"method":"m","id":0,"params":{}}'


def test_what_is_sent_is_one_line_of_plain_utf8():
    assert encode({"t": "a\nb\u2028é😀"}) == '{"t":"a\\nb\u2028é😀"}'


def test_missing_params_are_not_null_params():
    assert parse('{"id":1,"method":"m"}').params is MISSING
    assert parse('{"id":1,"method":"m","params":null}').params is None
    assert repr(MISSING) == "MISSING"


def test_a_message_of_3_mb_is_understood(peer):
    assert peer.receive(json.dumps({"id": 1, "method": "m", "params": {"t": "x" * 3_000_000}})).id == 1
