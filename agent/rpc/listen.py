"""The listener for desktop clients that connect: WebSocket over a unix socket, as the original speaks it there.

One JSON message for each text frame; binary frames are ignored. Browsers are kept out: any `Origin` is refused.
"""

import asyncio
import contextlib
import errno
import http
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

# What the original announces in its upgrade answer, in bytes; longer messages must come in fragments.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


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

    listener = _bind(path)
    try:
        server: Server = await unix_serve(
            handle,
            sock=listener,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            process_request=_refuse_browsers,
            process_response=_announce_limit,
            server_header=None,
        )
        try:
            yield
        finally:
            server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await server.wait_closed()
    finally:
        listener.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _refuse_browsers(connection: ServerConnection, request: Request) -> Response | None:
    # A web page can reach a loopback service, and it cannot leave out its Origin (CSWSH).
    if request.headers.get_all("Origin"):
        return connection.respond(http.HTTPStatus.FORBIDDEN, "")
    return None


def _announce_limit(connection: ServerConnection, request: Request, response: Response) -> Response:
    response.headers["x-codex-websocket-max-unfragmented-message-bytes"] = str(MAX_MESSAGE_BYTES)
    return response


def _bind(path: Path) -> socket.socket:
    """A listening socket at `path`, only for its owner; a socket that a dead process left there is replaced."""
    parent = path.parent
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = parent.stat().st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            raise SocketUnavailable(
                f"the RPC socket {str(path)!r} would be in a directory that others may write; choose one of your own"
            )
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
        except BaseException:
            listener.close()
            raise
    except OSError as exc:
        reason = "the path is too long for a socket" if exc.errno is None else exc.strerror
        raise SocketUnavailable(f"cannot listen on {str(path)!r}: {reason}; choose another path") from exc
    return listener


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise SocketUnavailable(f"{str(path)!r} is there already and is no socket of ours; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as exc:
            if exc.errno != errno.ECONNREFUSED:
                raise
        else:
            raise SocketUnavailable(f"another process listens on {str(path)!r}; stop it or choose another path")
    path.unlink()
