"""`countersign app-server`: the server a desktop client starts and speaks to."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.commands.common import CommandFailed, Parser, fail, read_settings, run, start_logging, stop_signals
from agent.settings import ProxySettings

STDIO = "stdio://"


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    # Until everything is loaded nothing becomes garbage, and looking for it is a tenth of the start.
    gc.disable()
    parser = Parser(
        "app-server",
        "Serve a desktop client: JSON-RPC, one message a line, on stdin and stdout. Ends with its input.",
    )
    parser.add_argument("--listen", default=STDIO, metavar="URL", help=f"only {STDIO} (the default)")
    parser.add_argument("--stdio", action="store_const", dest="listen", const=STDIO, help=f"the same as {STDIO}")
    parser.add_proxy_options()
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    if arguments.listen != STDIO:
        text = f"--listen {arguments.listen} is not supported by countersign; only {STDIO} is"
        return fail("app-server", CommandFailed(text, 2))
    try:
        settings, home, config = read_settings(arguments, overrides)
    except CommandFailed as exc:
        return fail("app-server", exc)
    return run("app-server", _serve(settings, home, config))


async def _serve(settings: ProxySettings, home: Path, config: dict[str, Any]) -> int:
    import asyncio

    from agent.app import App
    from agent.rpc.stdio import StdioStream

    app = App(settings, home, config)
    try:
        async with stop_signals() as stop:
            serving = asyncio.create_task(app.serve(StdioStream()))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, stopping):
                task.cancel()
            _, pending = await asyncio.wait((serving, stopping))
            assert not pending
            if not serving.cancelled() and (failure := serving.exception()) is not None:
                raise failure
    finally:
        await app.aclose()
    return 0
