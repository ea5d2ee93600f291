"""`countersign run -- CMD ...`: one command behind the proxy."""

import sys
from collections.abc import Sequence

from agent.commands.behind import add_command, command_of, patience, run_behind
from agent.commands.common import CommandFailed, OutputFile, Parser, fail, read_settings, run, start_logging
from agent.recording_options import RecordingOptions
from agent.settings import ProxySettings


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
        patience_s = patience(arguments, settings)
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

    ended, coverage, record = await run_behind("run", settings, options, home, command, patience_s, offline=offline)
    if not ended.ran:
        return ended.code
    print_coverage(coverage, sys.stderr)
    record.conclude("run", sys.stderr)
    if report is not None:
        try:
            write_coverage(coverage, report)
        except CommandFailed as exc:
            fail("run", exc)  # told, and the exit code stays the command's
    return ended.code
