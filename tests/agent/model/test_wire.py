"""The words of the model service: what is sent, what is understood, and what a failure means."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.model.failures import StreamBroken, UpstreamError, judge
from agent.model.limits import LimitWindow, RateLimits
from agent.model.wire import (
    Completed,
    Created,
    ItemAdded,
    ItemDone,
    ResponsesRequest,
    SummaryDelta,
    SummaryPartAdded,
    TextDelta,
    TokenUsage,
    TurnState,
    history_item,
    parse_event,
    parse_usage,
)

GOLDENS = Path(__file__).parents[4] / "shared/protocol/goldens"
NO_GOLDENS = f"the recordings of the original are not at {GOLDENS}"

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 110,
}
ITEM = {"type": "message", "role": "assistant", "id": "msg-2", "content": []}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
TYPES = st.sampled_from(
    [
        "response.created",
        "response.output_item.added",
        "response.output_text.delta",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.output_item.done",
        "response.completed",
        "response.done",
        "response.metadata",
        "response.failed",
        "response.incomplete",
        "error",
    ]
)
MEMBERS = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "response": JSON
        | st.fixed_dictionaries({}, optional={"id": JSON, "usage": JSON, "error": JSON, "incomplete_details": JSON}),
        "item": JSON | st.fixed_dictionaries({"type": JSON}),
        "item_id": JSON,
        "delta": JSON,
        "summary_index": JSON,
        "headers": JSON | st.dictionaries(st.sampled_from(["X-Codex-Turn-State", "retry-after"]), JSON),
        "status": JSON,
        "error": JSON | st.fixed_dictionaries({}, optional={"type": JSON, "message": JSON, "resets_at": JSON}),
    },
)


def request(**changes):
    settings = {
        "model": "gpt-5.5",
        "input": (ITEM, {"type": "message", "role": "user", "content": []}),
        "thread_id": "thread-1",
        "turn_metadata": "{}",
        "client_metadata": {"thread_id": "thread-1"},
        "effort": "low",
    }
    return ResponsesRequest(**settings | changes)


def recorded(name, *kinds):
    """What left the original in a recording: its model requests."""
    lines = (json.loads(line) for line in (GOLDENS / f"{name}.jsonl").read_text("utf-8").splitlines())
    sent = [line for line in lines if line.get("dir") == "out" and line["kind"] in kinds]
    return [line.get("data") or line.get("body") for line in sent]


# Events


@pytest.mark.parametrize(
    "event, understood",
    [
        ({"type": "response.created", "response": {"id": "resp-3"}}, Created("resp-3")),
        ({"type": "response.output_item.added", "output_index": 0, "item": ITEM}, ItemAdded(ITEM)),
        ({"type": "response.output_text.delta", "item_id": "msg-2", "delta": "Do"}, TextDelta("msg-2", "Do")),
        (
            {"type": "response.reasoning_summary_part.added", "item_id": "rs-1", "summary_index": 1},
            SummaryPartAdded("rs-1", 1),
        ),
        (
            {"type": "response.reasoning_summary_text.delta", "item_id": "rs-1", "summary_index": 1, "delta": "x"},
            SummaryDelta("rs-1", 1, "x"),
        ),
        ({"type": "response.output_item.done", "item": ITEM}, ItemDone(ITEM)),
        (
            {"type": "response.completed", "response": {"id": "resp-3", "usage": USAGE}},
            Completed("resp-3", TokenUsage(110, 100, 40, 10, 3)),
        ),
        ({"type": "response.completed", "response": {"id": "resp-3"}}, Completed("resp-3", None)),
        ({"type": "response.done", "response": {"id": ""}}, Completed("", None)),
        (
            {"type": "response.completed", "response": {"id": "r", "end_turn": False}},
            Completed("r", None, goes_on=True),
        ),
        ({"type": "response.completed", "response": {"id": "r", "end_turn": None}}, Completed("r", None)),
        ({"type": "response.metadata", "headers": {"X-Codex-Turn-State": "TS-1"}}, TurnState("TS-1")),
        ({"type": "response.metadata", "headers": {"other": "x"}}, None),
        ({"type": "response.metadata"}, None),
        ({"type": "response.content_part.added", "part": {}}, None),
        ({"type": "response.output_text.done", "text": "Done."}, None),
        ({"type": "something.new"}, None),
        ({"no": "type"}, None),
    ],
)
def test_an_event_is_understood_or_passed_over(event, understood):
    assert parse_event(json.dumps(event)) == understood
    assert parse_event(json.dumps(event).encode()) == understood


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "",
        b"\xff\xfe",
        "[]",
        '"text"',
        "null",
        '{"type": "response.completed"}',
        '{"type": "response.completed", "response": {}}',
        '{"type": "response.completed", "response": {"id": 5}}',
        '{"type": "response.done", "response": null}',
        '{"type": "response.failed", "response": {"error": {"message": 5}}}',
        '{"type": "error", "headers": ["retry-after"]}',
        pytest.param("[" * 100_000, id="nested too deeply"),
        pytest.param('{"n": ' + "9" * 5000 + "}", id="a number too long"),
    ],
)
def test_what_is_no_event_or_ends_a_response_without_what_that_needs_breaks_the_stream(text):
    with pytest.raises(StreamBroken):
        parse_event(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "response.created"}',
        '{"type": "response.created", "response": null}',
        '{"type": "response.output_item.added"}',
        '{"type": "response.output_item.done", "item": {"id": "no type"}}',
        '{"type": "response.output_item.done", "item": "msg"}',
        '{"type": "response.output_text.delta", "item_id": "msg-2"}',
        '{"type": "response.output_text.delta", "item_id": "msg-2", "delta": 5}',
        '{"type": "response.output_text.delta", "item_id": null, "delta": "x"}',
        '{"type": "response.reasoning_summary_part.added", "summary_index": "many"}',
        '{"type": "response.metadata", "headers": {"x-codex-turn-state": 5}}',
        pytest.param('{"type": "response.reasoning_summary_part.added", "summary_index": Infinity}', id="infinite"),
    ],
)
def test_an_event_on_the_way_that_lacks_what_it_promises_is_passed_over(text):
    """One delta without its text broke the stream, and the whole answer was asked for again; codex goes on."""
    assert parse_event(text) is None


@given(MEMBERS | JSON)
@example({"type": "error", "status": True})
def test_no_event_raises_anything_else(event):
    """Whatever the service says is an event, a failure of the service, or a broken stream; never a bug of ours."""
    try:
        parse_event(json.dumps(event))
    except (UpstreamError, StreamBroken) as exc:
        judge(exc)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_text_raises_anything_else(text):
    try:
        parse_event(text)
    except (UpstreamError, StreamBroken) as exc:
        judge(exc)


def test_a_failed_response_carries_the_words_of_the_service():
    event = {"type": "response.failed", "response": {"id": "r1", "error": {"code": "server_error", "message": "boom"}}}
    with pytest.raises(UpstreamError, match="^boom$") as failed:
        parse_event(json.dumps(event))

    assert (failed.value.code, failed.value.status) == ("server_error", None)


@pytest.mark.parametrize(
    ("reason", "code", "again"),
    [("max_output_tokens", "incomplete", False), ("content_filter", "content_filter", True)],
)
def test_an_incomplete_response_names_its_reason(reason, code, again):
    event = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": reason}}}
    with pytest.raises(UpstreamError, match=f"^the response is incomplete: {reason}$") as failed:
        parse_event(json.dumps(event))

    assert failed.value.code == code and judge(failed.value).retryable is again


def test_an_error_event_is_read_like_an_http_answer():
    """err_ws_429_usage."""
    error = {"type": "usage_limit_reached", "message": "limit", "plan_type": "pro", "resets_at": 1999999999}
    event = {"type": "error", "status": 429, "error": error, "headers": {"X-Codex-Primary-Used-Percent": "99.6"}}
    with pytest.raises(UpstreamError, match="^limit$") as failed:
        parse_event(json.dumps(event))

    assert (failed.value.status, failed.value.kind) == (429, "usage_limit_reached")
    assert failed.value.resets_at == 1999999999
    assert failed.value.limits == RateLimits(LimitWindow(100, None, None), None)


# Usage


@given(JSON)
def test_usage_is_counted_from_whatever_is_there(usage):
    counted = parse_usage(usage)

    assert (counted is None) == (not isinstance(usage, dict))


@pytest.mark.parametrize("usage", [{}, {"total_tokens": "110", "input_tokens_details": 5, "output_tokens": True}])
def test_counts_that_are_no_numbers_are_nothing(usage):
    assert parse_usage(usage) == TokenUsage()


# What is sent


def test_the_body_has_the_members_of_the_original_in_its_order():
    body = request(verbosity="low", service_tier="priority").body()

    assert list(body) == [
        "model",
        "stream",
        "service_tier",
        "input",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "reasoning",
        "store",
        "include",
        "prompt_cache_key",
        "text",
        "client_metadata",
    ]
    assert body["reasoning"] == {"effort": "low"} and body["text"] == {"verbosity": "low"}
    assert body["prompt_cache_key"] == "thread-1" and body["store"] is False and body["stream"] is True


def test_a_delta_names_the_response_it_continues_in_front_of_its_input():
    body = request().body((ITEM,), "resp-1")

    assert list(body)[:4] == ["model", "stream", "previous_response_id", "input"]
    assert body["previous_response_id"] == "resp-1" and body["input"] == [ITEM]
    assert list(request().body())[:3] == ["model", "stream", "input"]


def test_a_prewarm_says_so_in_front_of_the_metadata():
    assert list(request(generate=False).body())[-2:] == ["generate", "client_metadata"]
    assert request(generate=False).body()["generate"] is False
    assert "generate" not in request().body()


@pytest.mark.skipif(not GOLDENS.is_dir(), reason=NO_GOLDENS)
@pytest.mark.parametrize(
    "name, kind, changes",
    [
        ("plain_turn_ws", "ws-message", {}),
        ("plain_turn_http", "http", {}),
        ("plain_turn_http_classic", "http", {}),
        ("turn_options", "ws-message", {"service_tier": "priority", "summary": "detailed"}),
    ],
)
def test_the_order_of_the_members_is_that_of_every_recorded_request(name, kind, changes):
    """The same members in the same order, of those that both have (some models of the original have no `tools`)."""
    for theirs in recorded(name, kind):
        known = request(generate="generate" not in theirs, **changes)
        ours = known.body(None, theirs.get("previous_response_id"))
        both = set(theirs) & set(ours)

        assert [key for key in theirs if key in both] == [key for key in ours if key in both]
        assert set(theirs) - set(ours) <= {"type", "service_tier"}
        assert list(theirs["reasoning"])[:1] == list(ours["reasoning"])[:1] == ["effort"]


@pytest.mark.skipif(not GOLDENS.is_dir(), reason=NO_GOLDENS)
def test_an_output_schema_is_sent_as_the_original_sends_it():
    theirs = recorded("turn_options", "ws-message")[1]
    ours = request(
        effort="high", summary="detailed", output_schema=theirs["text"]["format"]["schema"], verbosity="low"
    ).body()

    assert json.dumps(ours["text"]) == json.dumps(theirs["text"])
    assert json.dumps(ours["reasoning"]) == json.dumps(theirs["reasoning"])
    assert ours["include"] == theirs["include"]


def test_without_reasoning_nothing_of_it_is_asked_for():
    body = request(effort=None, verbosity=None).body()

    assert "reasoning" not in body and "text" not in body and body["include"] == []


def test_requests_of_one_shape_differ_only_in_what_they_say():
    same = request(input=(), client_metadata={}, turn_metadata="x", generate=False, turn_state="TS")

    assert request().shape() == same.shape()
    for change in (
        {"model": "x"},
        {"effort": "high"},
        {"summary": "auto"},
        {"verbosity": "high"},
        {"output_schema": {}},
        {"service_tier": "priority"},
        {"tools": ({},)},
    ):
        assert request().shape() != request(**change).shape(), change


def test_the_history_keeps_an_item_without_its_id_and_status():
    item = {"type": "reasoning", "id": "rs-1", "status": "completed", "encrypted_content": "x", "summary": []}

    assert history_item(item) == {"type": "reasoning", "encrypted_content": "x", "summary": []}
    assert item["id"] == "rs-1"


def test_token_counts_add_up():
    assert TokenUsage(1, 2, 3, 4, 5) + TokenUsage(10, 20, 30, 40, 50) == TokenUsage(11, 22, 33, 44, 55)


@pytest.mark.parametrize(
    ("sent", "read"), [(r"a\ud800b", "a\ufffdb"), (r"\uDC00", "\ufffd"), (r"\ud83d\ude00", "\U0001f600")]
)
def test_half_a_surrogate_pair_is_replaced_before_it_gets_to_a_client(sent, read):
    """It was passed on, and the client heard nothing more: no transport can carry it."""
    event = parse_event(f'{{"type":"response.output_text.delta","item_id":"i","delta":"{sent}"}}')
    assert event == TextDelta("i", read)
