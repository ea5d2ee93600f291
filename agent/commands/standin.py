"""`countersign standin chatgpt|desktop`: local peers, for verifying offline."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.commands.common import CommandFailed, Parser, run, start_logging, stop_signals


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parsers = {"chatgpt": _chatgpt, "desktop": _desktop}
    if not argv or argv[0] not in parsers:
        wanted = " or ".join(parsers)
        if argv and argv[0] in ("-h", "--help"):
            print(f"usage: countersign standin {{{','.join(parsers)}}} ...")
            return 0
        print(f"countersign standin: name one: {wanted}", file=sys.stderr)
        return 2
    return parsers[argv[0]](argv[1:])


def _chatgpt(argv: Sequence[str]) -> int:
    parser = Parser(
        "standin chatgpt",
        "Serve what an agent needs of ChatGPT, on loopback with TLS. Prints one line of JSON when it listens: port, "
        "ca_file, upstream_map and auth_file.",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument(
        "--directory", metavar="DIR", help="where ca.pem and auth.json go (default: one that is removed)"
    )
    parser.add_argument("--name", action="append", default=[], metavar="HOST", help="one more name for its certificate")
    parser.add_argument("--script", metavar="FILE", help="JSON list of answers: text, call, items or events")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="[WHERE:]KIND[:TIMES]",
        help="misbehave, such as websocket:426, post:500:2, cut:1, stall, usage-limit; may be repeated",
    )  # fmt: skip
    parser.add_argument("--event-delay", type=float, default=0.0, metavar="SECONDS", help="between two events")
    parser.add_argument("--record", metavar="FILE", help="write what arrived as JSON lines, at the end")
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    return run("standin chatgpt", _serve_chatgpt(arguments))


async def _serve_chatgpt(arguments: argparse.Namespace) -> int:
    from certs.run_directory import RunDirectory
    from proxy.standins.answers import Answers
    from proxy.standins.chatgpt import NAMES, ChatGPT, auth_json
    from proxy.standins.faults import Fault

    try:
        answers = Answers() if arguments.script is None else Answers.load(Path(arguments.script))
        faults = [Fault.parse(text) for text in arguments.fault]
    except (ValueError, OSError) as exc:
        raise CommandFailed(str(exc), 2) from exc
    with RunDirectory() as run_directory:
        directory = run_directory.path if arguments.directory is None else Path(arguments.directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = (*NAMES, *arguments.name)
        standin = ChatGPT(
            names=names,
            answers=answers,
            faults=faults,
            event_delay_s=arguments.event_delay,
            port=arguments.port,
        )
        async with stop_signals() as stop:
            try:
                await standin.__aenter__()
            except OSError as exc:
                raise CommandFailed(f"cannot listen on port {arguments.port}: {exc.strerror}") from exc
            try:
                ca_file, auth_file = directory / "ca.pem", directory / "auth.json"
                ca_file.write_bytes(standin.ca_pem)
                auth_file.touch(0o600)
                auth_file.write_text(json.dumps(auth_json(), indent=2))
                facts = {
                    "port": standin.port,
                    "ca_file": str(ca_file),
                    "auth_file": str(auth_file),
                    "upstream_map": ",".join(f"{name}=127.0.0.1:{standin.port}" for name in names if name != NAMES[-1]),
                }
                print(json.dumps(facts), flush=True)
                await stop.wait()
            finally:
                await standin.__aexit__(None, None, None)
    if arguments.record is not None:
        _write_record(Path(arguments.record), standin.received)
    return 0


def _write_record(path: Path, received: Sequence[object]) -> None:
    from proxy.standins.chatgpt import Received

    with path.open("w", encoding="utf-8") as file:
        for one in received:
            assert isinstance(one, Received)
            headers = [[name.decode("latin-1"), _shown(name, value)] for name, value in one.headers]
            body = one.body if not isinstance(one.body, bytes) else one.body.decode("latin-1")
            line = {
                "at": one.at,
                "kind": one.kind,
                "method": one.method,
                "path": one.path,
                "websocket": one.is_websocket,
                "status": one.status,
                "headers": headers,
                "body": body,
            }
            file.write(json.dumps(line) + "\n")


def _shown(name: bytes, value: bytes) -> str:
    """Credentials stay out of the file, also here where they should be fake."""
    if name.lower() in (b"authorization", b"cookie", b"proxy-authorization"):
        return "<redacted>"
    return value.decode("latin-1")


def _desktop(argv: Sequence[str]) -> int:
    from agent.standins.desktop import Manner

    parser = Parser("standin desktop", "Connect to the RPC socket of `countersign proxy` or `run` and make tokens.")
    parser.add_argument("--connect", required=True, metavar="unix://PATH", help="the socket; waits for it to appear")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="before each answer")
    parser.add_argument("--token", metavar="TEXT", help="always this token (default: a new one each time)")
    parser.add_argument("--no-capability", action="store_true", help="do not declare requestAttestation")
    parser.add_argument(
        "--patience", type=float, default=10.0, metavar="SECONDS", help="how long to wait for the socket"
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
    import asyncio

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
    async with stop_signals() as stop:
        try:
            async with connect(path, script, arguments.patience) as desktop:
                print(json.dumps({"connected": str(path)}), flush=True)
                stopped = asyncio.create_task(stop.wait())
                gone = asyncio.create_task(desktop.gone.wait())
                await asyncio.wait((stopped, gone), return_when=asyncio.FIRST_COMPLETED)
                for task in (stopped, gone):
                    task.cancel()
                print(json.dumps({"asked": desktop.asked}), flush=True)
        except ConnectionError as exc:
            raise CommandFailed(str(exc)) from exc
    return 0
