"""What a thread at work has around it, and what comes of working with it."""

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from agent.core import agents_md
from agent.core.ids import uuid7
from agent.core.requests import context_of, request_of
from agent.core.thread import Thread
from agent.core.tooling import ToolBox
from agent.model.wire import Item, ResponseEvent, ResponsesRequest


class ModelSession(Protocol):
    """The model requests of one thread (`agent.model.client.ModelSession`)."""

    @property
    def transport(self) -> str:
        """How the next request travels: "websocket" or "http"."""
        ...

    async def prewarm(self, request: ResponsesRequest) -> None: ...

    def stream(self, request: ResponsesRequest) -> AsyncGenerator[ResponseEvent]:
        """Raises UpstreamError, StreamBroken or Unavailable."""
        ...

    def use_http(self) -> None: ...

    async def aclose(self) -> None: ...


class Opening(Protocol):
    """What a turn begins with in place of a request to the model."""

    def events(self) -> AsyncGenerator[ResponseEvent]:
        """As if the model had said them. Raises Unavailable, which fails the turn."""
        ...

    def stopped(self) -> None:
        """The turn is interrupted: tell the clients what they must know."""
        ...


class Companion(Protocol):
    """What goes along with a loaded thread."""

    def told(self, method: str, params: dict[str, Any]) -> None:
        """The followers of the thread were told this."""
        ...

    async def aclose(self) -> None:
        """The thread is about to be unloaded."""
        ...


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a turn needs to know of its model.

    Args:
        usable_window: Tokens of input that clients are told it has.
        compaction_limit: Tokens at which the user wants a thread to be compacted, if he has said so.
    """

    default_effort: str | None
    usable_window: int
    compaction_limit: int | None = None
    default_summary: str | None = None
    takes_verbosity: bool = True


class ThreadNotFound(LookupError):
    """There is no such thread in this process."""


class TurnNotRunning(LookupError):
    """There is no such turn to steer or interrupt; the text is the original's."""


class NotSteerable(RuntimeError):
    """What runs takes no input: a compaction, or a review; `kind` is what the original calls it."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"cannot steer a {kind} turn")
        self.kind = kind


class NothingToAdd(ValueError):
    """Empty input for a turn that runs. A turn that begins may have none."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all threads of a process share.

    Args:
        facts: What is known of the model of a thread.
        publish: Tells the followers of a thread: (thread id, method, params).
        installation_id: As told to the model service.
        ask: Asks the followers of a thread: (thread id, method, params).
        tools: What the model may call.
        home: CODEX_HOME.
        config: config.toml with the overrides; what a thread has of its own comes before it.
    """

    facts: Callable[[Thread], ModelFacts]
    publish: Callable[[str, str, dict[str, Any]], None]
    installation_id: str
    ask: Callable[[str, str, dict[str, Any]], Awaitable[Any]]
    tools: ToolBox
    home: Path
    config: Mapping[str, Any]

    def new_id(self) -> str:
        """A fresh UUIDv7."""
        return uuid7(now_ms(), os.urandom(10))

    async def instructions(self, thread: Thread) -> agents_md.Instructions:
        """What the AGENTS.md files that count for a thread say."""
        return await asyncio.to_thread(agents_md.load, self.home, thread.cwd, thread.config_over(self.config))

    async def context(self, thread: Thread) -> list[Item]:
        """What the model must know before the first input of a thread."""
        found = await self.instructions(thread)
        now = datetime.now().astimezone()
        shell = os.path.basename(os.environ.get("SHELL", "")) or "sh"
        timezone = os.environ.get("TZ") or now.tzname() or "UTC"
        return context_of(thread, now, timezone, shell, found.told(thread.cwd))

    def request(
        self, thread: Thread, items: tuple[Item, ...], kind: str, *, model: str | None = None, **more: Any
    ) -> ResponsesRequest:
        """See `agent.core.requests.request_of`; None for the model of the thread."""
        thread = thread if model is None else dataclasses.replace(thread, model=model)
        facts = self.facts(thread)
        return request_of(
            thread,
            items,
            kind,
            effort=thread.effort or facts.default_effort,
            summary=thread.summary or facts.default_summary,
            verbosity=thread.verbosity if facts.takes_verbosity else None,
            tools=() if kind == "compaction" and not thread.provider.compacts else self.tools.declared(thread),
            installation_id=self.installation_id,
            **more,
        )


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn that was answered to the client, and what sets it going (nothing, if it runs already)."""

    wire: dict[str, Any]
    begin: Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """A turn, for what it begins with.

    Args:
        publish: Tells the thread's clients: (method, params).
        record: Adds to the history.
        transport: How the thread's next request would travel; known once it was warmed.
    """

    thread: Thread
    turn_id: str
    publish: Callable[[str, dict[str, Any]], None]
    record: Callable[[Item], None]
    transport: Callable[[], Awaitable[str]]


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
