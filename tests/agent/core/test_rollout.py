"""A thread's lines survive whatever cuts or spoils them: what was completed is there once, and nothing twice."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import rollout
from agent.core.goals import Goal, objective_item
from agent.core.rollout import NotAThread, line, read
from tests.agent.core.playbook import new_thread

NOW = "2026-01-01T00:00:00.000Z"
META = {**new_thread().meta(), "countersign": rollout.FORMAT}


def written(kind, payload):
    return line(kind, payload, NOW)


def turn(turn_id, status="inProgress"):
    return {"turn": {"id": turn_id, "status": status, "items": []}}


def said(turn_id, text):
    item = {"type": "userMessage", "id": f"item-{turn_id}", "content": [{"type": "text", "text": text}]}
    return {"turn_id": turn_id, "item": item}


CALL = {"type": "function_call", "call_id": "call-1", "name": "x", "arguments": "{}"}
LINES = [
    written(rollout.META, META),
    written(rollout.TURN_STARTED, turn("t1")),
    written(rollout.HISTORY, {"type": "message", "role": "user", "content": []}),
    written(rollout.ITEM, said("t1", "hello wörld")),
    written(rollout.HISTORY, CALL),
    written(rollout.HISTORY, {"type": "function_call_output", "call_id": "call-1", "output": "done"}),
    written(rollout.USAGE, {"total": 3, "input": 1, "cached_input": 0, "output": 2, "reasoning_output": 0}),
    written(rollout.TURN_ENDED, turn("t1", "completed")),
    written(rollout.TURN_STARTED, turn("t2")),
    written(rollout.HISTORY, {"type": "message", "role": "user", "content": [{"n": 2}]}),
    written(rollout.ITEM, said("t2", "again")),
    written(rollout.TURN_ENDED, turn("t2", "completed")),
]


def test_what_was_written_is_read():
    thread = read(LINES)
    assert (thread.preview, thread.total.total, thread.problems) == ("hello wörld", 3, [])
    assert [one.wire["status"] for one in thread.turns] == ["completed", "completed"]
    assert [one.history_start for one in thread.turns] == [0, 3] and len(thread.history) == 4


def test_cut_at_any_byte_nothing_that_was_complete_is_lost_or_doubled():
    """kill -9: the last line is torn."""
    whole = b"".join(LINES)
    first = len(LINES[0])
    for cut in range(first, len(whole) + 1):
        lines = whole[:cut].splitlines(keepends=True)
        complete = [one for one in lines if one.endswith(b"\n")]
        thread = read(lines)
        kinds = [json.loads(one)["type"] for one in complete]
        assert sum(len(one.items) for one in thread.turns) == kinds.count(rollout.ITEM) + _whole(lines, rollout.ITEM)
        assert len(thread.turns) == kinds.count(rollout.TURN_STARTED) + _whole(lines, rollout.TURN_STARTED)
        calls = [item for item in thread.history if item.get("call_id")]
        assert len(calls) in (0, 2), "a call without an output makes the service refuse the history"


def _whole(lines, kind):
    """1 if the last line lacks nothing but its end."""
    try:
        return int(not lines[-1].endswith(b"\n") and json.loads(lines[-1])["type"] == kind)
    except ValueError:
        return 0


def test_a_turn_that_a_crash_cut_is_interrupted_and_what_closes_it_is_to_be_written():
    thread = read(LINES[:5])
    assert thread.turns[0].wire["status"] == "interrupted"
    assert thread.history[-1] == {"type": "function_call_output", "call_id": "call-1", "output": "aborted by user"}
    again = read([*LINES[:5], *(written(kind, payload) for kind, payload in thread.closing)])
    assert again.history == thread.history and again.closing == []
    assert "interrupted" in thread.problems[-1]


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"\xff\xfe\n", b"{}\n", b"[1]\n", b'{"type":"response_item","payload":3}\n', b"\n"),
        *(written(rollout.READ_STATE, state) for state in ([1], {"firstUnread": "x"})),
    ],
)
@pytest.mark.parametrize("place", range(1, len(LINES)))
def test_garbage_in_the_middle_is_left_out_and_told(garbage, place):
    thread = read([*LINES[:place], garbage, *LINES[place:]])
    assert thread.problems == [f"line {place + 1} cannot be read, and is left out"]
    assert thread.history == read(LINES).history


def spoilt(number):
    """The lines with garbage in the place of one."""
    return [*LINES[:number], b"garbage\n", *LINES[number + 1 :]]


def test_an_output_whose_call_was_spoilt_is_left_out_too():
    """With an output alone the service refused the history, and the thread could never go on."""
    thread = read(spoilt(4))
    assert [item["type"] for item in thread.history] == ["message", "message"]
    assert thread.problems == [
        "line 5 cannot be read, and is left out",
        "line 6 answers a call that is not there, and is left out",
    ]
    assert [one.history_start for one in thread.turns] == [0, 1]


def test_the_output_of_a_call_that_was_compacted_is_left_out():
    output = {"type": "function_call_output", "call_id": "call-1", "output": "late"}
    thread = read([*LINES, written(rollout.COMPACTED, {"history": []}), written(rollout.HISTORY, output)])
    assert thread.history == [] and len(thread.problems) == 1


def test_a_turn_whose_beginning_was_spoilt_keeps_its_items_and_its_end():
    thread = read(spoilt(8))
    assert [(one.wire["id"], one.wire["status"], len(one.items)) for one in thread.turns] == [
        ("t1", "completed", 1),
        ("t2", "completed", 1),
    ]
    assert read(spoilt(8)[:-1]).turns[1].wire["status"] == "interrupted"


def test_what_a_command_says_after_its_turn_was_taken_back_does_not_bring_the_turn_back():
    thread = read([*LINES, written(rollout.REVERTED, {"turn_id": "t2"}), written(rollout.ITEM, said("t2", "late"))])
    assert [one.wire["id"] for one in thread.turns] == ["t1"] and thread.problems == []


def test_what_a_goal_is_for_answers_no_call_and_is_kept():
    item = objective_item(Goal.new("thread-1", "win", None, 0))
    found = read([*LINES, written(rollout.HISTORY, item)])
    assert found.history[-1] == item and found.problems == []


def test_a_revert_takes_back_the_turn_and_all_after_it():
    thread = read([*LINES, written(rollout.REVERTED, {"turn_id": "t2"})])
    assert [one.wire["id"] for one in thread.turns] == ["t1"] and len(thread.history) == 3


def test_the_last_word_on_the_goal_counts_and_one_that_is_none_is_told():
    goal = Goal.new("thread-1", "win", None, 5)
    lines = [LINES[0], written(rollout.GOAL, goal.wire()), written(rollout.GOAL, goal.spent(7, 1, 6).wire())]
    assert (read(lines).goal, read(lines).preview) == (goal.spent(7, 1, 6), "win")
    assert read([*lines, written(rollout.GOAL, None)]).goal is None
    spoilt = read([*lines, written(rollout.GOAL, {"objective": "x"}), written(rollout.GOAL, 5)])
    assert spoilt.goal == goal.spent(7, 1, 6) and len(spoilt.problems) == 2


def test_a_compaction_replaces_the_history_and_leaves_the_turns():
    thread = read([*LINES, written(rollout.COMPACTED, {"history": [{"type": "compaction"}]})])
    assert thread.history == [{"type": "compaction"}] and len(thread.turns) == 2


@pytest.mark.parametrize(
    "first", [b"", b"{}\n", b"garbage\n", LINES[1], written(rollout.META, {"id": "x"}), written(rollout.META, [])]
)
def test_what_does_not_begin_as_a_thread_of_ours_is_none(first):
    with pytest.raises(NotAThread):
        read([first] if first else [])


@given(st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=40).map(lambda raw: raw + b"\n"))))
@settings(max_examples=150)
def test_whatever_follows_the_first_line_it_is_read(lines):
    thread = read([LINES[0], *lines])
    outputs = [item for item in thread.history if item.get("type") == "function_call_output"]
    assert bool(outputs) == any(item.get("type") == "function_call" for item in thread.history) or outputs
