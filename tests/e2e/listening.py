"""An app-server that listens, and its clients."""

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect, unix_connect

from agent.standins.desktop import Desktop, Script, ServerGone
from tests.processes import COUNTERSIGN, finish

GOLDENS = Path(__file__).parents[3] / "shared/protocol/goldens"
with_recordings = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason=f"the recordings of the original are not at {GOLDENS}"
)

TOKEN = "open-sesame-1234"
SECRET = b"a secret of at least 32 bytes ..."
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Listening:
    """A listening app-server; `where` is the address that it printed."""

    def __init__(self, process, banner):
        self.process = process
        self.banner = banner
        self.where = re.search("listening on: (.*)", banner)[1]

    @property
    def port(self):
        return int(self.where.rpartition(":")[2])

    @property
    def path(self):
        return Path(self.where.removeprefix("unix://"))

    def dial(self, **options):
        options = {"compression": None, "proxy": None, **options}
        if self.where.startswith("ws://"):
            return connect(self.where, **options)
        return unix_connect(str(self.path), uri="ws://localhost/", **options)

    @contextlib.asynccontextmanager
    async def desktop(self, script=None, **options):
        """One more desktop; initialised."""
        async with Desktop(script or Script(), Link(await self.dial(**options))) as desktop:
            await desktop.initialize()
            yield desktop

    async def raw(self, request):
        """What a request on a fresh connection gets, up to the end or to the head of an accepted upgrade."""
        if self.where.startswith("ws://"):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        else:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(request.encode())
        received = b""
        while piece := await reader.read(4096):
            received += piece
            if received.startswith(b"HTTP/1.1 101") and received.endswith(b"\r\n\r\n"):
                break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return received

    async def stop(self):
        """(exit code, seconds until then) after a SIGTERM."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        return code, time.monotonic() - begun


class Link:
    """The link of a stand-in desktop over a WebSocket."""

    def __init__(self, websocket):
        self._websocket = websocket

    async def send(self, text):
        try:
            await self._websocket.send(text)
        except websockets.ConnectionClosed as exc:
            raise ServerGone("the server closed its socket") from exc

    async def texts(self):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in self._websocket:
                yield message

    async def close(self):
        await self._websocket.close()


@contextlib.asynccontextmanager
async def listening(here, listen="ws://127.0.0.1:0", *arguments):
    process = await asyncio.create_subprocess_exec(
        *(COUNTERSIGN, "app-server", "--quiet", "--listen", listen, *arguments),
        stdin=asyncio.subprocess.DEVNULL,  # its end does not stop a listener
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=here.environment,
        cwd=here.home,
    )
    try:
        banner = b""
        async with asyncio.timeout(20):
            while b"listening on" not in banner:
                line = await process.stderr.readline()
                assert line, banner
                banner += line
        yield Listening(process, banner.decode())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refused(here, *arguments):
    """How an app-server ends that cannot start."""
    return await finish(COUNTERSIGN, "app-server", *arguments, environment=here.environment)


def secret_file(directory, content):
    path = directory / f"secret-{len(os.listdir(directory))}"
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def thread_of(started):
    return started["thread"]["id"]
