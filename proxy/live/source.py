"""What a live page shows: the feed of a proxy in this process, or captured runs of any process."""

import asyncio
import contextlib
import importlib.metadata
import logging
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from proxy.capture.exchange import Exchange, Phase
from proxy.capture.har import har_text
from proxy.capture.store import CaptureError, Run, Tail, find, read_exchanges, survey
from proxy.live.carried import Carried, carried
from proxy.live.feed import LiveFeed

logger = logging.getLogger(__name__)

# Seconds between two looks at the files.
POLL_S = 0.2
LOOK_FOR_RUNS_S = 1.0
# Exchanges that are told before others on the loop have their turn.
_AT_ONCE = 200


class Source(Protocol):
    """Where a page has it from."""

    @property
    def feed(self) -> LiveFeed: ...

    async def carried(self, exchange: Exchange) -> Carried:
        """What it carried, as far as that was captured."""
        ...

    async def har(self) -> bytes:
        """The run as HAR 1.2, without bodies."""
        ...


class FeedSource:
    """The proxy of this process.

    Args:
        feed: Is told of the exchanges by whoever has them.
        run: The run that is captured meanwhile; None if none is, and then only what the feed keeps can be shown.
    """

    def __init__(self, feed: LiveFeed, run: Run | None) -> None:
        self.feed = feed
        self._run = run
        if run is not None:
            feed.restart(run.id)

    async def carried(self, exchange: Exchange) -> Carried:
        return await asyncio.to_thread(carried, self._run, exchange)

    async def har(self) -> bytes:
        return await _har(self._run, self.feed)


class CaptureSource:
    """A captured run, or always the newest; an async context manager that follows what is written.

    Args:
        base: Where the runs lie; it need not be there yet.
        name: Of one run; None for the newest, and each that is newer once it starts.
    """

    def __init__(self, base: Path, name: str | None) -> None:
        self.feed = LiveFeed()
        self._base = base
        self._name = name
        self._run: Run | None = None
        self._tail: Tail | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Find the run.

        Raises:
            CaptureError: There is none of that name, or the base cannot be read.
        """
        await self._choose()
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def carried(self, exchange: Exchange) -> Carried:
        return await asyncio.to_thread(carried, self._run, exchange)

    async def har(self) -> bytes:
        return await _har(self._run, self.feed)

    async def _choose(self) -> None:
        if self._name is not None:
            wanted: Run | None = await asyncio.to_thread(find, self._base, self._name)
        else:
            found, _ = await asyncio.to_thread(survey, self._base)
            wanted = found[0] if found else None
        if wanted is not None and (self._run is None or wanted.id != self._run.id):
            self._run, self._tail = wanted, Tail(wanted)
            self.feed.restart(wanted.id)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        trouble = ""
        while True:
            try:
                await self._read()
                if self._name is None and loop.time() - looked_at >= LOOK_FOR_RUNS_S:
                    looked_at = loop.time()
                    await self._choose()
                trouble = ""
            except CaptureError as exc:
                # The folder may be gone, or back in a moment; told once.
                if str(exc) != trouble:
                    trouble = str(exc)
                    logger.warning("live view: %s", exc)
            await asyncio.sleep(POLL_S)

    async def _read(self) -> None:
        run, tail = self._run, self._tail
        if run is None or tail is None:
            return
        # Asked first: what is written until the process ends is then read below.
        is_running = await asyncio.to_thread(run.is_running)
        exchanges = await asyncio.to_thread(tail.poll)
        if not is_running:
            self._tail = None  # nothing more will come
        for at, exchange in enumerate(exchanges, 1):
            self.feed.changed(exchange)
            if at % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if not is_running:
            for exchange in self.feed.exchanges:
                if exchange.phase is not Phase.ENDED:
                    self.feed.changed(replace(exchange, phase=Phase.ENDED, error=exchange.error or CUT_OFF))


CUT_OFF = "the run ended before it did"


async def _har(run: Run | None, feed: LiveFeed) -> bytes:
    kept = feed.exchanges

    def made() -> bytes:
        # The file has those that the feed has forgotten, the feed what is not written yet.
        exchanges = {one.number: one for one in (*(read_exchanges(run) if run is not None else ()), *kept)}
        version = importlib.metadata.version("countersign")
        return "".join(har_text((exchanges[number] for number in sorted(exchanges)), None, version)).encode()

    return await asyncio.to_thread(made)
