"""What a realtime conversation has the agent do, and what it is told of it; with a scripted service and model."""

import json

import pytest

from agent.core.realtime_texts import ENDED, STARTED
from agent.model.failures import UpstreamError
from agent.model.provider import OPENAI
from agent.model.realtime_wire import BUSY, FINISHED, STEERED
from tests.agent.core import model_says
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.core.scripted_realtime import ScriptedRealtime
from tests.agent.rpc.realtime_desk import CALL, SOCKET, talking
from tests.agent.rpc.test_methods import HELLO, turn


def with_key():
    return ScriptedRealtime(api_key=True)


def wanted(version, number, prompt):
    """The event that wants the agent."""
    if version == "v1":
        return {
            "type": "conversation.handoff.requested", "handoff_id": f"h{number}", "item_id": "i",
            "input_transcript": prompt,
        }  # fmt: skip
    item = {"type": "function_call", "id": "i", "call_id": f"h{number}", "name": "background_agent"}
    return {"type": "conversation.item.done", "item": {**item, "arguments": json.dumps({"prompt": prompt})}}


def texts(sent):
    """What was sent, briefly."""
    found = []
    for one in sent:
        item = one.get("item", {})
        content = item.get("content", [{}])[0].get("text", item.get("output"))
        found.append(
            (
                one["type"].rpartition(".")[2],
                one.get("handoff_id", item.get("call_id")),
                one.get("output_text", content),
            )
        )
    return found


def test_a_handoff_of_a_call_is_a_turn_and_its_answer_goes_back(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Done."), model_says.answer("Hi.", item_id="msg-2")) as model:
            async with talking(tmp_path, model=model) as talk:
                link = await talk.start(**CALL)
                link.say(type="conversation.input_transcript.delta", delta="do it")
                link.say(type="conversation.output_transcript.delta", delta="sure")
                link.say(**wanted("v1", 1, "do it"))
                done = (await talk.desktop.wait_for("turn/completed"))["turn"]
                assert done["status"] == "completed"
                transcript = [{"role": "user", "text": "do it"}, {"role": "assistant", "text": "sure"}]
                added = {
                    "type": "handoff_request", "handoff_id": "h1", "item_id": "i", "input_transcript": "do it",
                    "active_transcript": transcript,
                }  # fmt: skip
                assert ("itemAdded", {"item": added}) in talk.told()
                final = '"Agent Final Message":\n\n'
                assert texts(await link.until(1)) == [("append", "h1", f"{final}Done.")]
                await turn(talk.desktop, talk.thread_id, HELLO)  # typed, and told as well
                assert texts(await link.until(2))[1:] == [("append", "codex", f"{final}Hi.")]
                assert talk.app.core.thread(talk.thread_id).preview == "do it"
        said = model.inputs(1)
        assert said[-2] == f"developer: <realtime_conversation>\n{STARTED}\n</realtime_conversation>"
        assert said[-1].startswith(
            "user: <realtime_delegation>\n  <input>do it</input>\n  <transcript_delta>user: do it\n"
        )
        assert sum(STARTED in one for one in model.inputs(2)) == 1

    run(scenario())


def test_a_typed_turn_completes_what_was_being_said(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Hi.")) as model:
            async with talking(tmp_path, model=model) as talk:
                link = await talk.start(**CALL)
                link.say(type="conversation.input_transcript.delta", delta="hm")
                await talk.hears("transcript/delta")
                await turn(talk.desktop, talk.thread_id, HELLO)
                segment = {"type": "transcriptSegment", "role": "user", "text": "hm"}
                assert ("item/completed", {"item": segment}) in talk.told()

    run(scenario())


def test_a_handoff_of_a_socket_is_answered_as_a_call_and_the_model_responds(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Done.")) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET)
                link.say(**wanted("v2", 1, "do it"))
                assert texts(await link.until(3)) == [
                    ("create", None, "[BACKEND] Done."), ("create", "h1", FINISHED), ("create", None, None),
                ]  # fmt: skip

    run(scenario())


def test_a_handoff_that_comes_while_the_thread_is_compacted_is_refused_aloud(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause]) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET)
                await talk.desktop.request("thread/compact/start", {"threadId": talk.thread_id})
                await pause.reached.wait()
                link.say(**wanted("v2", 1, "do it"))
                assert texts(await link.until(2)) == [("create", "h1", BUSY), ("create", None, None)]

    run(scenario())


def test_a_handoff_while_the_agent_works_guides_it(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *model_says.answer("One.")], model_says.answer("Two.", item_id="m2")) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET)
                link.say(**wanted("v2", 1, "do it"))
                await pause.reached.wait()
                link.say(**wanted("v2", 2, "but well"))
                assert texts(await link.until(2)) == [("create", "h2", STEERED), ("create", None, None)]
                pause.over.set()
                await talk.desktop.wait_for("turn/completed")
                assert texts(await link.until(5))[2:] == [
                    ("create", None, "[BACKEND] One."), ("create", None, "[BACKEND] Two."), ("create", "h1", FINISHED),
                ]  # fmt: skip
                # The response that was asked for runs: the next one is asked for behind it.
                link.say(type="response.done", response={"id": "r"})
                assert texts(await link.until(6))[5:] == [("create", None, None)]
        assert "<input>but well</input>" in model.inputs(2)[-1]

    run(scenario())


def test_the_model_is_to_speak_of_what_a_typed_turn_brings(run, tmp_path):
    """Without a response.create it never would (observed of the original)."""

    async def scenario():
        steps = [model_says.answer(text, item_id=f"m{text}") for text in ("One.", " ", "Two.")]
        with ScriptedModel(*steps) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET)
                for _ in steps:
                    await turn(talk.desktop, talk.thread_id, HELLO)
                one, two = ("create", None, "[BACKEND] One."), ("create", None, "[BACKEND] Two.")
                assert texts(await link.until(3)) == [one, ("create", None, None), two]
                link.say(type="response.done", response={"id": "r"})
                assert texts(await link.until(4))[3:] == [("create", None, None)]

    run(scenario())


def test_a_handoff_into_a_typed_turn_is_answered_at_its_end(run, tmp_path):
    """As the original does it: guided is only what was handed on before."""

    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *model_says.answer("One.")], model_says.answer("Two.", item_id="m2")) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET)
                await talk.desktop.request("turn/start", {"threadId": talk.thread_id, "input": [HELLO]})
                await pause.reached.wait()
                link.say(**wanted("v2", 1, "but well"))
                await talk.hears("itemAdded")
                pause.over.set()
                assert texts(await link.until(4)) == [
                    ("create", None, "[BACKEND] One."), ("create", None, "[BACKEND] Two."), ("create", "h1", FINISHED),
                    ("create", None, None),
                ]  # fmt: skip

    run(scenario())


def test_nothing_is_said_in_place_of_an_empty_speech(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, with_key()) as talk:
            link = await talk.start(**SOCKET)
            for text in ("", " ", "[BACKEND] x"):
                await talk.ask("appendSpeech", text=text)
            assert texts(await link.until(2)) == [("create", None, "[BACKEND] x"), ("create", None, None)]

    run(scenario())


@pytest.mark.parametrize("how", ["fails", "interrupted"])
def test_a_turn_that_does_not_complete_answers_nothing(run, tmp_path, how):
    async def scenario():
        pause = Pause()
        step = [UpstreamError("bad", status=400)] if how == "fails" else [pause]
        with ScriptedModel(step) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET)
                link.say(**wanted("v2", 1, "do it"))
                if how == "interrupted":
                    await pause.reached.wait()
                    begun = (await talk.desktop.wait_for("turn/started"))["turn"]["id"]
                    await talk.desktop.request("turn/interrupt", {"threadId": talk.thread_id, "turnId": begun})
                await talk.desktop.wait_for("turn/completed")
                await talk.ask("appendText", text="x")
                assert texts(await link.until(1)) == [("create", None, "[USER] x")]

    run(scenario())


def test_a_client_may_bring_the_answers_itself(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Done.")) as model:
            async with talking(tmp_path, with_key(), model) as talk:
                link = await talk.start(**SOCKET, clientManagedHandoffs=True)
                link.say(**wanted("v2", 1, "do it"))
                await talk.desktop.wait_for("turn/completed")
                await talk.ask("appendSpeech", text="my words")
                assert texts(await link.until(2)) == [("create", None, "[BACKEND] my words"), ("create", None, None)]

    run(scenario())


def test_the_agent_is_told_once_that_the_conversation_is_over(run, tmp_path):
    async def scenario():
        steps = [model_says.answer(text, item_id=f"m{text}") for text in "abc"]
        with ScriptedModel(*steps) as model:
            async with talking(tmp_path, model=model) as talk:
                await talk.start(**CALL, realtimeStartInstructions="It begins.", realtimeEndInstructions="It ends.")
                await turn(talk.desktop, talk.thread_id, HELLO)
                await talk.ask("stop")
                await talk.hears("closed")
                for _ in range(2):
                    await turn(talk.desktop, talk.thread_id, HELLO)
        notes = [[one for one in model.inputs(number) if "realtime_conversation" in one] for number in (1, 2, 3)]
        begins, ends = (
            f"developer: <realtime_conversation>\nIt {does}.\n</realtime_conversation>" for does in ("begins", "ends")
        )
        assert notes == [[begins], [begins, ends], [begins, ends]]
        assert model.inputs(2)[-2:] == [ends, f"user: {HELLO['text']}"]

    run(scenario())


def test_a_thread_that_is_unloaded_knows_that_the_conversation_is_over(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Hi.")) as model:
            async with talking(tmp_path, model=model) as talk:
                await talk.start(**CALL)
                await turn(talk.desktop, talk.thread_id, HELLO)
                await talk.app.core.unload(talk.thread_id)
                history = talk.app.core.resume(talk.thread_id, lambda name: OPENAI).history
                assert (
                    history[-1]["content"][0]["text"] == f"<realtime_conversation>\n{ENDED}\n</realtime_conversation>"
                )

    run(scenario())


def test_silence_is_answered_and_nothing_more(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, with_key()) as talk:
            link = await talk.start(**SOCKET)
            item = {"type": "function_call", "id": "i", "call_id": "c", "name": "remain_silent", "arguments": "{}"}
            link.say(type="conversation.item.done", item=item)
            assert texts(await link.until(1)) == [("create", "c", "")]

    run(scenario())


def test_what_the_service_says_is_shown(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, with_key()) as talk:
            link = await talk.start(**SOCKET)
            link.say(type="conversation.item.added", item={"id": "x", "type": "message"})
            link.say(type="response.output_audio.delta", delta="AAEC", item_id="y")
            link.say(type="response.output_text.done", text="whole")
            link.say(type="response.cancelled", response={"id": "r"})
            await talk.hears("itemAdded", 2)
            segment = {"type": "transcriptSegment", "role": "assistant"}
            chunk = {"data": "AAEC", "sampleRate": 24000, "numChannels": 1, "samplesPerChannel": None, "itemId": "y"}
            assert talk.told()[3:] == [
                ("itemAdded", {"item": {"id": "x", "type": "message"}}),
                ("outputAudio/delta", {"audio": chunk}),
                ("item/started", {"item": {**segment, "text": ""}}),
                ("item/transcript/delta", {"delta": "whole"}),
                ("item/completed", {"item": {**segment, "text": "whole"}}),
                ("transcript/done", {"role": "assistant", "text": "whole"}),
                ("itemAdded", {"item": {"type": "response.cancelled", "response_id": "r"}}),
            ]

    run(scenario())
