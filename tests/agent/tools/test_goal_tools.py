"""What the model may do about its goal, in a thread of the app-server."""

import json

import pytest

from agent.core.thread import Subagent
from agent.parts import make_tools
from agent.tools.goal_tools import GoalTools
from agent.tools.toolbox import Tools
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, start, turn
from tests.agent.tools.workbench import Workbench

TOOLS = Tools(GoalTools({}), user_command=lambda *_: None, is_busy=lambda _: False)
NAMES = ["get_goal", "create_goal", "update_goal"]


def outputs_of(run, tmp_path, *calls, **thread):
    """What the model was told of these calls, each in a response of its own."""

    async def scenario():
        items = [model_says.call_item(f"call-{n}", name, json.dumps(given)) for n, (name, given) in enumerate(calls)]
        with ScriptedModel(*([model_says.calls(item) for item in items]), model_says.answer("done")) as model:
            async with app_and_desktop(tmp_path, model, tools=TOOLS) as (_, desktop):
                await turn(desktop, await start(desktop, **thread), HELLO)
        said = [item for item in model.requests[-1].input if item["type"] == "function_call_output"]
        return [item["output"] for item in said if "call_id" in item]

    return run(scenario())


def test_a_goal_is_begun_read_and_ended_and_then_another_may_begin(run, tmp_path):
    begun, again, seen, over, next_one, last = outputs_of(
        run,
        tmp_path,
        ("create_goal", {"objective": "win", "token_budget": 5000}),
        ("create_goal", {"objective": "more"}),
        ("get_goal", {}),
        ("update_goal", {"status": "complete"}),
        ("create_goal", {"objective": "more"}),
        ("update_goal", {"status": "blocked"}),
    )
    assert json.loads(begun)["goal"]["objective"] == "win" and json.loads(begun)["remainingTokens"] == 5000
    assert again.startswith("cannot create a new goal because this thread has an unfinished goal")
    assert 0 < json.loads(seen)["goal"]["tokensUsed"] < 5000
    assert json.loads(over)["completionBudgetReport"] is not None
    assert "tokenBudget" not in json.loads(next_one)["goal"]
    assert json.loads(last)["goal"]["status"] == "blocked" and json.loads(last)["completionBudgetReport"] is None


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("get_goal", {}, '{"goal":null,"remainingTokens":null,"completionBudgetReport":null}'),
        ("update_goal", {"status": "complete"}, "cannot update goal because this thread has no goal"),
        ("update_goal", {"status": "active"}, "update_goal takes the status complete, blocked or paused"),
        ("update_goal", {"status": ["paused"]}, "update_goal takes the status complete, blocked or paused"),
        ("update_goal", {}, "update_goal takes the status complete, blocked or paused"),
        ("create_goal", {}, "create_goal needs `objective`"),
        ("create_goal", {"objective": " "}, "goal objective must not be empty"),
        ("create_goal", {"objective": "x", "token_budget": 0}, "goal budgets must be positive"),
        ("create_goal", {"objective": "x", "token_budget": True}, "`token_budget` of create_goal is an integer"),
    ],
)
def test_what_makes_no_sense_is_an_output(run, tmp_path, name, given, said):
    (output,) = outputs_of(run, tmp_path, (name, given))
    assert output.startswith(said)


def test_a_thread_that_is_not_kept_has_no_goal(run, tmp_path):
    said = outputs_of(run, tmp_path, ("get_goal", {}), ("create_goal", {"objective": "win"}), ephemeral=True)
    assert said == ["Goal tools require a persistent thread."] * 2


def test_a_reviewer_has_no_goals_and_the_feature_can_be_turned_off(run, tmp_path):
    bench = Workbench(tmp_path / "bench")
    assert [item["name"] for item in GoalTools({}).declared(bench.thread)] == NAMES
    off, on = {"features": {"goals": False}}, {"features": {"goals": True}}
    # A thread may have a configuration of its own.
    for config, own, there in (({}, None, True), (off, None, False), (off, on, True), (on, off, False)):
        bench.thread.config = own
        runner, tools = make_tools(config, lambda: (None, frozenset(), ()), str(tmp_path))
        assert (NAMES[0] in [item.get("name") for item in tools.declared(bench.thread)]) is there
        runner.close()
    bench.thread.config = None
    bench.thread.subagent = Subagent("review", "turn-1")
    assert GoalTools({}).declared(bench.thread) == () and GoalTools({}).rows(bench.thread) == {}
    bench.runner.close()
