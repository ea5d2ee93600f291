"""What `countersign capture` prints: runs, exchanges and differences, for people."""

import datetime as dt
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from agent.commands.report import print_table
from proxy.capture.bodies.reading import Event, Part, Summary
from proxy.capture.diff import Difference, Group
from proxy.capture.exchange import Exchange, Phase, SocketTurn, Stamp, Transport
from proxy.capture.store import Run

_SHORT_TEXT = 160


def printable(text: str) -> str:
    """The text with nothing in it that steers a terminal or hides what follows."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return repr(char)[1:-1] if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def print_runs(rows: Iterable[tuple[Run, int]], out: TextIO) -> None:
    """All runs, each with its size."""
    cells = [
        (
            run.id,
            _moment(run.started_at),
            "-" if run.ended_at is None else _seconds(run.ended_at - run.started_at),
            run.state(),
            "-" if run.exchanges is None else str(run.exchanges),
            _size(size),
            "yes" if run.bodies else "no",
            printable(run.command),
        )
        for run, size in rows
    ]
    print_table(("run", "started", "took", "state", "exchanges", "size", "bodies", "command"), cells, out)


def run_as_json(run: Run) -> dict[str, Any]:
    """A run for programs."""
    return {
        "id": run.id,
        "path": str(run.path),
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "command": run.command,
        "versions": dict(run.versions),
        "bodies": run.bodies,
        "state": run.state(),
        "exchanges": run.exchanges,
        "problem": run.problem,
    }


def print_run(run: Run, exchanges: Sequence[Exchange], unreadable: int, out: TextIO) -> None:
    """What is known of a run, and its exchanges."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    print(f"run       {run.id} ({run.state()})", file=out)
    print(f"command   {printable(run.command)}", file=out)
    ended = "" if run.ended_at is None else f", took {_seconds(run.ended_at - run.started_at)}"
    print(f"started   {_moment(run.started_at)}{ended}", file=out)
    print(f"versions  {printable(versions)}", file=out)
    print(f"bodies    {'captured' if run.bodies else 'not captured'}", file=out)
    if run.problem is not None:
        print(f"problem   {printable(run.problem)}", file=out)
    if unreadable:
        print(f"problem   {unreadable} damaged lines were left out", file=out)
    if exchanges:
        print_table(_COLUMNS, [_row(run, exchange) for exchange in exchanges], out)
    else:
        print("No exchange was captured.", file=out)


_COLUMNS = ("#", "at", "method", "what", "transport", "status", "stamp", "token", "first byte", "total", "up", "down")


def _row(run: Run, exchange: Exchange) -> tuple[str, ...]:
    return (
        str(exchange.number),
        f"+{_seconds(exchange.started_at - run.started_at)}",
        printable(exchange.method),
        printable(_what(exchange)),
        str(exchange.transport),
        _status(exchange),
        stamp(exchange),
        _ms(exchange.waited_s),
        _ms(exchange.first_byte_s),
        _ms(exchange.duration_s) if exchange.phase is Phase.ENDED else "…",
        _size(exchange.request_bytes),
        _size(exchange.response_bytes),
    )


def follow_line(exchange: Exchange) -> str:
    """One phase of an exchange, in one line."""
    moment = dt.datetime.fromtimestamp(exchange.started_at).astimezone().strftime("%H:%M:%S")
    words = [moment, f"#{exchange.number}", str(exchange.transport), exchange.method, _what(exchange)]
    match exchange.phase:
        case Phase.DECIDED:
            words.append("sent" if exchange.stamp is not Stamp.REFUSED else "refused")
        case Phase.ANSWERED if exchange.turns:
            words.append(_turn(exchange.turns[-1]))
        case Phase.ANSWERED:
            words.append(f"answered {_status(exchange)} after {_ms(exchange.first_byte_s)}")
        case Phase.ENDED:
            words.append(f"{_status(exchange)} in {_ms(exchange.duration_s)}")
            words.append(f"{_size(exchange.request_bytes)} up, {_size(exchange.response_bytes)} down")
    if exchange.stamp is not Stamp.NOT_SCOPED:
        waited = "" if exchange.waited_s is None else f" ({_ms(exchange.waited_s)})"
        words.append(f"[{stamp(exchange)}{waited}]")
    if exchange.error is not None:
        words.append(f"error: {exchange.error}")
    return printable("  ".join(words))


def _turn(turn: SocketTurn) -> str:
    words = [f"turn {turn.number} asked at {_ms(turn.asked_s)}"]
    if turn.first_s is not None and turn.last_s is not None:
        words.append(f"answered after {_ms(turn.first_s - turn.asked_s)}")
        words.append(f"{_ms(turn.last_s - turn.asked_s)} in all")
        if turn.quiet_until_s > turn.quiet_from_s:
            words.append(f"silent for {_ms(turn.quiet_until_s - turn.quiet_from_s)} of it")
    return ", ".join(words)


def print_exchange(exchange: Exchange, out: TextIO) -> None:
    """One exchange with its headers."""
    rows = [
        ("what", f"{exchange.method} {_url(exchange)}"),
        ("route", exchange.route or "- (not in scope)"),
        ("transport", f"{exchange.transport} {exchange.http_version}".strip()),
        ("stamp", stamp(exchange) + (f", token of {exchange.token_bytes} bytes" if exchange.token_bytes else "")),
        ("thread", exchange.thread_id or "-"),
        ("status", _status(exchange)),
        ("phase", str(exchange.phase)),
        ("started", _moment(exchange.started_at)),
        ("connect", f"{_ms(exchange.connect_s)} (before the request)" if exchange.connect_s is not None else "-"),
        ("token", _ms(exchange.waited_s)),
        ("sent after", _ms(exchange.sent_s)),
        ("first byte", _ms(exchange.first_byte_s)),
        ("total", _ms(exchange.duration_s)),
        ("bytes", f"{exchange.request_bytes} up, {exchange.response_bytes} down"),
        *(("turns" if turn is exchange.turns[0] else "", _turn(turn)) for turn in exchange.turns),
    ]  # fmt: skip
    if exchange.error is not None:
        rows.append(("error", exchange.error))
    for name, value in rows:
        print(f"{name:<12}{printable(value)}", file=out)
    for title, headers in (("request", exchange.request_headers), ("response", exchange.response_headers)):
        if headers:
            print(f"\n{title} headers", file=out)
            for name, value in headers:
                print(f"  {printable(name)}: {printable(value)}", file=out)


def print_summary(summary: Summary, out: TextIO) -> None:
    """What an exchange carried."""
    print("\nbodies", file=out)
    for title, part in (("request", summary.request), ("response", summary.response)):
        if part is not None:
            print(f"  {title:<10}{printable(_part(part))}", file=out)
    if summary.problem is not None:
        print(f"  problem   {printable(summary.problem)}", file=out)
    for response in summary.responses:
        chain = response.get("previous_response_id")
        words = [
            f"{response.get('response_id') or '-'} ({response.get('model') or 'unknown model'})",
            f"after {chain}" if chain else "",
            str(response.get("status") or "not ended"),
            _usage(response.get("usage")),
        ]
        print(f"  model     {printable(', '.join(filter(None, words)))}", file=out)


def print_events(events: Sequence[Event], left_out: int, full: bool, out: TextIO) -> None:
    """Events or messages, one a line; their texts cut unless `full`."""
    if not events:
        return
    print(f"\n{'messages' if events[0].is_message else 'events'}", file=out)
    for event in events:
        arrow = "" if not event.is_message else "→ " if event.from_client else "← "
        text = "" if event.text is None else printable(event.text)
        if not full and len(text) > _SHORT_TEXT:
            text = text[:_SHORT_TEXT] + "…"
        cut = " (cut)" if event.is_cut else ""
        print(f"  +{event.t:.3f} s  {arrow}{printable(event.kind)}  {event.size} bytes{cut}  {text}".rstrip(), file=out)
    if left_out:
        print(f"  … and {left_out} more; --all shows them", file=out)


def print_difference(before: str, after: str, found: Difference, out: TextIO) -> None:
    """Two runs beside each other."""
    print(f"before  {before}\nafter   {after}", file=out)
    if not found.groups:
        print("Neither has an exchange.", file=out)
    for group in found.groups:
        key = group.key
        print(f"\n{printable(f'{key.method} {key.target} ({key.transport})')}", file=out)
        print_table(("", "", "before", "after"), _difference_rows(group), out)
        for change in group.headers:
            print(f"  {change.side} header {printable(change.name)}: {change.kind}", file=out)
            for sign, values, share in (
                ("-", change.before, change.before_share),
                ("+", change.after, change.after_share),
            ):
                if values:
                    print(f"    {sign} {printable(_values(values))}{_share(share)}", file=out)
    print("\nThey differ." if found.differs else "\nNothing but numbers, secrets and durations differs.", file=out)


def _difference_rows(group: Group) -> list[tuple[str, str, str, str]]:
    rows = [("requests", "", str(group.before), str(group.after))]
    for what, counts in (("status", group.statuses), ("stamp", group.stamps)):
        rows += [(what, printable(name), str(a), str(b)) for name, a, b in counts]
    for timing in group.timings:
        if timing.before_ms is not None or timing.after_ms is not None:
            before, after = ("-" if ms is None else f"{ms:.1f} ms" for ms in (timing.before_ms, timing.after_ms))
            rows.append(("median", timing.name.replace("_", " "), before, after))
    return rows


def _values(values: tuple[str, ...]) -> str:
    return " | ".join(value if len(value) <= _SHORT_TEXT else value[:_SHORT_TEXT] + "…" for value in values) or "-"


def _share(share: float) -> str:
    return "" if share in (0, 1) else f" (on {share:.0%} of the requests)"


# Words


def stamp(exchange: Exchange) -> str:
    """What became of the header, with the status of the envelope."""
    if exchange.attestation is None:
        return str(exchange.stamp)
    return f"{exchange.stamp} {exchange.attestation.name.lower()}"


def write_json(content: Any) -> None:
    """To stdout."""
    json.dump(content, sys.stdout, indent=2)
    print()


def _what(exchange: Exchange) -> str:
    return exchange.route or f"{exchange.host}{exchange.path}"


def _url(exchange: Exchange) -> str:
    scheme = "wss" if exchange.transport is Transport.WEBSOCKET else "https"
    return f"{scheme}://{exchange.host}:{exchange.port}{exchange.path}"


def _status(exchange: Exchange) -> str:
    if exchange.status is not None:
        return str(exchange.status)
    return "-" if exchange.error is None else "failed"


def _part(part: Part) -> str:
    words = ["size unknown" if part.size is None else f"{part.size} bytes"]
    words.append(part.media_type or "")
    words.append(f"sha256 {part.sha256}" if part.sha256 else "")
    words.append(f"in bodies/{part.file}" if part.file else "")
    words.append(f"{part.secrets} secrets taken out" if part.secrets else "")
    words.append(part.problem or "")
    return ", ".join(filter(None, words))


def _usage(usage: Any) -> str:
    if not isinstance(usage, dict):
        return ""
    return ", ".join(f"{name} {value}" for name, value in usage.items() if isinstance(value, int))


def _moment(at: float) -> str:
    return dt.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else _seconds(seconds)


def _size(size: int) -> str:
    number = float(size)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
