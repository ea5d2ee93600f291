"""Exchanges and coverage in words and tables, for people."""

from rich import box
from rich.console import Console
from rich.table import Table

from proxy.capture.coverage import Coverage


def print_coverage(coverage: Coverage, console: Console) -> None:
    """The coverage table and one line that says what it means."""
    table = Table("route", "transport", "attestation", "requests", box=box.SIMPLE_HEAD)
    for row in coverage.rows:
        table.add_row(row.route, row.transport, row.outcome, str(row.requests))
    if coverage.rows:
        console.print(table)
    rest = f"{coverage.out_of_scope} out of scope, {coverage.tunnels} tunnels to other hosts"
    if coverage.refused:
        rest += f", {coverage.refused} refused"
    if coverage.scoped == 0:
        console.print(f"No scoped request was made ({rest}).")
    elif coverage.complete:
        console.print(f"All {coverage.scoped} scoped requests carried a token ({rest}).")
    else:
        missing = coverage.scoped - coverage.attested
        console.print(f"{missing} of {coverage.scoped} scoped requests carried no token ({rest}).")
