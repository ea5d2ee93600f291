"""Which requests are stamped and which hosts may pass. Pure: no I/O, no environment, no mitmproxy.

A decision is made on what the upstream will see: the CONNECT target, the SNI, the Host header (or `:authority`), the
method, the raw path and the upgrade must all agree, byte by byte where the protocol allows no variation. Nothing is
normalised that an upstream might normalise differently. A request that is not exactly in scope is not stamped; one
that would be in scope after somebody's normalisation is refused on a scoped host.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from proxy.attestation import ATTESTATION_HEADER

CODEX = b"/backend-api/codex"

DEFAULT_ORIGIN = "https://chatgpt.com"
# The sideband socket of a realtime call goes here, and carries the value of its call again (observed).
REALTIME_ORIGIN = "https://api.openai.com"

# Where an unmodified agent goes besides the scoped origins: sign-in, telemetry and the look for updates (all but the
# package registry, which `--allow-host` adds).
DEFAULT_ALLOWED_HOSTS = (
    "*.chatgpt.com",
    "*.openai.com",
    "api.github.com",
    "github.com",
    "*.githubusercontent.com",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A host name (lower case, no trailing dot) or IP literal, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the scope."""

    name: str
    method: bytes
    path: bytes
    websocket: bool = False

    @property
    def transport(self) -> str:
        """How the request travels: "websocket" or "post"."""
        return "websocket" if self.websocket else "post"


RESPONSES_POST = Route("responses", b"POST", CODEX + b"/responses")
RESPONSES_WEBSOCKET = Route("responses", b"GET", CODEX + b"/responses", websocket=True)
COMPACT = Route("compact", b"POST", CODEX + b"/responses/compact")
REALTIME_CALL = Route("realtime-call", b"POST", CODEX + b"/realtime/calls")
REALTIME_SIDEBAND = Route("realtime-sideband", b"GET", b"/v1/realtime", websocket=True)

ORIGIN_ROUTES = (RESPONSES_WEBSOCKET, RESPONSES_POST, COMPACT, REALTIME_CALL)
REALTIME_ROUTES = (REALTIME_SIDEBAND,)
ROUTES = (*ORIGIN_ROUTES, *REALTIME_ROUTES)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request as it would reach the upstream, whatever drives the proxy.

    `target` is the raw request target of HTTP/1 or the `:path` of HTTP/2. `authority` is `:authority`, None in
    HTTP/1. `headers` are in order, names as sent.
    """

    connect: Target
    sni: str | None
    method: bytes
    target: bytes
    authority: bytes | None
    headers: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """The values of all headers of this name (lower case), in order."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(frozen=True, slots=True)
class Covered:
    """In scope: to be stamped. `call_id` is set on the sideband of a realtime call."""

    route: Route
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Passes:
    """On a scoped host, but not in scope: forwarded without a stamp."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Not forwarded. `status` is the HTTP status to answer with, `reason` what to tell the client and the log."""

    status: int
    reason: str


Decision = Covered | Passes | Refused


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows, bound to origins; and the hosts that may be reached at all.

    Args:
        origins: Whose ChatGPT back end is stamped, see `Scope.of`.
        realtime: The origin of the realtime sideband.
        allowed_hosts: Patterns of hosts that pass as untouched tunnels: "host", "host:port", "*.suffix", "*".
    """

    origins: tuple[Target, ...]
    realtime: Target
    allowed_hosts: tuple[str, ...] = DEFAULT_ALLOWED_HOSTS

    @classmethod
    def of(
        cls,
        origins: Iterable[str] = (DEFAULT_ORIGIN,),
        allowed_hosts: Sequence[str] = DEFAULT_ALLOWED_HOSTS,
        realtime: str = REALTIME_ORIGIN,
    ) -> Self:
        """Build a scope from https origins such as "https://chatgpt.com".

        Raises:
            ValueError: An origin that is not https://HOST[:PORT], or a malformed host pattern.
        """
        for pattern in allowed_hosts:
            check_host_pattern(pattern)
        targets = tuple(dict.fromkeys(parse_origin(origin) for origin in origins))
        if not targets:
            raise ValueError("at least one origin is needed, such as 'https://chatgpt.com'")
        return cls(targets, parse_origin(realtime), tuple(allowed_hosts))

    @property
    def intercepted(self) -> tuple[Target, ...]:
        """Whose TLS is terminated here: the origins and the realtime host."""
        return tuple(dict.fromkeys((*self.origins, self.realtime)))

    def intercepts(self, target: Target) -> bool:
        """Whether TLS to this CONNECT target is terminated here."""
        return target in self.intercepted

    def admits(self, target: Target) -> bool:
        """Whether a CONNECT to this target is allowed at all."""
        if self.intercepts(target):
            return True
        return any(_matches(pattern, target) for pattern in self.allowed_hosts)

    def decide(self, head: RequestHead) -> Decision:
        """What to do with a request inside a tunnel to an intercepted host."""
        if problem := _misdirected(head):
            return Refused(421, problem)
        if problem := _malformed(head):
            return Refused(400, problem)
        rows = self._rows(head)
        path, _, query = head.target.partition(b"?")
        for route in rows:
            if route.method != head.method or route.path != path:
                continue
            if route.websocket != is_websocket_upgrade(head):
                continue
            if not route.websocket and (head.values(b"upgrade") or _overrides_method(head)):
                continue
            if route is REALTIME_SIDEBAND:
                call_id = _call_id(query)
                if call_id is None:
                    continue  # an API-key session: no call, nothing to carry again
                return Covered(route, call_id)
            return Covered(route)
        if any(_normalised(path) == route.path != path for route in rows):
            return Refused(400, "the path is another spelling of a scoped path; send the path itself")
        return Passes()

    def resembled(self, head: RequestHead) -> Route | None:
        """The row that a request may be taken for which is not in scope and passes; None if there is none.

        It has the path, and an upstream that is less exact than this scope may find the rest of the row in it: so
        nobody can say that all that had to be stamped was.
        """
        path, _, query = head.target.partition(b"?")
        for route in self._rows(head):
            if route.path != path:
                continue
            if route.websocket:
                asks = bool(head.values(b"upgrade") or head.values(b"sec-websocket-key"))
                is_like = asks and head.method.upper() == route.method
                if is_like and (route is not REALTIME_SIDEBAND or _call_id(query) is not None):
                    return route
            elif head.method.upper() == route.method or _overrides_method(head):
                return route
        return None

    def _rows(self, head: RequestHead) -> tuple[Route, ...]:
        rows: tuple[Route, ...] = ()
        if head.connect in self.origins:
            rows += ORIGIN_ROUTES
        if head.connect == self.realtime:
            rows += REALTIME_ROUTES
        return rows


def parse_origin(origin: str) -> Target:
    """ "https://chatgpt.com" -> Target("chatgpt.com", 443).

    Raises:
        ValueError: Another scheme, credentials, a path, a trailing dot, a port out of range; an IP address, which no
            client names in the SNI that the scope is judged by.
    """
    wanted = f"an origin must be https://HOST[:PORT], found {origin!r}"
    try:
        parts = urlsplit(origin)
        port = 443 if parts.port is None else parts.port
    except ValueError as exc:
        raise ValueError(f"{wanted}: {exc}") from exc
    if parts.scheme != "https" or parts.username is not None or parts.password is not None:
        raise ValueError(wanted)
    if parts.path not in ("", "/") or parts.query or parts.fragment or not parts.hostname or port == 0:
        raise ValueError(wanted)
    host = normal_host(parts.hostname)
    if host is None:
        raise ValueError(wanted)
    if _is_address(host):
        raise ValueError(f"an origin needs a host name and not an address, found {origin!r}")
    return Target(host, port)


def _is_address(host: str) -> bool:
    """Whether a normal host is an IP literal."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def normal_host(host: str) -> str | None:
    """A host name in the only spelling we compare: lower case ASCII letters, digits, "-" and ".", or an IP literal.

    None for everything else, among it a trailing dot (which upstreams treat differently) and the decimal or hex
    spellings of an IP address that some resolvers accept.
    """
    host = host.lower()
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    if len(host) > 253 or not re.fullmatch(r"(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*", host, re.ASCII):
        return None
    last_label = host.rpartition(".")[2]
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last_label):
        return None  # "2130706433", "0x7f.1": an address in disguise (WHATWG URL, "ends in a number")
    return host


def check_host_pattern(pattern: str) -> None:
    """Raises ValueError unless `pattern` is "host", "host:port", "*.suffix", "*.suffix:port" or "*"."""
    name, _, port = pattern.partition(":") if pattern.count(":") == 1 else (pattern, "", "")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"a port must be 1 to 65535, found {port!r} in the allowed host {pattern!r}")
    if name != "*" and normal_host(name.removeprefix("*.")) is None:
        raise ValueError(f"an allowed host must be HOST, HOST:PORT, *.SUFFIX or *, found {pattern!r}")


def is_websocket_upgrade(head: RequestHead) -> bool:
    """Whether this is a complete RFC 6455 opening handshake over HTTP/1.1, and nothing more.

    The upstream decides by the same headers. Any doubt (two Upgrade values, "Connection: close, Upgrade", a body)
    makes it no upgrade.
    """
    if head.method != b"GET" or head.authority is not None:
        return False
    upgrade, version, key = (head.values(name) for name in (b"upgrade", b"sec-websocket-version", b"sec-websocket-key"))
    if [value.strip().lower() for value in upgrade] != [b"websocket"] or version != [b"13"] or len(key) != 1:
        return False
    tokens = {token.strip().lower() for value in head.values(b"connection") for token in value.split(b",")}
    if b"upgrade" not in tokens or tokens - {b"upgrade", b"keep-alive"}:
        return False
    if head.values(b"transfer-encoding") or any(value != b"0" for value in head.values(b"content-length")):
        return False
    try:
        return len(base64.b64decode(key[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _misdirected(head: RequestHead) -> str | None:
    """Why CONNECT, SNI and Host (or :authority) do not name one host; None if they do."""
    connect = head.connect
    if head.sni is None or head.sni.lower() != connect.host:
        return f"the SNI must be the CONNECT host {connect.host!r}, found {head.sni!r}"
    hosts = head.values(b"host")
    if head.authority is None:
        if len(hosts) != 1:
            return f"exactly one Host header is needed, found {len(hosts)}"
    else:
        hosts.append(head.authority)
    allowed = {connect.host.encode(), f"{connect.host}:{connect.port}".encode()}
    if connect.port != 443:
        allowed.discard(connect.host.encode())
    for host in hosts:
        if host.lower() not in allowed:
            return f"the Host must be the CONNECT host {connect.host!r}, found {host[:100]!r}"
    return None


_ATTESTATION = ATTESTATION_HEADER.encode()
_TARGET = re.compile(rb"/[!-~]*")
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _malformed(head: RequestHead) -> str | None:
    """Why the head cannot be taken as it stands; None if it can."""
    if not _TARGET.fullmatch(head.target) or b"#" in head.target:
        return "the request target must start with '/' and hold only visible ASCII without '#'"
    if not _TOKEN.fullmatch(head.method):
        return "the method is not an RFC 9110 token"
    for name, value in head.headers:
        # mitmproxy forwards folded lines, bare CR and NUL as they are. An upstream that ends a line at one of them
        # would see a header that was not there to be stripped (RFC 9110 5.5, RFC 9112 2.2 and 5.2).
        if not _TOKEN.fullmatch(name) or any(octet in value for octet in (b"\r", b"\n", b"\0")):
            return "a header holds a line fold, CR, LF or NUL, or its name is no token"
    for value in head.values(b"connection"):
        # Whoever is next on the way would drop what is named here, and the stamp with it (RFC 9110 7.6.1).
        if any(name.strip().lower().replace(b"_", b"-") == _ATTESTATION for name in value.split(b",")):
            return f"the Connection header must not name {ATTESTATION_HEADER}, which is for the origin"
    return None


_METHOD_OVERRIDES = frozenset((b"x-http-method-override", b"x-http-method", b"x-method-override"))


def _overrides_method(head: RequestHead) -> bool:
    return any(name.lower() in _METHOD_OVERRIDES for name, _ in head.headers)


def _call_id(query: bytes) -> str | None:
    """The one `call_id` of a sideband query; None if there is none, or more than one, or an odd one."""
    try:
        ids = parse_qs(query.decode("ascii"), strict_parsing=True, max_num_fields=32).get("call_id", [])
    except ValueError:
        return None
    return ids[0] if len(ids) == 1 and re.fullmatch(r"[A-Za-z0-9_-]{1,200}", ids[0], re.ASCII) else None


def _normalised(path: bytes) -> bytes:
    """`path` as the most liberal upstream might read it: decoded, without parameters, dot segments, empty segments."""
    for _ in range(3):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    segments: list[bytes] = []
    for segment in path.replace(b"\\", b"/").split(b"/"):
        segment = segment.partition(b";")[0].strip().lower()
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    return b"/" + b"/".join(segments)


def _matches(pattern: str, target: Target) -> bool:
    name, _, port = pattern.lower().partition(":") if pattern.count(":") == 1 else (pattern.lower(), "", "")
    if target.port != int(port or 443):
        return False
    if name == "*":
        return True
    if name.startswith("*."):
        return target.host.endswith(name[1:])
    return target.host == name
