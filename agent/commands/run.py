"""`countersign run -- CMD ...`: one command behind the proxy."""

import logging
import sys
from collections.abc import Sequence

from agent.commands.behind import add_command, command_of, patience, run_behind
from agent.commands.common import CommandFailed, OutputFile, Parser, fail, read_settings, run, start_logging
from agent.recording import RecordingUnavailable, recording
from agent.recording_options import RecordingOptions
from agent.settings import ProxySettings

logger = logging.getLogger(__name__)


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "run",
        "Run a command with all its ChatGPT traffic through the stamping proxy. The exit code is the command's; a "
        "table on stderr tells which scoped requests carried a token.",
        "countersign run [OPTION ...] -- CMD [ARG ...]",
    )
    parser.add_proxy_options()
    parser.add_recording_options(capture=True)
    parser.add_argument("--report", metavar="FILE", help="write the coverage as JSON there at the end")
    add_command(parser)
    arguments = parser.parse_args(argv)
    command = command_of(parser, arguments)
    start_logging(arguments.verbose)
    try:
        settings, home, _ = read_settings(arguments, overrides)
        options = parser.recording_options(arguments, home)
        patience_s = patience(arguments.wait_desktop, settings)
        if arguments.offline and settings.rpc is not None:
            raise CommandFailed(f"--offline brings a desktop of its own; leave {settings.sources['rpc']} out", 2)
        report = None if arguments.report is None else OutputFile(arguments.report, "the report")
    except CommandFailed as exc:
        return fail("run", exc)
    return run("run", _run(settings, options, home, command, patience_s, report, arguments.offline))


async def _run(
    settings: ProxySettings,
    options: RecordingOptions,
    home: str,
    command: list[str],
    patience_s: float,
    report: OutputFile | None,
    offline: bool,
) -> int:
    from agent.commands.report import print_coverage, write_coverage
    from proxy.capture.coverage import CoverageCount
    from proxy.capture.exchange import Exchange

    count = CoverageCount()

    def over(exchange: Exchange) -> None:
        count.add(exchange)
        logger.info("%s", exchange.log_line())

    try:
        async with recording(options, "run", command) as record:
            record.announce("run", sys.stderr)
            ended = await run_behind(
                "run", settings, home, command, patience_s, over, record.observation, offline=offline
            )
    except RecordingUnavailable as exc:
        raise CommandFailed(str(exc)) from exc
    if not ended.ran:
        return ended.code
    print_coverage(count.coverage(), sys.stderr)
    record.conclude("run", sys.stderr)
    if report is not None:
        try:
            write_coverage(count.coverage(), report)
        except CommandFailed as exc:
            fail("run", exc)  # told, and the exit code stays the command's
    return ended.code
