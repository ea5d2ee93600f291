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
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from cryptography import x509

from proxy import slim
from proxy.attestation import ATTESTATION_BUDGET_S, AttestationProvider
from proxy.capture.exchange import Exchange
from proxy.capture.observation import Observation
from proxy.child_environment import child_environment
from proxy.credentials import Credentials
from proxy.modes import OnFailure, StampMode
from proxy.recorder import Recorder
from proxy.run_authority import RunAuthority
from proxy.scope import Scope
from proxy.tunnel import Tunnel
from proxy.upstream import UpstreamMap

with slim.placeholders():
    from mitmproxy import master, options
    from mitmproxy.addons import core, proxyserver, tlsconfig

    from proxy.gate import Gate
    from proxy.listener import Limits, Listener
    from proxy.stamp import Stamper

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
# By the wall clock and not by one long timer, which stands still while a laptop sleeps.
CLOCK_CHECK_S = 60.0


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
        on_exchange: Called once for each request and tunnel; see `Recorder`.
        observation: Who is told more of them; see there.
        on_renewed: Called with the PEM of each authority after the first, which is issued in time before the last one
            expires, and which clients must trust from then on. None where the clients are not ours to tell: then there
            is no other one, and the log says so, early.
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
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        ca_lifetime: dt.timedelta = CA_LIFETIME,
        on_renewed: Callable[[bytes], None] | None = None,
        observation: Observation | None = None,
    ) -> None:
        self.credentials = credentials
        self._scope = scope
        self._authority = RunAuthority(
            run_directory, (target.host for target in scope.intercepted), upstream.ca_file, ca_lifetime
        )
        self._on_renewed = on_renewed
        self._watch: asyncio.Task[None] | None = None
        self._upstream = upstream
        self._wanted_port = port
        tunnels: dict[str, Tunnel] = {}
        recorder = Recorder(itertools.count(1), on_exchange, observation)
        self._gate = Gate(
            scope, credentials, upstream, tunnels, recorder.tunnel_opened, recorder.tunnel_ended
        )  # fmt: skip
        self._stamper = Stamper(scope, tunnels, provider, mode, on_failure, timeout_s, recorder)
        self._listener = Listener(self._gate, tunnels, limits)
        self._master: master.Master
        self.port = 0

    async def __aenter__(self) -> Self:
        """Make the authority and listen.

        Raises:
            ProxyUnavailable: The port is in use, a bundle of certificates cannot be read, or another proxy runs in this
                process.
        """
        if ProxyServer._running:
            raise ProxyUnavailable("mitmproxy can run once in a process, and another ProxyServer is running here")
        try:
            self._authority.issue(_now())
        except (OSError, ValueError) as exc:
            raise ProxyUnavailable(f"the proxy cannot make itself trusted: {exc}") from exc
        for target, address in self._upstream.addresses.items():
            logger.warning("upstream map in use: %s is reached at %s:%d", target, *address)

        opts = options.Options(
            listen_host=LOOPBACK,
            listen_port=self._wanted_port,
            confdir=str(self._authority.directory),
            ssl_verify_upstream_trusted_ca=str(self._authority.upstream_roots),
        )
        self._master = master.Master(opts, event_loop=asyncio.get_running_loop())
        # It turns each log record of the whole process into a hook; nothing here listens to it.
        self._master._legacy_log_events.uninstall()
        # Proxyserver for its options only: the listener is ours.
        self._master.addons.add(self._gate, self._stamper, core.Core(), proxyserver.Proxyserver(), _Leaves())
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
            try:
                self.port = await self._listener.listen(LOOPBACK, self._wanted_port, self._master)
            except OSError as exc:
                raise ProxyUnavailable(
                    f"the proxy cannot listen on {LOOPBACK}:{self._wanted_port}: {os.strerror(exc.errno or 0)}; "
                    "choose another --port, or none for a free one"
                ) from exc
            await self._master.running()
        except BaseException:
            await self._stop()
            raise
        self._watch = asyncio.create_task(self._watch_authority())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
        await self._listener.close(STOP_TIMEOUT_S)
        await self._master.done()
        self._stamper.close()
        ProxyServer._running = False

    async def _watch_authority(self) -> None:
        """Issue another authority in time, or say in time that this one ends."""
        await _reached(self._authority.due_at)
        while self._on_renewed is not None:
            try:
                self.renew_authority()
            except (OSError, ValueError) as exc:
                logger.error("the authority of this run could not be renewed: %s", exc)
                await asyncio.sleep(CLOCK_CHECK_S)
            await _reached(self._authority.due_at)
        until = self._authority.expires_at.isoformat(" ", "minutes")
        logger.error("the proxy's authority ends at %s; start it and its agents again before that", until)
        await _reached(self._authority.expires_at)
        logger.error("the proxy's authority ended at %s; nothing works until it is started again", until)

    def renew_authority(self) -> None:
        """Issue another authority, from which all leaves come from now on; open connections go on.

        Raises:
            OSError, ValueError: A file cannot be read or written; the former authority stays.
        """
        self._authority.issue(_now())
        self._master.options.update(confdir=str(self._authority.directory))  # from where _Leaves reads it again
        logger.info("the proxy's authority was renewed until=%s", self._authority.expires_at.isoformat(" ", "minutes"))
        if self._on_renewed is not None:
            self._on_renewed(self._authority.ca_pem)

    def admit(self, host: str, port: int) -> bool:
        """See `Gate.admit`."""
        return self._gate.admit(host, port)

    @property
    def ca_pem(self) -> bytes:
        """The authority that clients have to trust."""
        return self._authority.ca_pem

    @property
    def ca_file(self) -> Path:
        """The same as a file."""
        return self._authority.ca_file

    @property
    def bundle_file(self) -> Path:
        """It and the platform's roots in one file."""
        return self._authority.bundle_file

    @property
    def url(self) -> str:
        """The proxy URL with its credentials: for a child's environment, never for a log or argv."""
        return self.credentials.proxy_url(LOOPBACK, self.port)

    def child_environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """What a child process needs, on top of its `own` environment, to go through the proxy and to trust it."""
        hosts = (target.host for target in self._scope.intercepted)
        return child_environment(self.url, str(self.bundle_file), str(self._authority.node_file), hosts, own)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def _reached(moment: dt.datetime) -> None:
    while (left_s := (moment - _now()).total_seconds()) > 0:  # noqa: ASYNC110 (a clock has no event)
        await asyncio.sleep(min(left_s, CLOCK_CHECK_S))
