"""Threads whose model calls tools: side by side, stopped, failed, and what is on disk of them."""

import asyncio

import pytest

from agent.core.tooling import ToolOutput
from agent.model.wire import ItemDone
from tests.agent.core import model_says
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.core.test_session import ID, Room


class Tools:
    """A `ToolBox` whose calls do what `does` says."""

    def __init__(self, does):
        self._does, self.contexts, self.forgotten = does, [], []

    def declared(self, thread):
        return ({"type": "function", "name": "x"},)

    async def run(self, call, context):
        self.contexts.append(context)
        return await self._does(call, context)

    async def forget(self, thread_id, session):
        self.forgotten.append((thread_id, session))


def two_calls():
    return [
        *(ItemDone(model_says.call_item(f"call-{number}", "x")) for number in (1, 2)),
        model_says.completed(),
    ]


def test_calls_run_side_by_side_and_the_model_gets_all_outputs_in_one_request(run):
    async def scenario():
        both = asyncio.Barrier(2)

        async def does(call, context):
            await both.wait()
            return ToolOutput(f"done {call.id}")

        tools = Tools(does)
        with ScriptedModel(two_calls(), model_says.answer("Done.")) as model:
            room = Room(model, tools=tools)
            turn = await room.turn()
            assert turn["status"] == "completed"
            assert [item["output"] for item in model.requests[1].input[-2:]] == ["done call-1", "done call-2"]
            assert model.requests[0].tools == ({"type": "function", "name": "x"},)
            await room.core.aclose()
        assert [one[0] for one in tools.forgotten] == [ID]

    run(scenario())


def test_a_bug_in_a_tool_is_an_output_for_the_model(run):
    async def scenario():
        async def does(call, context):
            raise RuntimeError("canary of a bug")

        with ScriptedModel(two_calls(), model_says.answer("Done.")) as model:
            room = Room(model, tools=Tools(does))
            assert (await room.turn())["status"] == "completed"
            assert model.requests[1].input[-1]["output"] == "x failed: internal error: RuntimeError"
            await room.core.aclose()

    run(scenario())


def test_stopping_the_turn_stops_its_calls(run):
    async def scenario():
        started, stopped = asyncio.Event(), asyncio.Event()

        async def does(call, context):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        with ScriptedModel(two_calls()) as model:
            room = Room(model, tools=Tools(does))
            turn_id = room.start()
            await started.wait()
            room.core.interrupt(ID, turn_id)()
            await stopped.wait()
            ended = await room.audience.hears("turn/completed")
            assert ended["turn"]["status"] == "interrupted"
            outputs = [item.get("output", "") for item in room.thread.history[-3:-1]]
            assert all(output.startswith("aborted by user after 0.") for output in outputs)
            await room.core.aclose()

    run(scenario())


def test_what_a_call_waits_for_is_shown_once_however_many_wait(run):
    async def scenario():
        async def does(call, context):
            with context.waiting("waitingOnApproval"):
                await asyncio.sleep(0)
            return ToolOutput("done")

        with ScriptedModel(two_calls(), model_says.answer("Done.")) as model:
            room = Room(model, tools=Tools(does))
            await room.turn()
            flags = [
                params["status"].get("activeFlags")
                for method, params in room.audience.told
                if method == "thread/status/changed"
            ]
            assert flags == [[], ["waitingOnApproval"], [], None]
            await room.core.aclose()

    run(scenario())


def test_a_malformed_item_beside_a_call_fails_the_turn_once_the_call_has_an_output(run):
    """It once hung: the end of the response was held back until the call had ended, and then nobody looked for it."""

    async def scenario():
        async def does(call, context):
            await asyncio.sleep(0)
            return ToolOutput("done")

        with ScriptedModel([two_calls()[0], ItemDone({})], model_says.answer("Done.")) as model:
            room = Room(model, tools=Tools(does))
            assert (await room.turn())["status"] == "failed"
            assert room.thread.history[-1]["output"] == "done"
            assert (await room.turn())["status"] == "completed"
            await room.core.aclose()

    run(scenario())


def test_what_a_call_has_done_is_on_disk_once_although_others_still_run(run):
    """A crash in that moment once told the model that what was done had been aborted."""

    def outputs(core):
        thread = core.store.read(core.store.find(ID))
        return {item["call_id"]: item["output"] for item in thread.history if "output" in item}, thread.closing

    async def scenario():
        reached, goes_on = asyncio.Event(), asyncio.Event()

        async def does(call, context):
            if call.id == "call-2":
                reached.set()
                await goes_on.wait()
            return ToolOutput(f"done {call.id}")

        with ScriptedModel(two_calls(), model_says.answer("Done.")) as model:
            room = Room(model, tools=Tools(does))
            room.start()
            await reached.wait()
            found, closing = outputs(room.core)
            assert found == {"call-1": "done call-1", "call-2": "aborted by user"} and len(closing) == 2
            goes_on.set()
            await room.audience.hears("turn/completed")
            found, closing = outputs(room.core)
            assert found == {"call-1": "done call-1", "call-2": "done call-2"} and closing == []
            assert len(room.core.store.read(room.core.store.find(ID)).history) == len(room.thread.history)
            await room.core.aclose()

    run(scenario())


@pytest.mark.parametrize("ends", [True, False])
def test_an_interruption_keeps_the_output_of_a_call_that_has_ended(run, ends):
    async def scenario():
        reached = asyncio.Event()

        async def does(call, context):
            if call.id == "call-2":
                reached.set()
                await asyncio.Event().wait()
            return ToolOutput(f"done {call.id}")

        pause = Pause()
        events = two_calls() if ends else [*two_calls()[:2], pause]
        with ScriptedModel(events) as model:
            room = Room(model, tools=Tools(does))
            turn_id = room.start()
            await (reached if ends else pause.reached).wait()
            await asyncio.sleep(0)
            room.interrupt(turn_id)
            await room.audience.hears("turn/completed")
            done, aborted = (item["output"] for item in room.thread.history if "output" in item)
            assert done == "done call-1" and aborted.startswith("aborted by user after 0.")
            stored = room.core.store.read(room.core.store.find(ID))
            assert stored.history == room.thread.history and stored.closing == []
            await room.core.aclose()

    run(scenario())
