"""The managed network: a tool without a network of its own reaches the loopback proxies that its variables name.

The tool's network namespace has nothing but a loopback of its own. At the same ports as the proxies outside, we listen
inside it; each connection is passed on. So the tool's variables stay as they are, and nothing of ours runs inside.
"""

from __future__ import annotations

from agent.sandbox.plan import Backend, SandboxUnavailable
from agent.sandbox.policy import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES = ("http", "https", "all", "ws", "wss", "ftp")
# Case does not count.
PROXY_VARIABLES = (
    *(f"{scheme}_proxy" for scheme in _SCHEMES),
    *("npm_config_http_proxy", "npm_config_https_proxy", "npm_config_proxy"),
    *("yarn_http_proxy", "yarn_https_proxy"),
    *("bundle_http_proxy", "bundle_https_proxy"),
    *("pip_proxy", "docker_http_proxy", "docker_https_proxy"),
)
_LOOPBACK = ("127.0.0.1", "localhost")
# The user of the credentials that our own proxy makes up for a run.
_OWN_USER = "countersign"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "socks5": 1080, "socks5h": 1080, "socks4": 1080}


def managed_ports(context: str | None, environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """The loopback ports that a command in the managed network may reach; None if it is not asked for.

    Args:
        context: The JSON object of `--managed-network`. It may not say anything yet: the variables name the proxies.

    Raises:
        PolicyError: Not a JSON object, or one with members.
        SandboxUnavailable: No variable names a loopback proxy.
    """
    if context is None:
        return None
    from agent.sandbox.json_text import parse_json

    try:
        parsed = parse_json(context)
    except ValueError as exc:
        raise PolicyError(f"not JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise PolicyError(f"{context!r} is not a JSON object")
    if parsed:
        raise PolicyError(f"the member {next(iter(parsed))!r} is not supported; the proxy variables name the proxies")
    proxies = {name: value for name, value in environ.items() if name.lower() in PROXY_VARIABLES}
    for name, value in proxies.items():
        if _user(value) == _OWN_USER and loopback_port(value) is not None:
            raise SandboxUnavailable(
                Backend.BUBBLEWRAP, f"{name} names an agent's attesting proxy, which no tool may reach; name another"
            )
    ports = {port for value in proxies.values() if (port := loopback_port(value)) is not None}
    if not ports:
        raise SandboxUnavailable(
            Backend.BUBBLEWRAP,
            "managed proxy mode requires proxy environment variables that name a proxy on IPv4 loopback, "
            "e.g. HTTPS_PROXY=http://127.0.0.1:3128",
        )
    return tuple(sorted(ports))


def _user(url: str) -> str:
    _, separator, rest = url.strip().partition("://")
    authority = (rest if separator else url.strip()).partition("/")[0]
    return authority.rpartition("@")[0].partition(":")[0]


def loopback_port(url: str) -> int | None:
    """The port of a proxy URL or `host:port` on IPv4 loopback; None if it is elsewhere or no URL."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "http", url.strip()
    authority = rest.partition("/")[0].rpartition("@")[2]
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = authority.partition(":")
    if host.lower() not in _LOOPBACK:
        return None
    if not port:
        return _DEFAULT_PORTS.get(scheme.lower())
    return int(port) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else None
