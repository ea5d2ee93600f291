"""A desktop with its agent: starts `countersign app-server` as desktops do, and lets it run a turn now and then.

    app_server.py SECONDS [OPTION ...]

The options are those of `countersign app-server`. A turn that is not completed with a token is told, and the next one
has a new app-server.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.rpc.jsonrpc import RequestFailed
from agent.standins.desktop import Desktop, Script, ServerGone, spawn


class TurnFailed(Exception):
    """A turn was not completed, or without a token; the text says why."""


async def run(pause_s: float, options: Sequence[str]) -> None:
    """Run turns until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    # The first process of a container is not ended by a signal that it does not handle.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    home = Path(os.environ["CODEX_HOME"])
    command = ("countersign", "app-server", "--quiet", *options)
    while True:
        try:
            async with spawn(command, Script(), os.environ, home) as desktop:
                await desktop.initialize()
                while True:
                    await turn(desktop, home)
                    await asyncio.sleep(pause_s)
        except (TurnFailed, RequestFailed, ServerGone, TimeoutError) as exc:
            sys.stderr.write(f"app_server.py: {type(exc).__name__}: {exc}\n")
        await asyncio.sleep(pause_s)


async def turn(desktop: Desktop, home: Path) -> None:
    """One turn on a thread of its own.

    Raises:
        TurnFailed: It was not completed, or the desktop was not asked for a token.
        RequestFailed, ServerGone, TimeoutError: The app-server refused it, ended or hung.
    """
    asked = desktop.asked
    started = await desktop.request("thread/start", {"cwd": str(home)})
    ended = await desktop.turn(started["thread"]["id"], "hello")
    desktop.notifications.clear()
    if ended["status"] != "completed":
        raise TurnFailed(f"the turn ended {ended['status']}: {ended['error']}")
    if desktop.asked == asked:
        raise TurnFailed("the turn was completed, and the desktop was not asked for a token")
    sys.stdout.write(f"the model said {ended['items'][-1]['text']!r}; tokens so far: {desktop.asked}\n")
    sys.stdout.flush()


def main(argv: Sequence[str]) -> int:
    """Read the arguments, and run."""
    try:
        pause_s = float(argv[0])
    except (IndexError, ValueError):
        sys.stderr.write("app_server.py: the seconds between two turns are needed first; see docs/containers.md\n")
        return 2
    try:
        asyncio.run(run(pause_s, argv[1:]))
    except asyncio.CancelledError:
        pass
    return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
