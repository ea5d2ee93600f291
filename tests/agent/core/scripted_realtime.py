"""A realtime service that a test plays: it opens conversations, says what the test says, and keeps what it was sent."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from agent.model.failures import Unavailable
from agent.model.realtime_wire import Caller, Message, Session


class ScriptedLink:
    """An open conversation."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.closed = asyncio.Event()
        self.reads = asyncio.Event()  # cleared: nothing more is taken
        self.reads.set()
        self.closes = asyncio.Event()  # cleared: the closing is not answered
        self.closes.set()
        self.closing = asyncio.Event()
        self.refusal: Exception | None = None  # of what is sent
        self._frames: asyncio.Queue[str | bytes | Exception | None] = asyncio.Queue()
        self._news = asyncio.Event()

    def say(self, **event: Any) -> None:
        self._frames.put_nowait(json.dumps(event))

    def end(self, how: Exception | None = None) -> None:
        """Close the socket, or break it."""
        self._frames.put_nowait(how)

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(message)
        self._news.set()

    async def until(self, count: int) -> list[Message]:
        """What was sent after the session, once it is so much."""
        while len(self.sent) <= count:
            self._news.clear()
            await self._news.wait()
        return self.sent[1:]

    async def frames(self) -> AsyncGenerator[str | bytes]:
        while (frame := await self._frames.get()) is not None:
            if isinstance(frame, Exception):
                raise frame
            yield frame

    async def aclose(self) -> None:
        self.closing.set()
        await self.closes.wait()
        self.closed.set()


class ScriptedRealtime:
    """The service.

    Args:
        failures: Raised one after the other by what is asked for first, None for success.
    """

    def __init__(self, *, api_key: bool = False, failures: list[Exception | None] | None = None) -> None:
        self._api_key = api_key
        self._failures = failures or []
        self.asked: list[tuple[str, Caller, Session]] = []
        self.answers = asyncio.Event()  # cleared: nothing is answered
        self.answers.set()
        self.given_up = 0
        self._links: asyncio.Queue[ScriptedLink] = asyncio.Queue()
        self._news = asyncio.Event()

    async def until_asked(self, count: int = 1) -> None:
        """Wait until something was asked for this often."""
        while len(self.asked) < count:
            self._news.clear()
            await self._news.wait()

    async def link(self) -> ScriptedLink:
        """The next conversation that is opened."""
        return await self._links.get()

    async def call(self, caller: Caller, session: Session, offer: str) -> tuple[str, str]:
        await self._answer("call", caller, session)
        return f"answer to {offer}", "rtc_1"

    async def join(self, caller: Caller, session: Session, call_id: str) -> ScriptedLink:
        return await self._open(f"join {call_id}", caller, session)

    async def connect(self, caller: Caller, session: Session) -> ScriptedLink:
        if not self._api_key:
            raise Unavailable("realtime conversation requires API key auth", "other")
        return await self._open("connect", caller, session)

    async def _open(self, what: str, caller: Caller, session: Session) -> ScriptedLink:
        await self._answer(what, caller, session)
        link = ScriptedLink()
        self._links.put_nowait(link)
        return link

    async def _answer(self, what: str, caller: Caller, session: Session) -> None:
        self.asked.append((what, caller, session))
        self._news.set()
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure
