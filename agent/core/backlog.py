"""What waits to be done, in order, and bounded in characters."""

import asyncio

# Above the first, whoever adds to it waits; above the second nothing more is taken. A second of audio has 64 Ki.
HIGH_WATER_CHARACTERS = 1024 * 1024
MOST_CHARACTERS = 8 * 1024 * 1024
# What a step costs besides what it says.
STEP_CHARACTERS = 1024


class TooFast(Exception):
    """More was added than is done."""


class Backlog[Step]:
    """Steps and their sizes in characters."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[tuple[Step, int]] = asyncio.Queue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    def fits(self, size: int) -> bool:
        """Whether there is room for a step of this size."""
        return self._waiting + size <= MOST_CHARACTERS

    def put(self, step: Step, size: int = 0) -> None:
        """Add a step of our own, which is always taken."""
        if self._closed:
            return
        size += STEP_CHARACTERS
        self._waiting += size
        if self._waiting > HIGH_WATER_CHARACTERS:
            self._room.clear()
        self._steps.put_nowait((step, size))

    async def offer(self, step: Step, size: int) -> None:
        """Add a step, and wait until there is room for another. Raises TooFast if there is none for this one."""
        if not self.fits(size):
            raise TooFast
        self.put(step, size)
        await self.room()

    async def room(self) -> None:
        """Wait until there is room."""
        await self._room.wait()

    async def take(self) -> tuple[Step, int]:
        """The next step, which waits until it is `done`."""
        return await self._steps.get()

    def done(self, size: int) -> None:
        """A step of this size, as `take` gave it, is done."""
        self._waiting -= size
        if self._waiting <= HIGH_WATER_CHARACTERS:
            self._room.set()

    def clear(self) -> None:
        """Forget what waits; what was taken is still to be done."""
        while not self._steps.empty():
            _, size = self._steps.get_nowait()
            self.done(size)

    def close(self) -> None:
        """Nothing more is done, and nothing taken in; whoever waits goes on."""
        self._closed = True
        self.clear()
        self._room.set()
