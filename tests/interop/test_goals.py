"""Goal runs of the official Python SDK on our app-server: its logical turn is one goal, over as many turns as it takes.

The SDK's client has them, its documented classes have not yet: the scripts use what the client has.
"""

import pytest

from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from tests.interop.test_codex import python
from tests.processes import finish, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

REACHED = [
    {"text": "Begun."},
    {"text": "Half way."},
    {"call": {"name": "update_goal", "arguments": {"status": "complete"}}},
    {"text": "All done."},
]
SCRIPT = """
import sys
from openai_codex import Codex, CodexConfig, Sandbox
from openai_codex._goal import _GoalNotificationStream
with Codex(CodexConfig(codex_bin=sys.argv[1], cwd=sys.argv[2])) as codex:
    thread = codex.thread_start(cwd=sys.argv[2], sandbox=Sandbox.read_only, model="gpt-5.5")
    client = codex._client
    state, turn_id = client.start_goal_operation(thread.id, "make it so")
    stream = _GoalNotificationStream(
        state,
        lambda: client.next_goal_notification(state),
        lambda: client.unregister_goal_operation(state),
        lambda: client.cancel_goal_operation(state),
    )
    heard = [(event.method, event.payload) for event in stream]
    methods = [method for method, _ in heard]
    print(methods[0], methods.count("turn/started"), methods[-1], methods.count("turn/completed"))
    turn = heard[-1][1].turn
    print(turn.id == turn_id, turn.status.value, turn.items[0].root.text, state.status.value)
    print(thread.run("and now?").final_response)
"""
ASYNC_SCRIPT = """
import asyncio, sys
from openai_codex import AsyncCodex, CodexConfig, Sandbox
from openai_codex._goal import _AsyncGoalNotificationStream
async def main():
    async with AsyncCodex(CodexConfig(codex_bin=sys.argv[1], cwd=sys.argv[2])) as codex:
        thread = await codex.thread_start(cwd=sys.argv[2], sandbox=Sandbox.read_only, model="gpt-5.5")
        client = codex._client
        state, turn_id = await client.start_goal_operation(thread.id, "never to be reached")
        stream = _AsyncGoalNotificationStream(
            state,
            lambda: client.next_goal_notification(state),
            lambda: client.unregister_goal_operation(state),
            lambda: client.cancel_goal_operation(state),
        )
        async for event in stream:
            if event.method == "item/agentMessage/delta":
                await client.cancel_goal_operation(state)  # pauses the goal, and interrupts its turn
        print(event.method, event.payload.turn.status.value, state.status.value)
asyncio.run(main())
"""


def test_a_goal_run_goes_over_several_turns_until_the_model_says_that_it_is_complete(outside):
    async def scenario():
        async with world(outside, ChatGPT(answers=Answers([*REACHED, {"text": "Resting."}]))) as here:
            done = await finish(*python(SCRIPT, here), environment=here.environment, cwd=here.home)
            assert done.code == 0, done.stderr
            assert done.stdout.splitlines() == [
                "turn/started 1 turn/completed 1",
                "True completed All done. complete",
                "Resting.",
            ]
            messages = [one.body for one in here.upstream.received if one.kind == "message"]
            turns = {body["client_metadata"]["turn_id"] for body in messages if body.get("generate") is not False}
            assert len(turns) == 4  # three of the goal, and the user's

    play(scenario())


def test_a_cancelled_goal_run_is_paused_and_its_turn_interrupted(outside):
    async def scenario():
        async with world(outside, ChatGPT(event_delay_s=0.1)) as here:
            done = await finish(*python(ASYNC_SCRIPT, here), environment=here.environment, cwd=here.home)
            assert done.code == 0, done.stderr
            assert done.stdout.splitlines() == ["turn/completed interrupted paused"]

    play(scenario())
