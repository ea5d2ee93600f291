"""`countersign app-server --listen unix://...` and `ws://...`: the app-server for clients that connect to it."""

import argparse
import contextlib
import gc
import logging
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from agent.commands.common import CommandFailed, Parser, stop_signals
from agent.rpc.listen_address import OFF, Address, NoAddress, Stdio, UnixSocket, WebSocketAddress, parse_listen
from agent.rpc.ws_auth import CLOCK_SKEW_S, BearerCheck, CapabilityToken, SignedBearerToken, Unusable

if TYPE_CHECKING:
    from agent.app import App
    from agent.rpc.listen import Listener

logger = logging.getLogger(__name__)

CAPABILITY, SIGNED = "capability-token", "signed-bearer-token"
# Which of the options belong to which kind of authentication.
_OF_KIND = {
    CAPABILITY: ("ws_token_file", "ws_token_sha256"),
    SIGNED: ("ws_shared_secret_file", "ws_issuer", "ws_audience", "ws_max_clock_skew_seconds"),
}
# Larger than any token or secret; a device file would never end.
_MOST_SECRET_BYTES = 64 * 1024


def add_listen_options(parser: Parser) -> None:
    """`--listen` is there already; these say who may connect to a `ws://` of it."""
    group = parser.add_argument_group("who may connect to --listen ws://IP:PORT (needed beyond loopback)")
    group.add_argument("--ws-auth", choices=[CAPABILITY, SIGNED], help="what Authorization: Bearer must hold")
    group.add_argument("--ws-token-file", metavar="FILE", help=f"{CAPABILITY}: the file that holds it")
    group.add_argument("--ws-token-sha256", metavar="HEX", help=f"{CAPABILITY}: its SHA-256, instead of the file")
    group.add_argument("--ws-shared-secret-file", metavar="FILE", help=f"{SIGNED}: the HS256 key, 32 bytes or more")
    group.add_argument("--ws-issuer", metavar="TEXT", help=f"{SIGNED}: the only iss that is taken")
    group.add_argument("--ws-audience", metavar="TEXT", help=f"{SIGNED}: what aud must be or hold")
    group.add_argument(
        "--ws-max-clock-skew-seconds", type=_whole_seconds, metavar="N",
        help=f"{SIGNED}: how far clocks may differ (default: {CLOCK_SKEW_S})",
    )  # fmt: skip


def _whole_seconds(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise argparse.ArgumentTypeError(f"a whole number of seconds is needed, found {text!r}")


def listen_address(arguments: argparse.Namespace, home: str) -> Address:
    """Where `--listen` wants us.

    Raises:
        CommandFailed: It is off (code 1), or no address (code 2).
    """
    if arguments.listen == OFF:
        text = "--listen off leaves no way to reach the app-server: countersign has no remote control; leave it out"
        raise CommandFailed(text, 1)
    try:
        return parse_listen(arguments.listen, home)
    except NoAddress as exc:
        raise CommandFailed(str(exc), 2) from exc


def bearer_check(arguments: argparse.Namespace, address: Address) -> BearerCheck | None:
    """What the `--ws-` options say, None if clients need no token.

    Raises:
        CommandFailed: They contradict each other or the address (code 2); a file of theirs cannot be used, or the
            address can be reached from other machines and needs no token (code 1).
    """
    given = {name for names in _OF_KIND.values() for name in names if getattr(arguments, name) is not None}
    if arguments.ws_auth is None:
        if given:
            kind = next(kind for kind, names in _OF_KIND.items() if given & set(names))
            raise CommandFailed(f"{_flag(min(given))} has no effect without --ws-auth {kind}; add that", 2)
        if isinstance(address, WebSocketAddress) and not address.is_local:
            raise CommandFailed(
                f"ws://{address} can be reached from other machines, and anybody there could run commands here; add "
                f"--ws-auth {CAPABILITY} or {SIGNED}, or listen on 127.0.0.1",
                1,
            )
        return None
    if not isinstance(address, WebSocketAddress):
        raise CommandFailed("--ws-auth is for --listen ws://IP:PORT only; leave it out", 2)
    if foreign := given - set(_OF_KIND[arguments.ws_auth]):
        raise CommandFailed(f"{_flag(min(foreign))} has no part in --ws-auth {arguments.ws_auth}; leave it out", 2)
    return _capability(arguments) if arguments.ws_auth == CAPABILITY else _signed(arguments)


def _capability(arguments: argparse.Namespace) -> CapabilityToken:
    if (arguments.ws_token_file is None) == (arguments.ws_token_sha256 is None):
        raise CommandFailed(f"--ws-auth {CAPABILITY} needs one of --ws-token-file and --ws-token-sha256", 2)
    if arguments.ws_token_file is not None:
        try:
            return CapabilityToken.of(_secret("--ws-token-file", arguments.ws_token_file))
        except Unusable as exc:
            raise _unusable("--ws-token-file", arguments.ws_token_file, exc) from None
    try:
        return CapabilityToken.of_sha256(arguments.ws_token_sha256)
    except Unusable as exc:
        # Not repeated: it may be the token itself, by mistake.
        raise CommandFailed(f"--ws-token-sha256: {exc}", 2) from None


def _signed(arguments: argparse.Namespace) -> SignedBearerToken:
    if arguments.ws_shared_secret_file is None:
        raise CommandFailed(f"--ws-auth {SIGNED} needs --ws-shared-secret-file", 2)
    secret = _secret("--ws-shared-secret-file", arguments.ws_shared_secret_file)
    skew_s = arguments.ws_max_clock_skew_seconds
    try:
        return SignedBearerToken.of(
            secret, arguments.ws_issuer, arguments.ws_audience, CLOCK_SKEW_S if skew_s is None else skew_s
        )
    except Unusable as exc:
        raise _unusable("--ws-shared-secret-file", arguments.ws_shared_secret_file, exc) from None


def _secret(flag: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_SECRET_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise CommandFailed(f"{flag}: cannot read {path!r}: {reason}; name another file", 1) from exc
    if len(content) > _MOST_SECRET_BYTES:
        raise CommandFailed(f"{flag}: {path!r} has more than {_MOST_SECRET_BYTES} bytes; name another file", 1)
    if stat.S_ISREG(mode) and mode & 0o077:
        logger.warning("%s: %r can be read by others on this machine; chmod 600 keeps it to yourself", flag, path)
    return content


def _unusable(flag: str, path: str, exc: Unusable) -> CommandFailed:
    return CommandFailed(f"{flag}: {path!r} cannot be used: {exc}", 1)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


async def serve_clients(app: "App", address: Address, check: BearerCheck | None) -> int:
    """Serve who connects, until a signal; then end the turns, tell the clients, and return the exit code.

    Raises:
        CommandFailed: We cannot listen there.
    """
    from agent.rpc.listen import SocketUnavailable

    # Before anybody can connect: those who never get as far as a request leave garbage too.
    gc.enable()
    async with stop_signals() as stop, contextlib.AsyncExitStack() as stack:
        try:
            listener = await stack.enter_async_context(_listening(app, address, check))
        except SocketUnavailable as exc:
            raise CommandFailed(str(exc)) from exc
        # In reverse: nobody connects any more, turns end and are told, then the clients go.
        stack.push_async_callback(app.aclose)
        stack.callback(listener.accept_no_more)
        await stop.wait()
    return 0


@contextlib.asynccontextmanager
async def _listening(app: "App", address: Address, check: BearerCheck | None) -> "AsyncIterator[Listener]":
    from agent.rpc.listen import listen_tcp, listen_unix
    from agent.rpc.listen_door import Door

    match address:
        case UnixSocket(path, is_default):
            place = _place(path)
            if is_default:
                _own_directory(place.parent)
            async with listen_unix(place, app.serve_also, ping_interval_s=None) as listener:
                _announce(f"unix://{place}")
                yield listener
        case WebSocketAddress(ip):
            async with listen_tcp(address, Door(address, check), app.serve_also) as listener:
                where = WebSocketAddress(ip, listener.port)
                health = [f"  {name}: http://{where}/{name}" for name in ("readyz", "healthz")]
                open_to_all = "  note: every user and program of this machine can connect; --ws-auth asks for a token"
                _announce(f"ws://{where}", *health, *([open_to_all] if check is None else []))
                yield listener
        case Stdio():
            raise AssertionError("stdin and stdout are one client that is there already")


def _announce(where: str, *more: str) -> None:
    print("\n".join(("countersign app-server", f"  listening on: {where}", *more)), file=sys.stderr, flush=True)


def _place(path: PurePath) -> Path:
    return Path(os.path.abspath(path))


def _own_directory(directory: Path) -> None:
    """Make the directory of the default socket, or take the one that is there for ourselves alone.

    Raises:
        CommandFailed: It is not ours, or no directory.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise CommandFailed(f"{str(directory)!r} is no directory of ours; move it away, or name a unix://PATH")
        if status.st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as exc:
        text = f"cannot use {str(directory)!r} for the socket: {exc.strerror}; move it away, or name a unix://PATH"
        raise CommandFailed(text) from exc
