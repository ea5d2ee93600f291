"""`countersign live`: captured runs on a local page, those of other processes as they go on."""

import argparse
import asyncio
import contextlib
import html
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from agent.commands.common import CommandFailed, Parser, check_no_overrides, fail, run, start_logging, stop_signals
from agent.home import HomeError, codex_home
from agent.recording_options import CAPTURES_VARIABLE, captures_directory


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "live",
        "Show captured requests on a local page, as they come. The address of the page is printed; it holds the token "
        "that opens it. Ends with SIGINT, SIGTERM or SIGHUP.",
    )
    parser.add_argument(
        "run", nargs="?", metavar="RUN",
        help="the id of a run, or the beginning of one (default: the newest, and then each newer one that starts)",
    )  # fmt: skip
    parser.add_argument(
        "--captures", metavar="DIR",
        help=f"where the runs lie (default: ${CAPTURES_VARIABLE}, else countersign/captures in CODEX_HOME)",
    )  # fmt: skip
    parser.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    try:
        check_no_overrides("live", overrides)
        base = _captures(arguments.captures)
    except CommandFailed as exc:
        return fail("live", exc)
    return run("live", _serve(base, arguments.run, arguments.port, arguments.open))


def _port(text: str) -> int:
    """For argparse: 0 to 65535."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, found {text!r}")
    return int(text)


def _captures(named: str | None) -> Path:
    if named is not None:
        return Path(named)
    try:
        return captures_directory(codex_home(os.environ), os.environ)
    except HomeError as exc:
        raise CommandFailed(str(exc), 2) from exc


async def _serve(base: Path, name: str | None, port: int, wants_browser: bool) -> int:
    from proxy.capture.store import CaptureError
    from proxy.live.server import LivePage
    from proxy.live.source import CaptureSource

    try:
        async with stop_signals() as stop, CaptureSource(base, name) as source, LivePage(source, port) as page:
            print(page.url, flush=True)
            if not source.feed.run:
                print(
                    f"countersign live: no run is captured in {str(base)!r} yet; the page shows the first that starts",
                    file=sys.stderr,
                )
            async with _opened(page.url) if wants_browser else contextlib.nullcontext():
                await stop.wait()
    except CaptureError as exc:
        raise CommandFailed(str(exc), 2) from exc
    except OSError as exc:
        raise CommandFailed(exc.strerror or str(exc)) from exc
    return 0


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[None]:
    """Have a browser open the page.

    By way of a private file that leads there: the arguments of a process can be read by everybody on the machine, and
    the address holds the token.
    """
    import webbrowser

    with tempfile.TemporaryDirectory(prefix="countersign-live-") as directory:  # 0700
        file = Path(directory) / "open.html"
        target = html.escape(url, quote=True)
        file.write_text(
            '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={target}"><a href="{target}">countersign live</a>\n'
        )
        if not (_has_screen() and await asyncio.to_thread(webbrowser.open, file.as_uri())):
            print("countersign live: no browser could be started; open the address by hand", file=sys.stderr)
        yield


def _has_screen() -> bool:
    """Whether a browser would get a window: one for terminals would take ours."""
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))
