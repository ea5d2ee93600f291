"""What ends a realtime conversation, or keeps it from beginning; with a scripted service."""

import asyncio

import pytest

from agent.model.provider import Provider
from tests.agent.core import model_says
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.scripted_realtime import ScriptedRealtime
from tests.agent.rpc.realtime_desk import CALL, talking
from tests.agent.rpc.test_methods import HELLO, turn

AUDIO = {"data": "A" * 2000, "sampleRate": 24000, "numChannels": 1}


@pytest.mark.parametrize("ended_by", ["stop", "start"])
def test_the_end_does_not_wait_for_a_service_that_takes_nothing(run, tmp_path, ended_by):
    """It waited until all that was added before had been sent, or 15 s for each piece."""

    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            link.reads.clear()
            for _ in range(3):
                await talk.ask("appendAudio", audio=AUDIO)
            if ended_by == "stop":
                await talk.ask("stop")
            else:
                assert (await talk.start(**CALL)).sent
            assert (await talk.hears("closed"))["reason"] == "requested"
            assert link.closed.is_set() and len(link.sent) == 1

    run(scenario())


def test_a_start_that_waits_is_made_void_by_a_stop(run, tmp_path):
    """It was carried out first, with a request and a token of its own."""

    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            link.closes.clear()
            await talk.ask("start", outputModality="audio", **CALL)
            await link.closing.wait()
            await talk.ask("start", outputModality="audio", **CALL)
            await talk.ask("stop")
            link.closes.set()
            await talk.hears("closed", 2)
            assert [what for what, _, _ in talk.service.asked].count("call") <= 2
            assert [name for name, _ in talk.told()].count("started") <= 2

    run(scenario())


def test_what_is_asked_of_a_thread_that_is_being_unloaded_leaves_nothing_behind(run, tmp_path):
    """A conversation of the thread as it was then outlived it, and took the place of that of the resumed thread."""

    async def scenario():
        with ScriptedModel(model_says.answer("One."), model_says.answer("Two.", item_id="m2")) as model:
            async with talking(tmp_path, model=model) as talk:
                await turn(talk.desktop, talk.thread_id, HELLO)
                link = await talk.start(**CALL)
                link.closes.clear()
                unloading = asyncio.create_task(talk.app.core.unload(talk.thread_id))
                await link.closing.wait()
                assert await talk.ask("appendText", text="x") == {}
                link.closes.set()
                assert await unloading
                await talk.desktop.request("thread/resume", {"threadId": talk.thread_id})
                await turn(talk.desktop, talk.thread_id, {"type": "text", "text": "after that"})
                await talk.start(**CALL, includeStartupContext=True)
                assert "user: after that" in talk.service.asked[-1][2].instructions

    run(scenario())


def test_a_failure_that_nobody_has_foreseen_is_told(run, tmp_path):
    """The client waited for ever."""

    async def scenario():
        async with talking(tmp_path, ScriptedRealtime(failures=[RuntimeError("secret")])) as talk:
            await talk.ask("start", outputModality="audio", **CALL)
            assert (await talk.hears("error"))["message"] == "internal error"

    run(scenario())


def test_the_name_of_a_conversation_has_to_fit_into_a_header(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            await talk.ask("start", outputModality="audio", realtimeSessionId="a\r\nx-evil: 1", **CALL)
            told = (await talk.hears("error"))["message"]
            assert told == "realtimeSessionId is sent in a header; use printable ASCII characters"
            assert talk.service.asked == []
            await talk.start(**CALL, realtimeSessionId="")
            assert talk.service.asked[0][1].session_id == "" == (await talk.hears("started"))["realtimeSessionId"]

    run(scenario())


@pytest.mark.parametrize(
    "provider",
    [
        Provider(id="mine", name="Mine", base_url="https://model.example/v1", needs_openai_auth=False),
        Provider(id="mine", name="OpenAI", base_url="https://model.example/v1"),
        Provider(base_url="https://model.example/v1"),
    ],
)
def test_what_is_said_in_a_thread_of_another_provider_does_not_go_to_the_service(run, tmp_path, provider):
    """It did, with what the user is signed in with, and stamped. The original sends it to the provider."""

    async def scenario():
        async with talking(tmp_path) as talk:
            talk.app.core.thread(talk.thread_id).provider = provider
            await talk.ask("start", outputModality="audio", **CALL)
            told = (await talk.hears("error"))["message"]
            assert told.startswith("realtime at the model provider ") and "not supported by countersign" in told
            assert talk.service.asked == []

    run(scenario())
