"""The parameters of the realtime methods, and what is refused by name."""

import pytest

from agent.standins.desktop import Script
from tests.agent.core import published_schema
from tests.agent.rpc.realtime_desk import talking
from tests.agent.rpc.test_methods import refused

UNKNOWN = "019a0000-0000-7000-8000-00000000dead"


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("start", {}, "Invalid request: missing field `outputModality`"),
        ("start", {"outputModality": "smell"}, "Invalid request: unknown variant `smell`, expected `text` or `audio`"),
        ("start", {"outputModality": "text", "threadId": UNKNOWN}, f"thread not found: {UNKNOWN}"),
        (
            "start",
            {"outputModality": "text", "transport": {"type": "webrtc"}},
            "Invalid request: missing field `sdp`",
        ),
        (
            "start",
            {"outputModality": "text", "transport": {"type": "x"}},
            "Invalid request: unknown variant `x`, expected one of `websocket`, `webrtc`, `existingCall`",
        ),
        (
            "start",
            {"outputModality": "audio", "transport": {"type": "existingCall", "callId": "rtc_1"}},
            "transport existingCall is not supported by countersign; let the server open the call (webrtc)",
        ),
        (
            "start",
            {"outputModality": "audio", "version": "v3"},
            "realtime v3 is not supported by countersign; ask for v1 (webrtc) or v2 (websocket)",
        ),
        (
            "start",
            {"outputModality": "audio", "codexResponsesAsItems": True},
            "thread/realtime/start.codexResponsesAsItems is not supported by countersign; leave it out",
        ),
        (
            "start",
            {"outputModality": "audio", "initialItems": [{"role": "user", "text": "x"}]},
            "initial realtime items require realtime v3",
        ),
        (
            "appendText",
            {"text": "x", "role": "system"},
            "Invalid request: unknown variant `system`, expected one of `user`, `developer`, `assistant`",
        ),
        ("appendText", {"text": "x", "threadId": UNKNOWN}, f"thread not found: {UNKNOWN}"),
        ("appendText", {}, "Invalid request: missing field `text`"),
        ("appendSpeech", {"text": 5}, "Invalid request: invalid type: integer `5`, expected a string"),
        (
            "appendAudio",
            {"audio": {"data": "A", "sampleRate": -1, "numChannels": 1}},
            "Invalid request: invalid value: integer `-1`, expected u32",
        ),
        (
            "appendAudio",
            {"audio": {"data": "A", "sampleRate": 1, "numChannels": 70000}},
            "Invalid request: invalid value: integer `70000`, expected u16",
        ),
        ("appendAudio", {"audio": {"data": "A", "sampleRate": 1}}, "Invalid request: missing field `numChannels`"),
        ("stop", {"threadId": UNKNOWN}, f"thread not found: {UNKNOWN}"),
    ],
)
def test_bad_parameters_are_refused(run, tmp_path, name, params, text):
    async def scenario():
        async with talking(tmp_path) as talk:
            assert (
                await refused(talk.desktop, f"thread/realtime/{name}", {"threadId": talk.thread_id, **params}) == text
            )

    run(scenario())


@pytest.mark.parametrize("name", ["start", "appendAudio", "appendText", "appendSpeech", "stop", "listVoices"])
def test_the_methods_are_experimental(run, tmp_path, name):
    parameters = {"outputModality": "text", "text": "x", "audio": {"data": "", "sampleRate": 1, "numChannels": 1}}

    async def scenario():
        async with talking(tmp_path, script=Script(experimental=False)) as talk:
            method = f"thread/realtime/{name}"
            text = await refused(talk.desktop, method, {"threadId": talk.thread_id, **parameters})
            assert text == f"{method} requires experimentalApi capability"

    run(scenario())


def test_the_voices_are_listed(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as talk:
            answer = await talk.desktop.request("thread/realtime/listVoices", {})
            assert published_schema.misfit("RealtimeVoicesList", answer["voices"]) is None
            assert (answer["voices"]["defaultV1"], answer["voices"]["defaultV2"]) == ("cove", "marin")
            assert len(answer["voices"]["v3"]) == 25

    run(scenario())
