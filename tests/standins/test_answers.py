"""What the stand-in of ChatGPT says."""

import json

import pytest

from agent.model.wire import Completed, ItemDone, TextDelta, parse_event
from proxy.standins.answers import DEFAULT_TEXT, Answers

ASKED = {"input": [{"type": "message", "role": "user", "content": []}]}


def understood(events):
    """The events as our own client understands them."""
    return [parse_event(json.dumps(event)) for event in events]


def text_of(events):
    return "".join(event.delta for event in understood(events) if isinstance(event, TextDelta))


def test_answers_come_in_order_and_then_the_default_again_and_again():
    answers = Answers([{"text": "one"}, {"text": "two"}])

    assert [text_of(answers.events(ASKED)) for _ in range(4)] == ["one", "two", DEFAULT_TEXT, DEFAULT_TEXT]


@pytest.mark.parametrize("text", ["", " ", "a", "a b", " lead and trail ", "two  blanks", "line\nbreak"])
def test_the_pieces_of_a_text_are_the_text(text):
    events = Answers([{"text": text}]).events(ASKED)

    assert text_of(events) == text
    assert [event.item["content"][0]["text"] for event in understood(events) if isinstance(event, ItemDone)] == [text]
    assert isinstance(understood(events)[-1], Completed)


def test_a_prewarm_uses_up_no_answer():
    answers = Answers([{"text": "one"}])

    assert [event["type"] for event in answers.events({"generate": False})] == [
        "response.created",
        "response.completed",
    ]
    assert text_of(answers.events(ASKED)) == "one"


def test_a_compaction_is_answered_with_one_compaction_item():
    events = Answers([{"text": "unused"}]).events({"input": [{"type": "compaction_trigger"}]})
    items = [event.item for event in understood(events) if isinstance(event, ItemDone)]

    assert [item["type"] for item in items] == ["compaction"]


def test_a_call_an_item_and_raw_events_can_be_scripted():
    usage = {"total_tokens": 7}
    raw = [{"type": "response.created", "response": {"id": "mine"}}]
    item = {"type": "reasoning", "id": "rs-1", "summary": []}
    answers = Answers(
        [{"call": {"name": "x", "arguments": {"a": 1}}, "usage": usage}, {"items": [item]}, {"events": raw}]
    )

    _, _, done, completed = understood(answers.events(ASKED))
    assert (done.item["name"], json.loads(done.item["arguments"])) == ("x", {"a": 1})
    assert completed.usage.total == 7
    assert understood(answers.events(ASKED))[2].item == item
    assert answers.events(ASKED) == raw


@pytest.mark.parametrize(
    "step",
    [
        {}, {"text": "a", "call": {}}, {"txt": "a"}, "text", 5,
        {"text": 5}, {"call": 5}, {"call": {}}, {"items": 5}, {"items": [5]}, {"events": {}}, {"events": ["x"]},
        {"text": "a", "usage": 5},
    ],
)  # fmt: skip
def test_a_step_that_says_nothing_or_two_things_or_no_sense_is_refused(step):
    """What was of the wrong kind became a traceback when a request came."""
    with pytest.raises(ValueError, match="a step of the script must have one of text, call, items or events"):
        Answers([step])


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "must be a list of steps"),
        ("[5]", "a step of"),
    ],
)
def test_a_script_that_cannot_be_used_says_why(content, said, tmp_path):
    path = tmp_path / "script.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        Answers.load(path)


def test_a_script_is_read_from_a_file(tmp_path):
    path = tmp_path / "script.json"
    path.write_text('[{"text": "from a file"}]')

    assert text_of(Answers.load(path).events(ASKED)) == "from a file"


def test_a_request_that_is_no_object_of_items_is_answered_all_the_same():
    assert text_of(Answers([{"text": "one"}]).events({"input": "text"})) == "one"
