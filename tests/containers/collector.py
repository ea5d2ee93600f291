"""A stand-in of the OpenTelemetry collector, for where its image cannot be had: OTLP in, Prometheus text out.

It reads real OTLP (protobuf, gzip) on port 4318 and shows the counters and histograms on port 8889 under the names that
the collector's Prometheus exporter gives them. Nothing else of a collector is in it.
"""

import asyncio
import gzip
import signal
import sys
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SUFFIXES = {"s": "_seconds", "By": "_bytes"}


class Collector:
    """What arrived; the last value of each series counts."""

    def __init__(self) -> None:
        self._series: dict[str, float] = {}
        self._spans = 0

    async def metrics(self, request: web.Request) -> web.Response:
        """An export of metrics."""
        export = ExportMetricsServiceRequest.FromString(await _body(request))
        for resource in export.resource_metrics:
            names = dict(_attributes(resource.resource.attributes))
            common = {"job": names.get("service.name", ""), "instance": names.get("service.instance.id", "")}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._take(metric, common)
        _say(f"metrics of {len(export.resource_metrics)} resources, {len(self._series)} series in all")
        return web.Response(content_type="application/x-protobuf")

    async def traces(self, request: web.Request) -> web.Response:
        """An export of spans, which are only counted."""
        export = ExportTraceServiceRequest.FromString(await _body(request))
        spans = [span for resource in export.resource_spans for scope in resource.scope_spans for span in scope.spans]
        self._spans += len(spans)
        _say(f"{len(spans)} spans, {self._spans} in all: {sorted({span.name for span in spans})}")
        return web.Response(content_type="application/x-protobuf")

    async def shown(self, request: web.Request) -> web.Response:
        """All series in Prometheus' text format."""
        return web.Response(text="".join(f"{name} {value:g}\n" for name, value in sorted(self._series.items())))

    def _take(self, metric: Any, common: dict[str, str]) -> None:
        name = metric.name.replace(".", "_") + SUFFIXES.get(metric.unit, "")
        for point in metric.sum.data_points:
            labels = {**common, **dict(_attributes(point.attributes))}
            self._series[_key(f"{name}_total", labels)] = point.as_int or point.as_double
        for point in metric.histogram.data_points:
            labels = {**common, **dict(_attributes(point.attributes))}
            self._series[_key(f"{name}_count", labels)] = point.count
            self._series[_key(f"{name}_sum", labels)] = point.sum


async def _body(request: web.Request) -> bytes:
    body = await request.read()
    return gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body


def _attributes(pairs: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        yield pair.key, str(getattr(pair.value, kind)) if kind else ""


def _key(name: str, labels: dict[str, str]) -> str:
    return f"{name}{{{','.join(f'{key.replace(".", "_")}="{value}"' for key, value in sorted(labels.items()))}}}"


def _say(text: str) -> None:
    sys.stdout.write(f"collector stand-in: {text}\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until SIGTERM."""
    collector = Collector()
    otlp, shown = web.Application(), web.Application()
    otlp.router.add_post("/v1/metrics", collector.metrics)
    otlp.router.add_post("/v1/traces", collector.traces)
    shown.router.add_get("/metrics", collector.shown)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    for application, port in ((otlp, 4318), (shown, 8889)):
        # The SDK may have compressed what it sends; that is undone here.
        runner = web.AppRunner(application, access_log=None, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", port).start()
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
