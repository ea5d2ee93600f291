"""What a reviewer is told, what clients see of its work, and how its findings read."""

import json

import pytest

from agent.core.review import NO_ANSWER, Relay, findings_text, reviewer_of, target_of
from agent.core.thread import SANDBOX_POLICIES
from tests.agent.core.playbook import new_thread
from tests.agent.core.published_schema import misfit_of_notification

RELAY = Relay("thread-1", "turn-1")
OF_REVIEWER = {"threadId": "reviewer-1", "turnId": "turn-9"}


@pytest.mark.parametrize(
    ("target", "hint", "in_prompt"),
    [
        ({"type": "uncommittedChanges"}, "current changes", "staged, unstaged, and untracked"),
        ({"type": "baseBranch", "branch": "main"}, "changes against 'main'", "merge-base HEAD main"),
        ({"type": "commit", "sha": "0123456789", "title": None}, "commit 0123456", "0123456789"),
        ({"type": "commit", "sha": "0123456789", "title": "Fix it"}, "commit 0123456: Fix it", "Fix it"),
        ({"type": "custom", "instructions": " look here "}, "look here", "look here"),
    ],
)
def test_each_target_has_words_for_people_and_for_the_reviewer(target, hint, in_prompt):
    found = target_of(target)

    assert found.hint == hint and in_prompt in found.prompt


@pytest.mark.parametrize(
    "target",
    [{"type": "baseBranch", "branch": " "}, {"type": "commit", "sha": ""}, {"type": "custom", "instructions": "\n"}],
)
def test_a_target_that_says_nothing_is_none(target):
    assert target_of(target) is None


def test_a_reviewer_works_for_its_thread_in_the_same_sandbox_and_asks_nobody():
    thread = new_thread(sandbox=SANDBOX_POLICIES["workspace-write"], dynamic_tools=[{"name": "x"}], effort="high")
    reviewer = reviewer_of(thread, "reviewer-1", "turn-1")

    assert (reviewer.id, reviewer.session_id, reviewer.approval_policy) == ("reviewer-1", "thread-1", "never")
    assert (reviewer.cwd, reviewer.sandbox, reviewer.effort) == (thread.cwd, thread.sandbox, "high")
    assert reviewer.ephemeral and reviewer.dynamic_tools == [] and reviewer.history == []
    assert thread.session_id == "thread-1"


def test_what_the_reviewer_does_is_told_as_part_of_the_turn():
    item = {"type": "commandExecution", "id": "call-1"}
    told = RELAY.told("item/started", {"item": item, **OF_REVIEWER, "startedAtMs": 1})

    assert told == {"item": item, "threadId": "thread-1", "turnId": "turn-1", "startedAtMs": 1}


def test_its_turn_is_told_as_one_of_the_turn():
    told = RELAY.told("turn/started", {"threadId": "reviewer-1", "turn": {"id": "turn-9", "rootTurnId": "turn-9"}})

    assert told == {"threadId": "thread-1", "turn": {"id": "turn-9", "rootTurnId": "turn-1"}}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("item/agentMessage/delta", {"delta": "{"}),
        ("item/completed", {"item": {"type": "agentMessage"}}),
        ("thread/status/changed", {"status": {"type": "idle"}}),
        ("thread/status/changed", {"status": {"type": "systemError"}}),
        ("turn/completed", {"turn": {"id": "turn-9"}}),
        ("error", {"willRetry": False}),
        ("thread/tokenUsage/updated", {}),
    ],
)
def test_its_words_and_its_end_are_kept_back(method, more):
    assert RELAY.told(method, {**OF_REVIEWER, **more}) is None


def test_its_reconnections_are_told():
    assert RELAY.told("error", {**OF_REVIEWER, "willRetry": True})["turnId"] == "turn-1"


def test_the_mode_is_an_item_that_fits_the_schema():
    told = RELAY.mode("enteredReviewMode", "item-1", "current changes", 5)

    assert [method for method, _ in told] == ["item/started", "item/completed"]
    assert [misfit_of_notification(method, params) for method, params in told] == [None, None]


def finding(title, start=3):
    place = {"absolute_file_path": "/work/a.py", "line_range": {"start": start, "end": start + 1}}
    return {"title": title, "body": "one\ntwo", "confidence_score": 0.9, "priority": 1, "code_location": place}


def answer(*findings, explanation="It breaks."):
    return json.dumps({"findings": findings, "overall_explanation": explanation})


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (answer(explanation="fine"), "fine"),
        (answer(finding("[P1] A")), "It breaks.\n\nReview comment:\n\n- [P1] A — /work/a.py:3-4\n  one\n  two"),
        (
            answer(finding("A"), finding("B", 7), explanation=""),
            "Full review comments:\n\n- A — /work/a.py:3-4\n  one\n  two\n\n- B — /work/a.py:7-8\n  one\n  two",
        ),
        (f"```json\n{answer(explanation='fine')}\n```", "fine"),
        ("I found nothing.", "I found nothing."),
        ('{"findings": [{"title": "no place"}]}', '{"findings": [{"title": "no place"}]}'),
        ("[1]", "[1]"),
        ("}{", "}{"),
        ("  ", NO_ANSWER),
        (None, NO_ANSWER),
    ],
)
def test_findings_read_as_text_and_any_other_answer_as_it_is(said, text):
    assert findings_text(said) == text
