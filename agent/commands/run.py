"""`countersign run -- CMD ...`: one command behind the proxy."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from agent.commands.common import (
    SIGNAL_BASE,
    CommandFailed,
    OutputFile,
    Parser,
    Stop,
    fail,
    read_settings,
    run,
    seconds,
    start_logging,
    stop_signals,
)
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
        "countersign run [OPTION ...] -- CMD [ARG ...]",
    )
    parser.add_proxy_options()
    parser.add_argument(
        "--wait-desktop", type=seconds, metavar="SECONDS",
        help=f"wait so long for a desktop before the command starts (default: {PATIENCE_S:.0f} with --rpc, else 0)",
    )  # fmt: skip
    parser.add_argument("--report", metavar="FILE", help="write the coverage as JSON there at the end")
    # Whatever follows "--", or the first word that is no option, is the command's, also what looks like one of ours.
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")
    arguments = parser.parse_args(argv)
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        parser.error("a command is needed, found none; put it behind the options, as in -- CMD")
    start_logging(arguments.verbose)
    try:
        settings, home, _ = read_settings(arguments, overrides)
        patience_s = _patience(arguments.wait_desktop, settings)
        report = None if arguments.report is None else OutputFile(arguments.report, "the report")
    except CommandFailed as exc:
        return fail("run", exc)
    return run("run", _run(settings, home, command, patience_s, report))


def _patience(wanted_s: float | None, settings: ProxySettings) -> float:
    """Seconds to wait for a desktop, which is asked for nothing where nothing is stamped.

    Raises:
        CommandFailed: To wait for one is wanted nevertheless; code 2.
    """
    if settings.stamp is not StampMode.NEVER:
        return wanted_s if wanted_s is not None else PATIENCE_S if settings.rpc is not None else 0.0
    if wanted_s:
        source = settings.sources["stamp"]
        raise CommandFailed(f"--wait-desktop: no desktop is asked, since {source} is 'never'; leave one of them out", 2)
    return 0.0


async def _run(
    settings: ProxySettings, home: str, command: list[str], patience_s: float, report: OutputFile | None
) -> int:
    from agent.commands.report import print_coverage, write_coverage
    from agent.rpc.listen import SocketUnavailable
    from agent.standalone import standalone
    from proxy.capture.coverage import CoverageCount
    from proxy.capture.exchange import Exchange
    from proxy.server import ProxyUnavailable

    count = CoverageCount()

    def over(exchange: Exchange) -> None:
        count.add(exchange)
        logger.info("%s", exchange.log_line())

    try:
        async with stop_signals(signal.SIGQUIT) as stop, standalone(settings, "countersign run", home, over) as running:
            if settings.rpc is None and patience_s > 0:
                print(f"countersign run: the desktop may connect to unix://{running.rpc}", file=sys.stderr)
            if patience_s > 0 and not await _arrives(running.attester_arrived, stop, patience_s):
                print(
                    f"countersign run: no desktop that makes tokens came to unix://{running.rpc} within "
                    f"{patience_s:g} s; the command runs without attestation",
                    file=sys.stderr,
                )
            if stop.is_set():
                return stop.code
            environment = {**os.environ, **running.proxy.child_environment(os.environ)}
            code = await _child(command, environment, stop)
    except ProxyUnavailable as exc:
        raise CommandFailed(str(exc)) from exc
    except SocketUnavailable as exc:
        raise CommandFailed(settings.blamed("rpc", exc)) from exc
    print_coverage(count.coverage(), sys.stderr)
    if report is not None:
        try:
            write_coverage(count.coverage(), report)
        except CommandFailed as exc:
            fail("run", exc)  # told, and the exit code stays the command's
    return code


async def _arrives(event: asyncio.Event, stop: Stop, patience_s: float) -> bool:
    """Whether it did in that time, or is not waited for any more."""
    waiting = [asyncio.create_task(one.wait()) for one in (event, stop)]
    done, _ = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return bool(done)


async def _child(command: list[str], environment: Mapping[str, str], stop: Stop) -> int:
    """Run it on our own terminal; its exit code, or 128 + the signal that ended it."""
    environment = {name: value for name, value in environment.items() if name != "COUNTERSIGN_CREDENTIALS"}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except FileNotFoundError as exc:
        raise CommandFailed(f"cannot run {command[0]!r}: not found on PATH", 127) from exc
    except OSError as exc:
        raise CommandFailed(f"cannot run {command[0]!r}: {exc.strerror}", 126) from exc

    def pass_on(number: signal.Signals) -> None:
        # Ctrl-C reaches the whole foreground group by itself; we only have to outlive the child.
        if number is not signal.SIGINT and process.returncode is None:
            process.send_signal(number)

    stop.receiver = pass_on
    if stop.number is not None:  # it came while the child was made
        pass_on(stop.number)
    code = await process.wait()
    return code if code >= 0 else SIGNAL_BASE - code
