"""Looks whether the processes of a command connect past the proxy. Evidence, no proof: it looks now and then.

What lives shorter than the interval may be missed, and only TCP is seen; but an agent that goes around the proxy keeps
its connections for seconds.
"""

import asyncio
import contextlib
import ctypes
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Iterator

import psutil

from proxy.capture.proof import Bypass
from proxy.scope import Target

INTERVAL_S = 0.025
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Watch:
    """Over all processes that descend from this one.

    Args:
        scoped: (address, port) where scoped hosts are, as far as known.
    """

    def __init__(self, scoped: Iterable[tuple[str, int]]) -> None:
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
        for process in psutil.Process().children(recursive=True):
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
            if not scoped and ipaddress.ip_address(address).is_loopback:
                continue
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            name = f"{process.name()} ({process.pid})"
            self._found[name, where] = Bypass(name, where, scoped)


@contextlib.asynccontextmanager
async def watching(scoped: Iterable[tuple[str, int]]) -> AsyncIterator[Watch]:
    """Look while the block goes on."""
    watch = Watch(scoped)
    with _adopting():
        looking = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            looking.cancel()
            await asyncio.wait((looking,))
            if not looking.cancelled() and (exc := looking.exception()) is not None:
                watch.unwatched = f"the looking itself failed, {type(exc).__name__}"


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """While it lasts, whoever loses its parent among our descendants becomes our child: a daemon is still seen.

    On Linux only; elsewhere such a process is lost from sight.
    """
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


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
    wanted, loop, unknown = list(targets), asyncio.get_running_loop(), []

    async def looked_up(target: Target) -> list[str]:
        async with asyncio.timeout(5):
            answers = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            return [_plain(str(answer[4][0])) for answer in answers]

    for target, answer in zip(
        wanted, await asyncio.gather(*map(looked_up, wanted), return_exceptions=True), strict=True
    ):
        match answer:
            case OSError():  # a TimeoutError is one
                unknown.append(target.host)
            case BaseException():
                raise answer
            case _:
                found |= {(address, target.port) for address in answer}
    return frozenset(found), f"not resolved here: {', '.join(unknown)}" if unknown else ""
