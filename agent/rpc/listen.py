"""The listeners for clients that connect: WebSocket over a unix socket or over TCP, as the original speaks it there.

One JSON message for each text frame; binary frames are ignored. Browsers are kept out: any `Origin` is refused.
"""

import asyncio
import contextlib
import errno
import fcntl
import http
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from agent.rpc.listen_address import WebSocketAddress
from agent.rpc.listen_door import Asked, Door

logger = logging.getLogger(__name__)

# What the original announces in its upgrade answer, in bytes; longer messages must come in fragments.
MAX_FRAME_BYTES = 16 * 1024 * 1024
# As long as a line on stdin may be.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# Seconds that a client has to say goodbye, and after that to be cut off.
CLOSE_TIMEOUT_S = 0.5
# Seconds after which a client that takes nothing of what we send is let go: after one to two such periods.
STALL_S = 15.0
NOT_READ = "what was sent is not being read"
ENDING = "the server is ending"
# Seconds to wait for another process that is making its socket in the same directory.
START_TIMEOUT_S = 2.0


class SocketUnavailable(Exception):
    """The socket cannot be made; the text says why and what to do."""


class WebSocketStream:
    """The `MessageStream` of one WebSocket.

    Args:
        stall_s: Seconds, as `STALL_S`.
    """

    def __init__(self, websocket: ServerConnection, stall_s: float = STALL_S) -> None:
        self._websocket = websocket
        self._stall_s = stall_s
        self._sending = False

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for message in self._websocket:
                if isinstance(message, str):
                    yield message
        except ConnectionClosed:
            return

    async def send(self, text: str) -> None:
        """Send one message; waits while the client does not read, but not for ever.

        Raises:
            ConnectionError: The client has gone, or has been let go because it takes nothing.
        """
        self._sending = True
        try:
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._websocket.send(text)
            except TimeoutError:
                # The message is in the buffer as a whole: what was given up is the waiting for room.
                await self._progress()
        except ConnectionClosed as exc:
            raise ConnectionError("the client closed its WebSocket") from exc
        finally:
            self._sending = False

    async def _progress(self) -> None:
        """Wait for room, for as long as the client takes some of what waits."""
        waiting = self._websocket.transport.get_write_buffer_size()
        while True:
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._websocket.drain()
                return
            except TimeoutError:
                before, waiting = waiting, self._websocket.transport.get_write_buffer_size()
            if waiting >= before:
                logger.warning("a client took nothing for %g s: let go with %d bytes to send", self._stall_s, waiting)
                await self.aclose()
                raise ConnectionError("the client does not read")

    async def aclose(self) -> None:
        """Close it. A client that is being waited for is told that it did not read, if it reads as far as that."""
        code, reason = (CloseCode.POLICY_VIOLATION, NOT_READ) if self._sending else (CloseCode.NORMAL_CLOSURE, "")
        await _say_goodbye(self._websocket, code, reason)


async def _say_goodbye(websocket: ServerConnection, code: CloseCode, reason: str) -> None:
    """Close one WebSocket, by force after a moment."""
    try:
        # A deadline of our own: the library's begins once the client has read everything before the goodbye.
        async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
            await websocket.close(code, reason)
    except TimeoutError:
        websocket.transport.abort()


ServeClient = Callable[[WebSocketStream], Awaitable[None]]


def socket_path(address: str) -> Path:
    """ "unix:///run/user/1000/rpc.sock" -> its path.

    Raises:
        ValueError: Another scheme, or no path.
    """
    if not address.startswith("unix://") or not address.removeprefix("unix://"):
        raise ValueError(f"an RPC address must be unix://PATH, found {address!r}")
    return Path(address.removeprefix("unix://"))


class Listener:
    """A running listener."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        """The TCP port."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def accept_no_more(self) -> None:
        """From now on nobody can connect; who is connected is served."""
        self._server.close(close_connections=False)

    async def aclose(self) -> None:
        """Tell the clients, wait a moment for their goodbye, and cut off whoever has stopped to read."""
        self.accept_no_more()
        open_ones = [one for one in self._server.all_connections if one.state is State.OPEN]
        await asyncio.gather(*(_say_goodbye(one, CloseCode.GOING_AWAY, ENDING) for one in open_ones))
        for connection in self._server.all_connections:
            connection.transport.abort()
        # What is still being handled for them after that ends with the loop.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._server.wait_closed()


@contextlib.asynccontextmanager
async def listen_unix(
    path: Path, serve_client: ServeClient, ping_interval_s: float | None = 20.0
) -> AsyncIterator[Listener]:
    """Serve each client that connects to `path`, a socket of mode 0600, until the block ends.

    Args:
        ping_interval_s: Seconds between pings; who leaves one unanswered is let go. None for no pings, as the original.

    Raises:
        SocketUnavailable: The path is taken, too long, or in a directory that others may write.
    """
    bound, identity = await _bind(path)
    try:
        server = await unix_serve(
            _handler(serve_client, STALL_S),
            sock=bound,
            process_request=_refuse_browsers,
            process_response=_announce_limit,
            ping_interval=ping_interval_s,
            **_OPTIONS,
        )
        listener = Listener(server)
        try:
            yield listener
        finally:
            # Before it is closed: as long as somebody listens here, nobody else takes the path.
            _remove(path, identity)
            await listener.aclose()
    finally:
        _remove(path, identity)
        bound.close()


@contextlib.asynccontextmanager
async def listen_tcp(
    address: WebSocketAddress, door: Door, serve_client: ServeClient, stall_s: float = STALL_S
) -> AsyncIterator[Listener]:
    """Serve each client that `door` lets in, until the block ends.

    Args:
        stall_s: Seconds, as `STALL_S`.

    Raises:
        SocketUnavailable: The port is taken, or the address is not one of this machine.
    """

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        headers = request.headers
        asked = Asked(
            target=request.path,
            host=headers.get_all("Host"),
            origin=headers.get_all("Origin"),
            connection=headers.get_all("Connection"),
            authorization=headers.get_all("Authorization"),
        )
        reply = door.reply(asked, time.time())
        return None if reply is None else connection.respond(reply.status, reply.text)

    with _bind_tcp(address) as bound:
        # No pings, as the original: clients that only read while they wait for something could not answer them.
        server = await serve(
            _handler(serve_client, stall_s), sock=bound, process_request=process_request, ping_interval=None, **_OPTIONS
        )
        listener = Listener(server)
        try:
            yield listener
        finally:
            await listener.aclose()


_OPTIONS: dict[str, Any] = {  # of either listener; Any as the library takes each of them
    "compression": None,
    "max_size": (MAX_MESSAGE_BYTES, MAX_FRAME_BYTES),
    "server_header": None,
    "close_timeout": CLOSE_TIMEOUT_S,
}


def _handler(serve_client: ServeClient, stall_s: float) -> Callable[[ServerConnection], Awaitable[None]]:
    async def handle(websocket: ServerConnection) -> None:
        await serve_client(WebSocketStream(websocket, stall_s))

    return handle


def _bind_tcp(address: WebSocketAddress) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections have it too: a client whose machine has gone is noticed some day.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        bound.bind((str(address.ip), address.port))
        bound.listen(128)
    except OSError as exc:
        bound.close()
        raise SocketUnavailable(
            f"cannot listen on ws://{address}: {exc.strerror}; choose another port or address"
        ) from exc
    return bound


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove our socket, and not the one that somebody made there after ours was removed."""
    with contextlib.suppress(OSError):
        if _identity(path) == identity:
            path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _refuse_browsers(connection: ServerConnection, request: Request) -> Response | None:
    # A web page can reach a loopback service, and it cannot leave out its Origin (CSWSH).
    if request.headers.get_all("Origin"):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "")
    return None


def _announce_limit(connection: ServerConnection, request: Request, response: Response) -> Response:
    response.headers["x-codex-websocket-max-unfragmented-message-bytes"] = str(MAX_FRAME_BYTES)
    return response


async def _bind(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket at `path`, only for its owner, and its identity; one that a dead process left is replaced."""
    parent = path.parent
    try:
        for missing in reversed([place for place in (parent, *parent.parents) if not place.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        status = parent.stat()
        if status.st_uid not in (os.geteuid(), 0):
            raise SocketUnavailable(
                f"the RPC socket {str(path)!r} would be in a directory of another user; choose one of your own"
            )
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            raise SocketUnavailable(
                f"the RPC socket {str(path)!r} would be in a directory that others may write; choose one of your own"
            )
        async with _alone_in(parent):
            _remove_stale(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # The mode must be right before anybody can connect: chmod after bind would leave a moment.
                umask = os.umask(0o177)
                try:
                    listener.bind(str(path))
                finally:
                    os.umask(umask)
                listener.listen(16)
                return listener, _identity(path)
            except BaseException:
                listener.close()
                raise
    except OSError as exc:
        reason = "the path is too long for a socket" if exc.errno is None else exc.strerror
        raise SocketUnavailable(f"cannot listen on {str(path)!r}: {reason}; choose another path") from exc


@contextlib.asynccontextmanager
async def _alone_in(directory: Path) -> AsyncIterator[None]:
    """Of two processes that start here at once, let one finish first: each would take the other's socket for dead."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise SocketUnavailable(
                    f"another process is making a socket in {str(directory)!r} and does not finish; stop it or choose "
                    "another directory"
                )
            await asyncio.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks; there two starts at the same moment are at their own risk
    return True


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise SocketUnavailable(f"{str(path)!r} is there already and is no socket of ours; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Else it would wait for an owner that accepts nobody any more.
        probe.setblocking(False)
        code = probe.connect_ex(str(path))
    if code in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise SocketUnavailable(f"another process listens on {str(path)!r}; stop it or choose another path")
    if code != errno.ECONNREFUSED:
        raise OSError(code, os.strerror(code))
    path.unlink()
