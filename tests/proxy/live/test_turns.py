import json

import pytest

from proxy.capture.bodies.reading import Event
from proxy.live import turns
from proxy.live.turns import Digest, turn_verdict

USAGE = {
    "input_tokens": 1200,
    "input_tokens_details": {"cached_tokens": 800},
    "output_tokens": 90,
    "output_tokens_details": {"reasoning_tokens": 60},
}


def event(t, kind, from_client=False, **content):
    text = json.dumps({"type": kind, **content})
    return Event(t, from_client, kind, len(text), text, from_client, "text")


def asked(t, model="a-model"):
    return event(t, "response.create", from_client=True, model=model, input=[])


def digest(*events, asked_s=None):
    taken = Digest(asked_s)
    for one in events:
        taken.add(one)
    return taken


def answer(begin, output, end):
    return [
        event(begin, "response.created"),
        event(output, "response.output_text.delta", delta="Hel"),
        event(output + 0.1, "response.output_text.delta", delta="lo"),
        event(end, "response.completed", response={"usage": USAGE}),
    ]


def test_a_turn_of_a_socket_lasts_from_the_question_to_the_end_of_the_answer():
    (turn,) = digest(asked(0.5), *answer(0.6, 4.0, 5.0)).turns
    assert (turn.asked_s, turn.output_s, turn.ended_s) == (0.5, 4.0, 5.0)
    assert (turn.model, turn.outcome) == ("a-model", "completed")
    assert turn.tokens == "1200 in, 800 of them cached, 90 out, 60 of them thinking"


def test_the_turns_of_a_socket_are_told_apart():
    found = digest(asked(0), *answer(1, 2, 3), asked(60), *answer(61, 62, 63), asked(90)).turns
    assert [(turn.number, turn.asked_s, turn.ended_s) for turn in found] == [(1, 0, 3), (2, 60, 63), (3, 90, None)]


def test_an_answer_by_post_is_one_turn_and_what_holds_no_events_of_a_model_is_none():
    (turn,) = digest(*answer(1, 2, 3), asked_s=0.2).turns
    assert (turn.number, turn.asked_s, turn.output_s, turn.ended_s) == (1, 0.2, 2, 3)
    assert digest(event(1, "something"), asked_s=0.2).turns == []
    assert digest(asked_s=0.2).turns == []


@pytest.mark.parametrize("kind", ["response.failed", "response.incomplete", "error"])
def test_a_turn_that_failed_has_ended_too(kind):
    (turn,) = digest(asked(0), event(2, kind)).turns
    assert (turn.ended_s, turn.outcome, turn.output_s) == (2, kind.removeprefix("response."), None)


def test_the_verdict_names_the_slowest_turn_and_whether_the_model_wrote():
    slow, quick = [asked(0), *answer(1, 9, 10)], [asked(20), *answer(20.5, 21, 23)]
    verdict = turn_verdict(digest(*slow, *quick).turns)
    assert verdict.headline == "The slowest of its 2 turns, number 1, took 10.0 s: 90 % until the first output"
    assert "had not begun to write" in verdict.meaning
    verdict = turn_verdict(digest(*quick).turns)
    assert verdict.headline == "Its only turn took 3.00 s: 33 % until the first output"
    assert "a long answer takes long" in verdict.meaning
    assert turn_verdict(digest(asked(0)).turns) is None


def test_deltas_in_a_row_are_one_line_with_what_they_say_together():
    lines = digest(asked(0), *answer(1, 2, 3)).lines
    assert [(line.kind, line.count) for line in lines] == [
        ("response.create", 1),
        ("response.created", 1),
        ("response.output_text.delta", 2),
        ("response.completed", 1),
    ]
    assert (lines[2].text, lines[2].at_s, lines[2].until_s) == ("Hello", 2, 2.1)


def test_memory_stays_bounded_and_the_first_and_the_last_are_kept():
    taken = digest(*(event(number, f"event.{number}") for number in range(1000)))
    assert len(taken.lines) == 2 * turns.MOST_LINES
    assert (taken.lines[0].kind, taken.lines[-1].kind) == ("event.0", "event.999")
    assert taken.left_out == 1000 - 2 * turns.MOST_LINES
    many = digest(*(event(number, "a.delta", delta="x" * 100) for number in range(1000)))
    assert len(many.lines[0].text) <= turns.MOST_TEXT + 2
    assert many.lines[0].count == 1000
    assert len(digest(*(asked(number) for number in range(1000))).turns) == turns.MOST_TURNS


@pytest.mark.parametrize("text", [None, "", "{", "[" * 100_000, '{"delta": 7}', '{"response": [], "usage": 3}', "null"])
def test_whatever_an_event_holds_is_taken(text):
    for kind in ("a.delta", "response.completed", "text"):
        taken = digest(asked(0), Event(1, False, kind, 1, text, False))
        assert taken.lines and taken.turns


def test_json_is_laid_out_and_what_is_long_is_cut():
    assert turns.laid_out('{"a": 1}') == '{\n "a": 1\n}'
    assert turns.laid_out("no json") == "no json"
    assert turns.laid_out("x" * 5000) == "x" * turns.MOST_TEXT + " …"
