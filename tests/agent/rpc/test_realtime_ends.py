"""What ends a realtime conversation, or keeps it from beginning; with a scripted service."""

import asyncio

import pytest

from agent.model.provider import Provider
from tests.agent.core import model_says
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.scripted_realtime import ScriptedRealtime
from tests.agent.rpc.realtime_desk import CALL, SOCKET, talking
from tests.agent.rpc.test_methods import HELLO, refused, turn

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


@pytest.mark.parametrize("ended_by", ["stop", "start"])
def test_what_was_to_follow_from_what_an_end_cuts_short_is_dropped(run, tmp_path, ended_by):
    """The wish for a response went to the next conversation, or the client was told that there is none."""

    async def scenario():
        async with talking(tmp_path, ScriptedRealtime(api_key=True)) as talk:
            link = await talk.start(**SOCKET)
            link.reads.clear()
            await talk.ask("appendSpeech", text="say this")
            await talk.ask("appendText", text="never sent")
            if ended_by == "stop":
                await talk.ask("stop")
                await talk.hears("closed")
                await talk.ask("stop")  # answered by another of them, behind all that was queued
                await talk.hears("closed", 2)
                assert not [one for one in talk.desktop.notifications if one["method"] == "error"]
            else:
                second = await talk.start(**SOCKET)
                await talk.ask("appendText", role="developer", text="the first of all")
                assert [one["type"] for one in await second.until(1)] == ["conversation.item.create"]

    run(scenario())


def test_what_the_agent_says_to_a_conversation_that_is_lost_is_no_request_of_the_client(run, tmp_path):
    """It was told that no conversation runs, which it had not asked, and the thread went to systemError."""

    async def scenario():
        async with talking(tmp_path, ScriptedRealtime(api_key=True)) as talk:
            link = await talk.start(**SOCKET)
            link.reads.clear()
            await talk.ask("appendText", text="what is being sent meanwhile")
            link.say(type="response.output_audio_transcript.delta", delta="the last word")
            link.end()
            await talk.hears("transcript/delta")
            item = {"type": "agentMessage", "id": "i", "text": "done", "phase": None, "memoryCitation": None}
            said = {"threadId": talk.thread_id, "turnId": "t", "item": item, "completedAtMs": 1}
            talk.app.core._tell(talk.thread_id, "item/completed", said)
            link.reads.set()
            assert (await talk.hears("closed"))["reason"] == "transport_closed"
            await talk.ask("stop")
            await talk.hears("closed", 2)
            assert not [one for one in talk.desktop.notifications if one["method"] == "error"]

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


def test_a_thread_that_is_unloaded_while_all_are_closed_does_not_keep_them_from_it(run, tmp_path):
    """What the conversation still had to tell its agent found no thread: no other thread was closed, nor the proxy."""

    async def scenario():
        with ScriptedModel(model_says.answer("One.")) as model:
            async with talking(tmp_path, model=model) as talk:
                link = await talk.start(**CALL)
                await turn(talk.desktop, talk.thread_id, HELLO)
                link.closes.clear()
                closing = asyncio.create_task(talk.app.core.aclose())
                await link.closing.wait()
                unloading = asyncio.create_task(talk.app.core.unload(talk.thread_id))
                await asyncio.sleep(0)
                link.closes.set()
                await closing
                await unloading
                assert "thread not found" in await refused(
                    talk.desktop, "thread/realtime/stop", {"threadId": talk.thread_id}
                )  # or another conversation would begin, which nobody ends

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
