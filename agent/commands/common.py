"""What the commands share: their options, their log, and how they end."""

import argparse
import asyncio
import contextlib
import logging
import math
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agent.home import HomeError, codex_home, config_path, load_config
from agent.programs import why_not_started
from agent.settings import Config, ProxySettings, SettingError, ignored_settings, proxy_settings
from proxy.modes import OnFailure, StampMode

if TYPE_CHECKING:
    from agent.recording_options import RecordingOptions

logger = logging.getLogger(__name__)

# Shells report a process that a signal ended as 128 + its number.
SIGNAL_BASE = 128
# What is in the environment for us, and secret: a child gets the proxy's address, with the credentials in it.
OURS_ALONE = ("COUNTERSIGN_CREDENTIALS", "COUNTERSIGN_METRICS_TOKEN")


class CommandFailed(Exception):
    """The command cannot go on; the text is for the user, the code for the shell."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def not_started(program: str, exc: OSError) -> CommandFailed:
    """Why the user's command could not be started, with the code of a shell: 127 if it is not there, else 126."""
    code = 127 if isinstance(exc, FileNotFoundError) else 126
    return CommandFailed(f"cannot run {program!r}: {why_not_started(program, exc)}", code)


class Parser(argparse.ArgumentParser):
    """argparse, with the pieces that all commands have."""

    def __init__(self, command: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog=f"countersign {command}", description=description, usage=usage, allow_abbrev=False)
        loudness = self.add_mutually_exclusive_group()
        loudness.add_argument("-v", "--verbose", action="count", default=0, help="log more to stderr; twice for all")
        loudness.add_argument("-q", "--quiet", action="store_const", dest="verbose", const=-1, help="log errors only")

    def error(self, message: str) -> NoReturn:
        """End with code 2; of an unknown option, tell what may have been meant."""
        unknown = message.partition("unrecognized arguments: ")[2]
        super().error(f"{message}; {self.what_is_known(unknown)}" if unknown else message)

    def what_is_known(self, unknown: str) -> str:
        """The option most like the first of these words that looks like one, and where all are listed."""
        import difflib

        mistyped = next((word.partition("=")[0] for word in unknown.split() if word.startswith("-")), "")
        known = [name for name, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]
        near = difflib.get_close_matches(mistyped, known, n=1)
        return (f"did you mean {near[0]}? " if near else "") + f"`{self.prog} --help` lists the options"

    def add_proxy_options(self, *, rpc: bool = True) -> None:
        """The settings of the proxy, and `-c`: each can also come from the environment or from config.toml.

        Without `rpc` there is no option for the desktop's socket.
        """
        self.add_argument(
            "-c", "--config", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
            help="override a setting of config.toml; may be repeated",
        )  # fmt: skip
        group = self.add_argument_group(
            "proxy", "each also as COUNTERSIGN_NAME in the environment or in [countersign] of config.toml"
        )
        group.add_argument("--port", help="port on 127.0.0.1 (default: any free one)")
        if rpc:
            group.add_argument("--rpc", metavar="unix://PATH", help="where the desktop connects; an absolute path")
        # As plain texts: argparse shows the repr of what is not in its choices.
        stamps, failures = [str(mode) for mode in StampMode], [str(choice) for choice in OnFailure]
        group.add_argument("--stamp", choices=stamps, help="always (default), missing or never")
        group.add_argument(
            "--on-failure", choices=failures, help="no token: send the status (default) or refuse the request"
        )
        group.add_argument("--origin", action="append", dest="origins", metavar="URL", help="whose back end is stamped")
        group.add_argument(
            "--allow-host", action="append", dest="allow_hosts", metavar="HOST[:PORT]",
            help="one more host that may be reached; *.SUFFIX and * work, 'none' first drops the built-in list",
        )  # fmt: skip
        group.add_argument(
            "--upstream-map", action="append", metavar="HOST=ADDRESS:PORT", help="reach HOST there instead (testing)"
        )
        group.add_argument("--upstream-ca", metavar="FILE", help="PEM authorities to trust upstream as well")

    def add_recording_options(self, *, capture: bool) -> None:
        """What the run leaves behind and shows of itself.

        Args:
            capture: Whether it is captured unless told otherwise.
        """
        group = self.add_argument_group("recording")
        group.add_argument(
            "--capture", action=argparse.BooleanOptionalAction, default=None,
            help=f"keep what went through, without secrets and bodies (default: {'on' if capture else 'off'})",
        )  # fmt: skip
        group.add_argument(
            "--bodies", action="store_true", help="capture bodies and frames as well: your prompts and the answers"
        )
        group.add_argument("--captures", metavar="DIR", help="where captured runs lie")
        group.add_argument("--live", action="store_true", help="show the requests on a local page, as they come")
        group.add_argument(
            "--metrics", type=_port, metavar="PORT", help="serve Prometheus metrics on 127.0.0.1, 0 for a free port"
        )
        group.add_argument("--otlp", metavar="URL", help="send metrics and traces to this OpenTelemetry collector")
        self.set_defaults(captured=capture)

    def recording_options(self, arguments: argparse.Namespace, home: str) -> "RecordingOptions":
        """What the options of `add_recording_options` say.

        Raises:
            CommandFailed: They contradict each other; code 2.
        """
        from agent.recording_options import RecordingOptions, captures_directory

        if arguments.bodies and arguments.capture is False:
            raise CommandFailed("--bodies is a part of the capture, and --no-capture was given; leave one out", 2)
        wanted = arguments.captured if arguments.capture is None else arguments.capture
        captured = wanted or arguments.bodies or arguments.captures is not None
        base = Path(arguments.captures) if arguments.captures else captures_directory(home, os.environ)
        captures = base if captured and arguments.capture is not False else None
        return RecordingOptions(
            captures=captures,
            elsewhere=captures is not None and bool(arguments.captures),
            bodies=arguments.bodies,
            live=arguments.live,
            metrics_port=arguments.metrics,
            otlp=arguments.otlp,
        )


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"a port is needed, 0 to 65535, found {text!r}")


def seconds(text: str) -> float:
    """For argparse: a finite number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"a finite number of seconds is needed, 0 or more, found {text!r}")
    return number


def read_settings(
    arguments: argparse.Namespace,
    overrides: Sequence[str],
    load: Callable[[str, Sequence[str]], dict[str, Any]] = load_config,
) -> tuple[ProxySettings, str, dict[str, Any]]:
    """(proxy settings, CODEX_HOME, config) for these arguments. Logs what looks like a setting and is none.

    Args:
        load: Makes the config of (CODEX_HOME, the overrides).

    Raises:
        CommandFailed: Any of them cannot be used; code 2.
    """
    overrides = [*overrides, *arguments.overrides]
    try:
        home = codex_home(os.environ)
        content = load(home, overrides)
        config = Config(content, overrides, config_path(home))
        settings = proxy_settings(vars(arguments), os.environ, config)
    except (HomeError, SettingError) as exc:
        raise CommandFailed(str(exc), 2) from exc
    for sentence in ignored_settings(os.environ, config):
        logger.warning("%s", sentence)
    return settings, home, content


def check_no_overrides(command: str, overrides: Sequence[str]) -> None:
    """For a command that reads no config.toml: `countersign -c KEY=VALUE COMMAND` would have no effect.

    Raises:
        CommandFailed: There is one; code 2.
    """
    if overrides:
        key = overrides[0].partition("=")[0]
        raise CommandFailed(f"{command} reads no config, so that -c {key!r} cannot have an effect; leave it out", 2)


def act(
    command: str,
    what: str,
    help_text: str,
    actions: Mapping[str, Callable[[Sequence[str]], int]],
    argv: Sequence[str],
    overrides: Sequence[str],
) -> int:
    """For a command of several actions: do the one that is named first, with the rest of the arguments.

    Args:
        what: Such an action in an error message, such as "what to do".
    """
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print(help_text)
        return 0
    try:
        check_no_overrides(command, overrides)
        if name not in actions:
            *others, last = actions
            found = f"found {name!r}" if argv else "found none"
            raise CommandFailed(f"name {what}, {', '.join(others)} or {last}; {found}", 2)
    except CommandFailed as exc:
        return fail(command, exc)
    return actions[name](argv[1:])


def start_logging(verbose: int) -> None:
    """Log to stderr: warnings, with 1 our own events, with 2 everything short of wire bytes, with -1 errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Escaping("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=logging.DEBUG if verbose > 1 else max(level, logging.WARNING), handlers=[handler])
    for name in ("agent", "proxy", "certs"):
        logging.getLogger(name).setLevel(level)
    # They print frames, headers and client hellos at their lower levels.
    for name in ("mitmproxy", "websockets", "asyncio", "aiohttp", "hpack", "h2"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # It logs a port in use with advice about options that are not ours; we raise the same as ProxyUnavailable.
    logging.getLogger("mitmproxy.addons.proxyserver").setLevel(logging.CRITICAL)


class _Escaping(logging.Formatter):
    """Keeps what a peer wrote from steering the terminal or forging a line."""

    _CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")

    def format(self, record: logging.LogRecord) -> str:
        record.message = ""
        text = super().format(record)
        return self._CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def run(command: str, main: Coroutine[Any, Any, int]) -> int:
    """Run a command on uvloop; its failures become a line on stderr and an exit code."""
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    except CommandFailed as exc:
        print(f"countersign {command}: {exc}", file=sys.stderr)
        return exc.code
    except KeyboardInterrupt:
        return SIGNAL_BASE + signal.SIGINT
    except BrokenPipeError:
        sys.stderr.close()
        return SIGNAL_BASE + signal.SIGPIPE


class Stop(asyncio.Event):
    """Set by a signal that asks the process to end; `number` is the first.

    While there is a `receiver`, the signals are its business instead.
    """

    number: signal.Signals | None = None
    receiver: Callable[[signal.Signals], None] | None = None

    def arrived(self, number: signal.Signals) -> None:
        if self.receiver is not None:
            self.receiver(number)
            return
        self.number = self.number or number
        self.set()

    @property
    def code(self) -> int:
        """The exit code of a process that ended because of it."""
        assert self.number is not None, "no signal has arrived"
        return SIGNAL_BASE + self.number


@contextlib.asynccontextmanager
async def stop_signals(*more: signal.Signals) -> AsyncIterator[Stop]:
    """What SIGINT, SIGTERM, SIGHUP and `more` set, for commands that end in order.

    To be entered before anything is made that must be removed, and left after that: a signal that nobody handles ends
    the process where it is, with its key and its sockets still there.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM, *more]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants it ignored
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.arrived, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def until_stopped(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` to its end, or until a signal cancels it."""
    async with stop_signals() as stop:
        code = await unless_stopped(main, stop)
        return stop.code if code is None else code


async def unless_stopped[T](main: Coroutine[Any, Any, T], stop: Stop) -> T | None:
    """What `main` returns, or None if it was cancelled because of `stop`."""
    work, stopped = asyncio.create_task(main), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not work.done():
            work.cancel()
        await asyncio.wait((work, stopped))
    return None if work.cancelled() else work.result()


class OutputFile:
    """A file that is written at the end, opened at the start: a path that cannot be used is told before the work.

    What is in it then goes at once: the proof of a former run must not be taken for that of one which was cut off.

    Args:
        what: Its name in an error message, such as "the report".
        private: Whether only its owner may read it.

    Raises:
        CommandFailed: It cannot be opened; code 2.
    """

    def __init__(self, path: str, what: str, *, private: bool = False) -> None:
        self._path, self._what = path, what
        try:
            self._descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600 if private else 0o666
            )
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            raise self._failed(exc, 2) from exc
        if private and self._is_regular():
            os.fchmod(self._descriptor, 0o600)

    def write(self, text: str) -> None:
        """Replace what is in it, and close it.

        Raises:
            CommandFailed: It cannot be written.
        """
        try:
            if self._is_regular():
                os.ftruncate(self._descriptor, 0)
            with open(self._descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as exc:
            raise self._failed(exc, 1) from exc

    def _is_regular(self) -> bool:
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _failed(self, exc: Exception, code: int) -> CommandFailed:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        return CommandFailed(f"cannot write {self._what} {self._path!r}: {reason}; name another file", code)


def fail(command: str, exc: CommandFailed) -> int:
    """Print why, and return the exit code."""
    print(f"countersign {command}: {exc}", file=sys.stderr)
    return exc.code
