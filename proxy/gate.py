"""mitmproxy addon: who may use the port, which targets it reaches, and which layer handles a connection.

Only authenticated CONNECT requests to admitted targets get further. What is said inside a tunnel to a host that is
not ours to intercept stays end-to-end TLS; inside one that is, the client must speak TLS with the SNI of its CONNECT
target. No guessing: whatever does not fit is closed.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence

from mitmproxy import http, tls
from mitmproxy.connection import Client
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode, HttpStream
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.modes import HttpProxy
from mitmproxy.proxy.layers.tls import HTTP_ALPNS, parse_client_hello

from proxy.credentials import Credentials
from proxy.scope import Scope, Target, normal_host
from proxy.tunnel import HEAD_SENT, Tunnel
from proxy.upstream import UpstreamMap, refused_address

logger = logging.getLogger(__name__)

_TLS_HANDSHAKE = 22  # the first byte of a TLS record that starts a handshake, RFC 8446 5.1
# A ClientHello with every extension that is known of, post-quantum keys among them, is a tenth of it.
_MAX_HELLO_BYTES = 64 * 1024

# Of how many of its addresses a name is tried.
MOST_ADDRESSES = 4


class UpstreamRefused(Exception):
    """There is no address that may be connected to; the text says why."""


class Gate:
    """The addon. Its name tells mitmproxy's Proxyserver that layers are chosen here.

    Args:
        tunnels: The admitted tunnels by client connection id; kept here, read by the stamper.
        on_tunnel: Called for each admitted CONNECT.
        on_tunnel_end: Called when its connection is closed, or could not be made.
    """

    name = "nextlayer"

    def __init__(
        self,
        scope: Scope,
        credentials: Credentials,
        upstream: UpstreamMap,
        tunnels: dict[str, Tunnel],
        on_tunnel: Callable[[Tunnel], None],
        on_tunnel_end: Callable[[Tunnel], None],
    ) -> None:
        self._scope = scope
        self._credentials = credentials
        self._upstream = upstream
        self._tunnels = tunnels
        self._on_tunnel = on_tunnel
        self._on_tunnel_end = on_tunnel_end
        self._own: set[Target] = set()

    def admit(self, host: str, port: int) -> bool:
        """Let a target pass that the agent's own configuration names, also where its address is not a public one.

        Returns:
            Whether its TLS ends here: it is one of the scope's then, and nothing is changed.

        Raises:
            ValueError: It is no host that we compare, or no port.
        """
        normal = normal_host(host)
        if normal is None or not 0 < port < 65536:
            raise ValueError(f"{host[:300]!r}, port {port}, is nothing that can be let pass")
        target = Target(normal, port)
        if self._scope.intercepts(target):
            return True
        self._own.add(target)
        return False

    # Connections

    def client_connected(self, client: Client) -> None:
        """Refuse peers from elsewhere, and those whose address cannot be told; an exception would let them in."""
        host = client.peername[0] if client.peername else ""
        try:
            is_loopback = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            logger.warning("connection refused peer=%r reason=not-loopback", host)
            client.error = "only loopback peers may connect"

    def client_disconnected(self, client: Client) -> None:
        self._end(client.id)

    def _end(self, client_id: str) -> None:
        tunnel = self._tunnels.pop(client_id, None)
        if tunnel is not None:
            self._on_tunnel_end(tunnel)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Admit a CONNECT, or answer it here. A raised exception would admit it, hence the catch-all."""
        try:
            flow.response = self._admit(flow)
        except Exception as exc:
            logger.error("connect failed error=%s", type(exc).__name__)
            flow.response = http.Response.make(502, b"the proxy failed to judge this request\n")

    def http_connect_error(self, flow: http.HTTPFlow) -> None:
        """No tunnel came of it, maybe because the upstream could not be reached: the connection ends here.

        A second CONNECT on it would crash mitmproxy's handler, which still has the first server, and hang the client.
        """
        if (tunnel := self._tunnels.get(flow.client_conn.id)) is not None:
            # Of several addresses the last one gave the reason.
            where = f" to {Target(*tunnel.addresses[-1])}" if tunnel.addresses else ""
            tunnel.error = f"the upstream connection{where} failed: {flow.server_conn.error or 'no reason told'}"
        self._end(flow.client_conn.id)
        if flow.response is not None:
            flow.response.headers["Connection"] = "close"

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """A client that would not talk to us, mostly since it does not trust the authority of this run."""
        if (tunnel := self._tunnels.get(data.context.client.id)) is not None:
            tunnel.error = f"the client broke off TLS: {data.conn.error or 'no reason told'}"

    def _admit(self, flow: http.HTTPFlow) -> http.Response | None:
        given = flow.request.headers.get_all("proxy-authorization")
        if len(given) != 1 or not self._credentials.accepts(given[0]):
            return http.Response.make(
                407,
                b"this proxy needs the credentials of its run; use the HTTPS_PROXY that it printed\n",
                {"Proxy-Authenticate": 'Basic realm="countersign"'},
            )
        host = normal_host(flow.request.host)
        target = None if host is None else Target(host, flow.request.port)
        if target is None or not self._admits(target):
            name = str(target or flow.request.host)[:300]
            logger.warning("connect refused target=%r reason=not-allowed option=--allow-host", name)
            text = f"{name} is not on the proxy's allow list; add it with --allow-host if it should be reached\n"
            return http.Response.make(403, text.encode("ascii", "backslashreplace"))
        intercepted = self._scope.intercepts(target)
        # The name that the upstream certificate must carry, whatever address is connected to.
        flow.server_conn.sni = target.host
        self._tunnels[flow.client_conn.id] = tunnel = Tunnel(target, intercepted)
        self._on_tunnel(tunnel)
        return None

    def _admits(self, target: Target) -> bool:
        return self._scope.admits(target) or target in self._upstream.addresses or target in self._own

    async def addresses(self, client_id: str) -> Sequence[tuple[str, int]]:
        """Where this client's upstream is: the mapped address, or those that were resolved and judged here, once.

        Raises:
            UpstreamRefused: Nowhere.
        """
        tunnel = self._tunnels.get(client_id)
        if tunnel is None:
            raise UpstreamRefused("no admitted CONNECT on this connection")
        if not tunnel.addresses:
            tunnel.addresses = await self._judged(tunnel.target)
        return tunnel.addresses

    async def _judged(self, target: Target) -> tuple[tuple[str, int], ...]:
        mapped = self._upstream.addresses.get(target)
        if mapped is not None:
            return (mapped,)
        if target in self._own:
            return ((target.host, target.port),)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise UpstreamRefused(f"cannot resolve {target.host}: {exc.strerror or exc}") from exc
        public = dict.fromkeys(
            (str(address[0]), target.port) for _, _, _, _, address in found if not refused_address(str(address[0]))
        )
        if not public:
            logger.warning("upstream refused target=%s reason=not-a-public-address", target)
            raise UpstreamRefused(f"{target.host} does not resolve to a public address")
        return tuple(public)[:MOST_ADDRESSES]

    # Layers

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Choose the layer; an exception here closes the connection."""
        try:
            nextlayer.layer = self._choose(nextlayer.context, nextlayer.data_client())
        except Exception as exc:
            logger.error("layer choice failed error=%s", type(exc).__name__)
            nextlayer.layer = _Refuse(nextlayer.context)

    def _choose(self, context: Context, data: bytes) -> layer.Layer | None:
        if len(context.layers) == 1 and isinstance(context.layers[0], HttpProxy):
            return layers.HttpLayer(context, HTTPMode.regular)
        tunnel = self._tunnels.get(context.client.id)
        if tunnel is None:
            return _Refuse(context)
        if not tunnel.intercepted:
            return self._untouched(context, tunnel, data)
        if context.client.tls_established:
            if context.client.alpn in (*HTTP_ALPNS, None, b""):
                return _Http(context, HTTPMode.transparent)
            return _Refuse(context)
        if data and (data[0] != _TLS_HANDSHAKE or (len(data) > 2 and not starts_like_tls_record(data))):
            logger.warning("tunnel closed target=%s reason=no-tls", tunnel.target)
            return _Refuse(context)
        try:
            hello = parse_client_hello(data)
        except ValueError:
            logger.warning("tunnel closed target=%s reason=bad-client-hello", tunnel.target)
            return _Refuse(context)
        if hello is None:
            return None  # asked again when more has arrived
        # Checked here and not in tls_clienthello, where a refusal could only turn the connection into a raw tunnel.
        # No certificate is ever made for another name than the CONNECT host.
        if hello.sni is None or hello.sni.lower() != tunnel.target.host:
            logger.warning("tunnel closed target=%s reason=sni sni=%r", tunnel.target, (hello.sni or "")[:100])
            return _Refuse(context)
        tunnel.sni = hello.sni
        server_tls = layers.ServerTLSLayer(context)
        server_tls.child_layer = layers.ClientTLSLayer(context)
        return server_tls

    def _untouched(self, context: Context, tunnel: Tunnel, data: bytes) -> layer.Layer | None:
        """Bytes only. But what names an intercepted host in its ClientHello was to be seen, and goes no other way.

        Hosts of one operator often answer for each other, whatever name was connected to.
        """
        if data[:1] == bytes([_TLS_HANDSHAKE]) and (len(data) < 3 or starts_like_tls_record(data)):
            try:
                hello = parse_client_hello(data)
            except ValueError:
                return self._refuse_untouched(context, tunnel, "bad-client-hello")
            if hello is None:
                if len(data) > _MAX_HELLO_BYTES:
                    return self._refuse_untouched(context, tunnel, "long-client-hello")
                return None  # asked again when more has arrived
            name = (hello.sni or "").lower().rstrip(".")
            if any(name == target.host for target in self._scope.intercepted):
                return self._refuse_untouched(context, tunnel, "sni-of-a-scoped-host")
        return _Untouched(context, tunnel)

    def _refuse_untouched(self, context: Context, tunnel: Tunnel, reason: str) -> layer.Layer:
        logger.warning("tunnel closed target=%s reason=%s", tunnel.target, reason)
        return _Refuse(context)


class _Http(layers.HttpLayer):
    """mitmproxy's HTTP layer, which notes when the head of a request goes upstream: there is no hook for that."""

    def event_to_child(self, child: layer.Layer | HttpStream, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, RequestHeaders) and not isinstance(child, HttpStream):
            self.streams[event.stream_id].flow.metadata[HEAD_SENT] = True
        yield from super().event_to_child(child, event)


class _Untouched(layers.TCPLayer):
    """Relays the bytes of a tunnel, and counts them."""

    def __init__(self, context: Context, tunnel: Tunnel) -> None:
        super().__init__(context, ignore=True)
        self._tunnel = tunnel

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            if event.connection is self.context.client:
                self._tunnel.sent_bytes += len(event.data)
            else:
                self._tunnel.received_bytes += len(event.data)
        yield from super().handle_event(event)


class _Refuse(layer.Layer):
    """Closes the client connection, and whatever upstream was opened for it."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            if self.context.server.connected:
                yield commands.CloseConnection(self.context.server)
            yield commands.CloseConnection(self.context.client)
