"""The metrics in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from proxy.capture.exchange import Exchange
from proxy.metrics.events import Events, TunnelEnded

# Seconds; the budget of a token is 0.1.
TOKEN_WAIT_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 1.0)
FIRST_BYTE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts exchanges. Labels are from closed sets: no host, no path, no thread, no account."""

    def __init__(self) -> None:
        self._events = Events()
        self._registry = registry = CollectorRegistry()
        self._scoped = Counter(
            "countersign_scoped_requests",
            "Requests in scope, by what became of their attestation",
            ("route", "transport", "outcome"),
            registry=registry,
        )
        self._unscoped = Counter(
            "countersign_other_requests",
            "Requests on intercepted hosts without a row in the scope, passed on or refused",
            ("outcome",),
            registry=registry,
        )
        self._wait = Histogram(
            "countersign_token_wait_seconds",
            "How long the desktop took to answer, or was waited for",
            ("outcome",),
            buckets=TOKEN_WAIT_BUCKETS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "countersign_first_byte_seconds",
            "From the request head to the head of the answer, of requests in scope",
            ("route", "transport"),
            buckets=FIRST_BYTE_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "countersign_failed_requests",
            "Requests in scope that got no answer, or one with a status of 400 or more",
            ("route", "transport", "status"),
            registry=registry,
        )
        self._fallbacks = Counter(
            "countersign_fallbacks", "Threads that went on by POST after a refused WebSocket", registry=registry
        )
        self._tunnel_bytes = Counter(
            "countersign_tunnel_bytes", "Bytes of closed tunnels to other hosts", ("direction",), registry=registry
        )

    def changed(self, exchange: Exchange) -> None:
        """Count what a phase of an exchange adds."""
        event = self._events.of(exchange)
        if event is None:
            return
        if isinstance(event, TunnelEnded):
            self._tunnel_bytes.labels("sent").inc(event.sent_bytes)
            self._tunnel_bytes.labels("received").inc(event.received_bytes)
            return
        if not event.route:
            self._unscoped.labels(event.outcome).inc()
            return
        transport = str(exchange.transport)
        self._scoped.labels(event.route, transport, event.outcome).inc()
        if exchange.waited_s is not None:
            self._wait.labels(event.outcome).observe(exchange.waited_s)
        if exchange.first_byte_s is not None:
            self._first_byte.labels(event.route, transport).observe(exchange.first_byte_s)
        if exchange.status is None or exchange.status >= 400:
            # What upstream answers must not make series without end.
            is_known = exchange.status is not None and exchange.status < 600
            status = str(exchange.status) if is_known else "none" if exchange.status is None else "other"
            self._errors.labels(event.route, transport, status).inc()
        if event.fell_back:
            self._fallbacks.inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)
