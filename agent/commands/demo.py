"""`countersign demo`: the main job on local stand-ins, judged by what arrived upstream.

One turn by WebSocket and one by POST, each from an app-server of its own that a scripted desktop starts: the second
upstream answers WebSocket handshakes with 426.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.commands.common import (
    CommandFailed,
    Parser,
    check_no_overrides,
    fail,
    run,
    start_logging,
    until_stopped,
)
from proxy.standins.chatgpt import ChatGPT, Received, auth_json
from proxy.standins.faults import Fault

# The path of the requests that must arrive with a token; whatever else arrives must have none.
RESPONSES = "/backend-api/codex/responses"


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "demo",
        "Run one attested turn by WebSocket and one by POST, from a scripted desktop through `countersign app-server` "
        "and its proxy to a stand-in of ChatGPT, all on this machine. Exits 0 only if every scoped request arrived "
        "with a token of its own and nothing else did.",
    )
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    try:
        check_no_overrides("demo", overrides)
    except CommandFailed as exc:
        return fail("demo", exc)
    return run("demo", until_stopped(_demo(arguments.verbose)))


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it reached the stand-in."""

    path: str
    transport: str
    scoped: bool
    status: str  # the envelope's status in words, "none" without the header
    header: str | None


async def _demo(verbose: int) -> int:
    arrivals: list[Arrival] = []
    replies: list[str] = []
    # Not in the temp directory's root: CODEX_HOME holds credentials, also where they are fake.
    with tempfile.TemporaryDirectory(prefix="countersign-demo-") as directory:
        for title, faults in (("WebSocket", []), ("POST", [Fault.parse("websocket:426")])):
            home = Path(directory) / title
            home.mkdir(mode=0o700)
            text, received = await _turn(home, faults, verbose)
            replies.append(f"one turn by {title}: the model said {text!r}")
            arrivals += [_arrival(one) for one in received if one.kind == "request"]
    for reply in replies:
        print(reply)
    _print(arrivals)
    problems = _problems(arrivals)
    for problem in problems:
        print(f"countersign demo: {problem}", file=sys.stderr)
    if problems:
        return 1
    scoped = sum(arrival.scoped for arrival in arrivals)
    rest = len(arrivals) - scoped
    print(f"All {scoped} scoped requests arrived with a token of their own; the other {rest} arrived without.")
    return 0


async def _turn(home: Path, faults: list[Fault], verbose: int) -> tuple[str, list[Received]]:
    """Run one turn with a CODEX_HOME of its own; what the model said, and what reached the stand-in."""
    from agent.standins.desktop import Script, spawn

    (home / "auth.json").touch(0o600)
    (home / "auth.json").write_text(json.dumps(auth_json()))
    async with ChatGPT(faults=faults) as upstream:
        ca_file = home / "upstream-ca.pem"
        ca_file.write_bytes(upstream.ca_pem)
        names = ("chatgpt.com", "auth.openai.com", "api.openai.com")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")},
            "CODEX_HOME": str(home),
            "COUNTERSIGN_UPSTREAM_MAP": ",".join(f"{name}=127.0.0.1:{upstream.port}" for name in names),
            "COUNTERSIGN_UPSTREAM_CA": str(ca_file),
        }
        command = [sys.executable, "-m", "agent", "app-server", *(["-v"] if verbose else ["--quiet"])]
        async with spawn(command, Script(), environment, home) as desktop:
            await desktop.initialize()
            started = await desktop.request("thread/start", {"cwd": str(home)})
            turn = await desktop.turn(started["thread"]["id"], "hello")
            await desktop.request("model/list", {})  # a request that must arrive without the header
        if turn["status"] != "completed":
            raise CommandFailed(f"the turn ended {turn['status']}: {turn['error']}")
        return turn["items"][-1]["text"], list(upstream.received)


def _arrival(received: Received) -> Arrival:
    from proxy.attestation import ATTESTATION_HEADER, open_envelope

    values = received.values(ATTESTATION_HEADER)
    path = received.path.partition("?")[0]
    status = "none"
    if len(values) > 1:
        status = f"{len(values)} headers"
    elif values:
        opened = open_envelope(values[0]).status
        status = "no envelope" if opened is None else opened.name.lower()
    return Arrival(
        path=path,
        transport="websocket" if received.is_websocket else received.method.lower(),
        scoped=path == RESPONSES,
        status=status,
        header=values[0] if values else None,
    )


def _problems(arrivals: list[Arrival]) -> list[str]:
    """Everything that would make the demo a failure."""
    found = []
    for transport in ("websocket", "post"):
        if not any(one.scoped and one.transport == transport for one in arrivals):
            found.append(f"no scoped request arrived by {transport}")
    if all(one.scoped for one in arrivals):
        found.append("no unscoped request arrived, so nothing shows that those stay without the header")
    for one in arrivals:
        if one.scoped and one.status != "ok":
            found.append(f"{one.transport} {one.path} arrived with attestation {one.status}")
        if not one.scoped and one.header is not None:
            found.append(f"{one.transport} {one.path} is not in scope and arrived with the header")
    headers = [one.header for one in arrivals if one.header is not None]
    if len(set(headers)) != len(headers):
        found.append("two requests arrived with the same token")
    return found


def _print(arrivals: list[Arrival]) -> None:
    from collections import Counter

    from agent.commands.report import print_table

    rows = []
    groups = Counter((one.path, one.transport, one.status) for one in arrivals)
    for (path, transport, status), requests in sorted(groups.items(), key=lambda group: group[0][0] != RESPONSES):
        stamped = 0 if status == "none" else requests
        rows.append((path, transport, str(requests), str(stamped), status))
    print_table(("route", "transport", "requests", "stamped", "status"), rows, sys.stdout)
    print("x-oai-attestation, as it arrived upstream:")
    for one in arrivals:
        if one.header is not None:
            print(f"  {one.transport:<10}{one.header}")
