"""A collector gets counts and traces by OTLP, and nothing of who said what."""

import asyncio
import builtins
import socket
import time

import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.capture.exchange import Phase
from proxy.metrics.counts import TOKEN_WAIT_BUCKETS
from proxy.metrics.otlp import FLUSH_MS, OtlpExport, OtlpUnavailable
from tests.proxy.metrics.exchanges import exchange, tunnel


class Collector:
    """Takes what is posted; an async context manager."""

    def __init__(self):
        self.raw = {}

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/v1/{kind}", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _take(self, request):
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.raw.setdefault(request.match_info["kind"], []).append(body)
        return web.Response()


def test_counts_and_spans_arrive_at_the_end_at_the_latest(run):
    async def scenario():
        async with Collector() as collector:
            async with OtlpExport(collector.url + "/") as export:
                export.changed(exchange(1, Phase.ANSWERED))
                export.changed(exchange(1, Phase.ENDED))
                export.changed(tunnel(2, request_bytes=5))
            (spans,) = [ExportTraceServiceRequest.FromString(body) for body in collector.raw["traces"]]
            (span,) = spans.resource_spans[0].scope_spans[0].spans
            assert span.name == "POST responses"
            assert (span.end_time_unix_nano - span.start_time_unix_nano) == 400_000_000
            told = ExportMetricsServiceRequest.FromString(collector.raw["metrics"][-1])
            metrics = {metric.name: metric for metric in told.resource_metrics[0].scope_metrics[0].metrics}
            assert metrics["countersign.scoped_requests"].sum.data_points[0].as_int == 1
            waited = metrics["countersign.token.wait"].histogram.data_points[0]
            # In seconds: what a collector makes of the SDK's own bounds (5, 10, ...) tells nothing of 100 ms.
            assert waited.count == 1 and tuple(waited.explicit_bounds) == TOKEN_WAIT_BUCKETS
            everything = b"".join(body for bodies in collector.raw.values() for body in bodies)
            assert not any(word in everything for word in (b"canary", b"backend-api", b"chatgpt.com", b"example"))

    run(scenario())


def test_a_collector_that_takes_nothing_delays_the_end_by_a_few_seconds_however_much_waits(run, caplog):
    async def hold(_, __):
        await asyncio.Event().wait()

    async def scenario():
        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        try:
            export = OtlpExport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            started = time.monotonic()
            async with export:
                for number in range(3000):
                    export.changed(exchange(number, Phase.ANSWERED))
                told_s = time.monotonic() - started
        finally:
            server.close()
        # The traffic is not held up, and the end by one deadline.
        assert told_s < 2 and time.monotonic() - started < told_s + 1.5 * FLUSH_MS / 1000
        assert "the collector did not take the rest" in caplog.text

    run(scenario())


def test_a_collector_that_is_not_there_costs_the_end_a_few_seconds_and_nothing_else(run):
    async def scenario():
        with socket.socket() as taken:
            # Bound and not listening: whoever connects is refused, and nobody else gets the port.
            taken.bind(("127.0.0.1", 0))
            started = time.monotonic()
            async with OtlpExport(f"http://127.0.0.1:{taken.getsockname()[1]}") as export:
                export.changed(exchange())
        assert time.monotonic() - started < 1.5 * FLUSH_MS / 1000

    run(scenario())


@pytest.mark.parametrize("url", ["collector", "ftp://127.0.0.1", "http://", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(OtlpUnavailable, match="--otlp needs the URL of a collector"):
        OtlpExport(url)


def test_credentials_in_the_address_are_refused_and_not_repeated():
    with pytest.raises(OtlpUnavailable, match="takes no credentials in its URL") as caught:
        OtlpExport("https://me:canary@collector.example")
    assert "canary" not in str(caught.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OtlpUnavailable, match=r"countersign\[otel\]"):
        OtlpExport("http://127.0.0.1:4318")
