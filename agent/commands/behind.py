"""Run one command behind the stamping proxy: what `run` and `verify` share."""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.commands.common import (
    OURS_ALONE,
    SIGNAL_BASE,
    CommandFailed,
    Parser,
    Stop,
    not_started,
    seconds,
    stop_signals,
)
from agent.recording import Recording, RecordingUnavailable, recording
from agent.recording_options import RecordingOptions
from agent.settings import ProxySettings
from proxy.capture.coverage import Coverage, CoverageCount
from proxy.capture.exchange import Exchange
from proxy.capture.observation import Observation
from proxy.capture.proof import Bypass
from proxy.modes import StampMode

logger = logging.getLogger(__name__)

# Seconds to wait for a desktop that was announced with --rpc before the command starts without it.
PATIENCE_S = 10.0


def add_command(parser: Parser) -> None:
    """The options that say what is run, and after which wait."""
    parser.add_argument(
        "--wait-desktop", type=seconds, metavar="SECONDS",
        help=f"wait so long for a desktop before the command starts (default: {PATIENCE_S:.0f} with --rpc, else 0)",
    )  # fmt: skip
    parser.add_argument(
        "--offline", action="store_true",
        help="all on this machine: a stand-in of ChatGPT, a scripted desktop, and a CODEX_HOME of its own for CMD",
    )  # fmt: skip
    # Whatever follows "--", or the first word that is no option, is the command's, also what looks like one of ours.
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")


def command_of(parser: Parser, arguments: argparse.Namespace) -> list[str]:
    """The command and its arguments; without one the parser ends the process."""
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        parser.error("a command is needed, found none; put it behind the options, as in -- CMD")
    return command


def patience(arguments: argparse.Namespace, settings: ProxySettings) -> float:
    """Seconds to wait for a desktop, which is asked for nothing where nothing is stamped.

    Raises:
        CommandFailed: To wait for one is wanted nevertheless, or another one than that of `--offline`; code 2.
    """
    if arguments.offline and settings.rpc is not None:
        raise CommandFailed(f"--offline brings a desktop of its own; leave {settings.sources['rpc']} out", 2)
    wanted_s: float | None = arguments.wait_desktop
    if settings.stamp is not StampMode.NEVER:
        return wanted_s if wanted_s is not None else PATIENCE_S if settings.rpc is not None else 0.0
    if wanted_s:
        source = settings.sources.get("stamp", "--native")
        raise CommandFailed(f"--wait-desktop: no desktop is asked, since {source} is 'never'; leave one of them out", 2)
    return 0.0


@dataclass(slots=True)
class Ended:
    """How it ended.

    Args:
        code: The command's exit code, or 128 + the signal that ended it, or that ended us before it began.
        ran: Whether the command was started.
        bypasses, unwatched: As in `Proof`, where it was watched.
    """

    code: int
    ran: bool = True
    bypasses: tuple[Bypass, ...] = ()
    unwatched: str = ""


async def run_behind(
    name: str,
    settings: ProxySettings,
    options: RecordingOptions,
    home: str,
    command: list[str],
    patience_s: float,
    *,
    watched: bool = False,
    offline: bool = False,
) -> tuple[Ended, Coverage, Recording]:
    """Start the proxy, wait for a desktop if wanted, and run the command to its end; count and record its exchanges.

    Args:
        name: Of our command, for what it says on stderr.
        watched: Look for connections of the command's processes that go around the proxy.
        offline: See `_offline`.

    Raises:
        CommandFailed: The recording, the proxy or the command cannot be started.
    """
    count = CoverageCount()

    def over(exchange: Exchange) -> None:
        count.add(exchange)
        logger.info("%s", exchange.log_line())

    try:
        async with recording(options, name, command) as record:
            record.announce(name, sys.stderr)
            ended = await _run(
                name, settings, home, command, patience_s, over, record.observation, watched=watched, offline=offline
            )
    except RecordingUnavailable as exc:
        raise CommandFailed(str(exc)) from exc
    return ended, count.coverage(), record


async def _run(
    name: str,
    settings: ProxySettings,
    home: str,
    command: list[str],
    patience_s: float,
    on_exchange: Callable[[Exchange], None],
    observation: Observation | None,
    *,
    watched: bool,
    offline: bool,
) -> Ended:
    from agent.rpc.listen import SocketUnavailable
    from agent.standalone import standalone
    from proxy.server import ProxyUnavailable

    said = f"countersign {name}"
    try:
        async with (
            stop_signals(signal.SIGQUIT) as stop,
            contextlib.AsyncExitStack() as stack,
        ):
            stage = await stack.enter_async_context(_offline(settings, home)) if offline else None
            if stage is not None:
                settings, patience_s = stage.settings, patience_s or PATIENCE_S
            running = await stack.enter_async_context(standalone(settings, said, home, on_exchange, observation))
            if stage is not None and settings.stamp is not StampMode.NEVER:
                await stack.enter_async_context(stage.desktop(running.rpc))
            elif stage is not None:
                patience_s = 0.0
            if settings.rpc is None and patience_s > 0 and stage is None:
                print(f"{said}: the desktop may connect to unix://{running.rpc}", file=sys.stderr)
            if patience_s > 0 and not await arrives(running.attester_arrived, stop, patience_s):
                print(
                    f"{said}: no desktop that makes tokens came to unix://{running.rpc} within {patience_s:g} s; the "
                    "command runs without attestation",
                    file=sys.stderr,
                )
            if stop.is_set():
                return Ended(stop.code, ran=False)
            environment = {**os.environ, **running.proxy.child_environment(os.environ)}
            if stage is not None:
                environment["CODEX_HOME"] = str(stage.home)
            ended = await stack.enter_async_context(_watching(settings)) if watched else Ended(0)
            async with _child(command, environment, stop) as process:
                ended.code = _code(await process.wait())
            return ended
    except ProxyUnavailable as exc:
        raise CommandFailed(str(exc)) from exc
    except SocketUnavailable as exc:
        raise CommandFailed(settings.blamed("rpc", exc)) from exc


@dataclass(frozen=True, slots=True)
class _Stage:
    """What stands in for the rest of the world."""

    settings: ProxySettings
    home: Path

    @contextlib.asynccontextmanager
    async def desktop(self, rpc: Path) -> AsyncIterator[None]:
        """A desktop that makes a new token for each question."""
        from agent.standins.desktop import Script, connect

        async with connect(rpc, Script()):
            yield


@contextlib.asynccontextmanager
async def _offline(settings: ProxySettings, home: str) -> AsyncIterator[_Stage]:
    """A stand-in of ChatGPT in the place of every scoped host, and a CODEX_HOME with its credentials.

    The user's `.env` and `config.toml` are copied into it: they belong to what is verified. His credentials are not.
    """
    from agent.doctor.trial import furnish, targets_of
    from proxy.standins.chatgpt import ChatGPT, auth_json
    from proxy.upstream import UpstreamMap

    # Not in the temp directory: the original makes no helpers in a CODEX_HOME below it.
    base = "/var/tmp" if os.path.isdir("/var/tmp") else None  # noqa: ASYNC240 (once, and quick)
    with tempfile.TemporaryDirectory(prefix="countersign-offline-", dir=base) as name:
        directory = Path(name)
        furnish(directory / "home", Path(home), auth_json())
        async with ChatGPT() as upstream:
            ca_file = directory / "ca.pem"
            ca_file.write_bytes(upstream.ca_pem)
            addresses = {target: ("127.0.0.1", upstream.port) for target in targets_of(settings.scope)}
            mapped = dataclasses.replace(settings, upstream=UpstreamMap(addresses, ca_file))
            yield _Stage(mapped, directory / "home")


@contextlib.asynccontextmanager
async def _watching(settings: ProxySettings) -> AsyncIterator[Ended]:
    """Look at the command's processes from before it starts. What was seen is there when the block has ended."""
    from agent.bypass import addresses_of, watching

    ended = Ended(0)
    mapped = {target: address for target, address in settings.upstream.addresses.items()}
    scoped = [target for target in settings.scope.intercepted if target not in mapped]
    hosts = [mapped[target] for target in settings.scope.intercepted if target in mapped]
    addresses, ended.unwatched = await addresses_of(scoped, hosts)
    async with watching(addresses) as watch:
        yield ended
    ended.bypasses = watch.found
    ended.unwatched = watch.unwatched or ended.unwatched


async def arrives(event: asyncio.Event, stop: Stop, patience_s: float) -> bool:
    """Whether it did in that time, or is not waited for any more."""
    waiting = [asyncio.create_task(one.wait()) for one in (event, stop)]
    done, _ = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return bool(done)


@contextlib.asynccontextmanager
async def _child(
    command: list[str], environment: Mapping[str, str], stop: Stop
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command on our own terminal. Signals to us are passed on to it."""
    environment = {name: value for name, value in environment.items() if name not in OURS_ALONE}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as exc:
        raise not_started(command[0], exc) from exc

    def pass_on(number: signal.Signals) -> None:
        # Ctrl-C reaches the whole foreground group by itself; we only have to outlive the child.
        if number is not signal.SIGINT and process.returncode is None:
            process.send_signal(number)

    stop.receiver = pass_on
    if stop.number is not None:  # it came while the child was made
        pass_on(stop.number)
    yield process


def _code(code: int) -> int:
    return code if code >= 0 else SIGNAL_BASE - code
