"""The parameters of the realtime methods, imported when the first of them comes. Pure."""

from typing import Any

from agent.model.realtime_wire import ALL_VOICES
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.rpc.serde_text import InvalidParams
from agent.rpc.shapes import count, flag, list_of, one_of, optional, struct, table, tagged, text

_TRANSPORT = tagged(
    {"websocket": {}, "webrtc": {"sdp": text}, "existingCall": {"callId": text}},
    {"webrtc": ("sdp",), "existingCall": ("callId",)},
    "ThreadRealtimeStartTransport",
)
_ROLE = one_of("user", "developer", "assistant")
_ITEM = struct("struct ThreadRealtimeInitialItem", 2, {"role": _ROLE, "text": text}, ("role", "text"))
START = struct(
    "struct ThreadRealtimeStartParams",
    21,
    {
        "threadId": text,
        "backendReasoningStatus": flag,
        "clientManagedHandoffs": optional(flag),
        "codexResponseHandoffChannelPrefixes": optional(table),
        "codexResponseHandoffMode": optional(one_of("thinking", "commentary", "bemTags")),
        "codexResponseItemPrefix": optional(text),
        "codexResponsesAsItems": optional(flag),
        "delegationAckFiller": optional(flag),
        "flushTranscriptTailOnSessionEnd": optional(flag),
        "includeStartupContext": optional(flag),
        "initialItems": optional(list_of(_ITEM)),
        "model": optional(text),
        "outputModality": one_of("text", "audio"),
        "prompt": optional(text),
        "realtimeEndInstructions": optional(text),
        "realtimeSessionId": optional(text),
        "realtimeStartInstructions": optional(text),
        "transport": optional(_TRANSPORT),
        "version": optional(one_of("v1", "v2", "v3")),
        "voice": optional(one_of(*ALL_VOICES)),
        "voiceSessionId": optional(text),
    },
    ("threadId", "outputModality"),
)


def _short(value: Any) -> int:
    """An integer of 16 bits without a sign."""
    if type(value) is int and 2**16 <= value < 2**32:
        raise InvalidParams(f"invalid value: integer `{value}`, expected u16")
    checked: int = count(value)
    return checked


_AUDIO = struct(
    "struct ThreadRealtimeAudioChunk",
    5,
    {
        "data": text,
        "sampleRate": count,
        "numChannels": _short,
        "samplesPerChannel": optional(count),
        "itemId": optional(text),
    },
    ("data", "sampleRate", "numChannels"),
)
AUDIO = struct("struct ThreadRealtimeAppendAudioParams", 2, {"threadId": text, "audio": _AUDIO}, ("threadId", "audio"))
TEXT = struct(
    "struct ThreadRealtimeAppendTextParams", 3, {"threadId": text, "text": text, "role": _ROLE}, ("threadId", "text")
)
SPEECH = struct(
    "struct ThreadRealtimeAppendSpeechParams", 2, {"threadId": text, "text": text}, ("threadId", "text")
)  # fmt: skip
STOP = struct("struct ThreadRealtimeStopParams", 1, {"threadId": text}, ("threadId",))
VOICES = struct("struct ThreadRealtimeListVoicesParams", 0, {})

# What would change what is sent, and that we do not do.
_REFUSED = ("codexResponsesAsItems", "codexResponseItemPrefix", "flushTranscriptTailOnSessionEnd")


def check_start(given: dict[str, Any]) -> None:
    """Raises RequestFailed if a wish cannot be met; what only v3 knows is of no account, as in the original."""
    transport = given.get("transport") or {}
    if transport.get("type") == "existingCall":
        raise _unsupported("transport existingCall", "let the server open the call (webrtc)")
    if given.get("version") == "v3":
        raise _unsupported("realtime v3", "ask for v1 (webrtc) or v2 (websocket)")
    for name in _REFUSED:
        if given.get(name):
            raise _unsupported(f"thread/realtime/start.{name}", "leave it out")
    if given.get("initialItems"):
        raise RequestFailed(INVALID_REQUEST, "initial realtime items require realtime v3")


def _unsupported(what: str, instead: str) -> RequestFailed:
    return RequestFailed(INVALID_REQUEST, f"{what} is not supported by countersign; {instead}")
