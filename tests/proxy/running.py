"""A running proxy for a test: the real one, in front of an upstream on loopback."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.capture.exchange import Exchange
from proxy.credentials import Credentials
from proxy.scope import Decision, RequestHead, Scope
from proxy.server import LOOPBACK, ProxyServer
from proxy.upstream import UpstreamMap
from tests.proxy.origin import Origin

MAPPED = ("chatgpt.com", "api.openai.com", "auth.openai.com")


@dataclass
class Tokens:
    """An AttestationProvider that makes "token-1", "token-2" and so on, or does what `make` says."""

    make: Callable[[int], Awaitable[str]] | None = None
    threads: list[str | None] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def asked(self) -> int:
        """How often it was asked."""
        return len(self.threads)

    async def generate(self, thread_id: str | None) -> str:
        self.threads.append(thread_id)
        number = self.asked
        async with self._changed:
            self._changed.notify_all()
        return f"token-{number}" if self.make is None else await self.make(number)

    async def wait_for(self, count: int) -> None:
        """Wait until it was asked this often."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.asked >= count)


def failing(exc: Exception) -> Tokens:
    """Tokens that always raises."""

    async def fail(_: int) -> str:
        raise exc

    return Tokens(fail)


def never() -> Tokens:
    """Tokens that never answers."""

    async def wait(_: int) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    return Tokens(wait)


class _BrokenScope(Scope):
    def decide(self, head: RequestHead) -> Decision:
        raise RuntimeError(f"a bug at {head}")


def broken_scope() -> Scope:
    """A scope that raises where a decision is wanted, with a text that quotes what it was about."""
    working = Scope.of()
    return _BrokenScope(working.origins, working.realtime)


@dataclass
class Stage:
    """The proxy, what is behind it, and what it reported."""

    proxy: ProxyServer
    origin: Origin
    tokens: Any
    exchanges: list[Exchange]
    _changed: asyncio.Condition

    async def reported(self, count: int = 1) -> list[Exchange]:
        """The exchanges, once there are `count`."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.exchanges) >= count)
        return self.exchanges


_numbers = itertools.count()


@contextlib.asynccontextmanager
async def staged(
    directory: Path,
    origin: Origin | None = None,
    tokens: Any = None,
    *,
    scope: Scope | None = None,
    trusted: bytes | None = None,
    upstream_port: int | None = None,
    mapped: tuple[str, ...] = MAPPED,
    timeout_s: float = 10.0,
    observer: Callable[[Exchange], None] | None = None,
    **options: Any,
) -> AsyncIterator[Stage]:
    """A proxy whose scoped hosts (and auth.openai.com, which passes as a tunnel) are all at `origin`.

    Args:
        trusted: The PEM authority for upstream connections, the origin's unless given.
        upstream_port: Where another upstream than `origin` listens.
        timeout_s: For a token. Long, so that no slow machine makes a timeout of it; tests of the timeout say their own.
        observer: Is given the exchanges in place of `Stage.exchanges`.
    """
    origin = Origin() if origin is None else origin
    tokens = Tokens() if tokens is None else tokens
    exchanges: list[Exchange] = []
    changed = asyncio.Condition()
    tasks: set[asyncio.Task[None]] = set()

    async def tell() -> None:
        async with changed:
            changed.notify_all()

    def over(exchange: Exchange) -> None:
        exchanges.append(exchange)
        task = asyncio.ensure_future(tell())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    run_directory = directory / f"run-{next(_numbers)}"
    run_directory.mkdir(0o700)
    ca_file = run_directory / "upstream-ca.pem"
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(origin)
        port = origin.port if upstream_port is None else upstream_port
        ca_file.write_bytes(origin.ca_pem if trusted is None else trusted)
        proxy = await stack.enter_async_context(
            ProxyServer(
                scope=Scope.of() if scope is None else scope,
                provider=tokens,
                run_directory=run_directory,
                credentials=Credentials.random(),
                upstream=UpstreamMap.parse([f"{host}={LOOPBACK}:{port}" for host in mapped], ca_file),
                on_exchange=over if observer is None else observer,
                timeout_s=timeout_s,
                **options,
            )
        )
        yield Stage(proxy, origin, tokens, exchanges, changed)
