"""What a TCP listener answers before a WebSocket is opened. Pure.

Observed of codex-cli 0.169.0: any `Origin` is refused, the health paths are answered without a token, and what is no
upgrade gets a 400. The `Host` is our addition: a page that reached us by a DNS name of its own (rebinding) need not
send an Origin, and only its Host tells (facts of other servers: CVE-2025-49596).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from agent.rpc.listen_address import WebSocketAddress
from agent.rpc.ws_auth import BearerCheck, refusal

HEALTH = frozenset({"/readyz", "/healthz"})
NO_UPGRADE = "Connection header did not include 'upgrade'"
FOREIGN_HOST = "this is not a name of this server; connect to its IP address"

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a request that decide; of each header all values."""

    target: str
    host: Sequence[str]
    origin: Sequence[str]
    connection: Sequence[str]
    authorization: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer instead of a WebSocket."""

    status: HTTPStatus
    text: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """Decides about requests to one listener.

    Args:
        check: What a bearer token must be; None if none is needed.
    """

    address: WebSocketAddress
    check: BearerCheck | None

    def reply(self, asked: Asked, now_s: float) -> Reply | None:
        """What is answered, or None for a WebSocket. `now_s` is the Unix time in seconds."""
        if asked.origin:
            return Reply(HTTPStatus.FORBIDDEN)
        refused = None if self.check is None else refusal(self.check, asked.authorization, now_s)
        # Who shows a good token is no page of a browser, and may have a name for us that we do not know.
        if not self._is_named(asked.host) and (self.check is None or refused is not None):
            return Reply(HTTPStatus.FORBIDDEN, FOREIGN_HOST)
        if asked.target.partition("?")[0] in HEALTH:
            return Reply(HTTPStatus.OK)
        options = [option.strip().lower() for value in asked.connection for option in value.split(",")]
        if "upgrade" not in options:
            return Reply(HTTPStatus.BAD_REQUEST, NO_UPGRADE)
        return None if refused is None else Reply(HTTPStatus.UNAUTHORIZED, refused)

    def _is_named(self, hosts: Sequence[str]) -> bool:
        """Whether `Host` is an address of this listener; with any port, for those who forward another one to us.

        None at all is what no browser sends.
        """
        return all(self._is_name(host) for host in hosts)

    def _is_name(self, host: str) -> bool:
        match = _HOST.fullmatch(host.strip())
        if match is None:
            return False
        name = match["host"]
        if name.lower() == "localhost":
            return True
        try:
            ip = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        # An address cannot be rebound to another one, so where we have all of the machine's, any will do.
        return ip.is_loopback or ip == self.address.ip or self.address.ip.is_unspecified
