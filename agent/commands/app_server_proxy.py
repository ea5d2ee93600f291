"""`countersign app-server proxy`: stdin and stdout as a connection to a listening app-server.

For a client that can start a program (over ssh, say) and speaks WebSocket itself: the bytes pass as they are.
"""

import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from agent.commands.common import CommandFailed, Parser, check_no_overrides, fail
from agent.home import HomeError, codex_home
from agent.rpc.listen_address import CONTROL_SOCKET

COMMAND = "app-server proxy"
READ_BYTES = 64 * 1024


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(COMMAND, "Pass bytes between stdin and stdout and the unix socket of an app-server, both ways.")
    parser.add_argument("--sock", metavar="PATH", help="the socket (default: the one of --listen unix://)")
    arguments = parser.parse_args(argv)
    try:
        check_no_overrides(COMMAND, overrides)
        with _connected(arguments.sock) as connection:
            # A daemon: when the server hangs up, the end of stdin is not waited for.
            threading.Thread(target=_send, args=(connection,), daemon=True, name="stdin").start()
            return _receive(connection)
    except CommandFailed as exc:
        return fail(COMMAND, exc)


def _connected(path: str | None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        place = Path(codex_home(os.environ)) / CONTROL_SOCKET if path is None else Path(path)
        connection.connect(str(place))
    except (OSError, ValueError) as exc:
        connection.close()
        # ValueError: a NUL in the path; no errno: it is too long.
        reason = exc.strerror if isinstance(exc, OSError) and exc.errno is not None else exc
        listen = "unix://" if path is None else f"unix://{path}"
        text = f"cannot connect to {str(place)!r}: {reason}; is `countersign app-server --listen {listen}` running?"
        raise CommandFailed(text) from exc
    except HomeError as exc:
        connection.close()
        raise CommandFailed(str(exc), 2) from exc
    return connection


def _send(connection: socket.socket) -> None:
    """In a thread: stdin to the socket, and its end as well."""
    try:
        while content := os.read(sys.stdin.fileno(), READ_BYTES):
            connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the server has hung up, which the other direction notices


def _receive(connection: socket.socket) -> int:
    """The socket to stdout, until either has ended."""
    try:
        while content := connection.recv(READ_BYTES):
            while content:
                content = content[os.write(sys.stdout.fileno(), content) :]
    except ConnectionResetError as exc:
        raise CommandFailed("the app-server cut the connection off") from exc
    except BrokenPipeError:
        return 0  # nobody reads any more
    except KeyboardInterrupt:
        return 130
    return 0
