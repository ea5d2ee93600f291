"""A realtime call of the real codex behind `countersign verify`: the call and its sideband are proved."""

import sys

import pytest

from proxy.standins.chatgpt import ChatGPT
from tests.interop.original import codex
from tests.interop.test_verify import verified
from tests.processes import attestations, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

CALLS, SIDEBAND = "/backend-api/codex/realtime/calls", "/v1/realtime"

# A client that has codex open a call, and stays until the service has said something on its sideband.
CLIENT = """
import asyncio, os, sys
from agent.standins.desktop import Script, spawn

async def main():
    async with spawn([sys.argv[1], "app-server"], Script(attests=False), os.environ) as desktop:
        await desktop.initialize()
        thread = (await desktop.request("thread/start", {"cwd": os.getcwd()}))["thread"]["id"]
        transport = {"type": "webrtc", "sdp": "an offer"}
        params = {"threadId": thread, "outputModality": "audio", "transport": transport}
        await desktop.request("thread/realtime/start", params)
        await desktop.wait_for("thread/realtime/sdp")
        await desktop.wait_for("thread/realtime/transcript/delta")
        await desktop.request("thread/realtime/stop", {"threadId": thread})
        await desktop.wait_for("thread/realtime/closed")

asyncio.run(main())
"""


class Talkative(ChatGPT):
    """Says a word as soon as a session is set up."""

    async def _record(self, received):
        await super()._record(received)
        if received.kind == "message" and received.path.startswith(SIDEBAND):
            await self.say({"type": "conversation.output_transcript.delta", "delta": "Hello."})


def test_a_call_and_its_sideband_are_proved(outside):
    async def scenario():
        async with world(outside, Talkative()) as here:
            command = (sys.executable, "-c", CLIENT, codex())
            expected = ("--expect", "websocket,realtime,sideband")
            done, proof = await verified(here, outside, *expected, command=command)
            assert (done.code, proof["holds"], proof["problems"]) == (0, True, []), done.stderr
            by_path = {path: [one for one in here.others() if one.path.startswith(path)] for path in (CALLS, SIDEBAND)}
            (call,), (sideband,) = by_path.values()
            assert attestations([call]) == attestations([sideband]) != [[]]

    play(scenario())


def test_a_call_that_did_not_come_is_missed(outside):
    """The control: the same demand, and a codex that does not talk."""

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            done, proof = await verified(here, outside, "--expect", "realtime,sideband")
            assert done.code == 1 and proof["missing"] == ["realtime", "sideband"]

    play(scenario())
