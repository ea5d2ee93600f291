"""`countersign doctor [-- CMD ...]`: would a request of an agent be stamped here, and if not, why not?"""

import argparse
import errno
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.common import OURS_ALONE, Parser, run, seconds, start_logging, until_stopped
from agent.doctor.findings import Finding, Level, Topic, count, has_problem, plain
from agent.home import HomeError, override_config
from proxy.scope import Scope, Target

if TYPE_CHECKING:
    from agent.doctor.doors import Doors
    from proxy.server import ProxyServer
    from proxy.standins.chatgpt import ChatGPT

TIMEOUT_S = 60.0


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "doctor",
        "Check whether the requests of an agent would be stamped here: the environment, CODEX_HOME, what clients "
        "trust, the route through the real proxy to a local stand-in, what the proxy refuses, the sandbox, the "
        "versions. With CMD, run that behind the proxy as well, and tell which of its requests arrived. Exits 0 if "
        "there is no problem, 1 if there is one.",
        "countersign doctor [OPTION ...] [-- CMD [ARG ...]]",
    )
    parser.add_argument(
        "-c", "--config", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="override a setting of config.toml; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT_S, metavar="SECONDS",
        help=f"let CMD run so long at most (default: {TIMEOUT_S:.0f})",
    )  # fmt: skip
    # Whatever follows "--", or the first word that is no option, is the command's, also what looks like one of ours.
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")
    arguments = parser.parse_args(argv)
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
        if not command:
            parser.error("a command is needed behind --, found none; leave out the -- to check without one")
    try:
        override_config({}, [*overrides, *arguments.overrides])
    except HomeError as exc:
        parser.error(str(exc))
    wanted = _Wanted([*overrides, *arguments.overrides], command, arguments.timeout, arguments.verbose)
    # What the proxy warns about in the trial is the trial's doing, and is told as a finding.
    start_logging(arguments.verbose or -1)
    return run("doctor", until_stopped(_doctor(wanted, as_json=arguments.json)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for.

    Args:
        command: Empty if none is to be run.
        verbose: As `Parser` counts it.
    """

    overrides: list[str]
    command: list[str]
    timeout_s: float
    verbose: int


async def _doctor(wanted: _Wanted, *, as_json: bool) -> int:
    findings = await _examine(os.environ, wanted)
    if as_json:
        print(json.dumps(plain(findings), indent=2))
    else:
        _print(findings)
    return 1 if has_problem(findings) else 0


async def _examine(environ: Mapping[str, str], wanted: _Wanted) -> list[Finding]:
    """All checks, in the order in which they are told."""
    from agent.doctor import machine
    from agent.doctor.configuration import config_findings
    from agent.doctor.home import dotenv_findings, home_findings, sign_in_findings
    from agent.doctor.proxy_variables import BEFORE_HTTPS, environment_findings
    from agent.doctor.sandbox import sandbox_findings
    from agent.doctor.trust import trust_findings
    from agent.doctor.versions import version_findings

    home = machine.home_facts(environ)
    path = home.path if home.exists else None
    config = machine.config_facts(path, environ, wanted.overrides)
    scope = Scope.of() if config.settings is None else config.settings.scope
    hosts = [target.host for target in scope.intercepted]

    found = [*environment_findings(environ, hosts), *trust_findings(machine.trust_files(environ))]
    at_home = home_findings(home)
    if path is not None:
        own_port = 0 if config.settings is None else config.settings.port
        at_home += dotenv_findings(machine.dotenv_facts(path, environ), hosts, own_port)
        at_home += sign_in_findings(machine.sign_in_facts(path))
    at_home += config_findings(config, hosts)
    found += at_home
    found += await _listening(environ)
    suspects = (
        *(name for name, value in environ.items() if name.upper() in BEFORE_HTTPS and value),
        *(one.looked_at for one in at_home if one.level is Level.PROBLEM),
    )
    bubblewrap: str | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="countersign-doctor-") as directory:
            scratch = Path(directory)
            try:
                found += await _try(environ, wanted, scope, scratch, path, suspects)
            except OSError as exc:
                found.append(_no_trial(exc))
            sandbox = await machine.sandbox_facts(environ, scratch)
            found += sandbox_findings(sandbox)
            bubblewrap = sandbox.bubblewrap
    except OSError as exc:
        found.append(_no_trial(exc))
    return found + version_findings(await machine.version_facts(environ, bubblewrap))


def _no_trial(exc: OSError) -> Finding:
    advice = "make room in the temporary directory, or set TMPDIR to another one"
    if exc.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        advice = "bring the loopback interface up (ip link set lo up): the proxy and the trial need 127.0.0.1"
    return Topic.ROUTE.problem("the trial", f"cannot be made: {exc}", advice)


async def _listening(environ: Mapping[str, str]) -> list[Finding]:
    """Whether the loopback proxy that the shell names is there: one that has ended takes its agents with it."""
    from agent.doctor.proxy_variables import proxy_address
    from agent.doctor.route import listening_finding
    from agent.doctor.trial import who_listens

    found = {}
    for name in ("HTTPS_PROXY", "https_proxy"):
        value = environ.get(name, "")
        address = proxy_address(value)
        if address is not None and address.is_loopback and value not in found:
            found[value] = listening_finding(name, address.shown, await who_listens(address))
    return list(found.values())


async def _try(
    environ: Mapping[str, str],
    wanted: _Wanted,
    scope: Scope,
    scratch: Path,
    home: str | None,
    suspects: tuple[str, ...],
) -> list[Finding]:
    """The stand-in, the proxy before it, a desktop that makes tokens, and the clients that go through.

    Args:
        scratch: An empty 0700 directory.
        home: CODEX_HOME, None if there is none.
        suspects: What was found to lead requests elsewhere.
    """
    from agent.doctor.doors import LOOPBACK, Doors
    from agent.doctor.trial import targets_of, trial_settings
    from agent.rpc.listen import SocketUnavailable
    from agent.standalone import standalone
    from agent.standins.desktop import Script, connect
    from proxy.server import ProxyUnavailable
    from proxy.standins.chatgpt import ChatGPT

    mark = secrets.token_hex(8)
    targets = targets_of(scope)
    async with (
        ChatGPT(names=(*(target.host for target in targets), LOOPBACK)) as upstream,
        Doors(upstream.port, targets) as doors,
    ):
        upstream_ca = scratch / "upstream-ca.pem"
        upstream_ca.write_bytes(upstream.ca_pem)
        loopback = Target("localhost", upstream.port)
        settings = trial_settings(scope, doors.addresses, upstream_ca, loopback)
        script = Script(token=lambda number: f"v1.{mark}-{number}")
        try:
            async with (
                standalone(settings, "countersign doctor", str(scratch), lambda exchange: None) as running,
                connect(running.rpc, script),
            ):
                stage = _Stage(running.proxy, upstream, doors, scope.origins[0], loopback, mark)
                found = await _check_route(environ, stage)
                if wanted.command:
                    found += await _check_command(environ, wanted, stage, scratch / "home", home, suspects)
                return found
        except (ProxyUnavailable, SocketUnavailable) as exc:
            return [Topic.ROUTE.problem("the proxy", str(exc), "mend what it names, and run this again")]


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the clients of the trial meet; `mark` is in each token, and in each canary."""

    proxy: "ProxyServer"
    upstream: "ChatGPT"
    doors: "Doors"
    origin: Target
    loopback: Target
    mark: str

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What a child of `countersign run` is given."""
        children = {**environ, **self.proxy.child_environment(environ)}
        return {name: value for name, value in children.items() if name not in OURS_ALONE}


async def _check_route(environ: Mapping[str, str], stage: _Stage) -> list[Finding]:
    from agent.doctor.route import canary_findings, refusal_findings
    from agent.doctor.trial import arrivals_of, fly_canaries, knocks

    reports = await fly_canaries(stage.environment(environ), stage.origin, stage.mark)
    found = canary_findings(reports, arrivals_of(stage.upstream.received, stage.mark))
    return found + refusal_findings(await knocks(stage.proxy.port, stage.proxy.credentials, stage.loopback))


async def _check_command(
    environ: Mapping[str, str],
    wanted: _Wanted,
    stage: _Stage,
    home: Path,
    original: str | None,
    suspects: tuple[str, ...],
) -> list[Finding]:
    """Run the command with a home of its own, and see what arrives.

    Args:
        home: Where to make that; not there yet.
        original: The user's CODEX_HOME, None if there is none.
    """
    from agent.doctor.route import CommandFacts, command_findings
    from agent.doctor.trial import arrivals_of, furnish, run_watched
    from proxy.standins.chatgpt import auth_json

    name = wanted.command[0]
    furnish(home, None if original is None else Path(original), auth_json())
    if wanted.verbose >= 0:
        text = f"countersign doctor: running {name!r} behind the proxy, for {wanted.timeout_s:g} s at most"
        print(text, file=sys.stderr)
    arrived, connected = len(stage.upstream.received), dict(stage.doors.connected)
    environment = {**stage.environment(environ), "CODEX_HOME": str(home)}
    output = sys.stderr.fileno() if wanted.verbose > 0 else subprocess.DEVNULL
    ran = await run_watched(wanted.command, environment, wanted.timeout_s, output)
    facts = CommandFacts(
        name=name,
        timeout_s=wanted.timeout_s,
        not_started=ran.not_started,
        code=ran.code,
        arrivals=arrivals_of(stage.upstream.received[arrived:], stage.mark),
        connected={host: times - connected[host] for host, times in stage.doors.connected.items()},
        past=ran.past,
        suspects=suspects,
    )
    return command_findings(facts)


def _print(findings: Sequence[Finding]) -> None:
    from agent.commands.report import print_table

    rows = [(str(one.level), str(one.topic), one.looked_at, one.found) for one in findings]
    print_table(("level", "about", "looked at", "found"), rows, sys.stdout)
    todo = [one for level in (Level.PROBLEM, Level.WARNING) for one in findings if one.level is level]
    if todo:
        print("What to do:")
    for one in todo:
        print(f"  {one.level}: {one.looked_at}\n      {one.found}\n      -> {one.advice}")
    told = ", ".join(f"{number} {level}" for level, number in count(findings).items())
    print(("There is a problem" if has_problem(findings) else "No problem was found") + f" ({told}).")
