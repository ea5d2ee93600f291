"""Realtime conversations as clients see them, with a scripted service."""

import asyncio

import pytest

from agent.core import backlog
from agent.model.failures import StreamBroken, Unavailable, UpstreamError
from agent.rpc.jsonrpc import RequestFailed
from agent.rpc.realtime_methods import TOO_FAST
from agent.rpc.server import OVERLOADED
from agent.standins.desktop import Script
from tests.agent.core import model_says
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.scripted_realtime import ScriptedRealtime
from tests.agent.rpc.realtime_desk import CALL, talking
from tests.agent.rpc.test_methods import HELLO, refused, turn

STARTED = [
    ("item/started", {"item": {"type": "realtimeSessionStarted"}}),
    ("item/completed", {"item": {"type": "realtimeSessionStarted"}}),
]


def started(version):
    return [*STARTED, ("started", {"realtimeSessionId": "S", "version": version})]


def closed(reason, outcome="ended"):
    item = {"item": {"type": "realtimeSessionClosed", "outcome": outcome}}
    return [("item/started", item), ("item/completed", item), ("closed", {"reason": reason})]


def test_a_call_is_opened_told_and_stopped(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL, realtimeSessionId="S")
            assert [what for what, _, _ in talk.service.asked] == ["call", "join rtc_1"]
            assert link.sent[0]["session"]["type"] == "quicksilver" and link.sent[0]["session"]["instructions"] == "P"
            assert await talk.ask("stop") == {}
            await talk.hears("closed")
            assert link.closed.is_set()
            sdp = ("sdp", {"sdp": "answer to an offer"})
            assert talk.told() == [*started("v1"), sdp, *closed("requested")]

    run(scenario())


def test_a_socket_is_opened_with_an_api_key(run, tmp_path):
    """realtime_apikey_ws."""

    async def scenario():
        async with talking(tmp_path, ScriptedRealtime(api_key=True)) as talk:
            link = await talk.start(outputModality="text", voice="cedar", model="m", realtimeSessionId="S")
            await talk.hears("started")
            ((what, caller, session),) = talk.service.asked
            assert what == "connect" and (caller.thread_id, caller.session_id) == (talk.thread_id, "S")
            assert (session.version, session.model, session.voice, session.modality) == ("v2", "m", "cedar", "text")
            assert link.sent[0]["session"]["output_modalities"] == ["text"] and talk.told() == started("v2")

    run(scenario())


def test_a_socket_needs_an_api_key(run, tmp_path):
    """realtime_start."""

    async def scenario():
        async with talking(tmp_path) as talk:
            assert await talk.ask("start", outputModality="text") == {}
            await talk.hears("error")
            assert talk.told() == [("error", {"message": "realtime conversation requires API key auth"})]
            assert talk.service.asked == []

    run(scenario())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({**CALL, "version": "v2"}, "realtime calls require realtime v1"),
        ({**CALL, "outputModality": "text"}, "text realtime output modality requires realtime v2"),
        ({**CALL, "voice": "marin"}, "realtime voice `marin` is not supported for v1; supported voices: juniper, "),
        ({"voice": "cove"}, "realtime voice `cove` is not supported for v2; supported voices: alloy, "),
    ],
)
def test_a_conversation_that_cannot_be_is_told_as_an_error(run, tmp_path, params, message):
    async def scenario():
        async with talking(tmp_path) as talk:
            assert await talk.ask("start", **{"outputModality": "audio", **params}) == {}
            assert (await talk.hears("error"))["message"].startswith(message)
            assert talk.service.asked == []

    run(scenario())


def test_only_clients_of_the_experimental_api_hear_a_conversation(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Hi.")) as model:
            async with talking(tmp_path, model=model) as talk:
                await turn(talk.desktop, talk.thread_id, HELLO)
                await talk.start(**CALL)
                async with talk.app.desktop(Script(experimental=False)) as other, talk.app.desktop() as third:
                    for one in (other, third):
                        await one.request("thread/resume", {"threadId": talk.thread_id})
                    await talk.ask("stop")
                    await third.wait_for("thread/realtime/closed")
                    assert [one for one in other.notifications if "realtime" in one["method"]] == []

    run(scenario())


def test_a_second_start_ends_the_first_conversation(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            first = await talk.start(**CALL)
            second = await talk.start(**CALL)
            assert first.closed.is_set() and not second.closed.is_set()
            await talk.hears("started", 2)
            assert [name for name, _ in talk.told()].count("closed") == 1

    run(scenario())


@pytest.mark.parametrize("cut_by", ["stop", "start"])
def test_a_conversation_in_the_making_is_cut_short(run, tmp_path, cut_by):
    async def scenario():
        async with talking(tmp_path) as talk:
            talk.service.answers.clear()
            await talk.ask("start", outputModality="audio", **CALL)
            await talk.service.until_asked()
            if cut_by == "stop":
                await talk.ask("stop")
                assert await talk.hears("closed") == {"threadId": talk.thread_id, "reason": "requested"}
            else:
                await talk.ask("start", outputModality="audio", **CALL)
                await talk.service.until_asked(2)
                talk.service.answers.set()
                await talk.hears("sdp")
            assert talk.service.given_up == 1 and [name for name, _ in talk.told()].count("error") == 0

    run(scenario())


def test_what_is_added_goes_out_in_order_also_while_the_conversation_is_opened(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, ScriptedRealtime(api_key=True)) as talk:
            talk.service.answers.clear()
            await talk.ask("start", outputModality="audio")
            await talk.ask("appendText", text="typed")
            await talk.ask("appendAudio", audio={"data": "AAAA", "sampleRate": 24000, "numChannels": 1})
            await talk.ask("appendSpeech", text="say it")
            talk.service.answers.set()
            link = await talk.service.link()
            sent = await link.until(4)
            assert [one["type"] for one in sent] == [
                *("conversation.item.create", "input_audio_buffer.append"),
                *("conversation.item.create", "response.create"),
            ]
            assert sent[0]["item"]["content"][0]["text"] == "[USER] typed" and sent[1]["audio"] == "AAAA"
            assert sent[2]["item"]["content"][0]["text"] == "[BACKEND] say it"

    run(scenario())


def test_what_is_added_to_no_conversation_is_told_as_an_error_of_the_thread(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            for name, params in (("appendText", {"text": "x"}), ("appendSpeech", {"text": "x"})):
                assert await talk.ask(name, **params) == {}
            told = await talk.desktop.wait_for("error", 2)
            assert told["error"]["message"] == "conversation is not running"
            assert (told["error"]["codexErrorInfo"], told["willRetry"]) == ("badRequest", False)
            statuses = [one["params"] for one in talk.desktop.notifications if one["method"] == "thread/status/changed"]
            assert [one["status"] for one in statuses] == [{"type": "systemError"}]
            assert await talk.ask("stop") == {} and (await talk.hears("closed"))["reason"] == "requested"

    run(scenario())


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (None, closed("transport_closed")),
        (
            StreamBroken("cut"),
            [("error", {"message": "stream disconnected before completion: cut"}), *closed("error", "failed")],
        ),
    ],
)
def test_a_conversation_ends_with_its_socket(run, tmp_path, end, told):
    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            link.end(end)
            await talk.hears("closed")
            assert talk.told()[4:] == told and link.closed.is_set()

    run(scenario())


def test_an_error_of_the_service_ends_the_conversation(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            link.say(type="error", error={"message": "oops"})
            await talk.hears("closed")
            assert talk.told()[4:] == [("error", {"message": "oops"}), *closed("error", "failed")]

    run(scenario())


def test_a_send_that_fails_ends_the_conversation(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            link.refusal = StreamBroken("gone")
            await talk.ask("appendText", text="x")
            assert (await talk.hears("error"))["message"].endswith("gone")
            assert (await talk.hears("closed"))["reason"] == "error"

    run(scenario())


@pytest.mark.parametrize(
    ("failures", "message", "was_told"),
    [
        ([UpstreamError("no way", status=403)], "the model service failed with status 403: no way", []),
        (
            [UpstreamError("limit", status=429, kind="usage_limit_reached")],
            "The usage limit of this plan is reached; try again later.",
            [],
        ),
        ([Unavailable("nobody is signed in", "unauthorized")], "nobody is signed in", []),
        (
            [None, StreamBroken("no WebSocket")],
            "stream disconnected before completion: no WebSocket",
            [*started("v1"), ("sdp", {"sdp": "answer to an offer"})],
        ),
    ],
)
def test_a_call_or_sideband_that_is_refused_is_told(run, tmp_path, failures, message, was_told):
    async def scenario():
        async with talking(tmp_path, ScriptedRealtime(failures=list(failures))) as talk:
            await talk.ask("start", outputModality="audio", realtimeSessionId="S", **CALL)
            await talk.hears("error")
            await talk.ask("stop")
            await talk.hears("closed", 2 if was_told else 1)
            end = closed("error", "failed") if was_told else []
            told = [*was_told, ("error", {"message": message}), *end, ("closed", {"reason": "requested"})]
            assert talk.told() == told

    run(scenario())


def test_a_client_that_is_too_fast_is_answered_later_and_then_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(backlog, "HIGH_WATER_CHARACTERS", 4000)
    monkeypatch.setattr(backlog, "MOST_CHARACTERS", 10_000)

    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            link.reads.clear()
            audio = {"data": "A" * 2000, "sampleRate": 24000, "numChannels": 1}
            await talk.ask("appendAudio", audio=audio)  # 3,000 characters with what it costs
            held = [asyncio.create_task(talk.ask("appendAudio", audio=audio)) for _ in range(3)]
            (told,), waiting = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
            assert told is held[2] and len(waiting) == 2
            with pytest.raises(RequestFailed, match=TOO_FAST) as failed:
                await told
            assert failed.value.code == OVERLOADED
            link.reads.set()
            assert await asyncio.gather(*held[:2]) == [{}, {}]
            assert len(await link.until(3)) == 3

    run(scenario())


def test_a_conversation_ends_when_nobody_follows_the_thread_any_more(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Hi.")) as model:
            async with talking(tmp_path, model=model) as talk:
                await turn(talk.desktop, talk.thread_id, HELLO)
                link = await talk.start(**CALL)
                async with talk.app.desktop() as other:
                    await other.request("thread/resume", {"threadId": talk.thread_id})
                    await talk.desktop.request("thread/unsubscribe", {"threadId": talk.thread_id})
                    await talk.ask("appendText", text="x")
                    await link.until(1)  # the other one follows it yet
                    assert not link.closed.is_set()
                await link.closed.wait()

    run(scenario())


def test_a_conversation_ends_when_the_thread_is_unloaded(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            link = await talk.start(**CALL)
            await talk.app.core.unload(talk.thread_id)
            assert link.closed.is_set()
            text = await refused(talk.desktop, "thread/realtime/stop", {"threadId": talk.thread_id})
            assert text == f"thread not found: {talk.thread_id}"

    run(scenario())


def test_a_conversation_in_the_making_ends_with_the_process(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            talk.service.answers.clear()
            await talk.ask("start", outputModality="audio", **CALL)
            await talk.service.until_asked()
            await talk.app.core.aclose()
            assert talk.service.given_up == 1

    run(scenario())
