"""Realtime conversations of the whole app-server: what is stamped, what is carried again, and what is left alone."""

import asyncio

from agent.standins.desktop import Script
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from tests.processes import app_server, attestations, play, world

CALLS, SIDEBAND = "/backend-api/codex/realtime/calls", "/v1/realtime"
API_KEY = {"OPENAI_API_KEY": "sk-test", "auth_mode": "apikey"}
CALL = {"transport": {"type": "webrtc", "sdp": "an offer"}}


def received(here, path):
    return [one for one in here.upstream.received if one.kind == "request" and one.path.startswith(path)]


async def talk(desktop, here, **params):
    """Start a conversation in a thread of its own; the thread, once the session has arrived."""
    await desktop.initialize()
    thread_id = (await desktop.request("thread/start", {"cwd": str(here.home)}))["thread"]["id"]
    await desktop.request("thread/realtime/start", {"threadId": thread_id, "outputModality": "audio", **params})
    await here.upstream.wait_for(1, "message", SIDEBAND)
    return thread_id


def test_a_call_has_a_fresh_token_and_its_sideband_the_same_one(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(answers=Answers([{"text": "It is done."}]))) as here:
            async with app_server(here, Script(token=lambda number: f"token-{number}")) as desktop:
                thread_id = await talk(desktop, here, **CALL)
                assert (await desktop.wait_for("thread/realtime/sdp"))["sdp"] == "v=0\r\n"
                handoff = {"handoff_id": "h", "item_id": "i", "input_transcript": "do it"}
                await here.upstream.say({"type": "conversation.handoff.requested", **handoff})
                await here.upstream.wait_for(2, "message", SIDEBAND)
                assert here.upstream.received[-1].body["output_text"].endswith("It is done.")
                await desktop.request("thread/realtime/stop", {"threadId": thread_id})
                assert (await desktop.wait_for("thread/realtime/closed"))["reason"] == "requested"
                asked = desktop.asked
            (call,), (sideband,) = received(here, CALLS), received(here, SIDEBAND)
            assert attestations([call]) == attestations([sideband])
            tokens = attestations([*here.scoped(), call])
            assert sorted(tokens) == [[f'{{"v":1,"s":0,"t":"token-{number}"}}'] for number in (1, 2)] and asked == 2

    play(scenario())


def test_with_an_api_key_nobody_is_asked_and_nothing_is_stamped(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(), API_KEY) as here, app_server(here) as desktop:
            await talk(desktop, here)
            assert (await desktop.wait_for("thread/realtime/started"))["version"] == "v2"
            (socket,) = received(here, SIDEBAND)
            assert attestations([socket]) == [[]] and desktop.asked == 0

    play(scenario())


def test_a_conversation_ends_with_the_process(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(), API_KEY) as here, app_server(here) as desktop:
            await talk(desktop, here)
            await desktop.wait_for("thread/realtime/started")
            desktop.process.terminate()
            async with asyncio.timeout(5):
                assert await desktop.process.wait() == 0
            await here.upstream.wait_for(1, "closed", SIDEBAND)
            assert [
                one.status for one in here.upstream.received if one.kind == "closed" and one.path.startswith(SIDEBAND)
            ] == [1000]

    play(scenario())
