"""What waits to be read by one client, in order and within bounds."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

# Characters that may wait for a client before its requests wait too. Answers to ours are still taken: a client that is
# slow to read may be quick to make tokens.
HIGH_WATER_CHARACTERS = 8 * 1024 * 1024
# Where a client that does not read is let go: characters that wait for it, and of its requests that wait.
MOST_CHARACTERS = 128 * 1024 * 1024
# What a request costs besides its text while it waits.
REQUEST_CHARACTERS = 4 * 1024


class Outbox:
    """A queue of texts.

    Args:
        high_water, most: Characters, as above.

    `overflowed` is set once more than `most` had to be kept; nothing is taken in from there on.
    """

    def __init__(self, high_water: int = HIGH_WATER_CHARACTERS, most: int = MOST_CHARACTERS) -> None:
        self._high_water, self._most = high_water, most
        self._texts: deque[str] = deque()
        self._unsent = 0  # characters of the texts, and of the one that is being sent
        self._held = 0  # characters of requests that wait
        self._room = asyncio.Event()
        self._room.set()
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.overflowed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Characters that are kept."""
        return self._unsent + self._held

    def put(self, text: str) -> None:
        """Queue a text; dropped when closed. One text alone never overflows, however long."""
        if self._closed or not self._bounded():
            return
        self._texts.append(text)
        self._count(len(text))
        self._idle.clear()
        self._wakeup.set()

    async def room(self, size: int) -> None:
        """Wait until enough was read for a request of this many characters to be handled, first come first served."""
        if self._room.is_set() or not self._bounded():
            return
        self._held += size + REQUEST_CHARACTERS
        try:
            while not self._room.is_set():  # those before this one may have filled it again
                await self._room.wait()
        finally:
            self._held -= size + REQUEST_CHARACTERS

    async def drained(self) -> None:
        """Wait until all that was queued is sent."""
        await self._idle.wait()

    async def send_all(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what is queued, in order, until this is closed or cancelled. Raises what `send` raises."""
        while not self._closed:
            while self._texts:
                text = self._texts.popleft()
                await send(text)
                self._count(-len(text))
            self._idle.set()
            self._wakeup.clear()
            if not self._closed:
                await self._wakeup.wait()

    def close(self) -> None:
        """Drop everything; whoever waits goes on."""
        self._closed = True
        self._texts.clear()
        for event in (self._room, self._idle, self._wakeup):
            event.set()

    def _count(self, characters: int) -> None:
        self._unsent += characters
        if self._closed or self._unsent <= self._high_water:
            self._room.set()
        else:
            self._room.clear()

    def _bounded(self) -> bool:
        if self.waiting > self._most:
            self.overflowed.set()
        return not self.overflowed.is_set()
