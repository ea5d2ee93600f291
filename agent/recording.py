"""What a run leaves behind and shows of itself: capture, live page, metrics. Built only of what was asked for."""

import contextlib
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from agent.recording_options import RecordingOptions
from proxy.capture.exchange import Exchange
from proxy.capture.observation import Observation, Piece
from proxy.capture.redact import Redactor

if TYPE_CHECKING:
    from proxy.capture.log import CaptureLog
    from proxy.capture.store import Run

# Nobody sees the difference, and most requests that are no turns are told once and not three times.
_GATHER_S = 0.05


class RecordingUnavailable(Exception):
    """The capture, the page or the metrics cannot be started; the text says what and why."""


class Recording:
    """What runs beside the proxy.

    Attributes:
        observation: For the `ProxyServer`; None if nothing is recorded.
        page: The address of the live page with its token, or None.
        metrics: The address of the metrics and how to read them, or None.
        metrics_url, metrics_token_file: The same for programs.
        run: The captured run, or None.
    """

    def __init__(self) -> None:
        self.observation: Observation | None = None
        self.page: str | None = None
        self.metrics: str | None = None
        self.metrics_url: str | None = None
        self.metrics_token_file: str | None = None
        self.run: Run | None = None
        self._log: CaptureLog | None = None
        self._is_found_by_id = True

    def announce(self, command: str, out: TextIO) -> None:
        """Say where the run can be watched."""
        if self.page is not None:
            out.write(f"countersign {command}: live view at {self.page}\n")
        if self.metrics is not None:
            out.write(f"countersign {command}: {self.metrics}\n")

    def conclude(self, command: str, out: TextIO) -> None:
        """Say where the run can be looked at again, and what is missing there."""
        if self.run is None or self._log is None:
            return
        if self._log.problem:
            out.write(f"countersign {command}: the capture is not complete: {self._log.problem}\n")
        name = self.run.id if self._is_found_by_id else shlex.quote(str(self.run.path))
        out.write(f"Captured as {self.run.id}; `countersign capture show {name}` tells more.\n")


@contextlib.asynccontextmanager
async def recording(options: RecordingOptions, name: str, command: Sequence[str] = ()) -> AsyncIterator[Recording]:
    """Start what is wanted, until the block ends; the proxy has to stop inside of it.

    Args:
        name: Of our command.
        command: What it runs, if anything.

    Raises:
        RecordingUnavailable: Something of it cannot be started.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            result = await _started(stack, options, name, command)
        except OSError as exc:
            raise RecordingUnavailable(str(exc)) from exc
        yield result


async def _started(
    stack: contextlib.AsyncExitStack, options: RecordingOptions, name: str, command: Sequence[str]
) -> Recording:
    result = Recording()
    changed: list[Callable[[Exchange], None]] = []
    pieces: list[Callable[[Piece], None]] = []
    redactor: Redactor | None = None
    if options.captures is not None:
        from proxy.capture.log import CaptureLog

        log = CaptureLog(options.captures, name, command, bodies=options.bodies)
        log.start()
        stack.callback(log.close)
        result._log, result.run, redactor = log, log.run, log.redactor
        result._is_found_by_id = not options.elsewhere
        changed.append(log.changed)
        if options.bodies:
            pieces.append(log.piece)
    if options.live:
        from proxy.live.feed import LiveFeed
        from proxy.live.server import LivePage
        from proxy.live.source import FeedSource

        feed = LiveFeed()
        changed.append(feed.changed)
        page = await stack.enter_async_context(LivePage(FeedSource(feed, result.run)))
        result.page = page.url
    if options.metrics_port is not None:
        from proxy.metrics.counts import Metrics
        from proxy.metrics.server import MetricsServer

        metrics = Metrics()
        changed.append(metrics.changed)
        server = await stack.enter_async_context(MetricsServer(metrics, options.metrics_port))
        result.metrics, result.metrics_url, result.metrics_token_file = server.told, server.url, server.token_file
    if options.otlp is not None:
        from proxy.metrics.otlp import OtlpExport

        export = await stack.enter_async_context(OtlpExport(options.otlp))
        changed.append(export.changed)
    if changed:
        result.observation = Observation(redactor or Redactor.random(), tuple(changed), tuple(pieces), _GATHER_S)
    return result
