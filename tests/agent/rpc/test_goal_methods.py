"""Goals of threads, and the turns that follow from them, as observed of codex-cli 0.169.0."""

import asyncio
import json

import pytest

from agent.core.goals import MOST_CHARACTERS
from agent.core.tooling import ToolOutput
from agent.model.failures import UpstreamError
from agent.model.wire import ItemDone
from agent.tools.goal_tools import GoalTools
from agent.tools.toolbox import Tools
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn

SET, GET, CLEAR = "thread/goal/set", "thread/goal/get", "thread/goal/clear"
TOOLS = Tools(GoalTools({}), user_command=lambda *_: None, is_busy=lambda _: False)
WORK = model_says.answer("working")
COMPLETE = model_says.calls(model_says.call_item("call-1", "update_goal", '{"status": "complete"}'))
USED = 70  # of each response: model_says.USAGE


def goals_of(desktop):
    """What was told of the goal: status and tokens used, with a turn or without."""
    told = [one["params"] for one in desktop.notifications if one["method"] == "thread/goal/updated"]
    return [(one["turnId"] is not None, one["goal"]["status"], one["goal"]["tokensUsed"]) for one in told]


async def ended(desktop, count):
    return (await desktop.wait_for("turn/completed", count))["turn"]


async def status_of(desktop, thread_id):
    return (await desktop.request(GET, {"threadId": thread_id}))["goal"]["status"]


def test_a_goal_is_set_changed_and_taken_back_member_by_member(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop)}
            first = {**about, "objective": "win", "tokenBudget": 5, "status": "paused"}
            goal = (await desktop.request(SET, first))["goal"]
            assert (goal["objective"], goal["status"], goal["tokenBudget"]) == ("win", "paused", 5)
            changed = (await desktop.request(SET, {**about, "status": "blocked"}))["goal"]
            assert (changed["status"], changed["tokenBudget"]) == ("blocked", 5)
            unbound = (await desktop.request(SET, {**about, "tokenBudget": None}))["goal"]
            assert unbound["tokenBudget"] is None
            assert await desktop.request(CLEAR, about) == {"cleared": True}
            assert await desktop.request(CLEAR, about) == {"cleared": False}
            assert await desktop.request(GET, about) == {"goal": None}

    run(scenario())


def test_a_goal_that_makes_no_sense_is_refused(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop)}
            assert await refused(desktop, SET, about) == (
                f"cannot update goal for thread {about['threadId']}: no goal exists"
            )
            assert await refused(desktop, SET, {**about, "objective": " "}) == "goal objective must not be empty"
            long = "x" * (MOST_CHARACTERS + 1)
            assert await refused(desktop, SET, {**about, "objective": long}) == (
                "goal objective must be at most 4000 characters"
            )
            for budget in (0, -1):
                assert await refused(desktop, SET, {**about, "objective": "x", "tokenBudget": budget}) == (
                    "goal budgets must be positive when provided"
                )
            assert "expected i64" in await refused(desktop, SET, {**about, "tokenBudget": "x"})
            about = {"threadId": await start(desktop, ephemeral=True)}
            for method in (SET, GET, CLEAR):
                text = f"ephemeral thread does not support goals: {about['threadId']}"
                assert await refused(desktop, method, {**about, "objective": "x"}) == text

    run(scenario())


def test_turns_follow_one_another_until_the_model_says_that_it_is_complete(run, tmp_path):
    async def scenario():
        with ScriptedModel(WORK, COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                assert [(await ended(desktop, number))["status"] for number in (1, 2)] == ["completed"] * 2
                assert await status_of(desktop, thread_id) == "complete"
                told = goals_of(desktop)
                page = await desktop.request("thread/list", {})
        assert told[0] == (False, "active", 0) and told[1] == (True, "active", USED)
        assert told[-1][:2] == (True, "complete")
        assert page["data"][0]["preview"] == "win"  # nobody else has said anything in it
        first, second, third = model.requests
        assert [item.get("name") for item in first.input if item["type"] == "function_call_output"] == [
            "goal_objective"
        ]
        assert json.loads(first.turn_metadata)["turn_trigger"] == "goal"
        assert f"Tokens used: {USED}" in second.input[-1]["content"][0]["text"]
        assert json.loads(third.input[-1]["output"])["goal"]["status"] == "complete"

    run(scenario())


def test_between_two_turns_of_a_goal_there_is_nothing_to_be_read_yet(run, tmp_path):
    async def scenario():
        with ScriptedModel(WORK, COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                await desktop.request(SET, {"threadId": await start(desktop), "objective": "win"})
                await ended(desktop, 2)
                methods = [one["method"] for one in desktop.notifications]
        last = methods.index("turn/completed") + 1
        assert "thread/readState/changed" not in methods[:last] and "thread/readState/changed" in methods[last:]
        ends = ["thread/tokenUsage/updated", "thread/goal/updated", "thread/status/changed", "turn/completed"]
        assert methods[last - 4 : last] == ends

    run(scenario())


def test_a_turn_that_no_other_follows_can_be_read_though_there_is_a_goal(run, tmp_path):
    """Where the thread has goals switched off, nothing follows; what there is to read was not told all the same."""

    async def scenario():
        with ScriptedModel(WORK) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop, config={"features": {"goals": False}})
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                await turn(desktop, thread_id, HELLO)
                assert "thread/readState/changed" in [one["method"] for one in desktop.notifications]

    run(scenario())


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UpstreamError("bad", status=400), "blocked"),
        (UpstreamError("limit", status=429, kind="usage_limit_reached"), "usageLimited"),
    ],
)
def test_after_a_failure_no_turn_follows(run, tmp_path, failure, status):
    async def scenario():
        with ScriptedModel([failure], model_says.answer("hello")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                assert (await ended(desktop, 1))["status"] == "failed"
                assert await status_of(desktop, thread_id) == status
                assert (await turn(desktop, thread_id, HELLO))["status"] == "completed"
                assert await status_of(desktop, thread_id) == status

    run(scenario())


def test_an_interrupted_goal_stays_active_and_goes_on_after_the_next_turn_of_the_user(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause], model_says.answer("hello"), COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                await pause.reached.wait()
                turn_id = desktop.notifications[-1]["params"]["turn"]["id"]
                await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
                assert (await ended(desktop, 1))["status"] == "interrupted"
                assert await status_of(desktop, thread_id) == "active"
                assert len(model.requests) == 1
                await turn(desktop, thread_id, HELLO)
                await ended(desktop, 3)
                assert await status_of(desktop, thread_id) == "complete"

    run(scenario())


class Refusal:
    """A tool whose every call the user refuses, and the turn with it."""

    def declared(self, thread):
        return ()

    def rows(self, thread):
        return {"refused": self._refuse}

    async def _refuse(self, call, context):
        return ToolOutput("refused", stops_turn=True)

    async def forget(self, thread_id, session):
        pass


def test_a_turn_that_the_user_ends_by_a_refusal_is_not_followed_by_another(run, tmp_path):
    async def scenario():
        tools = Tools(Refusal(), user_command=lambda *_: None, is_busy=lambda _: False)
        with ScriptedModel(model_says.calls(model_says.call_item("call-1", "refused"))) as model:
            async with app_and_desktop(tmp_path, model, tools=tools) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                assert (await ended(desktop, 1))["status"] == "interrupted"
                assert await status_of(desktop, thread_id) == "active"
                assert sum(one["method"] == "turn/started" for one in desktop.notifications) == 1

    run(scenario())


def test_the_user_may_speak_into_a_turn_of_the_goal_and_change_it(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *WORK], WORK, COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                await pause.reached.wait()
                await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await desktop.request(SET, {"threadId": thread_id, "objective": "lose"})
                pause.over.set()
                await ended(desktop, 2)
        told = [item for item in model.requests[1].input if item.get("role") == "user"][-2:]
        assert told[0]["content"][0]["text"] == HELLO["text"]
        assert "lose" in told[1]["content"][0]["text"]
        objectives = [item["output"] for item in model.requests[2].input if item.get("name") == "goal_objective"]
        assert objectives == ["win", "lose"]

    run(scenario())


def test_a_goal_that_is_set_while_a_turn_runs_waits_for_its_end_and_one_that_is_paused_for_nothing(run, tmp_path):
    async def scenario():
        pause, goal_pause = Pause(), Pause()
        with ScriptedModel([pause, *WORK], [goal_pause, *WORK]) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await pause.reached.wait()
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                pause.over.set()
                await goal_pause.reached.wait()
                await desktop.request(SET, {"threadId": thread_id, "status": "paused"})
                goal_pause.over.set()
                await ended(desktop, 2)
                assert len(model.requests) == 2
                # The turn that it was set in was charged for what came after; what came after the pause was not.
                assert goals_of(desktop)[-1] == (False, "paused", USED)

    run(scenario())


def test_the_budget_ends_a_goal_and_the_model_hears_of_it_with_the_outputs(run, tmp_path):
    async def scenario():
        look = model_says.calls(model_says.call_item("call-1", "get_goal"))
        with ScriptedModel(look, model_says.answer("summing up"), model_says.answer("hello")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                about = {"threadId": thread_id, "objective": "win", "tokenBudget": USED}
                await desktop.request(SET, about)
                await ended(desktop, 1)
                assert await status_of(desktop, thread_id) == "budgetLimited"
                assert goals_of(desktop)[-1] == (True, "budgetLimited", 2 * USED)
                await turn(desktop, thread_id, HELLO)  # is not charged to it
                assert goals_of(desktop)[-1] == (True, "budgetLimited", 2 * USED)
        output, word = model.requests[1].input[-2:]
        assert output["type"] == "function_call_output" and "budget" in word["content"][0]["text"]

    run(scenario())


def test_a_goal_outlives_the_process_and_is_pursued_once_the_thread_is_taken_up(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel(WORK, [pause]) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                await pause.reached.wait()
        with ScriptedModel(COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                goal = (await desktop.request(GET, {"threadId": thread_id}))["goal"]
                assert (goal["status"], goal["tokensUsed"]) == ("active", USED)
                fork = await desktop.request("thread/fork", {"threadId": thread_id})
                assert await desktop.request(GET, {"threadId": fork["thread"]["id"]}) == {"goal": None}
                assert model.requests == []  # to look at it is not to take it up
                await desktop.request("thread/resume", {"threadId": thread_id})
                assert (await ended(desktop, 1))["status"] == "completed"
                assert await status_of(desktop, thread_id) == "complete"

    run(scenario())


def test_the_goal_of_a_thread_that_is_not_loaded_can_be_changed_and_nothing_runs_for_it(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop)}
            await desktop.request(SET, {**about, "objective": "win", "status": "paused"})
            await desktop.request("thread/archive", about)
            for method in (GET, SET, CLEAR):
                assert await refused(desktop, method, about) == f"thread not found: {about['threadId']}"
            await desktop.request("thread/unarchive", about)
            assert await status_of(desktop, about["threadId"]) == "paused"
            await desktop.request(SET, {**about, "status": "active"})
            assert (await desktop.request("thread/loaded/list", {}))["data"] == []
            assert await status_of(desktop, about["threadId"]) == "active"
            assert await desktop.request(CLEAR, about) == {"cleared": True}
            assert await desktop.request(GET, about) == {"goal": None}

    run(scenario())


def test_a_goal_is_pursued_when_its_client_has_gone(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *WORK], COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (app, desktop):
                async with app.desktop() as other:
                    thread_id = await start(other)
                    await other.request(SET, {"threadId": thread_id, "objective": "win"})
                    await pause.reached.wait()
                pause.over.set()
                async with asyncio.timeout(10):
                    while len(model.requests) < 3 or app.core.thread(thread_id).status != "idle":
                        await asyncio.sleep(0)
                assert await status_of(desktop, thread_id) == "complete"

    run(scenario())


def test_an_objective_is_trimmed_before_it_is_measured(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop), "status": "paused"}
            for objective in ("  win  ", f" {'x' * MOST_CHARACTERS} "):
                goal = (await desktop.request(SET, {**about, "objective": objective}))["goal"]
                assert goal["objective"] == objective.strip()

    run(scenario())


def test_a_goal_gives_way_to_a_compaction_and_goes_on_after_it(run, tmp_path):
    async def scenario():
        pause = Pause()
        summary = [ItemDone({"type": "compaction", "id": "cmp-1", "encrypted_content": "SECRET"}), COMPLETE[-1]]
        with ScriptedModel([pause], summary, COMPLETE, model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                thread_id = await start(desktop)
                await desktop.request(SET, {"threadId": thread_id, "objective": "win"})
                await pause.reached.wait()
                await desktop.request("thread/compact/start", {"threadId": thread_id})
                assert [(await ended(desktop, number))["status"] for number in (1, 2, 3)] == [
                    "interrupted", "completed", "completed",
                ]  # fmt: skip
                assert await status_of(desktop, thread_id) == "complete"

    run(scenario())


def test_the_feature_can_be_turned_off(run, tmp_path):
    async def scenario():
        model, config = ScriptedModel(WORK), {"features": {"goals": False}}
        async with app_and_desktop(tmp_path, model, config=config) as (_, desktop):
            thread_id = await start(desktop)
            for method in (SET, GET, CLEAR):
                assert await refused(desktop, method, {"threadId": thread_id}) == "goals feature is disabled"
            await turn(desktop, thread_id, HELLO)
            await desktop.request("thread/resume", {"threadId": thread_id, "excludeTurns": True})
            await desktop.request("thread/loaded/list", {})  # behind whatever the resume had told
            assert not [one for one in desktop.notifications if one["method"].startswith("thread/goal/")]

    run(scenario())
