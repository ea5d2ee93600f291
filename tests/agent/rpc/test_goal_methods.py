"""Goals of threads, in the words of codex-cli 0.169.0."""

from agent.rpc.goal_methods import MOST_CHARACTERS
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.rpc.test_methods import refused, start


def test_a_goal_is_set_changed_and_taken_back_member_by_member(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop)}
            goal = (await desktop.request("thread/goal/set", {**about, "objective": "win", "tokenBudget": 5}))["goal"]
            assert (goal["objective"], goal["status"], goal["tokenBudget"]) == ("win", "active", 5)
            changed = (await desktop.request("thread/goal/set", {**about, "status": "paused"}))["goal"]
            assert (changed["status"], changed["tokenBudget"]) == ("paused", 5)
            unbound = (await desktop.request("thread/goal/set", {**about, "tokenBudget": None}))["goal"]
            assert unbound["tokenBudget"] is None

    run(scenario())


def test_a_goal_that_makes_no_sense_is_refused(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop)}
            set_goal = "thread/goal/set"
            assert await refused(desktop, set_goal, about) == (
                f"cannot update goal for thread {about['threadId']}: no goal exists"
            )
            assert await refused(desktop, set_goal, {**about, "objective": " "}) == "goal objective must not be empty"
            long = "x" * (MOST_CHARACTERS + 1)
            assert await refused(desktop, set_goal, {**about, "objective": long}) == (
                "goal objective must be at most 4000 characters"
            )
            for budget in (0, -1):
                assert await refused(desktop, set_goal, {**about, "objective": "x", "tokenBudget": budget}) == (
                    "goal budgets must be positive when provided"
                )
            assert "expected i64" in await refused(desktop, set_goal, {**about, "tokenBudget": "x"})
            about = {"threadId": await start(desktop, ephemeral=True)}
            text = f"ephemeral thread does not support goals: {about['threadId']}"
            assert await refused(desktop, set_goal, {**about, "objective": "x"}) == text

    run(scenario())
