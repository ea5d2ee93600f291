"""`countersign verify -- CMD ...`: one command behind the proxy, and a proof at the end."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from agent.commands.behind import add_command, command_of, patience, run_behind
from agent.commands.common import CommandFailed, OutputFile, Parser, fail, read_settings, run, start_logging
from agent.recording_options import RecordingOptions
from agent.settings import ProxySettings
from proxy.capture.proof import EXPECTABLE, Proof, parse_expected
from proxy.modes import StampMode


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "verify",
        "Run a command with all its ChatGPT traffic through the stamping proxy, and prove that every scoped request "
        "carried a token. Exits 0 only if that holds, the command succeeded, everything that was expected came, and no "
        "process of the command was seen to go around the proxy; 1 if not; 2 for wrong usage.",
        "countersign verify [OPTION ...] -- CMD [ARG ...]",
    )
    parser.add_proxy_options()
    parser.add_recording_options(capture=True)
    group = parser.add_argument_group("proof")
    group.add_argument(
        "--expect", type=_expected, default=(), metavar="LIST",
        help=f"demand that these came, separated by commas: {', '.join(EXPECTABLE)}",
    )  # fmt: skip
    group.add_argument(
        "--native", action="store_true",
        help="stamp nothing: prove the headers that the command made itself (the same as --stamp never)",
    )  # fmt: skip
    group.add_argument("--json", metavar="FILE", help="write the proof as JSON there")
    group.add_argument("--junit", metavar="FILE", help="write the proof as JUnit XML there")
    add_command(parser)
    arguments = parser.parse_args(argv)
    command = command_of(parser, arguments)
    start_logging(arguments.verbose)
    try:
        settings, home, _ = read_settings(arguments, overrides)
        if arguments.native:
            if arguments.stamp not in (None, str(StampMode.NEVER)):
                raise CommandFailed(f"--native stamps nothing, and --stamp is {arguments.stamp!r}; leave one out", 2)
            settings = dataclasses.replace(settings, stamp=StampMode.NEVER)
        options = parser.recording_options(arguments, home)
        patience_s = patience(arguments, settings)
        as_json = None if arguments.json is None else OutputFile(arguments.json, "the proof")
        as_junit = None if arguments.junit is None else OutputFile(arguments.junit, "the proof")
    except CommandFailed as exc:
        return fail("verify", exc)
    return run(
        "verify",
        _verify(settings, options, home, command, patience_s, arguments.expect, as_json, as_junit, arguments.offline),
    )


def _expected(text: str) -> tuple[str, ...]:
    """For argparse, which shows the text of this error only if it is of its own kind."""
    import argparse

    try:
        return parse_expected(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


async def _verify(
    settings: ProxySettings,
    options: RecordingOptions,
    home: str,
    command: list[str],
    patience_s: float,
    expected: tuple[str, ...],
    as_json: OutputFile | None,
    as_junit: OutputFile | None,
    offline: bool,
) -> int:
    from agent.commands.report import print_proof

    ended, coverage, record = await run_behind(
        "verify", settings, options, home, command, patience_s, watched=True, offline=offline
    )
    if not ended.ran:
        return ended.code
    proof = Proof(
        coverage,
        expected,
        ended.bypasses,
        ended.code,
        watched=not ended.unwatched,
        unwatched=ended.unwatched,
    )
    print_proof(proof, sys.stderr)
    record.conclude("verify", sys.stderr)
    if as_json is not None:
        as_json.write(json.dumps(proof.as_json(), indent=2) + "\n")
    if as_junit is not None:
        as_junit.write(proof.as_junit())
    return 0 if proof.holds else 1
