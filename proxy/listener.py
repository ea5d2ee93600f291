"""The listening socket, and mitmproxy's connection handler with limits that it does not have.

mitmproxy (12.2) reads a request head of any length, keeps a silent connection for `tcp_timeout` (a day here, for
WebSockets that idle), waits as long for an upstream that accepts and says nothing, and connects to one address of a
name. Its `ServerInstance` makes its handlers itself, so the socket is ours too.
"""

import asyncio
import contextlib
import enum
import logging
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mitmproxy import master
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events, layers, mode_specs
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionIO

from proxy.gate import Gate, UpstreamRefused
from proxy.tunnel import Tunnel

logger = logging.getLogger(__name__)

# At most one line in so many seconds about connections that were dropped; it counts those in between.
LOG_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take before it is of use.

    Args:
        admission_s: Seconds until its CONNECT is admitted.
        head_bytes: Bytes that it may send until then.
        strangers: Connections that may be at that point at once; for one more the oldest goes.
        upstream_s: Seconds to connect upstream, and again for TLS on it.
        address_s: Seconds for one address of several before the next is tried; a lost SYN is sent again after one.
    """

    admission_s: float = 10.0
    head_bytes: int = 64 * 1024
    strangers: int = 256
    upstream_s: float = 15.0
    address_s: float = 2.0


class Listener:
    """Accepts connections on one address; `connections` are the live ones.

    Args:
        tunnels: The admitted tunnels by client connection id, as the gate keeps them.
    """

    def __init__(self, gate: Gate, tunnels: Mapping[str, Tunnel], limits: Limits) -> None:
        self.connections: set[Connection] = set()
        self._gate = gate
        self._tunnels = tunnels
        self._limits = limits
        self._most_strangers = min(limits.strangers, _a_quarter_of_the_descriptors())
        self._strangers: dict[Connection, None] = {}  # in the order of their arrival
        self._server: asyncio.Server | None = None
        self._dropped = 0
        self._quiet_until = 0.0

    async def listen(self, host: str, port: int, running: master.Master) -> int:
        """Listen, and return the port.

        Raises:
            OSError: The port is in use.
        """
        mode = mode_specs.ProxyMode.parse("regular")

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(running, reader, writer, mode, self)
            self.connections.add(connection)
            try:
                await connection.handle_client()
            finally:
                connection.settled()
                self.connections.discard(connection)

        self._server = await asyncio.start_server(accepted, host, port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self, timeout_s: float) -> None:
        """Accept no more, and end what is connected."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.end("the proxy stops")
        deadline = time.monotonic() + timeout_s
        while self.connections and time.monotonic() < deadline:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.005)

    # What connections ask

    @property
    def limits(self) -> Limits:
        return self._limits

    def tunnel(self, connection: "Connection") -> Tunnel | None:
        return self._tunnels.get(connection.client.id)

    async def addresses(self, connection: "Connection") -> Sequence[tuple[str, int]]:
        return await self._gate.addresses(connection.client.id)

    def arrived(self, connection: "Connection") -> None:
        """One more that nobody knows yet. A flood pushes out the oldest, so that whoever has credentials gets in."""
        while len(self._strangers) >= self._most_strangers:
            next(iter(self._strangers)).drop("too many without credentials")
        self._strangers[connection] = None

    def known(self, connection: "Connection") -> None:
        self._strangers.pop(connection, None)

    def dropped(self, reason: str) -> None:
        self._dropped += 1
        now = time.monotonic()
        if now >= self._quiet_until:
            logger.warning("connections dropped count=%d reason=%r", self._dropped, reason)
            self._dropped, self._quiet_until = 0, now + LOG_INTERVAL_S


class _Phase(enum.Enum):
    STRANGER = enum.auto()  # no admitted CONNECT
    ESTABLISHING = enum.auto()  # on the way upstream, or in one of the two TLS handshakes
    OPEN = enum.auto()


class Connection(ProxyConnectionHandler):
    """One client connection, and those that are made upstream for it."""

    def __init__(
        self,
        running: master.Master,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mode: mode_specs.ProxyMode,
        listener: Listener,
    ) -> None:
        super().__init__(running, reader, writer, running.options, mode)  # type: ignore[no-untyped-call]  # mitmproxy's
        self.layer = layers.modes.HttpProxy(self.layer.context)
        self._listener = listener
        self._limits = listener.limits
        self._phase = _Phase.STRANGER
        self._received = 0
        self._deadline = asyncio.get_running_loop().call_later(
            self._limits.admission_s, self.drop, "no CONNECT was admitted in time"
        )
        listener.arrived(self)

    # How it ends

    def drop(self, reason: str) -> None:
        """End a stranger's connection, and say so in the log, but not for each."""
        self.settled()
        self._listener.dropped(reason)
        self.end(reason)

    def end(self, reason: str) -> None:
        """End it, with everything upstream."""
        for io in list(self.transports.values()):
            if io.handler is not None:
                io.handler.cancel(reason)
            elif io.writer is not None:  # nothing reads from it yet, which then sees that it is closed
                io.writer.close()

    def settled(self) -> None:
        """It is a stranger no more, or it has ended."""
        self._deadline.cancel()
        self._listener.known(self)

    # What it may do

    async def handle_hook(self, hook: commands.StartHook) -> None:
        await super().handle_hook(hook)
        if self._phase is _Phase.STRANGER and self._listener.tunnel(self) is not None:
            self.settled()
            self._phase = _Phase.ESTABLISHING
        elif self._phase is _Phase.ESTABLISHING and self.client.tls_established:
            self._phase = _Phase.OPEN

    async def server_event(self, event: events.Event) -> None:
        if self._phase is not _Phase.OPEN and isinstance(event, events.ConnectionEvent):
            if self._is_too_much(event):
                self.drop("too long a request head")
                return
            await super().server_event(event)
            # A client that leaves counts as half-closed for mitmproxy, and it would wait for the upstream's TLS.
            if isinstance(event, events.ConnectionClosed) and self._phase is _Phase.ESTABLISHING:
                if event.connection is self.client and self.client in self.transports:
                    self.close_connection(self.client)
            return
        await super().server_event(event)

    def _is_too_much(self, event: events.ConnectionEvent) -> bool:
        if self._phase is not _Phase.STRANGER or not isinstance(event, events.DataReceived):
            return False
        self._received += len(event.data)
        return self._received > self._limits.head_bytes

    # Upstream

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """As mitmproxy's own, with a deadline, and with each address that the gate has judged until one answers."""
        server = command.connection
        assert isinstance(server, Server)
        server.timestamp_start = time.time()
        try:
            async with asyncio.timeout(self._limits.upstream_s):
                addresses = await self._listener.addresses(self)
                address, reader, writer = await _first(addresses, self._limits.address_s)
        except (OSError, UpstreamRefused, asyncio.CancelledError) as exc:
            server.error = _told(exc, self._limits.upstream_s)
            await self.server_event(events.OpenConnectionCompleted(command, server.error))
            if isinstance(exc, asyncio.CancelledError):
                raise
            return
        server.address = address
        server.timestamp_tcp_setup = time.time()
        server.state = ConnectionState.OPEN
        server.peername = writer.get_extra_info("peername")
        server.sockname = writer.get_extra_info("sockname")
        self.transports[server] = ConnectionIO(asyncio.current_task(), reader, writer)
        tunnel = self._listener.tunnel(self)
        if tunnel is not None:
            tunnel.addresses = (address,)  # also for the next connection of this tunnel
        deadline: asyncio.TimerHandle | None = None
        if tunnel is None or tunnel.intercepted:
            deadline = asyncio.get_running_loop().call_later(self._limits.upstream_s, self._overdue, server)
        else:
            self._phase = _Phase.OPEN  # the rest is between the two ends
        await self.server_event(events.OpenConnectionCompleted(command, None))
        try:
            await self.handle_connection(server)
        finally:
            if deadline is not None:
                deadline.cancel()
            server.timestamp_end = time.time()

    def _overdue(self, server: Server) -> None:
        """TLS should be there by now: upstream, or the client is told; and with the client, or it goes."""
        late: Server | None = server if server.tls and not server.tls_established else None
        if late is None and self._phase is _Phase.OPEN:
            return
        logger.warning("connection given up late=%s", "client" if late is None else "upstream")
        io = self.transports.get(self.client if late is None else late)
        if io is not None and io.handler is not None:
            io.handler.cancel("no TLS in time")


def _a_quarter_of_the_descriptors() -> int:
    """The rest is for upstream connections, the desktop's socket and whatever else the process does."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft // 4, 8)


async def _first(
    addresses: Sequence[tuple[str, int]], address_s: float
) -> tuple[tuple[str, int], asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of these addresses that answers; the last may take all the time that is left.

    Raises:
        OSError: None does; as the last one said it.
    """
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):  # a TimeoutError is one
            async with asyncio.timeout(address_s):
                return address, *await asyncio.open_connection(*address)
    return addresses[-1], *await asyncio.open_connection(*addresses[-1])


def _told(exc: BaseException, upstream_s: float) -> str:
    match exc:
        case asyncio.CancelledError():
            return "connection cancelled"
        case TimeoutError() if exc.errno is None:
            return f"no connection within {upstream_s:g} s"
        case _:
            return str(exc) or type(exc).__name__
