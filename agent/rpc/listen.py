"""The listener for desktop clients that connect: WebSocket over a unix socket, as the original speaks it there.

One JSON message for each text frame; binary frames are ignored. Browsers are kept out: any `Origin` is refused.
"""

import asyncio
import contextlib
import errno
import fcntl
import http
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

# What the original announces in its upgrade answer, in bytes; longer messages must come in fragments.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# Seconds that a client has to say goodbye, and after that to be cut off.
CLOSE_TIMEOUT_S = 1.0
# Seconds to wait for another process that is making its socket in the same directory.
START_TIMEOUT_S = 2.0


class SocketUnavailable(Exception):
    """The socket cannot be made; the text says why and what to do."""


class WebSocketStream:
    """The `MessageStream` of one WebSocket."""

    def __init__(self, websocket: ServerConnection) -> None:
        self._websocket = websocket

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for message in self._websocket:
                if isinstance(message, str):
                    yield message
        except ConnectionClosed:
            return

    async def send(self, text: str) -> None:
        try:
            await self._websocket.send(text)
        except ConnectionClosed as exc:
            raise ConnectionError("the client closed its WebSocket") from exc

    async def aclose(self) -> None:
        await self._websocket.close()


def socket_path(address: str) -> Path:
    """ "unix:///run/user/1000/rpc.sock" -> its path.

    Raises:
        ValueError: Another scheme, or no path.
    """
    if not address.startswith("unix://") or not address.removeprefix("unix://"):
        raise ValueError(f"an RPC address must be unix://PATH, found {address!r}")
    return Path(address.removeprefix("unix://"))


@contextlib.asynccontextmanager
async def listen_unix(path: Path, serve: Callable[[WebSocketStream], Awaitable[None]]) -> AsyncIterator[None]:
    """Serve each client that connects to `path`, a socket of mode 0600, until the block ends.

    Raises:
        SocketUnavailable: The path is taken, too long, or in a directory that others may write.
    """

    async def handle(websocket: ServerConnection) -> None:
        await serve(WebSocketStream(websocket))

    listener, identity = await _bind(path)
    try:
        server: Server = await unix_serve(
            handle,
            sock=listener,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            process_request=_refuse_browsers,
            process_response=_announce_limit,
            server_header=None,
            close_timeout=CLOSE_TIMEOUT_S,
        )
        try:
            yield
        finally:
            # Before it is closed: as long as somebody listens here, nobody else takes the path.
            _remove(path, identity)
            await _close(server)
    finally:
        _remove(path, identity)
        listener.close()


async def _close(server: Server) -> None:
    """Tell the clients, wait a moment for their goodbye, and cut off whoever has stopped to read."""
    server.close()
    for _ in range(2):
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await server.wait_closed()
            return
        except TimeoutError:
            for connection in server.all_connections:
                connection.transport.abort()


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
    response.headers["x-codex-websocket-max-unfragmented-message-bytes"] = str(MAX_MESSAGE_BYTES)
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
