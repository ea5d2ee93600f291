"""What is done in a realtime conversation, one step after the other, and what is known of one that is there."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.realtime_wanted import Link, Wanted
from agent.core.transcript import Transcript
from agent.model.realtime_wire import Message, Session, Version


@dataclass(frozen=True, slots=True)
class Say:
    """Send what this makes for the version that is spoken; nothing, if it makes None.

    Args:
        respond: And have the model respond to it.
        live: The conversation that it is for, as one that a client asks for is for whichever there is.
    """

    make: Callable[[Version], Message | None]
    respond: bool = False
    live: "Live | None" = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the conversation, or tell that there is none."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The socket of this conversation was closed; with a reason, if that was no good end."""

    live: "Live"
    reason: str | None


@dataclass(slots=True)
class Live:
    """A conversation that clients were told of; `link` is there once messages can be sent."""

    session: Session
    wanted: Wanted
    session_id: str
    transcript: Transcript
    link: Link | None = None
    reader: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None
    handoff: str | None = None  # what the agent works on
    turn: str | None = None  # in which
    responding: bool = False
    wants_response: bool = False


Step = Wanted | Say | Stop | Lost
