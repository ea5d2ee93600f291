"""How the stand-in of ChatGPT misbehaves."""

import pytest

from proxy.standins.faults import Fault, Faults, Kind, Where, broken_events

EVENTS = [
    {"type": "response.created"},
    {"type": "response.output_item.added"},
    {"type": "response.output_text.delta"},
    {"type": "response.output_text.delta"},
    {"type": "response.completed"},
]


def faults(*texts):
    return Faults([Fault.parse(text) for text in texts])


@pytest.mark.parametrize(
    "text, fault",
    [
        ("500", Fault(Where.ANY, None, 500, None)),
        ("websocket:426", Fault(Where.WEBSOCKET, None, 426, None)),
        ("post:500:2", Fault(Where.POST, None, 500, 2)),
        ("cut:1", Fault(Where.ANY, Kind.CUT, None, 1)),
        ("token:400", Fault(Where.TOKEN, None, 400, None)),
        ("any:error-500", Fault(Where.ANY, Kind.ERROR_EVENT, None, None)),
    ],
)
def test_a_fault_is_written_as_where_what_and_how_often(text, fault):
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "text", ["", "explode", "200", "600", "post", "post:500:0", "post:500:-1", "post:500:x", "a:b:c:d"]
)
def test_a_fault_that_is_none_is_refused_with_what_there_is(text):
    with pytest.raises(ValueError, match=r"a fault must be \[WHERE:\]KIND\[:TIMES\] with WHERE one of websocket, post"):
        Fault.parse(text)


def test_a_fault_strikes_as_often_as_it_says_and_then_the_next_one():
    some = faults("post:500:2", "post:503:1")
    statuses = [fault and fault.status for fault in (some.next(Where.POST, in_stream=False) for _ in range(4))]

    assert statuses == [500, 500, 503, None]


def test_a_fault_without_a_count_strikes_for_ever():
    some = faults("post:500")

    assert all(some.next(Where.POST, in_stream=False) for _ in range(10))


def test_a_fault_strikes_only_where_it_is_meant_to():
    some = faults("websocket:426:1")

    assert some.next(Where.POST, in_stream=False) is None
    assert some.next(Where.WEBSOCKET, in_stream=True) is None
    assert some.next(Where.WEBSOCKET, in_stream=False).status == 426


def test_a_fault_of_anywhere_spares_the_sign_in():
    some = faults("500:1")

    assert some.next(Where.TOKEN, in_stream=False) is None
    assert some.next(Where.POST, in_stream=False).status == 500


def test_a_later_fault_can_be_added():
    some = faults()
    some.add(Fault.parse("cut:1"))

    assert some.next(Where.POST, in_stream=True).kind is Kind.CUT
    assert some.next(Where.POST, in_stream=True) is None


@pytest.mark.parametrize("kind", list(Kind))
def test_a_kind_shows_either_in_the_answer_or_in_the_stream(kind):
    assert Fault(Where.ANY, kind).in_stream is (kind not in (Kind.USAGE_LIMIT, Kind.RESET))


def test_a_cut_comes_after_the_first_delta_and_a_stall_after_the_start():
    assert broken_events(Kind.CUT, EVENTS) == EVENTS[:3]
    assert broken_events(Kind.CUT, EVENTS[:2]) == EVENTS[:1]
    assert broken_events(Kind.STALL, EVENTS) == broken_events(Kind.GARBAGE, EVENTS) == EVENTS[:1]


@pytest.mark.parametrize("kind", [Kind.FAILED, Kind.CONTEXT, Kind.INCOMPLETE, Kind.ERROR_EVENT])
def test_a_failed_response_ends_with_its_failure(kind):
    first, failure = broken_events(kind, EVENTS)

    assert first == EVENTS[0] and failure["type"] in ("response.failed", "response.incomplete", "error")


@pytest.mark.parametrize("where", [Where.TOKEN, Where.CALL, Where.REALTIME])
def test_a_fault_of_any_model_request_leaves_the_others_alone(where):
    assert Faults([Fault.parse("500")]).next(where, in_stream=False) is None
    named = Faults([Fault.parse(f"{where}:500")])
    assert named.next(where, in_stream=False).status == 500 and named.next(Where.POST, in_stream=False) is None
