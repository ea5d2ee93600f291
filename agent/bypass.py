"""Looks whether the processes of a command connect past the proxy. Evidence, no proof: it looks now and then.

What lives shorter than the interval may be missed, and only TCP is seen; but an agent that goes around the proxy keeps
its connections for seconds.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable

import psutil

from proxy.capture.proof import Bypass
from proxy.scope import Target

INTERVAL_S = 0.025


class Watch:
    """Over one process and what descends from it.

    Args:
        proxy_port: Where connections on loopback may go.
        scoped: (address, port) where scoped hosts are, as far as known.
    """

    def __init__(self, pid: int, proxy_port: int, scoped: Iterable[tuple[str, int]]) -> None:
        self._pid = pid
        self._proxy_port = proxy_port
        self._scoped = frozenset(scoped)
        self._found: dict[tuple[str, str], Bypass] = {}
        self.unwatched = ""

    @property
    def found(self) -> tuple[Bypass, ...]:
        """What was seen so far, each process and address once."""
        return tuple(self._found.values())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        """Look once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._pid)
            for process in (root, *root.children(recursive=True)):
                try:
                    self._look_at(process)
                except psutil.NoSuchProcess:
                    continue
                except psutil.AccessDenied as exc:
                    if _is_over(process):
                        continue  # what is left of it belongs to root, and connects nowhere
                    self.unwatched = f"the connections of process {exc.pid} may not be seen"

    def _look_at(self, process: psutil.Process) -> None:
        for connection in process.net_connections(kind="tcp"):
            if not connection.raddr or connection.status == psutil.CONN_LISTEN:
                continue
            address = _plain(connection.raddr.ip)
            port = connection.raddr.port
            scoped = (address, port) in self._scoped
            if not scoped and (ipaddress.ip_address(address).is_loopback or port == self._proxy_port):
                continue
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            name = f"{process.name()} ({process.pid})"
            self._found[name, where] = Bypass(name, where, scoped)


def _is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _plain(address: str) -> str:
    """Without a zone, and IPv4 as such also where the socket is an IPv6 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed)


async def addresses_of(
    targets: Iterable[Target], mapped: Iterable[tuple[str, int]]
) -> tuple[frozenset[tuple[str, int]], str]:
    """Where the scoped hosts are: as mapped, and as this machine resolves them; and what could not be resolved."""
    found = {(_plain(address), port) for address, port in mapped}
    unknown = []
    for target in targets:
        try:
            async with asyncio.timeout(5):
                answers = await asyncio.get_running_loop().getaddrinfo(
                    target.host, target.port, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            unknown.append(target.host)
            continue
        found |= {(_plain(str(answer[4][0])), target.port) for answer in answers}
    return frozenset(found), f"not resolved here: {', '.join(unknown)}" if unknown else ""
