"""The embedded mitmproxy: the only place that builds its Options and Master.

It runs on the caller's loop, so a token is an ordinary await. `Master.run` is not used: it puts an eager task factory
and an exception handler of its own on the running loop, which with uvloop 0.23 does not start and with other
versions corrupts memory (mitmproxy 12.2, house plan 5.2). Only the addons that are needed are loaded: each hook
walks all of them.
"""

import asyncio
import datetime as dt
import itertools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

import certifi
from cryptography import x509

from certs.authority import CA_CERTIFICATE, LocalAuthority
from certs.trust import platform_roots, write_bundle
from proxy import slim
from proxy.attestation import ATTESTATION_BUDGET_S, AttestationProvider
from proxy.capture.exchange import Exchange, Stamp, Transport
from proxy.credentials import Credentials
from proxy.modes import OnFailure, StampMode
from proxy.scope import Scope, Target
from proxy.upstream import UpstreamMap

slim.install()

from mitmproxy import master, options  # noqa: E402
from mitmproxy.addons import core, proxyserver, tlsconfig  # noqa: E402

from proxy.gate import Gate, Tunnel  # noqa: E402
from proxy.stamp import Stamper  # noqa: E402

if TYPE_CHECKING:
    from mitmproxy.certs import CertStoreEntry
    from mitmproxy.proxy.context import Context

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

# The agent may run for days, and clients reload a CA only when they start.
CA_LIFETIME = dt.timedelta(hours=72)

# Seconds. An idle WebSocket between two turns must live; mitmproxy's default of 600 would end it.
IDLE_TIMEOUT_S = 24 * 3600
STOP_TIMEOUT_S = 2.0


class ProxyUnavailable(Exception):
    """The proxy could not be started; the text says why and what to do."""


class _Leaves(tlsconfig.TlsConfig):
    """TlsConfig, but a leaf speaks for the host of its CONNECT and nothing else.

    mitmproxy also puts the server's address into the SANs, which here is a resolved or mapped IP address: outside
    the name constraints, so clients would reject the leaf.
    """

    name = "tlsconfig"

    def get_cert(self, conn_context: "Context") -> "CertStoreEntry":
        host = conn_context.client.sni
        assert host, "the gate lets no handshake without a name get here"
        return self.certstore.get_cert(host, [x509.DNSName(host)])


class ProxyServer:
    """A forward proxy on loopback that stamps what is in scope. An async context manager; one at a time in a process.

    Args:
        run_directory: A 0700 directory for the CA key and the bundles; the caller removes it.
        port: 0 for any free port.
        timeout_s: Seconds to wait for a token.
        on_exchange: Called when a request or tunnel is over; see `Stamper`.
    """

    # mitmproxy keeps its master in a module global (mitmproxy.ctx).
    _running: ClassVar[bool] = False

    def __init__(
        self,
        *,
        scope: Scope,
        provider: AttestationProvider,
        run_directory: Path,
        credentials: Credentials,
        upstream: UpstreamMap,
        on_exchange: Callable[[Exchange], None],
        port: int = 0,
        mode: StampMode = StampMode.ALWAYS,
        on_failure: OnFailure = OnFailure.SEND,
        timeout_s: float = ATTESTATION_BUDGET_S,
    ) -> None:
        self.credentials = credentials
        self.ca_file = run_directory / CA_CERTIFICATE
        self.bundle_file = run_directory / "bundle.pem"
        self._scope = scope
        self._directory = run_directory
        self._upstream = upstream
        self._wanted_port = port
        self._on_exchange = on_exchange
        self._numbers = itertools.count(1)
        tunnels: dict[str, Tunnel] = {}
        self._gate = Gate(scope, credentials, upstream, tunnels, self._tunnel_opened)
        self._stamper = Stamper(
            scope, tunnels, provider, mode, on_failure, timeout_s, self._numbers, on_exchange
        )  # fmt: skip
        self._proxyserver = proxyserver.Proxyserver()
        self._master: master.Master
        self.port = 0

    async def __aenter__(self) -> Self:
        """Make the authority and listen.

        Raises:
            ProxyUnavailable: The port is in use, or another proxy runs in this process.
        """
        if ProxyServer._running:
            raise ProxyUnavailable("mitmproxy can run once in a process, and another ProxyServer is running here")
        authority = LocalAuthority.create(
            (target.host for target in self._scope.intercepted), dt.datetime.now(dt.UTC), CA_LIFETIME
        )
        authority.write(self._directory)
        self.ca_pem = authority.certificate_pem
        extra = [] if self._upstream.ca_file is None else [self._upstream.ca_file.read_bytes()]
        write_bundle(self.bundle_file, platform_roots(), [self.ca_pem, *extra])
        upstream_roots = self._directory / "upstream-roots.pem"
        write_bundle(upstream_roots, Path(certifi.where()), extra)
        for target, address in self._upstream.addresses.items():
            logger.warning("upstream map in use: %s is reached at %s:%d", target, *address)

        opts = options.Options(
            listen_host=LOOPBACK,
            listen_port=self._wanted_port,
            confdir=str(self._directory),
            ssl_verify_upstream_trusted_ca=str(upstream_roots),
        )
        self._master = master.Master(opts, event_loop=asyncio.get_running_loop())
        # It turns each log record of the whole process into a hook; nothing here listens to it.
        self._master._legacy_log_events.uninstall()
        self._master.addons.add(self._gate, self._stamper, core.Core(), self._proxyserver, _Leaves())
        opts.update(
            # Upstream is connected and verified before a request is judged, and its ALPN is mirrored to the client.
            connection_strategy="eager",
            # A copied SAN outside our name constraints would make clients reject the leaf.
            upstream_cert=False,
            # After its 101 a WebSocket is relayed raw: byte-identical, and no frame is kept.
            websocket=False,
            rawtcp=True,
            validate_inbound_headers=True,
            ssl_insecure=False,
            tcp_timeout=IDLE_TIMEOUT_S,
        )
        ProxyServer._running = True
        try:
            if not await self._proxyserver.setup_servers():
                reasons = [_reason(server.last_exception) for server in self._proxyserver.servers]
                raise ProxyUnavailable(
                    f"the proxy cannot listen on {LOOPBACK}:{self._wanted_port}: {'; '.join(reasons)}; "
                    "choose another --port, or none for a free one"
                )
            await self._master.running()
        except BaseException:
            await self._stop()
            raise
        self.port = self._proxyserver.listen_addrs()[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for server in self._proxyserver.servers:
            if server.is_running:
                await server.stop()
        handlers = list(self._proxyserver.connections.values())
        for handler in handlers:
            for io in list(handler.transports.values()):
                if io.handler is not None:
                    io.handler.cancel("the proxy stops")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._proxyserver.connections and time.monotonic() < deadline:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.005)
        await self._master.done()
        self._stamper.close()
        ProxyServer._running = False

    @property
    def url(self) -> str:
        """The proxy URL with its credentials: for a child's environment, never for a log or argv."""
        return self.credentials.proxy_url(LOOPBACK, self.port)

    def child_environment(self) -> dict[str, str]:
        """What a child process needs to go through the proxy and to trust it."""
        bundle, url = str(self.bundle_file), self.url
        return {
            "HTTPS_PROXY": url,
            "https_proxy": url,
            "NO_PROXY": "localhost,127.0.0.1,::1",
            "no_proxy": "localhost,127.0.0.1,::1",
            "CODEX_CA_CERTIFICATE": bundle,
            "SSL_CERT_FILE": bundle,
            "REQUESTS_CA_BUNDLE": bundle,
            "CURL_CA_BUNDLE": bundle,
            "NODE_EXTRA_CA_CERTS": str(self.ca_file),
        }

    def _tunnel_opened(self, target: Target) -> None:
        self._on_exchange(
            Exchange(
                number=next(self._numbers),
                started_at=time.time(),
                transport=Transport.TUNNEL,
                host=target.host,
                port=target.port,
                method="CONNECT",
                path="",
                route=None,
                stamp=Stamp.NOT_SCOPED,
            )
        )


def _reason(exc: Exception | None) -> str:
    """Why it cannot listen, without mitmproxy's advice about options that are not ours."""
    return os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)
