"""Where an app-server listens, from the text of `--listen`. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import PurePath

STDIO = "stdio://"
OFF = "off"
# Under CODEX_HOME, where clients of the original look for it (observed).
CONTROL_SOCKET = PurePath("app-server-control", "app-server-control.sock")

_WEBSOCKET = re.compile(r"ws://(?:\[(?P<v6>[^\]/]*)\]|(?P<v4>[^:/\[\]]*)):(?P<port>[0-9]{1,5})/?")
_FORMS = "stdio://, unix://, unix://PATH or ws://IP:PORT"


class NoAddress(ValueError):
    """The text names no place where we can listen; it says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stdio:
    """One client, on stdin and stdout."""


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket in the file system.

    Args:
        is_default: It is the one under CODEX_HOME, in a directory of our own.
    """

    path: PurePath
    is_default: bool


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """A TCP port; 0 for a free one."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def is_local(self) -> bool:
        """Whether nobody outside of this machine can reach it."""
        return self.ip.is_loopback

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


Address = Stdio | UnixSocket | WebSocketAddress


def parse_listen(text: str, home: str) -> Address:
    """The address that `--listen` names; `off` has none and is the caller's business.

    Args:
        home: CODEX_HOME.

    Raises:
        NoAddress: There is no such address.
    """
    if text == STDIO:
        return Stdio()
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if "\0" in path:
            raise NoAddress("--listen: a path cannot hold a NUL character; choose another one")
        return UnixSocket(PurePath(path) if path else PurePath(home) / CONTROL_SOCKET, is_default=not path)
    if text.startswith("ws://"):
        return _websocket(text)
    raise NoAddress(f"--listen {text!r} is no address; use {_FORMS}")


def _websocket(text: str) -> WebSocketAddress:
    match = _WEBSOCKET.fullmatch(text)
    if match is None:
        raise NoAddress(f"--listen {text!r} is not ws://IP:PORT; name an IP address and a port and nothing else")
    host, port = match["v6"] or match["v4"] or "", int(match["port"])
    try:
        ip = ipaddress.IPv6Address(host) if match["v6"] is not None else ipaddress.IPv4Address(host)
    except ValueError:
        # Not looked up: what a name stands for is decided elsewhere, and may be more than this machine.
        raise NoAddress(
            f"--listen {text!r}: {host!r} is no IP address; use one, such as ws://127.0.0.1:{port} or ws://[::1]:{port}"
        ) from None
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        raise NoAddress(f"--listen {text!r}: an address with a zone is not supported; leave out {'%' + ip.scope_id!r}")
    if port > 65535:
        raise NoAddress(f"--listen {text!r}: a port is 0 to 65535, found {port}")
    return WebSocketAddress(ip, port)
