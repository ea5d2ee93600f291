"""The proxy by itself, with an RPC socket for the desktop: `countersign proxy` and `countersign run`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.attestation import DesktopAttestation
from agent.machine import identity_of_this_machine
from agent.rpc.listen import listen_unix, socket_path
from agent.rpc.server import AppServer, Connection, Connections
from agent.settings import ProxySettings
from certs.run_directory import RunDirectory
from proxy.capture.exchange import Exchange
from proxy.capture.observation import Observation
from proxy.credentials import Credentials
from proxy.server import ProxyServer


@dataclass(frozen=True, slots=True)
class Standalone:
    """A running proxy with its RPC socket."""

    proxy: ProxyServer
    connections: Connections
    rpc: Path
    attester_arrived: asyncio.Event


@contextlib.asynccontextmanager
async def standalone(
    settings: ProxySettings,
    name: str,
    home: str,
    on_exchange: Callable[[Exchange], None],
    observation: Observation | None = None,
) -> AsyncIterator[Standalone]:
    """Run the proxy and the socket until the block ends.

    Raises:
        ProxyUnavailable, SocketUnavailable: They cannot be started.
    """
    arrived = asyncio.Event()

    def initialized(connection: Connection) -> None:
        if connection.attests:
            arrived.set()

    async def no_method(name: str) -> None:
        return None

    connections = Connections()
    server = AppServer(
        name=name,
        codex_home=home,
        connections=connections,
        identity=identity_of_this_machine,
        method=no_method,
        on_initialized=initialized,
    )
    async with contextlib.AsyncExitStack() as stack:
        run = stack.enter_context(RunDirectory())
        rpc = socket_path(settings.rpc) if settings.rpc else run.path / "rpc.sock"
        # Nobody here knows which desktop follows which thread: the oldest that can attest is asked.
        provider = DesktopAttestation(lambda thread_id: connections.any_attester())
        proxy = await stack.enter_async_context(
            ProxyServer(
                scope=settings.scope,
                provider=provider,
                run_directory=run.path,
                credentials=settings.credentials or Credentials.random(),
                upstream=settings.upstream,
                on_exchange=on_exchange,
                port=settings.port,
                mode=settings.stamp,
                on_failure=settings.on_failure,
                observation=observation,
            )
        )
        await stack.enter_async_context(listen_unix(rpc, server.serve))
        yield Standalone(proxy, connections, rpc, arrived)
