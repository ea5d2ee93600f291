"""Whole processes for end-to-end tests: `countersign` as installed, with a home and a stand-in of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from agent.standins.desktop import Desktop, Script, spawn
from proxy.attestation import ATTESTATION_HEADER
from proxy.standins.chatgpt import ChatGPT, Received, auth_json

COUNTERSIGN = str(Path(sys.executable).parent / "countersign")
RESPONSES = "/backend-api/codex/responses"
NAMES = ("chatgpt.com", "auth.openai.com", "api.openai.com", "ab.chatgpt.com")

# A scenario with real processes on a busy machine; a hang is told by name, not by pytest's timeout.
DEADLINE_S = 90.0


def play[T](scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario to its end on uvloop."""

    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE_S):
            return await scenario

    return uvloop.run(bounded())


@dataclass(frozen=True, slots=True)
class World:
    """A CODEX_HOME, an upstream, and the environment that ties a process to both."""

    home: Path
    upstream: ChatGPT
    environment: dict[str, str]

    def scoped(self) -> list[Received]:
        """The model requests that arrived: WebSocket handshakes and POSTs."""
        return [one for one in self.upstream.received if one.kind == "request" and one.path == RESPONSES]

    def others(self) -> list[Received]:
        """All other requests that arrived."""
        return [one for one in self.upstream.received if one.kind == "request" and one.path != RESPONSES]


def attestations(received: Sequence[Received]) -> list[list[str]]:
    """The attestation headers of each request, as they arrived."""
    return [one.values(ATTESTATION_HEADER) for one in received]


@contextlib.asynccontextmanager
async def world(
    directory: Path, upstream: ChatGPT, auth: Mapping[str, Any] | str | None = "chatgpt"
) -> AsyncIterator[World]:
    """A home in `directory` (with stand-in credentials unless `auth` says otherwise) and a running upstream."""
    home = directory / "home"
    home.mkdir(mode=0o700)
    if auth == "chatgpt":
        auth = auth_json()
    if auth is not None:
        (home / "auth.json").write_text(auth if isinstance(auth, str) else json.dumps(auth))
    async with upstream:
        ca_file = directory / "upstream-ca.pem"
        ca_file.write_bytes(upstream.ca_pem)
        mapped = ",".join(f"{name}=127.0.0.1:{upstream.port}" for name in NAMES)
        environment = {
            **os.environ,
            "CODEX_HOME": str(home),
            "COUNTERSIGN_UPSTREAM_MAP": mapped,
            "COUNTERSIGN_UPSTREAM_CA": str(ca_file),
        }
        yield World(home, upstream, environment)


@contextlib.asynccontextmanager
async def app_server(here: World, script: Script | None = None, *arguments: str) -> AsyncIterator[Desktop]:
    """A desktop on an app-server of its own."""
    command = [COUNTERSIGN, "app-server", "--quiet", *arguments]
    async with spawn(command, script or Script(), here.environment, here.home) as desktop:
        yield desktop


@dataclass(slots=True)
class Finished:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str


async def finish(
    *command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: bytes = b""
) -> Finished:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment if environment is not None else os.environ),
        cwd=cwd,
    )
    stdout, stderr = await process.communicate(stdin)
    assert process.returncode is not None
    return Finished(process.returncode, stdout.decode(), stderr.decode())


@contextlib.asynccontextmanager
async def serving(*command: str, environment: Mapping[str, str]) -> AsyncIterator["Serving"]:
    """A process that prints one line of JSON once it serves, until the block ends; then SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    server = Serving(process)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        assert line, (await server.stop()).stderr
        server.facts = json.loads(line)
        yield server
    finally:
        await server.stop()


class Serving:
    """A serving process; `facts` is what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.facts: dict[str, Any] = {}
        self._finished: Finished | None = None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> Finished:
        """End it, and say how it ended; a second call says the same."""
        if self._finished is None:
            if self.process.returncode is None:
                self.process.send_signal(number)
            stdout, stderr = await self.process.communicate()
            assert self.process.returncode is not None
            self._finished = Finished(self.process.returncode, stdout.decode(), stderr.decode())
        return self._finished
