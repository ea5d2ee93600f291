"""Metrics and traces to an OpenTelemetry collector, by OTLP over HTTP. Needs the extra `otel`."""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import threading
import uuid
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from proxy.capture.exchange import Exchange
from proxy.metrics.counts import FIRST_BYTE_BUCKETS, TOKEN_WAIT_BUCKETS
from proxy.metrics.events import Events, Request, TunnelEnded

logger = logging.getLogger(__name__)

INTERVAL_MS = 10_000
# For one message to the collector, and at the end for all that is not sent yet.
FLUSH_MS = 3_000


class OtlpUnavailable(OSError):
    """It cannot be sent to a collector; the text says why and what to do."""


class OtlpExport:
    """Sends what exchanges add, in threads of its own. An async context manager; its end waits for the rest to go out.

    A span for each request in scope: route, transport, outcome and status, no path, no thread and no host. A collector
    that cannot be reached costs the traffic nothing; the SDK logs it.

    Args:
        url: Of the collector, such as http://127.0.0.1:4318; `/v1/metrics` and `/v1/traces` are added.

    Raises:
        OtlpUnavailable: The extra is not installed, or it is no such URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if "@" in parts.netloc:  # the SDK logs the URL
            raise OtlpUnavailable("--otlp takes no credentials in its URL; OTEL_EXPORTER_OTLP_HEADERS holds them")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OtlpUnavailable(f"--otlp needs the URL of a collector, as http://127.0.0.1:4318; found {url!r}")
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as exc:
            raise OtlpUnavailable(
                "--otlp needs OpenTelemetry; install the extra: pip install 'countersign[otel]'"
            ) from exc
        base = url.rstrip("/")
        named = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create(
            {
                "service.name": "countersign",
                "service.version": importlib.metadata.version("countersign"),
                # Else two runs at one collector would be one series; OTEL_RESOURCE_ATTRIBUTES may name it.
                **({} if "service.instance.id" in named else {"service.instance.id": str(uuid.uuid4())}),
            }
        )
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=FLUSH_MS // 1000),
            export_interval_millis=INTERVAL_MS,
        )
        self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=FLUSH_MS // 1000))
        )
        self._tracer = self._tracers.get_tracer("countersign")
        meter = self._meters.get_meter("countersign")
        self._events = Events()
        self._scoped = meter.create_counter("countersign.scoped_requests", "{request}")
        self._unscoped = meter.create_counter("countersign.other_requests", "{request}")
        self._fallbacks = meter.create_counter("countersign.fallbacks", "{fallback}")
        self._tunnel_bytes = meter.create_counter("countersign.tunnel.bytes", "By")
        self._wait = meter.create_histogram(
            "countersign.token.wait", "s", explicit_bucket_boundaries_advisory=TOKEN_WAIT_BUCKETS
        )
        self._first_byte = meter.create_histogram(
            "countersign.first_byte", "s", explicit_bucket_boundaries_advisory=FIRST_BYTE_BUCKETS
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The SDK's own deadlines are for each batch. A thread of the loop's pool would be waited for at the exit.
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._tracers.shutdown()
            self._meters.shutdown(FLUSH_MS)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="otlp-end", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_MS / 1000):
                await done.wait()
        except TimeoutError:
            logger.warning("otlp not complete: the collector did not take the rest within %d ms", FLUSH_MS)

    def changed(self, exchange: Exchange) -> None:
        """Count what a phase of an exchange adds."""
        match self._events.of(exchange):
            case TunnelEnded() as tunnel:
                self._tunnel_bytes.add(tunnel.sent_bytes, {"direction": "sent"})
                self._tunnel_bytes.add(tunnel.received_bytes, {"direction": "received"})
            case Request(route="") as request:
                self._unscoped.add(1, {"outcome": request.outcome})
            case Request() as request:
                self._count(request)

    def _count(self, request: Request) -> None:
        exchange = request.exchange
        where = {"route": request.route, "transport": str(exchange.transport)}
        attributes = {**where, "outcome": request.outcome}
        self._scoped.add(1, attributes)
        if exchange.waited_s is not None:
            self._wait.record(exchange.waited_s, {"outcome": request.outcome})
        if exchange.first_byte_s is not None:
            self._first_byte.record(exchange.first_byte_s, where)
        if request.fell_back:
            self._fallbacks.add(1)
        started_ns = int(exchange.started_at * 1e9)
        span = self._tracer.start_span(
            f"{exchange.method} {request.route}",
            start_time=started_ns,
            attributes={
                **attributes,
                "http.request.method": exchange.method,
                "http.response.status_code": exchange.status or 0,
                "token.wait_s": exchange.waited_s or 0.0,
            },
        )
        span.end(started_ns + int((exchange.first_byte_s or exchange.duration_s or 0.0) * 1e9))
