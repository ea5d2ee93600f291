"""Where the upstream really is: normally DNS, and for stand-ins an explicit map."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from proxy.scope import Target, normal_host


@dataclass(frozen=True, slots=True)
class UpstreamMap:
    """Targets that are reached at another address; their names, SNI and certificates stay what they were.

    Args:
        addresses: target -> (IP or host, port) to connect to.
        ca_file: PEM authorities that are trusted for upstream connections besides the platform's roots.
    """

    addresses: dict[Target, tuple[str, int]]
    ca_file: Path | None = None

    @classmethod
    def parse(cls, entries: Iterable[str], ca_file: Path | None = None) -> Self:
        """Parse entries such as "chatgpt.com=127.0.0.1:8443" (the port on the left is 443 unless given).

        Raises:
            ValueError: A malformed entry, or the same target twice with different addresses.
            OSError: `ca_file` cannot be read.
        """
        addresses: dict[Target, tuple[str, int]] = {}
        for entry in entries:
            left, equals, right = entry.partition("=")
            target, address = _target(left.strip(), 443), _target(right.strip(), None)
            if not equals or target is None or address is None:
                raise ValueError(
                    f"an upstream map entry must be HOST[:PORT]=ADDRESS:PORT, such as "
                    f"chatgpt.com=127.0.0.1:8443, found {entry!r}"
                )
            new = (address.host, address.port)
            if addresses.setdefault(target, new) != new:
                raise ValueError(f"the upstream map names {target} twice, with different addresses")
        if ca_file is not None and "-----BEGIN CERTIFICATE-----" not in ca_file.read_text("ascii", errors="replace"):
            raise ValueError(f"the upstream CA file {str(ca_file)!r} should hold PEM certificates, and holds none")
        return cls(addresses, ca_file)


def _target(text: str, default_port: int | None) -> Target | None:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, "" if default_port is None else str(default_port)
    normal = normal_host(host)
    if normal is None or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return Target(normal, int(port))


def refused_address(address: str) -> bool:
    """Whether a public host name must not resolve to `address`: anything that is not a global unicast address.

    Loopback, private, link-local, site-local, carrier-grade NAT, documentation, benchmarking, multicast, reserved, the
    relays of 6to4, and IPv4 addresses wrapped in IPv6.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if wrapped is not None:
            return refused_address(str(wrapped))
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            return refused_address(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local:  # fec0::/10, which `is_global` takes for global
            return True
    if any(ip in network for network in _NOT_GLOBAL_EITHER if network.version == ip.version):
        return True
    return not ip.is_global or ip.is_multicast or ip.is_reserved


# Which `is_global` of Python 3.13 takes for global.
_NOT_GLOBAL_EITHER = (
    ipaddress.ip_network("192.88.99.0/24"),  # the anycast of 6to4 relays, RFC 7526
    ipaddress.ip_network("3fff::/20"),  # documentation, RFC 9637
)
