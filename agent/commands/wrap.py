"""`countersign wrap -- codex app-server`: between a desktop and any app-server."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent.commands.common import (
    OURS_ALONE,
    SIGNAL_BASE,
    CommandFailed,
    OutputFile,
    Parser,
    Stop,
    fail,
    not_started,
    read_settings,
    run,
    start_logging,
    stop_signals,
)
from agent.commands.wrap_persona import Invocation, invocation
from agent.home import ConfigBroken, override_config
from agent.recording_options import RecordingOptions
from agent.settings import ProxySettings

if TYPE_CHECKING:
    from agent.attestation import Attester
    from agent.recording import Recording
    from agent.rpc.wrap_relay import Relay
    from proxy.capture.coverage import Coverage

logger = logging.getLogger(__name__)


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "wrap",
        "Stand between a desktop, on stdin and stdout, and an app-server: what they say to each other passes "
        "unchanged, the app-server's ChatGPT traffic goes through the stamping proxy, and the desktop is asked for the "
        "tokens. The exit code is the app-server's; a table on stderr tells which scoped requests carried a token.",
        "countersign wrap [OPTION ...] -- CMD [ARG ...]",
    )
    parser.add_proxy_options(rpc=False)
    parser.add_recording_options(capture=False)
    parser.add_argument("--report", metavar="FILE", help="write the coverage as JSON there at the end")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="CMD", help="the app-server and its arguments, as codex app-server"
    )
    arguments = parser.parse_args(argv)
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        parser.error("an app-server is needed, found none; put it behind the options, as in -- codex app-server")
    if invocation(command[1:]) is Invocation.SERVES_ELSEWHERE:
        parser.error("the app-server must speak on stdin and stdout, found another --listen; leave that out")
    start_logging(arguments.verbose)
    try:
        settings, home = _settings(arguments, overrides)
        options = parser.recording_options(arguments, home)
        report = None if arguments.report is None else OutputFile(arguments.report, "the report")
    except CommandFailed as exc:
        return fail("wrap", exc)
    if settings.rpc is not None:
        logger.warning("%s is not used: the desktop speaks on stdin and stdout", settings.sources["rpc"])
    return run("wrap", _wrap(settings, options, command, report))


def _settings(arguments: argparse.Namespace, overrides: Sequence[str]) -> tuple[ProxySettings, str]:
    """The proxy's, and CODEX_HOME. A config.toml that is broken and holds none of ours is not ours to complain of."""
    try:
        return read_settings(arguments, overrides)[:2]
    except CommandFailed as exc:
        if not isinstance(exc.__cause__, ConfigBroken) or exc.__cause__.may_be_ours:
            raise
        return read_settings(arguments, overrides, lambda _, given: override_config({}, given))[:2]


async def _wrap(
    settings: ProxySettings, options: RecordingOptions, command: list[str], report: OutputFile | None
) -> int:
    from agent.attestation import DesktopAttestation
    from agent.recording import RecordingUnavailable, recording
    from agent.rpc.wrap_relay import Relay
    from certs.run_directory import RunDirectory
    from proxy.capture.coverage import CoverageCount
    from proxy.capture.exchange import Exchange
    from proxy.credentials import Credentials
    from proxy.server import ProxyServer, ProxyUnavailable

    count = CoverageCount()

    def over(exchange: Exchange) -> None:
        count.add(exchange)
        logger.info("%s", exchange.log_line())

    # Around all of it: a signal that comes while things are taken down must not leave half of them.
    async with stop_signals(signal.SIGQUIT) as stop, contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(RunDirectory())
        relay = Relay()
        stack.callback(relay.close)

        def attester(thread_id: str | None) -> "Attester | None":
            return relay if relay.attests else None  # there is one desktop

        try:
            record = await stack.enter_async_context(recording(options, "wrap", command))
            proxy = await stack.enter_async_context(
                ProxyServer(
                    scope=settings.scope,
                    provider=DesktopAttestation(attester),
                    run_directory=directory.path,
                    credentials=settings.credentials or Credentials.random(),
                    upstream=settings.upstream,
                    on_exchange=over,
                    port=settings.port,
                    mode=settings.stamp,
                    on_failure=settings.on_failure,
                    observation=record.observation,
                )
            )
        except (ProxyUnavailable, RecordingUnavailable) as exc:
            raise CommandFailed(str(exc)) from exc
        if stop.is_set():
            return stop.code
        record.announce("wrap", sys.stderr)
        code = await _child(command, {**os.environ, **proxy.child_environment(os.environ)}, relay, stop)
    _account(count.coverage(), record, report)
    return code


async def _child(command: list[str], environment: Mapping[str, str], relay: "Relay", stop: Stop) -> int:
    """Run it behind the relay; its exit code, or 128 + the signal that ended it."""
    process, child_in, child_out = _started(command, environment)

    def pass_on(number: signal.Signals) -> None:
        # Also SIGINT, though a terminal sends it to the child as well: a desktop sends it to us alone.
        if process.returncode is None:
            process.send_signal(number)
        else:
            relay.give_up()  # the desktop does not read what the child left

    stop.receiver = pass_on
    try:
        relay.start(child_in, child_out)
        if stop.number is not None:  # it came while the child was made
            pass_on(stop.number)
        ended, carried = asyncio.create_task(asyncio.to_thread(process.wait)), asyncio.create_task(relay.over())
        await asyncio.wait((ended, carried), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():  # nothing is carried any more, though the child lives: a bug of ours
            process.terminate()
        code = await ended
        await relay.finish()
        await carried
    finally:
        stop.receiver = None
    return code if code >= 0 else SIGNAL_BASE - code


def _started(command: list[str], environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int, int]:
    """The child, and our ends of its stdin and stdout.

    Not by the loop: uvloop (0.23) leaves the child copies of its ends of the pipes, so that it could close neither.
    """
    environment = {name: value for name, value in environment.items() if name not in OURS_ALONE}
    theirs_in, child_in = os.pipe()
    child_out, theirs_out = os.pipe()
    try:
        process = subprocess.Popen(command, stdin=theirs_in, stdout=theirs_out, env=environment)
    except OSError as exc:
        os.close(child_in)
        os.close(child_out)
        raise not_started(command[0], exc) from exc
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    return process, child_in, child_out


def _account(coverage: "Coverage", record: "Recording", report: OutputFile | None) -> None:
    """The table, and the report. Neither changes the exit code: it is the app-server's."""
    from agent.commands.report import print_coverage, write_coverage

    try:
        print_coverage(coverage, sys.stderr)
        record.conclude("wrap", sys.stderr)
    except BrokenPipeError:
        with contextlib.suppress(BrokenPipeError):  # of what is left in its buffer
            sys.stderr.close()
    if report is not None:
        try:
            write_coverage(coverage, report)
        except CommandFailed as exc:
            with contextlib.suppress(ValueError):  # stderr is closed
                fail("wrap", exc)
