"""`countersign capture`: what the proxy recorded, listed, shown, followed, compared, exported and removed."""

import argparse
import functools
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.common import CommandFailed, Parser, act, fail, start_logging

if TYPE_CHECKING:
    from proxy.capture.exchange import Exchange
    from proxy.capture.har import HarBodies
    from proxy.capture.store import Run

HELP = """usage: countersign capture {list,show,follow,har,diff,prune} ...

  list     the captured runs, the newest first
  show     a run, or one exchange of it with headers, timings and events
  follow   print the exchanges of a run as they come
  har      export a run as HAR 1.2
  diff     compare two runs
  prune    remove old runs

  Runs are captured by `countersign run`, `verify`, `wrap` and `proxy`; see their --capture and --bodies.
  A run is named by its id, the beginning of it, its last four digits, "last", or the path of its folder.
  countersign capture NAME --help tells more"""

# Events or messages that `show` prints unless told to print all.
SOME_EVENTS = 40
# Seconds between two looks at the file that is followed.
POLL_S = 0.2
# Of one body, in an export.
MOST_BODY_BYTES = 64 * 1024 * 1024
_OPCODES = {"text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    actions = {"list": _list, "show": _show, "follow": _follow, "har": _har, "diff": _diff, "prune": _prune}
    ending_well = {name: functools.partial(_ending_well, name, action) for name, action in actions.items()}
    return act("capture", "what to do", HELP, ending_well, argv, overrides)


def _ending_well(name: str, action: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Its failures become the command's; a reader that had enough is none."""
    from proxy.capture.store import CaptureError

    try:
        code = action(argv)
        sys.stdout.flush()
        return code
    except CommandFailed as exc:
        return fail(f"capture {name}", exc)
    except CaptureError as exc:
        return fail(f"capture {name}", CommandFailed(str(exc)))
    except OSError as exc:
        # What is still buffered goes nowhere, and says nothing about it at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(exc, BrokenPipeError):
            return 0
        return fail(f"capture {name}", CommandFailed(f"cannot go on: {exc.strerror or exc}"))


def _parser(name: str, description: str, *runs: str) -> Parser:
    parser = Parser(f"capture {name}", description)
    parser.add_argument(
        "--captures", metavar="DIR", help="where the runs lie (default: CODEX_HOME/countersign/captures)"
    )
    for run in runs:
        parser.add_argument(run, metavar="RUN")
    return parser


def _base(arguments: argparse.Namespace) -> Path:
    from agent.home import HomeError, codex_home
    from agent.recording_options import CAPTURES_VARIABLE, captures_directory

    start_logging(arguments.verbose)
    if arguments.captures:
        base = Path(arguments.captures)
        if not base.is_dir():
            raise CommandFailed(f"--captures {arguments.captures!r} is no directory", 2)
        return base
    try:
        home = "" if os.environ.get(CAPTURES_VARIABLE) else codex_home(os.environ)
    except HomeError as exc:
        raise CommandFailed(str(exc), 2) from exc
    return captures_directory(home, os.environ)


# Reading


def _list(argv: Sequence[str]) -> int:
    parser = _parser("list", "List the captured runs, the newest first.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    base = _base(arguments)
    from agent.commands.capture_report import print_runs, printable, run_as_json, write_json
    from proxy.capture.store import run_bytes, survey

    found, skipped = survey(base)
    sized = [(run, run_bytes(run)) for run in found]
    if arguments.json:
        write_json(
            {
                "captures": str(base),
                "runs": [{**run_as_json(run), "bytes": size} for run, size in sized],
                "skipped": [one._asdict() for one in skipped],
            }
        )
        return 0
    if sized:
        print_runs(sized, sys.stdout)
    else:
        print(f"No run is captured in {str(base)!r}.")
    for one in skipped:
        print(f"countersign capture list: left out {one.name}: {printable(one.reason)}", file=sys.stderr)
    return 0


def _show(argv: Sequence[str]) -> int:
    parser = _parser("show", "Show a run, or one exchange of it.", "run")
    parser.add_argument("number", nargs="?", type=_number, metavar="NUMBER", help="of an exchange")
    parser.add_argument("--all", action="store_true", help="print all events, and all of their texts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    base = _base(arguments)
    from agent.commands.capture_report import print_run, run_as_json, write_json
    from proxy.capture.exchange_json import exchange_as_json
    from proxy.capture.store import find, read

    run = find(base, arguments.run)
    exchanges, unreadable = read(run)
    if arguments.number is not None:
        exchange = next((one for one in exchanges if one.number == arguments.number), None)
        if exchange is None:
            there = f"{exchanges[0].number} to {exchanges[-1].number}" if exchanges else "none"
            raise CommandFailed(f"no exchange {arguments.number} in {run.id}; there are {there}")
        return _show_one(run, exchange, arguments)
    if arguments.json:
        content = [exchange_as_json(exchange) for exchange in exchanges]
        write_json({**run_as_json(run), "unreadable_lines": unreadable, "all_exchanges": content})
    else:
        print_run(run, exchanges, unreadable, sys.stdout)
    return 0


def _show_one(run: "Run", exchange: "Exchange", arguments: argparse.Namespace) -> int:
    import dataclasses

    from agent.commands.capture_report import print_events, print_exchange, print_summary, write_json
    from proxy.capture.bodies.reading import read_events, read_summary
    from proxy.capture.exchange_json import exchange_as_json

    summary = read_summary(run, exchange.number)
    events = read_events(run, exchange.number)
    if arguments.json:
        content = exchange_as_json(exchange)
        content["summary"] = None if summary is None else dataclasses.asdict(summary)
        content["events"] = [dataclasses.asdict(event) for event in events]
        write_json(content)
        return 0
    print_exchange(exchange, sys.stdout)
    if summary is not None:
        print_summary(summary, sys.stdout)
    shown = list(events if arguments.all else itertools.islice(events, SOME_EVENTS))
    print_events(shown, sum(1 for _ in events), arguments.all, sys.stdout)
    if not run.bodies:
        print("\nBodies were not captured; run it with --bodies to see them here.")
    return 0


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"the number of an exchange is needed, found {text!r}")
    return int(text)


# Following


def _follow(argv: Sequence[str]) -> int:
    parser = _parser("follow", "Print the exchanges of a run as they come, until it ends. Ctrl-C ends it before.")
    parser.add_argument("run", nargs="?", default="last", metavar="RUN", help="(default: the last one)")
    parser.add_argument("--wait", action="store_true", help="wait for a run if none is running")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each phase")
    arguments = parser.parse_args(argv)
    if arguments.wait and arguments.run != "last":
        parser.error(f"--wait is for a run that is not there yet, and {arguments.run!r} was named; leave one out")
    base = _base(arguments)
    from proxy.capture.store import find

    try:
        run = _next_run(base) if arguments.wait else find(base, arguments.run)
        for line in _lines(run, arguments.json):
            print(line, flush=True)
    except KeyboardInterrupt:
        return 0
    return 0


def _next_run(base: Path) -> "Run":
    from proxy.capture.store import survey

    known = {run.id for run in survey(base)[0] if not run.is_running()}
    print(f"countersign capture follow: waiting for a run in {str(base)!r}", file=sys.stderr, flush=True)
    while True:
        for run in survey(base)[0]:
            if run.id not in known:
                return run
        time.sleep(POLL_S)


def _lines(run: "Run", as_json: bool) -> Iterator[str]:
    import json

    from agent.commands.capture_report import follow_line
    from proxy.capture.exchange_json import exchange_as_json
    from proxy.capture.store import Tail, find

    tail = Tail(run)
    while True:
        is_running = run.is_running()  # asked first: what is written until the end is then read below
        for exchange in tail.poll():
            yield json.dumps(exchange_as_json(exchange)) if as_json else follow_line(exchange)
        if not is_running:
            break
        time.sleep(POLL_S)
    ended = find(run.path.parent, str(run.path) + "/")
    if tail.unreadable or tail.torn or ended.problem:
        problem = ended.problem or f"{tail.unreadable + tail.torn} damaged lines were left out"
        print(f"countersign capture follow: {run.id}: {problem}", file=sys.stderr)


# Exporting


def _har(argv: Sequence[str]) -> int:
    parser = _parser("har", "Export a run as HAR 1.2, for other viewers.", "run")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there, for your eyes only (default: stdout)")
    parser.add_argument("--bodies", action="store_true", help="with bodies and messages; they must be captured")
    arguments = parser.parse_args(argv)
    base = _base(arguments)
    import importlib.metadata

    from proxy.capture.har import har_text
    from proxy.capture.store import find, read

    run = find(base, arguments.run)
    if arguments.bodies and not run.bodies:
        raise CommandFailed(
            f"{run.id} was captured without bodies, so that none can be exported; leave --bodies out, or capture "
            "again with --bodies"
        )
    exchanges, unreadable = read(run)
    version = importlib.metadata.version("countersign")
    text = har_text(exchanges, (lambda one: _bodies(run, one)) if arguments.bodies else None, version)
    if arguments.output is None:
        sys.stdout.writelines(text)
    else:
        _write_private(arguments.output, text)
        print(f"countersign capture har: wrote {len(exchanges)} entries to {arguments.output!r}", file=sys.stderr)
    if unreadable:
        print(f"countersign capture har: {unreadable} damaged lines were left out", file=sys.stderr)
    return 0


def _bodies(run: "Run", exchange: "Exchange") -> "HarBodies":
    from proxy.capture.bodies.reading import read_events, read_summary, read_text
    from proxy.capture.har import HarBodies, HarMessage

    number = exchange.number
    summary = read_summary(run, number)
    if summary is None:
        return HarBodies()
    parts = (summary.request, summary.response)
    texts = [None if part is None else read_text(run, number, part, MOST_BODY_BYTES) for part in parts]
    messages = None
    if exchange.status == 101:
        messages = tuple(
            HarMessage(
                event.from_client,
                exchange.started_at + event.t,
                _OPCODES.get(event.opcode, 0),
                event.text if event.opcode == "text" else None,
                event.size,
            )
            for event in read_events(run, number)
            if event.is_message
        )
    problems = [part.problem for part in parts if part is not None and part.problem]
    return HarBodies(texts[0], texts[1], messages, "; ".join(problems))


def _write_private(path: str, text: Iterator[str]) -> None:
    """To a file that only its owner may read, also if it was there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.writelines(text)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise CommandFailed(f"cannot write {path!r}: {reason}; name another file") from exc


# Comparing and removing


def _diff(argv: Sequence[str]) -> int:
    parser = _parser(
        "diff", "Compare two runs: requests by kind, their headers, stamps and timings.", "before", "after"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--check", action="store_true", help="end with code 1 if more than numbers, secrets and durations differ"
    )
    arguments = parser.parse_args(argv)
    base = _base(arguments)
    from agent.commands.capture_report import print_difference, printable, run_as_json, write_json
    from proxy.capture.diff import difference
    from proxy.capture.store import find, read_exchanges

    before, after = find(base, arguments.before), find(base, arguments.after)
    found = difference(read_exchanges(before), read_exchanges(after))
    if arguments.json:
        write_json({"before": run_as_json(before), "after": run_as_json(after), **found.as_json()})
    else:
        names = [f"{run.id}  {printable(run.command)}" for run in (before, after)]
        print_difference(names[0], names[1], found, sys.stdout)
    return 1 if arguments.check and found.differs else 0


def _prune(argv: Sequence[str]) -> int:
    from proxy.capture.limits import Retention

    kept = Retention()
    parser = _parser("prune", "Remove old runs. One that is running stays.")
    parser.add_argument(
        "--keep-days", type=_days, default=kept.keep_days, metavar="N", help=f"(default: {kept.keep_days:g})"
    )
    parser.add_argument(
        "--keep-size", type=_size, default=kept.keep_bytes, metavar="SIZE",
        help="of all runs together, such as 500M; the oldest go first (default: 1G)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    arguments = parser.parse_args(argv)
    base = _base(arguments)
    from proxy.capture.store import prune

    pruned = prune(base, arguments.keep_size, arguments.keep_days, time.time(), dry_run=arguments.dry_run)
    verb = "would remove" if arguments.dry_run else "removed"
    for name, size in pruned.removed:
        print(f"{verb} {name} ({size} bytes)")
    print(f"{verb} {len(pruned.removed)} runs; {pruned.kept_bytes} bytes stay")
    return 0


def _days(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise argparse.ArgumentTypeError(f"a number of days is needed, 0 or more, found {text!r}")
    return float(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})\s*([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"a size is needed, such as 500M or 2G, found {text!r}")
    return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")
