"""`countersign run -- CMD ...`: one command behind the proxy."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.commands.common import SIGNAL_BASE, CommandFailed, Parser, fail, read_settings, run, start_logging
from agent.settings import ProxySettings
from proxy.modes import StampMode

logger = logging.getLogger(__name__)

# Seconds to wait for a desktop that was announced with --rpc before the command starts without it.
PATIENCE_S = 10.0


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "run",
        "Run a command with all its ChatGPT traffic through the stamping proxy. The exit code is the command's; a "
        "table on stderr tells which scoped requests carried a token.",
    )
    parser.add_proxy_options()
    parser.add_argument(
        "--wait-desktop", type=float, metavar="SECONDS",
        help=f"wait so long for a desktop before the command starts (default: {PATIENCE_S:.0f} with --rpc, else 0)",
    )  # fmt: skip
    parser.add_argument("--report", metavar="FILE", help="write the coverage as JSON there at the end")
    parser.add_argument("command", nargs="+", metavar="-- CMD", help="the command and its arguments")
    # Everything behind the first "--" is the command's own, also what looks like an option of ours.
    own, command = _split(argv)
    arguments = parser.parse_args([*own, "--", *command] if command else own)
    start_logging(arguments.verbose)
    try:
        settings, home, _ = read_settings(arguments, overrides)
    except CommandFailed as exc:
        return fail("run", exc)
    patience = arguments.wait_desktop
    if patience is None:
        patience = PATIENCE_S if settings.rpc is not None and settings.stamp is not StampMode.NEVER else 0.0
    return run("run", _run(settings, home, list(arguments.command), patience, arguments.report))


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, []
    position = arguments.index("--")
    return arguments[:position], arguments[position + 1 :]


async def _run(settings: ProxySettings, home: str, command: list[str], patience_s: float, report: str | None) -> int:
    from rich.console import Console

    from agent.commands.report import print_coverage
    from agent.rpc.listen import SocketUnavailable
    from agent.standalone import standalone
    from proxy.capture.coverage import CoverageCount
    from proxy.capture.exchange import Exchange
    from proxy.server import ProxyUnavailable

    count = CoverageCount()
    console = Console(file=sys.stderr)

    def over(exchange: Exchange) -> None:
        count.add(exchange)
        logger.info("%s", exchange.log_line())

    try:
        async with standalone(settings, "countersign run", home, over) as running:
            if settings.rpc is None and settings.stamp is not StampMode.NEVER and patience_s > 0:
                console.print(f"countersign run: the desktop may connect to unix://{running.rpc}", highlight=False)
            if patience_s > 0 and not await _arrives(running.attester_arrived, patience_s):
                console.print(
                    f"countersign run: no desktop that makes tokens came to unix://{running.rpc} within "
                    f"{patience_s:g} s; the command runs without attestation",
                    highlight=False,
                )
            code = await _child(command, {**os.environ, **running.proxy.child_environment()})
    except (ProxyUnavailable, SocketUnavailable) as exc:
        raise CommandFailed(str(exc)) from exc
    print_coverage(count.coverage(), console)
    if report is not None:
        try:
            Path(report).write_text(json.dumps(count.coverage().as_json(), indent=2) + "\n")  # noqa: ASYNC240
        except OSError as exc:
            raise CommandFailed(f"cannot write the report {report!r}: {exc.strerror}") from exc
    return code


async def _arrives(event: asyncio.Event, patience_s: float) -> bool:
    try:
        async with asyncio.timeout(patience_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _child(command: list[str], environment: Mapping[str, str]) -> int:
    """Run it on our own terminal; its exit code, or 128 + the signal that ended it."""
    environment = {name: value for name, value in environment.items() if name != "COUNTERSIGN_CREDENTIALS"}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except FileNotFoundError as exc:
        raise CommandFailed(f"cannot run {command[0]!r}: not found on PATH", 127) from exc
    except OSError as exc:
        raise CommandFailed(f"cannot run {command[0]!r}: {exc.strerror}", 126) from exc
    loop = asyncio.get_running_loop()

    def pass_on(number: signal.Signals) -> None:
        if process.returncode is None:
            process.send_signal(number)

    # Ctrl-C reaches the whole foreground group by itself; we only have to outlive the child.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, pass_on, signal.SIGTERM)
    try:
        code = await process.wait()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
    return code if code >= 0 else SIGNAL_BASE - code
