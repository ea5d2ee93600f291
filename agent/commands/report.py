"""What was stamped: a table and a sentence for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.commands.common import OutputFile
from proxy.capture.coverage import Coverage
from proxy.capture.proof import GOOD_OUTCOMES, Proof

# Columns of what is no screen: none of our tables is as wide, so that nothing of them is folded.
NO_SCREEN = 1000


_GOOD, _BAD = "green", "red"


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], out: TextIO) -> None:
    """A table, without blanks at the ends of its lines; folded to the width of a screen, but not in a file."""
    table = Table(*heads, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console = Console(file=out, width=None if out.isatty() else NO_SCREEN, markup=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip(), file=out)


def write_coverage(coverage: Coverage, file: OutputFile) -> None:
    """What `--report` asks for.

    Raises:
        CommandFailed: It cannot be written.
    """
    file.write(json.dumps(coverage.as_json(), indent=2) + "\n")


def print_coverage(coverage: Coverage, out: TextIO) -> None:
    """The coverage table and one line that says what it means."""
    if coverage.rows:
        rows = [(row.route, row.transport, _judged(row.outcome), str(row.requests)) for row in coverage.rows]
        print_table(("route", "transport", "attestation", "requests"), rows, out)
    rest = f"out of scope: {coverage.out_of_scope}, tunnels to other hosts: {coverage.tunnels}"
    if coverage.refused:
        rest += f", refused: {coverage.refused}"
    if coverage.scoped == 0:
        print(f"No scoped request was made ({rest}).", file=out)
    else:
        print(f"{coverage.attested} of {coverage.scoped} scoped requests carried a token ({rest}).", file=out)
    for one in coverage.failed:
        print(f"{one.connections} × a connection to {one.target} came to nothing: {one.reason}", file=out)


def print_proof(proof: Proof, out: TextIO) -> None:
    """The coverage, then whether the proof holds, and if not why."""
    print_coverage(proof.coverage, out)
    if proof.bypasses:
        rows = [(one.process, one.address, "SCOPED" if one.scoped else "other") for one in proof.bypasses]
        print_table(("process", "connected past the proxy to", "host"), rows, out)
    if proof.unwatched:
        print(f"Not all connections past the proxy could be told: {proof.unwatched}.", file=out)
    problems = list(proof.problems())
    for problem in problems:
        _print(f"  ✗ {problem}", _BAD, out)
    if problems:
        _print("PROOF DOES NOT HOLD", _BAD, out)
    else:
        _print("PROOF HOLDS", _GOOD, out)


def _judged(outcome: str) -> Text:
    return Text(outcome, _GOOD if outcome in GOOD_OUTCOMES else _BAD)


def _print(line: str, style: str, out: TextIO) -> None:
    """A line in a colour, where colours are wanted."""
    Console(file=out, markup=False, highlight=False).print(line, style=style, soft_wrap=True)
