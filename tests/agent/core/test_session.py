"""Threads that run turns with a scripted model: what the model is asked, what is remembered, and how it ends."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from agent.core.session import Core
from agent.core.store import Store
from agent.core.surroundings import ModelFacts, NothingToAdd, TurnNotRunning
from agent.core.thread import message
from agent.core.tooling import NoTools
from agent.model.failures import UpstreamError
from agent.model.wire import Created, ItemAdded, TextDelta, TurnState
from tests.agent.core import model_says
from tests.agent.core.audience import Audience
from tests.agent.core.playbook import new_thread
from tests.agent.core.scripted_model import Pause, ScriptedModel

ID = "thread-1"


async def ask_nobody(*_):
    raise AssertionError("nobody is to be asked here")


class Room:
    """A core with one thread, and what its client would see."""

    def __init__(self, model, thread=None, tools=None):
        self.audience = Audience()
        self.thread = new_thread() if thread is None else thread
        self.core = Core(
            open_session=lambda thread_id, provider: model,
            facts=lambda slug: ModelFacts("low", 258_400),
            publish=self.audience.publish,
            installation_id="installation-1",
            ask=ask_nobody,
            tools=tools or NoTools(),
            store=Store(Path.cwd()),
        )
        self.core.add(self.thread)

    def start(self, text="hello", schema=None, override=lambda thread: None):
        """Start a turn as turn/start does; its id."""
        content = [{"type": "text", "text": text, "text_elements": []}]
        started = self.core.start_turn(ID, content, message("user", text), None, schema, override)
        if started.begin is not None:
            started.begin()
        return started.wire["id"]

    async def turn(self, text="hello", schema=None):
        """A whole turn; the `turn` of its turn/completed."""
        before = self.audience.methods.count("turn/completed")
        self.start(text, schema)
        return (await self.audience.hears("turn/completed", before + 1))["turn"]

    def interrupt(self, turn_id):
        self.core.interrupt(ID, turn_id)()


@contextlib.asynccontextmanager
async def room(model, thread=None):
    with model:
        one = Room(model, thread)
        async with asyncio.timeout(10):
            yield one
            await one.core.aclose()


# What the model is asked


def test_the_history_grows_by_what_was_said_and_the_model_gets_all_of_it(run):
    async def scenario():
        model = ScriptedModel(model_says.answer("one"), model_says.answer("two", item_id="msg-2"))
        async with room(model, new_thread(developer_instructions="be brief")) as here:
            assert (await here.turn("hello"))["status"] == "completed"
            assert (await here.turn("again"))["status"] == "completed"

        base, instructions, context, *said = model.inputs(2)
        assert base.startswith("developer: You are a coding agent")
        assert instructions == "developer: be brief"
        assert context.startswith("user: <environment_context>\n  <cwd>/work</cwd>")
        assert said == ["user: hello", "assistant: one", "user: again"]
        assert model.inputs(1) == model.inputs(2)[:4]
        assert [item["type"] for item in here.thread.history] == ["message"] * 6
        assert "id" not in here.thread.history[3]

    run(scenario())


def test_the_model_is_asked_once_for_each_sample(run):
    async def scenario():
        model = ScriptedModel(model_says.calls(model_says.call_item("call-1", "x")), model_says.answer("Done."))
        async with room(model) as here:
            await here.turn()

        assert len(model.requests) == 2
        assert model.inputs(2)[len(model.inputs(1)) :] == ["function_call", "function_call_output"]

    run(scenario())


def test_a_prewarm_carries_the_static_input_and_no_turn(run):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with room(model) as here:
            here.core.prewarm(ID)
            await here.turn()

        (warm,) = model.prewarmed
        assert not warm.generate and warm.input == here.thread.static_input()
        assert warm.client_metadata["turn_id"] == ""
        assert json.loads(warm.turn_metadata)["request_kind"] == "prewarm"
        assert warm.shape() == model.requests[0].shape()

    run(scenario())


def test_a_request_names_its_turn_and_its_thread(run):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with room(model) as here:
            turn_id = (await here.turn())["id"]

        (request,) = model.requests
        metadata = json.loads(request.turn_metadata)
        assert request.thread_id == metadata["thread_id"] == metadata["session_id"] == ID
        assert metadata["turn_id"] == turn_id and metadata["request_kind"] == "turn"
        assert request.client_metadata["x-codex-turn-metadata"] == request.turn_metadata
        assert request.client_metadata["x-codex-installation-id"] == "installation-1"

    run(scenario())


@pytest.mark.parametrize("effort, sent", [(None, "low"), ("high", "high"), ("none", None)])
def test_the_effort_is_the_threads_or_the_models_default(run, effort, sent):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with room(model, new_thread(effort=effort)) as here:
            await here.turn()
        assert model.requests[0].effort == sent

    run(scenario())


def test_an_output_schema_holds_for_its_turn_only(run):
    async def scenario():
        model = ScriptedModel(model_says.answer("{}"), model_says.answer("two"))
        async with room(model) as here:
            await here.turn(schema={"type": "object"})
            await here.turn()
        assert [request.output_schema for request in model.requests] == [{"type": "object"}, None]

    run(scenario())


def test_the_turn_state_goes_back_within_its_turn_only(run):
    async def scenario():
        call = model_says.calls(model_says.call_item("call-1", "x"))
        model = ScriptedModel([TurnState("TS-1"), *call], model_says.answer("one"), model_says.answer("two"))
        async with room(model) as here:
            await here.turn()
            await here.turn()
        assert [request.turn_state for request in model.requests] == [None, "TS-1", None]

    run(scenario())


# Several at once


def test_starting_a_turn_while_one_runs_adds_to_it_and_answers_with_it(run):
    """turn_start_while_active."""

    async def scenario():
        pause = Pause()
        first = [Created("r"), pause, *model_says.message("msg-1", "one"), model_says.completed()]
        model = ScriptedModel(first, model_says.answer("two", item_id="msg-2"))
        async with room(model) as here:
            running = here.start("one")
            await pause.reached.wait()
            assert here.start("two while busy") == running
            pause.over.set()
            turn = (await here.audience.hears("turn/completed"))["turn"]

        assert [item["text"] for item in turn["items"]] == ["two"]
        assert model.inputs(2)[-2:] == ["assistant: one", "user: two while busy"]
        assert here.audience.methods.count("turn/started") == 1

    run(scenario())


def test_two_threads_run_their_turns_beside_each_other(run):
    async def scenario():
        pause = Pause()
        slow = ScriptedModel([pause, *model_says.answer("slow")])
        quick = ScriptedModel(model_says.answer("quick"))
        audience = Audience()
        models = {"slow": slow, "quick": quick}
        core = Core(
            open_session=lambda thread_id, provider: models[thread_id],
            facts=lambda slug: ModelFacts("low", 1),
            publish=audience.publish,
            installation_id="installation-1",
            ask=ask_nobody,
            tools=NoTools(),
            store=Store(Path.cwd()),
        )
        with slow, quick:
            for thread_id in models:
                core.add(new_thread(id=thread_id))
                core.start_turn(thread_id, [], message("user", "hello"), None, None, lambda thread: None).begin()
            await pause.reached.wait()
            assert (await audience.hears("turn/completed"))["threadId"] == "quick"
            pause.over.set()
            assert (await audience.hears("turn/completed", 2))["threadId"] == "slow"
            await core.aclose()
        assert slow.closed and quick.closed

    run(scenario())


# Steering and interrupts


def test_steering_wants_the_turn_that_runs(run):
    async def scenario():
        pause = Pause()
        model = ScriptedModel([pause, *model_says.answer("Done.")], model_says.answer("B"))
        async with room(model) as here:
            with pytest.raises(TurnNotRunning, match="^no active turn to steer$"):
                here.core.steer(ID, "wrong", [], message("user", "x"), None)
            turn_id = here.start()
            await pause.reached.wait()
            with pytest.raises(TurnNotRunning, match=f"^expected active turn id `wrong` but found `{turn_id}`$"):
                here.core.steer(ID, "wrong", [], message("user", "x"), None)
            with pytest.raises(NothingToAdd):
                here.core.steer(ID, turn_id, [], message("user", ""), None)
            more = [{"type": "text", "text": "also B"}]
            here.core.steer(ID, turn_id, more, message("user", "also B"), "cm-1")
            pause.over.set()
            await here.audience.hears("turn/completed")
        assert model.inputs(2)[-1] == "user: also B"

    run(scenario())


def test_interrupting_wants_the_turn_that_runs(run):
    async def scenario():
        pause = Pause()
        async with room(ScriptedModel([pause])) as here:
            with pytest.raises(TurnNotRunning, match="^no active turn to interrupt$"):
                here.core.interrupt(ID, "bogus")
            turn_id = here.start()
            await pause.reached.wait()
            with pytest.raises(TurnNotRunning, match=f"^expected active turn id bogus but found {turn_id}$"):
                here.core.interrupt(ID, "bogus")
            here.interrupt(turn_id)
            with pytest.raises(TurnNotRunning, match="^no active turn to interrupt$"):
                here.core.interrupt(ID, turn_id)

    run(scenario())


def test_an_interrupt_while_the_model_speaks_closes_its_stream_and_says_nothing_after(run):
    async def scenario():
        pause = Pause()
        item = {**model_says.message_item("msg-1", ""), "content": []}
        model = ScriptedModel(
            [Created("r"), ItemAdded(item), TextDelta("msg-1", "first "), pause, TextDelta("msg-1", "answer")],
            model_says.answer("second answer", item_id="msg-2"),
        )
        async with room(model) as here:
            turn_id = here.start("long job")
            await pause.reached.wait()
            here.interrupt(turn_id)
            assert here.audience.methods[-2:] == ["thread/status/changed", "turn/completed"]
            told = len(here.audience.told)
            turn = await here.turn("after interrupt")

        assert model.open_streams == 0
        assert [method for method, _ in here.audience.told[told:]][:2] == ["thread/status/changed", "turn/started"]
        assert turn["status"] == "completed"
        aborted, after = model.inputs(2)[-2:]
        assert aborted.startswith("user: <turn_aborted>") and after == "user: after interrupt"
        assert "first" not in json.dumps(here.thread.history)

    run(scenario())


def test_the_end_of_a_turn_is_told_before_its_stream_is_closed(run):
    """An interrupt in between cancelled the turn with its end decided and not told: clients waited for ever."""

    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        model.closing = Pause()
        async with room(model) as here:
            here.start()
            await model.closing.reached.wait()
            told = list(here.audience.methods)
            model.closing.over.set()
            await here.core.aclose()
        assert told[-1] == "turn/completed"

    run(scenario())


def test_what_a_turn_that_joined_another_wants_otherwise_holds_from_the_next(run):
    """A second turn/start of the same burst changed the model of the turn that ran."""

    def other_model(thread):
        thread.model = "gpt-6-sol"

    async def scenario():
        pause = Pause()
        compaction = model_says.calls({"type": "compaction", "encrypted_content": "SECRET"})
        model = ScriptedModel([pause, *model_says.answer("one")], compaction, model_says.answer("two"))
        async with room(model) as here:
            here.start()
            here.start("more", override=other_model)
            await pause.reached.wait()
            pause.over.set()
            await here.audience.hears("turn/completed")
            await here.turn("again")
        assert [request.model for request in model.requests] == ["gpt-6.1-sol", "gpt-6.1-sol", "gpt-6-sol"]

    run(scenario())


def test_a_prewarm_with_a_bug_is_logged_and_the_turn_does_without(run, caplog):
    """It was an exception that nobody awaited."""

    class Model(ScriptedModel):
        async def prewarm(self, request):
            raise ValueError("secret-4711")

    async def scenario():
        async with room(Model(model_says.answer("Done."))) as here:
            here.core.prewarm(ID)
            assert (await here.turn())["status"] == "completed"
            await here.core.aclose()

    run(scenario())
    assert "prewarm failed thread=thread-1" in caplog.text


def test_an_interrupt_while_a_retry_is_waited_for_does_not_wait(run):
    async def scenario():
        busy = UpstreamError("busy", status=429, retry_after_s=50.0)
        model = ScriptedModel([busy], model_says.answer("Done."), transport="http")
        async with room(model) as here:
            turn_id = here.start()
            await here.audience.hears("error")
            here.interrupt(turn_id)
            assert (await here.audience.hears("turn/completed"))["turn"]["status"] == "interrupted"
            assert (await here.turn())["status"] == "completed"

    run(scenario())
