"""What the realtime service says and is told, in the two generations of its protocol that we speak. Pure.

v1 carries calls by WebRTC (and may be had on a socket), v2 sockets only. All of it as codex-cli 0.169.0 was observed to
send and to understand it.
"""

import enum
from dataclasses import dataclass
from typing import Any

from agent.model.wire import json_of

Message = dict[str, Any]

SAMPLE_RATE = 24_000
DEFAULT_MODEL = "gpt-realtime-1.5"
TRANSCRIPTION_MODEL = "gpt-4o-mini-transcribe"
# The handoff that carries what was not asked for in v1.
UNASKED = "codex"

DELEGATE = "background_agent"
SILENCE = "remain_silent"
FINISHED = "The background agent is done. Its result is in the [BACKEND] messages before this."
STEERED = "The background agent was working already; this was passed on to guide it."
BUSY = "The background agent is busy with a review or a summary, and did not get this. Ask again in a moment."


class Version(enum.StrEnum):
    """A generation of the protocol; the third is known by name only."""

    V1 = "v1"
    V2 = "v2"
    V3 = "v3"


VOICES = {
    Version.V1: ("juniper", "maple", "spruce", "ember", "vale", "breeze", "arbor", "sol", "cove"),
    Version.V2: ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"),
}
DEFAULT_VOICES = {Version.V1: "cove", Version.V2: "marin"}
_LATER_VOICES = (
    "aube bubbie haetsal hanul himari leher miko neer porto rindo rio rivage selva sonna tinta viola"
).split()  # fmt: skip
VOICES[Version.V3] = (*VOICES[Version.V1], *_LATER_VOICES)
ALL_VOICES = tuple(sorted({voice for voices in VOICES.values() for voice in voices}))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who speaks.

    Args:
        session_id: What the client calls the conversation, or the thread.
    """

    thread_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Session:
    """What a conversation is to be like.

    Args:
        modality: "audio" or "text"; v1 knows audio only.
    """

    version: Version
    model: str
    instructions: str
    voice: str
    modality: str

    def wire(self) -> Message:
        """The `session` of a session.update."""
        if self.version is Version.V1:
            audio: Message = {"input": {"format": _PCM}, "output": {"voice": self.voice}}
            return {"type": "quicksilver", "instructions": self.instructions, "audio": audio}
        return {
            "type": "realtime",
            "instructions": self.instructions,
            "output_modalities": [self.modality],
            "audio": {
                "input": {
                    "format": _PCM,
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"model": TRANSCRIPTION_MODEL},
                    "turn_detection": {
                        "type": "server_vad",
                        "interrupt_response": True,
                        "create_response": True,
                        "silence_duration_ms": 500,
                    },
                },
                "output": {"format": _PCM, "voice": self.voice},
            },
            "tools": _TOOLS,
            "tool_choice": "auto",
        }

    def call_wire(self) -> Message:
        """The `session` of a call."""
        return {**self.wire(), "model": self.model}


_PCM = {"type": "audio/pcm", "rate": SAMPLE_RATE}
_TOOLS = [
    {
        "type": "function",
        "name": DELEGATE,
        "description": (
            "Hand what the user asks for to the background agent, in the user's own words. Use it for everything that "
            "needs work. While the agent works, use it again to pass on what should be different, or done next."
        ),
        "parameters": {
            "type": "object",
            "properties": {"prompt": {"type": "string", "description": "What the user asks for."}},
            "required": ["prompt"],
            "additionalProperties": False,
        },
    },
    {
        "type": "function",
        "name": SILENCE,
        "description": "Call it when nothing should be said. It does nothing that the user would see.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
]


# What is told


def session_update(session: Session) -> Message:
    return {"type": "session.update", "session": session.wire()}


def audio(content: str) -> Message:
    """Base64 of the user's audio, as it was given."""
    return {"type": "input_audio_buffer.append", "audio": content}


def typed(version: Version, role: str, text: str) -> Message:
    """A text of the conversation, which the user typed or which its client adds."""
    if role == "user" and text and version is Version.V2:
        text = _marked("[USER] ", text)
    kind = "output_text" if role == "assistant" else "input_text"
    return _create({"type": "message", "role": role, "content": [{"type": kind, "text": text}]})


def from_agent(version: Version, handoff: str | None, text: str, *, final: bool = False) -> Message:
    """A text of the agent's.

    Args:
        handoff: What it answers; None if it was not asked for.
        final: The agent has no more to say to it.
    """
    if version is Version.V1:
        text = f'"Agent Final Message":\n\n{text}' if final else text
        return {"type": "conversation.handoff.append", "handoff_id": handoff or UNASKED, "output_text": text}
    content = [{"type": "input_text", "text": _marked("[BACKEND] ", text)}]
    return _create({"type": "message", "role": "user", "content": content})


def _marked(mark: str, text: str) -> str:
    return text if text.startswith(mark) else mark + text


def output(call_id: str, text: str) -> Message:
    """What came of a call of v2."""
    return _create({"type": "function_call_output", "call_id": call_id, "output": text})


RESPOND: Message = {"type": "response.create"}


def _create(item: Message) -> Message:
    return {"type": "conversation.item.create", "item": item}


# What is said


@dataclass(frozen=True, slots=True)
class TranscriptDelta:
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptDone:
    """`text` is the whole."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class AudioOut:
    """A piece of audio, as clients see it."""

    chunk: Message


@dataclass(frozen=True, slots=True)
class Added:
    """Something that clients see as it is."""

    item: Any


@dataclass(frozen=True, slots=True)
class Handoff:
    """The agent is wanted."""

    id: str
    item_id: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Silent:
    """The model has decided to say nothing."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Responding:
    """The model has begun (or ended) to respond."""

    active: bool


@dataclass(frozen=True, slots=True)
class Failed:
    message: str


Event = TranscriptDelta | TranscriptDone | AudioOut | Added | Handoff | Silent | Responding | Failed


def parse(version: Version, text: str | bytes) -> list[Event]:
    """What a frame says; nothing, if it is not known or not whole, as in the original."""
    if isinstance(text, bytes):
        return [Failed("the realtime service sent a binary frame")]
    try:
        said = json_of(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(said, dict):
        return []
    return _parse_v1(said) if version is Version.V1 else _parse_v2(said)


def _parse_v1(said: Message) -> list[Event]:
    match said:
        case {"type": "conversation.input_transcript.delta", "delta": str(delta)}:
            return [TranscriptDelta("user", delta)]
        case {"type": "conversation.output_transcript.delta", "delta": str(delta)}:
            return [TranscriptDelta("assistant", delta)]
        case {"type": "conversation.output_audio.delta"}:
            return _audio_out(said, said.get("delta", said.get("data")), None, None)
        case {"type": "conversation.handoff.requested", "handoff_id": str(id), "item_id": str(item)}:
            prompt = said.get("input_transcript")
            return [Handoff(id, item, prompt)] if isinstance(prompt, str) else []
        case {"type": "conversation.item.done" | "response.output_text.done"}:
            return []  # of v2 only
    return _parse_either(said)


def _parse_v2(said: Message) -> list[Event]:
    match said:
        case {"type": "response.output_audio.delta" | "response.audio.delta"}:
            return _audio_out(said, said.get("delta"), SAMPLE_RATE, 1)
        case {"type": "input_audio_buffer.speech_started"}:
            return [Added({"type": said["type"], "item_id": said.get("item_id")})]
        case {"type": "response.created"}:
            return [Responding(True)]
        case {"type": "response.done"}:
            return [Responding(False)]
        case {"type": "response.cancelled"}:
            return [Responding(False), Added({"type": said["type"], "response_id": _response_id(said)})]
        case {"type": "conversation.item.done", "item": {"type": "function_call", "name": str(name)}}:
            return _called(name, said["item"])
    return _parse_either(said)


def _parse_either(said: Message) -> list[Event]:
    match said:
        case {"type": "conversation.item.input_audio_transcription.delta", "delta": str(delta)}:
            return [TranscriptDelta("user", delta)]
        case {"type": "conversation.item.input_audio_transcription.completed", "transcript": str(whole)}:
            return [TranscriptDone("user", whole)]
        case {"type": "response.output_text.delta" | "response.output_audio_transcript.delta", "delta": str(delta)}:
            return [TranscriptDelta("assistant", delta)]
        case {"type": "response.output_audio_transcript.done", "transcript": str(whole)}:
            return [TranscriptDone("assistant", whole)]
        case {"type": "response.output_text.done", "text": str(whole)}:
            return [TranscriptDone("assistant", whole)]
        case {"type": "conversation.item.added", "item": item}:
            return [Added(item)]
        case {"type": "error"}:
            return [Failed(_reason(said))]
    return []


def _audio_out(said: Message, content: Any, default_rate: int | None, default_channels: int | None) -> list[Event]:
    rate = said.get("sample_rate", default_rate)
    channels = said.get("channels", said.get("num_channels", default_channels))
    if not isinstance(content, str) or not _fits(rate, 32) or not _fits(channels, 16):
        return []
    samples, item = said.get("samples_per_channel"), said.get("item_id")
    chunk = {
        "data": content,
        "sampleRate": rate,
        "numChannels": channels,
        "samplesPerChannel": samples if _fits(samples, 32) else None,
        "itemId": item if isinstance(item, str) and default_rate is not None else None,
    }
    return [AudioOut(chunk)]


def _fits(number: Any, bits: int) -> bool:
    return type(number) is int and 0 <= number < 2**bits


def _called(name: str, item: Message) -> list[Event]:
    item_id = item.get("id")
    call_id = item.get("call_id", item_id)
    if not isinstance(call_id, str):
        return []
    if name == SILENCE:
        return [Silent(call_id)]
    if name != DELEGATE:
        return []
    arguments = item.get("arguments")
    given = arguments if isinstance(arguments, str) else ""
    return [Handoff(call_id, item_id if isinstance(item_id, str) else call_id, _prompt(given))]


def _prompt(arguments: str) -> str:
    """What is asked for; arguments that are not as declared are all taken for it."""
    try:
        given = json_of(arguments)
    except (ValueError, RecursionError):
        return arguments
    prompt = given.get("prompt") if isinstance(given, dict) else None
    return prompt.strip() if isinstance(prompt, str) and prompt.strip() else arguments


def _response_id(said: Message) -> str | None:
    response = said.get("response")
    found = response.get("id") if isinstance(response, dict) else said.get("response_id")
    return found if isinstance(found, str) else None


def _reason(said: Message) -> str:
    error = said.get("error")
    for found in (said.get("message"), error.get("message") if isinstance(error, dict) else error):
        if isinstance(found, str) and found:
            return found
    return "the realtime service failed without a reason"
