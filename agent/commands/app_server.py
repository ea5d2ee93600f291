"""`countersign app-server`: the server a desktop client starts and speaks to, or connects to."""

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.home import ConfigBroken
    from agent.recording_options import RecordingOptions
    from agent.rpc.greeting import Greeting
    from agent.rpc.listen_address import Address
    from agent.rpc.ws_auth import BearerCheck
    from agent.settings import ProxySettings

STDIO = "stdio://"
NO_SOCKET = "clients of the app-server reach it by --listen"
PROXY = "proxy"
# Seconds that a client gets after a signal to read how its turns ended.
LAST_WORDS_S = 0.5
# Arguments with which nothing can be wrong, so that a waiting client may be answered before they are parsed.
_HARMLESS = frozenset(
    {
        *("--listen", STDIO, "--stdio", "-q", "--quiet", "-v", "--verbose"),
        *("--analytics-default-enabled", "--strict-config"),
    }
)


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    if argv[:1] == [PROXY]:
        from agent.commands import app_server_proxy

        return app_server_proxy.main(argv[1:], overrides)
    # Until everything is loaded nothing becomes garbage, and looking for it is a tenth of the start.
    gc.disable()
    greeting = _greet() if not overrides and _HARMLESS.issuperset(argv) else None

    import argparse
    import logging

    from agent.commands.app_server_listen import add_listen_options, bearer_check, listen_address
    from agent.commands.common import CommandFailed, Parser, fail, read_settings, run, start_logging
    from agent.home import ConfigBroken, override_config
    from agent.sandbox.open_files import allow_more

    parser = Parser(
        "app-server",
        "Serve a desktop client: JSON-RPC, one message a line, on stdin and stdout, to the end of its input; or, with "
        "--listen, clients that connect by WebSocket, until a signal. `countersign app-server proxy` connects stdin "
        "and stdout to such a socket.",
    )
    parser.add_argument(
        "--listen", default=STDIO, metavar="URL",
        help=f"{STDIO} (the default), unix:// (below CODEX_HOME), unix://PATH or ws://IP:PORT",
    )  # fmt: skip
    parser.add_argument("--stdio", action="store_const", dest="listen", const=STDIO, help=f"the same as {STDIO}")
    for flag in ("--enable", "--disable"):
        value = "features.{}=" + str(flag == "--enable").lower()
        parser.add_argument(
            flag,
            action="append",
            default=[],
            dest="overrides",
            type=value.format,
            metavar="FEATURE",
            help=f"the same as -c {value}",
        )
    parser.add_argument("--analytics-default-enabled", action="store_true", help="accepted; nothing is measured here")
    parser.add_argument("--strict-config", action="store_true", help="accepted; the table of the proxy always is")
    add_listen_options(parser)
    parser.add_proxy_options(rpc=False)
    parser.add_recording_options(capture=False)
    parser.add_argument("--rpc", help=argparse.SUPPRESS)  # known, to be refused with a reason
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    if arguments.rpc is not None:
        text = f"--rpc is for `countersign proxy` and `run`; {NO_SOCKET}, so leave it out"
        return fail("app-server", CommandFailed(text, 2))
    broken: ConfigBroken | None = None
    flags: dict[str, Any] = {}
    try:
        try:
            settings, home, config = read_settings(arguments, overrides)
        except CommandFailed as exc:
            # The original tells its client, and goes on without the file.
            if not isinstance(exc.__cause__, ConfigBroken) or exc.__cause__.may_be_ours:
                raise
            broken = exc.__cause__
            settings, home, config = read_settings(arguments, overrides, lambda _, given: override_config({}, given))
        options = parser.recording_options(arguments, home)
        flags = override_config({}, [*overrides, *arguments.overrides])
        address = listen_address(arguments, home)
        check = bearer_check(arguments, address)
    except CommandFailed as exc:
        return fail("app-server", exc)
    if settings.rpc is not None:
        logging.getLogger(__name__).warning("%s is not used: %s", settings.sources["rpc"], NO_SOCKET)
    allow_more()
    if arguments.listen == STDIO:
        return run("app-server", _serve(settings, options, home, config, flags, broken, greeting))
    return run("app-server", _listen(settings, options, home, config, flags, broken, address, check))


def _greet() -> "Greeting | None":
    """Answer `initialize` now, if it waits on stdin and CODEX_HOME is in order."""
    from agent.home import HomeError, codex_home
    from agent.machine import identity_of_this_machine
    from agent.rpc.greeting import greet
    from agent.rpc.handshake import Initialize, initialize_result

    try:
        home = codex_home(os.environ)
    except HomeError:
        return None  # told in a moment, by the ordinary way

    def describe(wanted: Initialize) -> dict[str, Any]:
        identity = identity_of_this_machine(wanted.client.name)
        return dict(initialize_result(identity, wanted.client, home, sys.platform))

    return greet(describe)


async def _serve(
    settings: "ProxySettings",
    options: "RecordingOptions",
    home: str,
    config: dict[str, Any],
    flags: dict[str, Any],
    broken: "ConfigBroken | None",
    greeting: "Greeting | None",
) -> int:
    import asyncio

    from agent.app import App
    from agent.commands.common import stop_signals
    from agent.rpc.stdio import StdioStream

    # Around all of it: a signal that comes while things are taken down must not leave half of them.
    async with stop_signals() as stop:
        app = App(settings, options, home, config, broken, flags=flags)
        try:
            greeted = greeting is not None and greeting.answered
            stream = StdioStream(greeting=greeting)
            serving = asyncio.create_task(app.serve(stream, greeted=greeted))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():  # a signal: turns end, and the client is told
                await app.end_turns()
                await stream.aclose()
                await asyncio.wait((serving,), timeout=LAST_WORDS_S)
            for task in (serving, stopping):
                task.cancel()
            _, pending = await asyncio.wait((serving, stopping))
            assert not pending
            if not serving.cancelled() and (failure := serving.exception()) is not None:
                raise failure
        finally:
            await app.aclose()
    return 0


async def _listen(
    settings: "ProxySettings",
    options: "RecordingOptions",
    home: str,
    config: dict[str, Any],
    flags: dict[str, Any],
    broken: "ConfigBroken | None",
    address: "Address",
    check: "BearerCheck | None",
) -> int:
    from agent.app import App
    from agent.commands.app_server_listen import serve_clients

    return await serve_clients(App(settings, options, home, config, broken, flags=flags), address, check)
