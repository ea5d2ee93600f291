"""What becomes of a goal, and what the model is told of it."""

from dataclasses import replace

import pytest

from agent.core.compaction import kept
from agent.core.goals import (
    MOST_CHARACTERS,
    Goal,
    GoalRefused,
    GoalStatus,
    counted,
    objective_item,
    status_after_failure,
    to_adjust,
    to_continue,
    to_wind_up,
)
from agent.core.thread import TURN_ABORTED, message
from agent.model.wire import TokenUsage

GOAL = Goal.new("thread-1", "win <it>", 100, 1_700_000_000)


def text(item):
    return item["content"][0]["text"]


def test_a_goal_is_what_its_wire_says():
    assert Goal.of(GOAL.wire()) == GOAL
    for name in ("status", "tokenBudget"):
        with pytest.raises(ValueError, match="bogus"):
            Goal.of({**GOAL.wire(), name: "bogus"})


def test_only_input_that_was_not_cached_and_output_count():
    assert counted(TokenUsage(total=110, input=100, cached_input=40, output=10, reasoning_output=3)) == 70


def test_a_goal_that_has_used_its_budget_is_limited_and_stays_so_until_it_has_more():
    spent = GOAL.spent(99, 1, 1_700_000_001)
    assert (spent.status, spent.tokens_left) == (GoalStatus.ACTIVE, 1)
    over = spent.spent(70, 1, 1_700_000_002)
    assert (over.status, over.tokens_used, over.time_used_s, over.tokens_left) == (GoalStatus.BUDGET_LIMITED, 169, 2, 0)
    assert over.changed({"status": "active"}, 0).status is GoalStatus.BUDGET_LIMITED
    assert over.changed({"tokenBudget": 200}, 0).status is GoalStatus.BUDGET_LIMITED
    assert over.changed({"tokenBudget": 200, "status": "active"}, 0).status is GoalStatus.ACTIVE
    assert over.changed({"tokenBudget": None, "status": "active"}, 0).status is GoalStatus.ACTIVE


@pytest.mark.parametrize("status", GoalStatus)
def test_that_the_budget_was_used_up_counts_for_more_than_that_the_goal_rests(status):
    over = replace(GOAL, status=GoalStatus.BUDGET_LIMITED)
    kept = status in (GoalStatus.PAUSED, GoalStatus.BLOCKED)
    assert over.changed({"status": status.value}, 0).status is (GoalStatus.BUDGET_LIMITED if kept else status)
    assert over.at(status, 0).status is over.changed({"status": status.value}, 0).status


def test_another_objective_does_not_take_up_a_goal_that_is_over():
    assert GOAL.changed({"status": "complete"}, 0).changed({"objective": "more"}, 0).status is GoalStatus.COMPLETE


@pytest.mark.parametrize("objective", [" ", "x" * (MOST_CHARACTERS + 1)])
def test_an_objective_that_says_nothing_or_too_much_is_refused(objective):
    with pytest.raises(GoalRefused, match="goal objective must"):
        Goal.new("thread-1", objective, None, 0)


def test_after_a_failure_nothing_goes_on_by_itself():
    assert status_after_failure("usageLimitExceeded") is GoalStatus.USAGE_LIMITED
    for info in ("other", "contextWindowExceeded", {"httpConnectionFailed": {"httpStatusCode": 500}}, None):
        assert status_after_failure(info) is GoalStatus.BLOCKED


def test_the_objective_is_told_once_and_again_after_the_user_has_spoken():
    first = to_continue(GOAL, [message("user", "hi")])
    assert first[0] == {
        "type": "function_call_output",
        "name": "goal_objective",
        "namespace": "agent",
        "output": "win <it>",
    }
    assert len(to_continue(GOAL, first)) == 1
    assert len(to_continue(GOAL, [*first, *to_continue(GOAL, first)])) == 1
    assert len(to_continue(GOAL, [*first, message("user", "by the way")])) == 2
    assert len(to_continue(GOAL, [*first, message("user", TURN_ABORTED)])) == 2
    assert len(to_continue(GOAL.changed({"objective": "else"}, 0), first)) == 2
    assert len(to_continue(GOAL, kept([*first, message("user", "hi")]))) == 2


def test_what_the_model_was_told_of_a_goal_is_not_kept_as_the_users_word():
    word = message("user", "hi")
    assert kept([word, *to_continue(GOAL, []), to_adjust(GOAL), to_wind_up(GOAL)]) == [word]


def test_the_model_is_told_of_the_budget_and_an_objective_cannot_end_its_frame():
    spent = GOAL.spent(30, 4, 0)
    (told,) = to_continue(spent, [objective_item(spent)])
    assert "Tokens used: 30\n- Token budget: 100\n- Tokens left: 70" in text(told)
    assert "Token budget: none\n- Tokens left: unlimited" in text(
        to_continue(GOAL.changed({"tokenBudget": None}, 0), [])[1]
    )
    assert "win &lt;it&gt;" in text(to_adjust(GOAL)) and "win <it>" not in text(to_adjust(GOAL))
    assert "Seconds used: 4" in text(to_wind_up(spent))
