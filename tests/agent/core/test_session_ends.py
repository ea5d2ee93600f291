"""Turns that fail, and threads that are closed."""

import asyncio
import logging

import pytest

from agent.core.surroundings import ThreadNotFound
from agent.core.thread import message
from agent.model.failures import StreamBroken, Unavailable, UpstreamError
from agent.model.provider import Provider
from agent.model.wire import Created, ItemDone
from tests.agent.core import model_says
from tests.agent.core.playbook import new_thread
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.core.test_session import ID, Room, room

# Failures


def test_a_broken_stream_is_tried_again_after_a_while(run):
    async def scenario():
        loop = asyncio.get_running_loop()
        model = ScriptedModel([Created("r"), StreamBroken("cut")], model_says.answer("recovered"))
        async with room(model) as here:
            began = loop.time()
            turn = await here.turn()
            assert loop.time() - began >= 0.19  # uvloop rounds to milliseconds

        assert turn["status"] == "completed"
        assert "error" not in here.audience.methods
        assert model.inputs(1) == model.inputs(2)

    run(scenario())


def test_a_stream_that_just_ends_is_a_broken_one(run):
    async def scenario():
        model = ScriptedModel([Created("r")], model_says.answer("recovered"), transport="http")
        async with room(model) as here:
            turn = await here.turn()
            error = (await here.audience.hears("error"))["error"]

        assert turn["status"] == "completed"
        assert "the stream ended before response.completed" in error["additionalDetails"]

    run(scenario())


def test_falling_back_switches_the_session_to_post_and_stays_there(run):
    async def scenario():
        cut = [StreamBroken("cut")]
        model = ScriptedModel(cut, cut, model_says.answer("one"), model_says.answer("two"))
        async with room(model, new_thread(provider=Provider(stream_retries=1))) as here:
            await here.turn()
            await here.turn()

        assert model.transports == ["websocket", "websocket", "http", "http"]
        assert here.audience.methods.count("warning") == 1

    run(scenario())


def test_a_request_that_cannot_be_made_fails_the_turn_without_a_retry(run):
    async def scenario():
        model = ScriptedModel([Unavailable("nobody is signed in", "unauthorized")], model_says.answer("Done."))
        async with room(model) as here:
            turn = await here.turn()
            assert turn["error"]["message"] == "nobody is signed in"
            assert turn["error"]["codexErrorInfo"] == "unauthorized"
            assert (await here.turn())["status"] == "completed"

    run(scenario())


def test_a_bug_of_ours_fails_the_turn_instead_of_hanging_it(run, caplog):
    async def scenario():
        model = ScriptedModel([Created("r"), ZeroDivisionError("secret 4711")], model_says.answer("Done."))
        async with room(model) as here:
            turn = await here.turn()
            assert turn["status"] == "failed"
            assert turn["error"]["message"] == "internal error: ZeroDivisionError"
            assert (await here.turn())["status"] == "completed"

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert [record.getMessage()[:29] for record in caplog.records] == ["turn failed thread=thread-1 t"]


def test_a_malformed_item_of_the_model_fails_the_turn_instead_of_hanging_it(run):
    async def scenario():
        async with room(ScriptedModel([ItemDone({})])) as here:
            assert (await here.turn())["status"] == "failed"

    run(scenario())


# The end


def test_closing_ends_a_turn_that_waits_for_the_model(run):
    async def scenario():
        pause = Pause()
        model = ScriptedModel([Created("r"), pause])
        with model:
            here = Room(model)
            here.start()
            await pause.reached.wait()
            async with asyncio.timeout(2):
                await here.core.aclose()
        assert model.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_closing_ends_a_turn_that_waits_for_its_next_attempt(run):
    async def scenario():
        model = ScriptedModel([UpstreamError("busy", status=429, retry_after_s=50.0)], transport="http")
        with model:
            here = Room(model)
            here.start()
            await here.audience.hears("error")
            async with asyncio.timeout(2):
                await here.core.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_closing_ends_a_prewarm_and_survives_a_session_that_cannot_close(run):
    async def scenario():
        warming = asyncio.Event()

        class Stuck(ScriptedModel):
            async def prewarm(self, request):
                warming.set()
                await asyncio.Event().wait()

            async def aclose(self):
                raise OSError("it was closed before")

        here = Room(Stuck())
        here.core.prewarm(ID)
        await warming.wait()
        async with asyncio.timeout(2):
            await here.core.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_an_unknown_thread_is_named(run):
    async def scenario():
        async with room(ScriptedModel()) as here:
            with pytest.raises(ThreadNotFound, match="nope"):
                here.core.thread("nope")
            with pytest.raises(ThreadNotFound, match="nope"):
                here.core.interrupt("nope", "turn-1")
            with pytest.raises(ThreadNotFound, match="nope"):
                here.core.steer("nope", "turn-1", [], message("user", "x"), None)
            with pytest.raises(ThreadNotFound, match="nope"):
                here.core.start_turn("nope", [], message("user", "x"), None, None, lambda thread: None)
            assert here.core.thread(ID) is here.thread

    run(scenario())
