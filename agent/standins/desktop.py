"""A desktop client that follows a script: it makes tokens, or delays, fails, lies and hangs up.

It speaks to an app-server over the pipe of a child process, or to `countersign proxy` over its unix socket.
"""

import asyncio
import contextlib
import enum
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from agent.rpc.jsonrpc import RequestFailed, encode

CLIENT_NAME = "countersign_standin_desktop"
MAX_LINE_BYTES = 64 * 1024 * 1024


class Manner(enum.StrEnum):
    """How it answers when it is asked for a token."""

    TOKEN = "token"
    ERROR = "error"  # a JSON-RPC error
    SILENT = "silent"  # never
    HANG_UP = "hang-up"  # closes its connection instead
    NO_TOKEN = "no-token"  # {}
    NULL = "null"
    NUMBER = "number"  # {"token": 5}
    ARRAY = "array"  # ["..."]: the original's decoder takes it
    EXTRA = "extra"  # a token among other members


@dataclass(frozen=True, slots=True)
class Script:
    """What the desktop does.

    Args:
        token: Makes the token for the n-th question (from 1). Unique by default, as real ones are.
        delay_s: Seconds before each answer.
        attests: Whether it declares `requestAttestation` at all.
    """

    manner: Manner = Manner.TOKEN
    token: Callable[[int], str] = lambda number: f"v1.standin-{secrets.token_hex(8)}-{number}"
    delay_s: float = 0.0
    attests: bool = True
    experimental: bool = True
    name: str = CLIENT_NAME


class ServerGone(ConnectionError):
    """The server closed the connection; the text says how."""


class Link(Protocol):
    """What carries the messages."""

    async def send(self, text: str) -> None: ...

    def texts(self) -> AsyncIterator[str]: ...

    async def close(self) -> None: ...


class Desktop:
    """A connected desktop. Made by `connect` or `spawn`; an async context manager.

    `asked` counts the questions for a token, `notifications` keeps what it was told, in order.
    """

    def __init__(self, script: Script, link: Link, process: asyncio.subprocess.Process | None = None) -> None:
        self.script = script
        self._process = process
        self.asked = 0
        self.notifications: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self._link = link
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._link.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The server, where this desktop spawned it."""
        assert self._process is not None, "this desktop connected to a socket"
        return self._process

    async def initialize(self) -> dict[str, Any]:
        """The handshake."""
        capabilities = {"experimentalApi": self.script.experimental, "requestAttestation": self.script.attests}
        client = {"name": self.script.name, "title": "Stand-in desktop", "version": "1.0.0"}
        result = await self.request("initialize", {"clientInfo": client, "capabilities": capabilities})
        await self.send({"method": "initialized"})
        assert isinstance(result, dict)
        return result

    async def request(self, method: str, params: dict[str, Any], timeout_s: float = 30.0) -> Any:
        """Ask the server.

        Raises:
            RequestFailed: It answered with an error.
            ServerGone: It closed the connection first.
            TimeoutError: No answer within `timeout_s` seconds.
        """
        request_id = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        await self.send({"id": request_id, "method": method, "params": params})
        async with asyncio.timeout(timeout_s):
            return await answer

    async def send(self, message: dict[str, Any]) -> None:
        """Send one message as it is."""
        await self._link.send(encode(message))

    async def send_text(self, text: str) -> None:
        """Send a text that need not be a message."""
        await self._link.send(text)

    async def wait_for(self, method: str, count: int = 1, timeout_s: float = 30.0) -> dict[str, Any]:
        """The params of the `count`-th notification of this method, waiting for it if need be.

        Raises:
            ServerGone: The server left first.
            TimeoutError: It did not come within `timeout_s` seconds.
        """

        def found() -> list[dict[str, Any]]:
            return [one for one in self.notifications if one["method"] == method]

        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= count or self.gone.is_set())
        if len(found()) < count:
            raise ServerGone(f"the server left before it sent {method}")
        params = found()[count - 1].get("params")
        assert isinstance(params, dict)
        return params

    async def turn(self, thread_id: str, text: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Run one turn and return the `turn` of its turn/completed."""
        before = sum(one["method"] == "turn/completed" for one in self.notifications)
        content = [{"type": "text", "text": text, "text_elements": []}]
        await self.request("turn/start", {"threadId": thread_id, "input": content})
        completed = await self.wait_for("turn/completed", before + 1, timeout_s)
        turn = completed["turn"]
        assert isinstance(turn, dict)
        return turn

    async def _read(self) -> None:
        try:
            async for text in self._link.texts():
                message = json.loads(text)
                if "method" in message and "id" in message:
                    self.requests.append(message)
                    task = asyncio.create_task(self._answer(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif "method" in message:
                    async with self._changed:
                        self.notifications.append(message)
                        self._changed.notify_all()
                else:
                    self._answered(message)
        finally:
            self.gone.set()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ServerGone("the server closed the connection before it answered"))
            async with self._changed:
                self._changed.notify_all()

    def _answered(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message["id"], None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(RequestFailed(message["error"]["code"], message["error"]["message"]))
        else:
            answer.set_result(message["result"])

    async def _answer(self, message: dict[str, Any]) -> None:
        """Answer a request of the server; only the one for tokens is known here."""
        if message["method"] != "attestation/generate":
            error = {"code": -32601, "message": f"the stand-in desktop does not know {message['method']}"}
            await self.send({"id": message["id"], "error": error})
            return
        self.asked += 1
        token = self.script.token(self.asked)
        await asyncio.sleep(self.script.delay_s)
        match self.script.manner:
            case Manner.SILENT:
                return
            case Manner.HANG_UP:
                await self._link.close()
                return
            case Manner.ERROR:
                answer: dict[str, Any] = {"error": {"code": -32000, "message": "the stand-in has no token today"}}
            case Manner.NO_TOKEN:
                answer = {"result": {}}
            case Manner.NULL:
                answer = {"result": None}
            case Manner.NUMBER:
                answer = {"result": {"token": 5}}
            case Manner.ARRAY:
                answer = {"result": [token]}
            case Manner.EXTRA:
                answer = {"result": {"token": token, "device": "stand-in", "more": [1, 2]}}
            case Manner.TOKEN:
                answer = {"result": {"token": token}}
        with contextlib.suppress(ConnectionError):
            await self.send({"id": message["id"], **answer})


class _SocketLink:
    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket

    async def send(self, text: str) -> None:
        try:
            await self._websocket.send(text)
        except ConnectionClosed as exc:
            raise ServerGone("the server closed its socket") from exc

    async def texts(self) -> AsyncIterator[str]:
        try:
            async for message in self._websocket:
                if isinstance(message, str):
                    yield message
        except ConnectionClosed:
            return

    async def close(self) -> None:
        await self._websocket.close()


class _PipeLink:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._closing: asyncio.Task[None] | None = None

    async def send(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        try:
            await self.process.stdin.drain()
        except ConnectionError as exc:
            raise ServerGone("the server closed its stdin") from exc

    async def texts(self) -> AsyncIterator[str]:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.endswith(b"\n"):  # else a kill of the server cut it
                yield line.decode()

    async def close(self) -> None:
        """End of file, and a moment to leave; then SIGKILL. Whoever asks second waits for the first."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(5.0):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def connect(path: Path, script: Script, patience_s: float = 10.0) -> AsyncIterator[Desktop]:
    """A desktop on the unix socket of `countersign proxy`; initialised. Waits for the socket to appear.

    Raises:
        ConnectionError: Nobody listened there within `patience_s` seconds.
    """
    websocket = await _dial(path, patience_s)
    async with Desktop(script, _SocketLink(websocket)) as desktop:
        await desktop.initialize()
        yield desktop


async def _dial(path: Path, patience_s: float) -> ClientConnection:
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await unix_connect(str(path), uri="ws://localhost/rpc", compression=None, max_size=MAX_LINE_BYTES)
        except (OSError, InvalidHandshake) as exc:
            if asyncio.get_running_loop().time() > deadline:
                raise ConnectionError(f"nobody answers on unix://{path}: {exc}; is the proxy running?") from exc
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def spawn(
    command: Sequence[str], script: Script, environment: Mapping[str, str], cwd: Path | None = None
) -> AsyncIterator[Desktop]:
    """A desktop that starts an app-server and speaks to it over its pipes; not yet initialised.

    The server's stderr is ours.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd=cwd,
        limit=MAX_LINE_BYTES,
    )
    async with Desktop(script, _PipeLink(process), process) as desktop:
        yield desktop
