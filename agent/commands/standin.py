"""`countersign standin chatgpt|desktop|apple`: local peers, for verifying offline."""

import argparse
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.common import (
    CommandFailed,
    OutputFile,
    Parser,
    act,
    fail,
    run,
    seconds,
    start_logging,
    stop_signals,
    unless_stopped,
)
from proxy.scope import normal_host

if TYPE_CHECKING:
    from proxy.standins.apple import Apple
    from proxy.standins.chatgpt import Received

HELP = """usage: countersign standin {chatgpt,desktop,apple} ...

  chatgpt   serve what an agent needs of ChatGPT, on loopback with TLS
  desktop   connect to the socket of `countersign proxy` or `run` and make tokens
  apple     judge device tokens as Apple's DeviceCheck server does, with a key of its own

  countersign standin NAME --help tells more"""


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    actions = {"chatgpt": _chatgpt, "desktop": _desktop, "apple": _apple}
    return act("standin", "a stand-in", HELP, actions, argv, overrides)


def _chatgpt(argv: Sequence[str]) -> int:
    parser = Parser(
        "standin chatgpt",
        "Serve what an agent needs of ChatGPT, on loopback with TLS. Prints one line of JSON when it listens: port, "
        "ca_file, upstream_map and auth_file.",
    )
    parser.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument(
        "--directory", metavar="DIR",
        help="where ca.pem and auth.json go, which must not be there yet (default: one that is removed)",
    )  # fmt: skip
    parser.add_argument(
        "--name", type=_host, action="append", default=[], metavar="HOST", help="one more name for its certificate"
    )
    parser.add_argument("--script", metavar="FILE", help="JSON list of answers: text, call, items or events")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="[WHERE:]KIND[:TIMES]",
        help="misbehave, such as websocket:426, post:500:2, cut:1, stall, usage-limit; may be repeated",
    )  # fmt: skip
    parser.add_argument("--event-delay", type=seconds, default=0.0, metavar="SECONDS", help="between two events")
    parser.add_argument(
        "--record", metavar="FILE",
        help="write what arrived as JSON lines, at the end; only for your eyes, since it holds the attestation tokens",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    try:
        record = None if arguments.record is None else OutputFile(arguments.record, "the record", private=True)
    except CommandFailed as exc:
        return fail("standin chatgpt", exc)
    return run("standin chatgpt", _serve_chatgpt(arguments, record))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port must be 0 to 65535 (0: any free one), found {text!r}")
    return int(text)


def _host(text: str) -> str:
    host = normal_host(text)
    if host is None or ":" in host:
        raise argparse.ArgumentTypeError(f"a host name is needed, such as chatgpt.example, found {text!r}")
    return host


async def _serve_chatgpt(arguments: argparse.Namespace, record: OutputFile | None) -> int:
    from proxy.standins.answers import Answers
    from proxy.standins.chatgpt import NAMES, ChatGPT, auth_json
    from proxy.standins.faults import Fault

    try:
        answers = Answers() if arguments.script is None else Answers.load(Path(arguments.script))
    except OSError as exc:
        raise CommandFailed(f"--script: {arguments.script!r} cannot be read: {exc.strerror}", 2) from exc
    except ValueError as exc:
        raise CommandFailed(f"--script: {exc}", 2) from exc
    try:
        faults = [Fault.parse(text) for text in arguments.fault]
    except ValueError as exc:
        raise CommandFailed(f"--fault: {exc}", 2) from exc
    names = (*NAMES, *arguments.name)
    standin = ChatGPT(
        names=names, answers=answers, faults=faults, event_delay_s=arguments.event_delay, port=arguments.port
    )
    async with contextlib.AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals())
        directory = _directory(arguments.directory, stack)
        auth = json.dumps(auth_json(), indent=2).encode()
        auth_file, ca_file = _put({directory / "auth.json": auth, directory / "ca.pem": standin.ca_pem})
        try:
            await stack.enter_async_context(standin)
        except OSError as exc:
            for path in (auth_file, ca_file):
                path.unlink()
            raise CommandFailed(f"cannot listen on port {arguments.port}: {exc.strerror}") from exc
        facts = {
            "port": standin.port,
            "ca_file": str(ca_file),
            "auth_file": str(auth_file),
            "upstream_map": ",".join(f"{name}=127.0.0.1:{standin.port}" for name in names if name != NAMES[-1]),
        }
        print(json.dumps(facts), flush=True)
        await stop.wait()
    if record is not None:
        record.write("".join(json.dumps(_line(one)) + "\n" for one in standin.received))
    return 0


def _directory(name: str | None, stack: contextlib.ExitStack | contextlib.AsyncExitStack) -> Path:
    """That of this name, or one that goes with `stack`."""
    if name is None:
        from certs.run_directory import RunDirectory

        return stack.enter_context(RunDirectory()).path
    directory = Path(name)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise CommandFailed(f"cannot use the directory {str(directory)!r}: {exc.strerror}; name another", 2) from exc
    return directory


def _put(files: dict[Path, bytes]) -> list[Path]:
    """Write these files, only for their owner. All or none, and none over another: it may be somebody's sign-in."""
    made: list[Path] = []
    for path, content in files.items():
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            for other in made:
                other.unlink()
            if isinstance(exc, FileExistsError):
                text = f"{str(path)!r} is there already and would be overwritten; remove it or name another --directory"
                raise CommandFailed(text, 2) from exc
            raise CommandFailed(f"cannot write {str(path)!r}: {exc.strerror}; name another --directory", 2) from exc
        made.append(path)
        with open(descriptor, "wb") as file:
            file.write(content)
    return made


def _line(received: "Received") -> dict[str, Any]:
    """What arrived, for the record."""
    return {
        "at": received.at,
        "kind": received.kind,
        "method": received.method,
        "path": received.path,
        "websocket": received.is_websocket,
        "status": received.status,
        "headers": [[name.decode("latin-1"), _shown(name, value)] for name, value in received.headers],
        "body": _shown_body(received),
    }


# Of a sign-in's members, those that are no secret.
_PUBLIC_MEMBERS = ("grant_type", "client_id", "scope", "redirect_uri")
REDACTED = "<redacted>"


def _shown_body(received: "Received") -> Any:
    body = received.body
    if received.path.partition("?")[0].rstrip("/") == "/oauth/token" and body is not None:
        if not isinstance(body, dict):
            return REDACTED
        return {name: value if name in _PUBLIC_MEMBERS else REDACTED for name, value in body.items()}
    return body.decode("latin-1") if isinstance(body, bytes) else body


def _shown(name: bytes, value: bytes) -> str:
    """Credentials stay out of the file, also here where they should be fake."""
    if name.lower() in (b"authorization", b"cookie", b"proxy-authorization"):
        return REDACTED
    return value.decode("latin-1")


def _apple(argv: Sequence[str]) -> int:
    from proxy.standins.apple import Tls

    parser = Parser(
        "standin apple",
        "Judge device tokens as Apple's DeviceCheck server does, on loopback with TLS, for `countersign verify-token`. "
        "It knows the tokens that it made and those of --accept, and nothing of real devices. Prints one line of JSON "
        "when it listens: server and development_server, key_id, team_id, and the files: key_file, ca_file, token_file "
        "and development_token_file.",
    )
    parser.add_argument("--port", type=_port, default=0, help="port of production on 127.0.0.1 (default: any free one)")
    parser.add_argument("--development-port", type=_port, default=0, metavar="PORT", help="that of development")
    parser.add_argument(
        "--directory", metavar="DIR",
        help="where the files go, which must not be there yet (default: a directory that is removed)",
    )  # fmt: skip
    parser.add_argument(
        "--accept", action="append", default=[], metavar="FILE",
        help="a device token in one line of base64 that is genuine too, in production; may be repeated",
    )  # fmt: skip
    parser.add_argument("--single-use", action="store_true", help="refuse a token that was found genuine before")
    parser.add_argument("--delay", type=seconds, default=0.0, metavar="SECONDS", help="before each answer")
    parser.add_argument(
        "--answer", action="append", default=[], metavar="STATUS[:TEXT]",
        help="answer so, whatever is asked; 'close' drops the connection, 'honest' judges. If repeated, one for each "
        "request, and the last for all others",
    )  # fmt: skip
    parser.add_argument(
        "--tls", choices=[str(one) for one in Tls], default="good",
        help="a certificate of another authority (untrusted), of another host (name), or an expired one",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    return run("standin apple", _serve_apple(arguments))


async def _serve_apple(arguments: argparse.Namespace) -> int:
    from proxy.standins.apple import DEVELOPMENT, KEY_ID, PRODUCTION, TEAM_ID, Apple, Reply, Tls

    try:
        replies = [Reply.parse(text) for text in arguments.answer or ["honest"]]
    except ValueError as exc:
        raise CommandFailed(f"--answer: {exc}", 2) from exc
    standin = Apple(
        replies=replies, delay_s=arguments.delay, single_use=arguments.single_use, tls=Tls(arguments.tls),
        ports=(arguments.port, arguments.development_port),
    )  # fmt: skip
    for name in arguments.accept:
        _accept(standin, name)
    async with contextlib.AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals())
        directory = _directory(arguments.directory, stack)
        names = {
            "key_file": directory / f"AuthKey_{KEY_ID}.p8",
            "ca_file": directory / "ca.pem",
            "token_file": directory / "device-token",
            "development_token_file": directory / "development-device-token",
        }
        tokens = [(standin.token(environment) + "\n").encode() for environment in (PRODUCTION, DEVELOPMENT)]
        contents = [standin.key_pem, standin.ca_pem, *tokens]
        files = _put(dict(zip(names.values(), contents, strict=True)))
        try:
            await stack.enter_async_context(standin)
        except OSError as exc:
            for path in files:
                path.unlink()
            raise CommandFailed(f"cannot listen: {exc.strerror}; name other ports") from exc
        facts = {
            "server": standin.url(PRODUCTION),
            "development_server": standin.url(DEVELOPMENT),
            "key_id": KEY_ID,
            "team_id": TEAM_ID,
            **{name: str(path) for name, path in names.items()},
        }
        print(json.dumps(facts), flush=True)
        await stop.wait()
    return 0


def _accept(standin: "Apple", name: str) -> None:
    try:
        text = Path(name).read_text("ascii")
    except OSError as exc:
        raise CommandFailed(f"--accept: {name!r} cannot be read: {exc.strerror}", 2) from exc
    except UnicodeDecodeError as exc:
        raise CommandFailed(f"--accept: {name!r} should hold base64, and holds bytes that are no text", 2) from exc
    try:
        standin.accept(text.strip())
    except ValueError as exc:
        raise CommandFailed(f"--accept: {name!r}: {exc}", 2) from exc


def _desktop(argv: Sequence[str]) -> int:
    from agent.standins.desktop import Manner

    parser = Parser("standin desktop", "Connect to the RPC socket of `countersign proxy` or `run` and make tokens.")
    parser.add_argument("--connect", required=True, metavar="unix://PATH", help="the socket; waits for it to appear")
    parser.add_argument("--delay", type=seconds, default=0.0, metavar="SECONDS", help="before each answer")
    parser.add_argument("--token", metavar="TEXT", help="always this token (default: a new one each time)")
    parser.add_argument("--no-capability", action="store_true", help="do not declare requestAttestation")
    parser.add_argument(
        "--patience", type=seconds, default=10.0, metavar="SECONDS", help="how long to wait for the socket"
    )
    manners = parser.add_mutually_exclusive_group()
    for manner in Manner:
        if manner is not Manner.TOKEN:
            text = _MANNERS[manner]
            manners.add_argument(f"--{manner}", dest="manner", action="store_const", const=manner, help=text)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    return run("standin desktop", _serve_desktop(arguments))


_MANNERS = {
    "error": "answer with a JSON-RPC error",
    "silent": "never answer",
    "hang-up": "close the connection when asked",
    "no-token": "answer without a token",
    "null": "answer null",
    "number": "answer a number as the token",
    "array": "answer a list with the token",
    "extra": "answer a token among other members",
}


async def _serve_desktop(arguments: argparse.Namespace) -> int:
    from agent.rpc.jsonrpc import RequestFailed
    from agent.rpc.listen import socket_path
    from agent.standins.desktop import Manner, Script, connect

    try:
        path = socket_path(arguments.connect)
    except ValueError as exc:
        raise CommandFailed(str(exc), 2) from exc
    defaults = Script()
    token = arguments.token
    script = Script(
        manner=arguments.manner or Manner.TOKEN,
        token=defaults.token if token is None else lambda _: str(token),
        delay_s=arguments.delay,
        attests=not arguments.no_capability,
    )
    async with stop_signals() as stop, contextlib.AsyncExitStack() as stack:
        connecting = stack.enter_async_context(connect(path, script, arguments.patience))
        try:
            desktop = await unless_stopped(connecting, stop)
        except (ConnectionError, TimeoutError, RequestFailed) as exc:
            raise CommandFailed(f"cannot connect: {exc}") from exc
        if desktop is None:
            return stop.code
        print(json.dumps({"connected": str(path)}), flush=True)
        await unless_stopped(desktop.gone.wait(), stop)
        print(json.dumps({"asked": desktop.asked}), flush=True)
    return 0
