"""What realtime frames mean, and what is sent: without a socket."""

import json

import pytest

from agent.model.realtime_wire import (
    ALL_VOICES,
    DEFAULT_VOICES,
    VOICES,
    Added,
    AudioOut,
    Failed,
    Handoff,
    Responding,
    Session,
    Silent,
    TranscriptDelta,
    TranscriptDone,
    Version,
    from_agent,
    parse,
    typed,
)

V1, V2 = Version.V1, Version.V2
BOTH = (V1, V2)


def chunk(data, rate, channels, samples=None, item=None):
    return {
        "data": data,
        "sampleRate": rate,
        "numChannels": channels,
        "samplesPerChannel": samples,
        "itemId": item,
    }


def called(name, arguments, **more):
    item = {"type": "function_call", "id": "item-1", "name": name, "call_id": "call-1", "arguments": arguments, **more}
    return {"type": "conversation.item.done", "item": item}


@pytest.mark.parametrize(
    ("versions", "said", "events"),
    [
        ((V1,), {"type": "conversation.input_transcript.delta", "delta": "a"}, [TranscriptDelta("user", "a")]),
        ((V1,), {"type": "conversation.output_transcript.delta", "delta": "a"}, [TranscriptDelta("assistant", "a")]),
        (
            BOTH,
            {"type": "conversation.item.input_audio_transcription.delta", "delta": "a"},
            [TranscriptDelta("user", "a")],
        ),
        (
            BOTH,
            {"type": "conversation.item.input_audio_transcription.completed", "transcript": "a"},
            [TranscriptDone("user", "a")],
        ),
        (BOTH, {"type": "response.output_text.delta", "delta": "a"}, [TranscriptDelta("assistant", "a")]),
        (BOTH, {"type": "response.output_audio_transcript.delta", "delta": "a"}, [TranscriptDelta("assistant", "a")]),
        (
            BOTH,
            {"type": "response.output_audio_transcript.done", "transcript": "a"},
            [TranscriptDone("assistant", "a")],
        ),
        ((V2,), {"type": "response.output_text.done", "text": "a"}, [TranscriptDone("assistant", "a")]),
        (
            (V1,),
            {"type": "conversation.output_audio.delta", "data": "AA", "sample_rate": 8000, "num_channels": 2},
            [AudioOut(chunk("AA", 8000, 2))],
        ),
        (
            (V1,),
            {"type": "conversation.output_audio.delta", "delta": "AA", "sample_rate": 8000, "channels": 1,
             "samples_per_channel": 7},
            [AudioOut(chunk("AA", 8000, 1, 7))],
        ),
        (
            (V2,),
            {"type": "response.output_audio.delta", "delta": "AA", "item_id": "i"},
            [AudioOut(chunk("AA", 24_000, 1, None, "i"))],
        ),
        ((V2,), {"type": "input_audio_buffer.speech_started", "item_id": "i"},
         [Added({"type": "input_audio_buffer.speech_started", "item_id": "i"})]),
        ((V2,), {"type": "response.created", "response": {"id": "r"}}, [Responding(True)]),
        ((V2,), {"type": "response.done"}, [Responding(False)]),
        ((V2,), {"type": "response.cancelled", "response": {"id": "r"}},
         [Responding(False), Added({"type": "response.cancelled", "response_id": "r"})]),
        (BOTH, {"type": "conversation.item.added", "item": {"x": 1}}, [Added({"x": 1})]),
        (
            (V1,),
            {"type": "conversation.handoff.requested", "handoff_id": "h", "item_id": "i", "input_transcript": "do"},
            [Handoff("h", "i", "do")],
        ),
        ((V2,), called("background_agent", '{"prompt":" do "}'), [Handoff("call-1", "item-1", "do")]),
        ((V2,), called("background_agent", "do"), [Handoff("call-1", "item-1", "do")]),
        ((V2,), called("background_agent", '{"prompt":5}'), [Handoff("call-1", "item-1", '{"prompt":5}')]),
        ((V2,), called("background_agent", None), [Handoff("call-1", "item-1", "")]),
        ((V2,), called("remain_silent", "{}"), [Silent("call-1")]),
        (BOTH, {"type": "error", "message": "no"}, [Failed("no")]),
        (BOTH, {"type": "error", "error": {"message": "no"}}, [Failed("no")]),
        (BOTH, {"type": "error", "error": "no"}, [Failed("no")]),
        (BOTH, {"type": "error"}, [Failed("the realtime service failed without a reason")]),
    ],
)  # fmt: skip
def test_a_frame_means(versions, said, events):
    for version in BOTH:
        expected = events if version in versions else []
        assert parse(version, json.dumps(said)) == expected


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize(
    "frame",
    ["", "{not json", "[1]", "null", "[" * 100_000, '{"type":5}', '{"type":"session.updated"}',
     '{"type":"response.output_text.delta","delta":5}', '{"type":"conversation.output_audio.delta","delta":"A"}',
     '{"type":"response.output_audio.delta","delta":"A","sample_rate":-1}',
     '{"type":"response.output_audio.delta","delta":"A","channels":70000}',
     '{"type":"conversation.item.done","item":{"type":"function_call","name":"background_agent"}}',
     '{"type":"conversation.item.done","item":{"type":"function_call","name":"other","call_id":"c"}}',
     '{"type":"conversation.handoff.requested","handoff_id":"h","item_id":"i"}'],
)  # fmt: skip
def test_a_frame_that_is_not_known_or_not_whole_means_nothing(version, frame):
    assert parse(version, frame) == []


def test_half_a_surrogate_pair_is_replaced_before_it_gets_to_a_client():
    said = r'{"type":"response.output_text.delta","delta":"a\ud800b"}'
    assert parse(V2, said) == [TranscriptDelta("assistant", "a\ufffdb")]
    assert parse(V2, json.dumps(called("background_agent", r'{"prompt":"a\ud800"}'))) == [
        Handoff("call-1", "item-1", "a\ufffd")
    ]  # fmt: skip


def test_a_binary_frame_ends_the_conversation():
    assert [type(event) for event in parse(V2, b"{}")] == [Failed]


def test_the_session_of_a_call_and_of_a_socket():
    call = Session(V1, "model-1", "Be nice.", "cove", "audio")
    assert call.wire() == {
        "type": "quicksilver",
        "instructions": "Be nice.",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}, "output": {"voice": "cove"}},
    }
    assert call.call_wire() == {**call.wire(), "model": "model-1"}
    socket = Session(V2, "model-1", "Be nice.", "marin", "text").wire()
    assert (socket["type"], socket["output_modalities"]) == ("realtime", ["text"])
    assert socket["audio"]["output"]["voice"] == "marin" and "model" not in socket
    assert [tool["name"] for tool in socket["tools"]] == ["background_agent", "remain_silent"]


@pytest.mark.parametrize(
    ("version", "role", "text", "sent"),
    [(V1, "user", "a", ("input_text", "a")), (V2, "user", "a", ("input_text", "[USER] a")),
     (V2, "user", "", ("input_text", "")), (V2, "developer", "a", ("input_text", "a")),
     (V2, "assistant", "a", ("output_text", "a"))],
)  # fmt: skip
def test_a_text_of_the_conversation(version, role, text, sent):
    (part,) = typed(version, role, text)["item"]["content"]
    assert (part["type"], part["text"]) == sent


def test_what_the_agent_says_goes_to_the_handoff_that_it_answers():
    assert from_agent(V1, "h", "a") == {
        "type": "conversation.handoff.append", "handoff_id": "h", "output_text": "a",
    }  # fmt: skip
    assert from_agent(V1, None, "a", final=True) == {
        "type": "conversation.handoff.append", "handoff_id": "codex", "output_text": '"Agent Final Message":\n\na',
    }  # fmt: skip
    assert from_agent(V2, "h", "a", final=True)["item"]["content"][0]["text"] == "[BACKEND] a"


def test_each_version_has_its_default_voice():
    assert all(DEFAULT_VOICES[version] in VOICES[version] for version in BOTH)
    assert len(set(ALL_VOICES)) == len(ALL_VOICES) == 35
