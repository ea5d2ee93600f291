"""Exchanges and coverage in words and tables, for people."""

from rich import box
from rich.console import Console
from rich.table import Table

from proxy.capture.coverage import Coverage
from proxy.capture.exchange import Exchange, Stamp


def print_coverage(coverage: Coverage, console: Console) -> None:
    """The coverage table and one line that says what it means."""
    table = Table("route", "transport", "attestation", "requests", box=box.SIMPLE_HEAD)
    for row in coverage.rows:
        table.add_row(row.route, row.transport, row.outcome, str(row.requests))
    if coverage.rows:
        console.print(table)
    rest = f"{coverage.out_of_scope} out of scope, {coverage.tunnels} tunnels to other hosts"
    if coverage.scoped == 0:
        console.print(f"No scoped request was made ({rest}).")
    elif coverage.complete:
        console.print(f"All {coverage.scoped} scoped requests carried a token ({rest}).")
    else:
        missing = coverage.scoped - coverage.attested
        console.print(f"{missing} of {coverage.scoped} scoped requests carried no token ({rest}).")


def exchange_line(exchange: Exchange) -> str:
    """One exchange for the log; no token, no query, no body."""
    attestation = exchange.stamp if exchange.attestation is None else f"{exchange.stamp}:{exchange.attestation.name}"
    if exchange.stamp is Stamp.NOT_SCOPED:
        attestation = "-"
    waited = "-" if exchange.waited_s is None else f"{exchange.waited_s * 1000:.0f}ms"
    return (
        f"exchange number={exchange.number} route={exchange.route or '-'} transport={exchange.transport} "
        f"host={exchange.host} method={exchange.method or '-'} path={exchange.path or '-'} "
        f"status={exchange.status or '-'} attestation={attestation} token_bytes={exchange.token_bytes} "
        f"waited={waited} error={exchange.error or '-'}"
    )
