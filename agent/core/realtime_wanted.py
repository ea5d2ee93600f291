"""What a client wants of a realtime conversation, and who opens it."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from agent.core.realtime_texts import instructions
from agent.core.thread import Thread
from agent.model import realtime_wire as wire
from agent.model.provider import OPENAI, is_header_value
from agent.model.realtime_wire import Caller, Message, Session, Version


class Refused(Exception):
    """There can be no such conversation."""


class Link(Protocol):
    """An open conversation with the service, see `agent.model.realtime.RealtimeSocket`."""

    async def send(self, message: Message) -> None: ...

    def frames(self) -> AsyncGenerator[str | bytes]: ...

    async def aclose(self) -> None: ...


class Service(Protocol):
    """Opens conversations, see `agent.model.realtime.RealtimeService`."""

    async def call(self, caller: Caller, session: Session, offer: str) -> tuple[str, str]: ...

    async def join(self, caller: Caller, session: Session, call_id: str) -> Link: ...

    async def connect(self, caller: Caller, session: Session) -> Link: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """The conversation that a client wants.

    Args:
        offer: The SDP offer of a call by WebRTC; None for a socket.
        prompt: In the place of our instructions; "" for none, None for ours.
        handoffs: Whether the model is told by itself what the agent says.
        started, ended: What the agent is told when it starts and ends, in the place of our texts.
    """

    offer: str | None
    modality: str
    version: Version | None = None
    voice: str | None = None
    model: str | None = None
    prompt: str | None = None
    with_context: bool = True
    session_id: str | None = None
    handoffs: bool = True
    started: str | None = None
    ended: str | None = None

    def session(self, thread: Thread) -> Session:
        """Raises Refused."""
        provider = thread.provider
        if provider.id != OPENAI.id or provider.base_url is not None:
            raise Refused(
                f"realtime at the model provider `{provider.id}` with a base URL of its own is not supported by "
                f"countersign; begin it in a thread of `{OPENAI.id}` without openai_base_url"
            )
        if not is_header_value(self.session_id or ""):
            raise Refused("realtimeSessionId is sent in a header; use printable ASCII characters")
        version = self.version or (Version.V2 if self.offer is None else Version.V1)
        if self.offer is not None and version is not Version.V1:
            raise Refused("realtime calls require realtime v1")
        if self.modality == "text" and version is Version.V1:
            raise Refused("text realtime output modality requires realtime v2")
        voices = wire.VOICES[version]
        voice = self.voice or wire.DEFAULT_VOICES[version]
        if voice not in voices:
            offered = ", ".join(voices)
            raise Refused(f"realtime voice `{voice}` is not supported for {version}; supported voices: {offered}")
        told = instructions(self.prompt, thread, with_context=self.with_context)
        return Session(version, self.model or wire.DEFAULT_MODEL, told, voice, self.modality)
