"""The trial: what the checks of the route do for real, on this machine alone. What it means is said in `route`.

Every host that is stamped, and those that an agent signs in with, are mapped to a stand-in; no other one is admitted.
"""

import asyncio
import base64
import contextlib
import json
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from agent.bypass import watching
from agent.doctor.canary import CANARY_HEADER
from agent.doctor.doors import LOOPBACK
from agent.doctor.processes import NotStarted, child, run_quietly, shell_code
from agent.doctor.proxy_variables import ProxyAddress
from agent.doctor.route import CANARIES, Arrival, Knock, Listening, scoped_route, stamped
from agent.settings import ProxySettings
from proxy.attestation import ATTESTATION_HEADER
from proxy.credentials import Credentials
from proxy.modes import OnFailure, StampMode
from proxy.scope import Scope, Target
from proxy.standins.chatgpt import Received
from proxy.upstream import UpstreamMap

# Where an agent signs in and reports, besides what is stamped.
OTHER_TARGETS = (Target("auth.openai.com", 443), Target("ab.chatgpt.com", 443))
# Nobody has it (RFC 2606).
UNKNOWN_TARGET = Target("countersign-doctor.invalid", 443)

KNOCK_TIMEOUT_S = 5.0
CANARIES_TIMEOUT_S = 60.0


def targets_of(scope: Scope) -> tuple[Target, ...]:
    """Whom the stand-in has to speak for."""
    return tuple(dict.fromkeys((*scope.intercepted, *OTHER_TARGETS)))


def trial_settings(
    scope: Scope, addresses: Mapping[Target, tuple[str, int]], upstream_ca: Path, loopback: Target
) -> ProxySettings:
    """The settings of a proxy that stamps the user's origins, and lets nobody leave this machine.

    Args:
        loopback: A target on this machine that is on the allow list, and must be refused by its address.
    """
    return ProxySettings(
        scope=Scope(scope.origins, scope.realtime, (str(loopback),)),
        upstream=UpstreamMap(dict(addresses), upstream_ca),
        port=0,
        credentials=None,
        rpc=None,
        stamp=StampMode.ALWAYS,
        on_failure=OnFailure.SEND,
        sources={},
    )


def arrivals_of(received: Iterable[Received], mark: str) -> tuple[Arrival, ...]:
    """What reached the stand-in, without anything that is secret.

    Args:
        mark: What each token of the scripted desktop contains, and what the canaries put before their names.
    """
    return tuple(_arrival(one, mark) for one in received if one.kind == "request")


def _arrival(received: Received, mark: str) -> Arrival:
    row = scoped_route(received.method, received.path, is_websocket=received.is_websocket)
    marks = [value.removeprefix(f"{mark}-") for value in received.values(CANARY_HEADER)]
    return Arrival(
        route=None if row is None else row.name,
        transport="websocket" if received.is_websocket else received.method.lower(),
        path=received.path.partition("?")[0],
        stamped=stamped(received.values(ATTESTATION_HEADER), mark),
        canary=marks[0] if marks else None,
    )


# Canaries


async def fly_canaries(environ: Mapping[str, str], origin: Target, mark: str) -> dict[str, str]:
    """Let a child process with this environment send the canaries.

    Returns:
        name -> why it failed, "" if it was answered; as `canary_findings` takes it.
    """
    url = f"https://{origin.host}" if origin.port == 443 else f"https://{origin}"
    # -P: a file of the working directory must not stand in for a library.
    command = [sys.executable, "-P", "-m", "agent.doctor.canary", url, mark]
    ended = await run_quietly(command, environ, CANARIES_TIMEOUT_S)
    if ended.code is None:
        reason = ended.not_started or f"the child process did not end within {CANARIES_TIMEOUT_S:g} s"
        return {canary.name: reason for canary in CANARIES}
    try:
        reports = json.loads(ended.stdout)
    except ValueError:
        return {canary.name: f"the child process ended with {ended.code}, without a report" for canary in CANARIES}
    assert isinstance(reports, dict), "our own child prints an object"
    return {str(name): str(problem) for name, problem in reports.items()}


# Knocking


async def knocks(port: int, credentials: Credentials, loopback: Target) -> list[Knock]:
    """Ask the proxy for what it must refuse.

    Args:
        port: The proxy's.
        loopback: As for `trial_settings`.
    """
    right = f"{credentials.user}:{credentials.secret}"
    wrong = f"{credentials.user}:{secrets.token_urlsafe(12)}"
    host = Target("chatgpt.com", 443)
    direct = Target(LOOPBACK, loopback.port)
    asked = [
        ("a CONNECT without credentials", host, None, 407),
        ("a CONNECT with wrong credentials", host, wrong, 407),
        (f"a CONNECT to {UNKNOWN_TARGET}, which is not on the allow list", UNKNOWN_TARGET, right, 403),
        (f"a CONNECT to the address {direct.host}", direct, right, 403),
        (f"a CONNECT to an allowed name with a loopback address, {loopback.host}", loopback, right, 0),
    ]
    return [
        Knock(what, expected, (await _knock(LOOPBACK, port, target, userinfo))[0])
        for what, target, userinfo, expected in asked
    ]


async def who_listens(address: ProxyAddress) -> Listening:
    """Who answers at a loopback proxy, without making it connect anywhere: it is asked for nobody's host."""
    if address.port is None:
        return Listening.NOBODY
    try:
        status, realm = await _knock(address.host, address.port, UNKNOWN_TARGET, None)
    except OSError:
        return Listening.NOBODY
    if status is None:
        return Listening.SILENT
    if status != 407 or 'realm="countersign"' not in realm:
        return Listening.ANOTHER
    if address.userinfo is None:
        return Listening.STRANGER
    status, _ = await _knock(address.host, address.port, UNKNOWN_TARGET, unquote(address.userinfo))
    return Listening.STRANGER if status == 407 else Listening.OURS


async def _knock(host: str, port: int, target: Target, userinfo: str | None) -> tuple[int | None, str]:
    """(status, Proxy-Authenticate) of a CONNECT; (None, "") without an answer. Raises OSError if nobody is there."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if userinfo is not None:
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(userinfo.encode()).decode())
    try:
        async with asyncio.timeout(KNOCK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write("\r\n".join((*lines, "", "")).encode())
                head = await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.close()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionResetError):
        return None, ""
    status, *fields = head.decode("latin-1").split("\r\n")
    words = status.split()
    realm = [line.partition(":")[2] for line in fields if line.lower().startswith("proxy-authenticate:")]
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else None), "".join(realm)


# The command


@dataclass(frozen=True, slots=True)
class Ran:
    """How the command ended: as in `CommandFacts`."""

    not_started: str = ""
    code: int | None = None
    past: tuple[str, ...] = ()


async def run_watched(
    command: Sequence[str], environ: Mapping[str, str], timeout_s: float, output: int | IO[bytes]
) -> Ran:
    """Run a command to its end or its deadline, and look where its processes connect.

    Args:
        output: Where its stdout and stderr go.
    """
    try:
        async with watching(()) as watch, child(command, environ, output, output) as process:
            code: int | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    code = shell_code(await process.wait())
            past = tuple(f"{one.process} to {one.address}" for one in watch.found)
    except NotStarted as exc:
        return Ran(str(exc))
    return Ran("", code, past)


def furnish(home: Path, original: Path | None, auth: Mapping[str, Any]) -> None:
    """Make a CODEX_HOME for the command: the user's settings, and credentials that are good for a stand-in only.

    With the user's own, an agent might spend its refresh token at the stand-in, and keep what it got for it.

    Args:
        home: Where to make it; not there yet.
        original: The user's; None if there is none.
        auth: The content of auth.json.
    """
    home.mkdir(mode=0o700)
    _write(home / "auth.json", json.dumps(auth).encode())
    for name in (".env", "config.toml"):
        path = None if original is None else original / name
        if path is not None and path.is_file():
            with contextlib.suppress(OSError):  # that it cannot be read is found, and told, elsewhere
                _write(home / name, path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
