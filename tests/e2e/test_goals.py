"""Goals of whole processes: their turns are stamped as others are, and a kill takes nothing of them."""

import signal

import pytest

from agent.standins.desktop import Script
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.processes import app_server, attestations, play, world

REACHED = [
    {"text": "Working."},
    {"call": {"name": "update_goal", "arguments": {"status": "complete"}}},
    {"text": "Done."},
]


async def pursued(here, script):
    """The requests by POST of a goal that is pursued to its end."""
    async with app_server(here, script) as desktop:
        await desktop.initialize()
        thread_id = (await desktop.request("thread/start", {"cwd": str(here.home)}))["thread"]["id"]
        await desktop.request("thread/goal/set", {"threadId": thread_id, "objective": "win"})
        await desktop.wait_for("turn/completed", 2)
        assert (await desktop.request("thread/goal/get", {"threadId": thread_id}))["goal"]["status"] == "complete"
    return [one for one in here.scoped() if not one.is_websocket]


@pytest.mark.parametrize("attests", [True, False])
def test_each_request_of_a_goal_carries_a_token_of_its_own_if_a_desktop_can_give_one(tmp_path, attests):
    async def scenario():
        upstream = ChatGPT(faults=[Fault.parse("websocket:426")], answers=Answers(REACHED))
        async with world(tmp_path, upstream) as here:
            values = attestations(await pursued(here, Script(attests=attests)))
        if not attests:
            assert values == [[]] * 3
            return
        assert all(len(value) == 1 and value[0].startswith('{"v":1,"s":0,') for value in values)
        assert len({value[0] for value in values}) == len(values) == 3

    play(scenario())


def test_a_goal_survives_a_kill_and_goes_on_when_the_thread_is_resumed(tmp_path):
    async def scenario():
        long = {"text": "word " * 2000}
        async with world(tmp_path, ChatGPT(answers=Answers([REACHED[0], long]), event_delay_s=0.05)) as here:
            async with app_server(here) as desktop:
                await desktop.initialize()
                thread_id = (await desktop.request("thread/start", {"cwd": str(here.home)}))["thread"]["id"]
                await desktop.request("thread/goal/set", {"threadId": thread_id, "objective": "win"})
                await desktop.wait_for("turn/completed")
                await desktop.wait_for("item/agentMessage/delta", 2)  # of the second turn
                desktop.process.send_signal(signal.SIGKILL)
                await desktop.gone.wait()
            here.upstream.answers = Answers(REACHED[1:])
            async with app_server(here) as desktop:
                await desktop.initialize()
                resumed = await desktop.request("thread/resume", {"threadId": thread_id})
                assert [turn["status"] for turn in resumed["thread"]["turns"]] == ["completed", "interrupted"]
                told = (await desktop.wait_for("thread/goal/updated"))["goal"]
                assert (told["objective"], told["status"], told["tokensUsed"]) == ("win", "active", 70)
                assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "completed"
                goal = (await desktop.request("thread/goal/get", {"threadId": thread_id}))["goal"]
                assert goal["status"] == "complete"

    play(scenario())
