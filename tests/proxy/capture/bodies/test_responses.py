"""Events and token usage of model requests."""

import json

import pytest

from proxy.capture.bodies.responses import MOST_PARSED_BYTES, EventSplitter, Responses, event_type, parsed


def split(data, step):
    splitter = EventSplitter()
    return [event for at in range(0, len(data), step) for event in splitter.feed(data[at : at + step])]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_events_are_found_however_they_are_split(end):
    stream = end.join(
        [
            b"event: x",
            b"data: one",
            b"",
            b": comment",
            b"id: 5",
            b"data:two",
            b"data: three",
            b"",
            b"",
            b"data",
            b"data: cut",
        ]
    )
    for step in range(1, len(stream) + 1):
        assert split(stream, step) == [b"one", b"two\nthree"]


def test_an_event_that_never_ends_does_not_fill_the_memory():
    splitter = EventSplitter()
    for _ in range(100):
        assert list(splitter.feed(b"data: " + b"x" * 100_000 + b"\n")) == []
    assert list(splitter.feed(b"\ndata: next\n\n")) == [b"next"] and splitter.dropped == 1
    for _ in range(100):
        list(splitter.feed(b"x" * 100_000))
    assert list(splitter.feed(b"\n\ndata: next\n\n"))[-1:] == [b"next"]


def test_only_json_objects_of_some_size_are_parsed():
    assert parsed(b'{"type": "x"}') == {"type": "x"}
    for text in (b"[]", b"garbage", b'{"a": NaN}', b"\xff", "{}".encode("utf-16"), b"[" * 100_000):
        assert parsed(text) is None
    assert parsed(b'{"a": "' + b"x" * MOST_PARSED_BYTES + b'"}') is None


def told(*asked, events=()):
    responses = Responses()
    for question in asked:
        responses.asked(json.dumps(question).encode())
    for event in events:
        responses.answered(json.dumps(event).encode(), event)
    return responses.as_json()


CREATE = {"type": "response.create", "model": "gpt-5.5", "previous_response_id": "resp_0"}
CREATED = {"type": "response.created", "response": {"id": "resp_1"}}
USAGE = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 7, "total_tokens": 12}
COMPLETED = {"type": "response.completed", "response": {"id": "resp_1", "usage": {**USAGE, "note": "canary"}}}


def test_of_a_response_its_model_chain_and_usage_are_known():
    assert told(CREATE, events=[CREATED, {"type": "response.output_text.delta", "delta": "x"}, COMPLETED]) == [
        {
            "model": "gpt-5.5",
            "response_id": "resp_1",
            "previous_response_id": "resp_0",
            "status": "completed",
            "usage": USAGE,
        }
    ]


def test_on_one_socket_several_are_told_apart_in_their_order():
    second = {**CREATE, "previous_response_id": "resp_1"}
    responses = Responses()
    for question, number in ((CREATE, 1), (second, 2)):
        responses.asked(json.dumps(question).encode())
        for kind in ("created", "completed"):
            event = {
                "type": f"response.{kind}",
                "response": {"id": f"resp_{number}", "usage": {"total_tokens": number}},
            }
            responses.answered(json.dumps(event).encode(), event)
    chain = [(one["previous_response_id"], one["response_id"], one["usage"]) for one in responses.as_json()]
    assert chain == [("resp_0", "resp_1", {"total_tokens": 1}), ("resp_1", "resp_2", {"total_tokens": 2})]


def test_a_response_that_nobody_was_seen_to_ask_for_is_told_too():
    assert told(events=[COMPLETED])[0]["response_id"] == "resp_1"


@pytest.mark.parametrize("kind", ["failed", "incomplete"])
def test_a_response_that_ends_badly_says_how(kind):
    event = {"type": f"response.{kind}", "response": {"id": "resp_1", "usage": None}}
    assert told(CREATE, events=[event])[0]["status"] == kind


def test_what_is_no_model_request_does_not_count():
    assert told({"type": "session.update", "model": "x"}, {"input": []}, {"type": "response.create", "model": 5}) == []


@pytest.mark.parametrize(
    "event",
    [{"type": 5}, {"type": "response.completed"}, {"type": "response.completed", "response": []}, {"response": {}}],
)
def test_an_event_of_another_shape_is_no_harm(event):
    assert told(CREATE, events=[event])[0]["status"] is None


def test_an_answer_in_one_piece_has_usage_too():
    assert told(CREATE, events=[{"id": "resp_1", "usage": USAGE}])[0]["usage"] == USAGE


def test_events_and_requests_that_are_too_large_to_be_parsed_still_tell_the_most_important():
    large = "x" * MOST_PARSED_BYTES
    responses = Responses()
    responses.asked(json.dumps({**CREATE, "input": large}).encode())
    completed = {"type": "response.completed", "response": {"id": "resp_1", "output": large, "usage": USAGE}}
    text = json.dumps(completed).encode()
    responses.answered(text, parsed(text))
    (one,) = responses.as_json()
    assert (one["model"], one["previous_response_id"], one["status"], one["usage"]) == (
        "gpt-5.5",
        "resp_0",
        "completed",
        USAGE,
    )
    assert event_type(text) == "response.completed"


def test_responses_are_not_kept_without_end():
    responses = Responses()
    for _ in range(1500):
        responses.asked(json.dumps(CREATE).encode())
    assert len(responses.as_json()) == 1000 and responses.forgotten == 500
