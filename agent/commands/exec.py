"""`countersign exec PROMPT`: one turn without a client, for scripts and for the official TypeScript SDK."""

import asyncio
import contextlib
import json
import os
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands.behind import PATIENCE_S, arrives
from agent.commands.common import (
    CommandFailed,
    OutputFile,
    Parser,
    Stop,
    fail,
    read_settings,
    run,
    start_logging,
    stop_signals,
)
from agent.exec_events import ExecEvents

if TYPE_CHECKING:
    import argparse

    from agent.recording_options import RecordingOptions
    from agent.rpc.pipe import PipeClient
    from agent.settings import ProxySettings

# What a prompt from a file or a pipe may be; the server has a bound of its own, in characters.
MAX_PROMPT_BYTES = 8 * 1024 * 1024
NAME = "codex_exec"
STDOUT = 1


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "exec",
        "Run one turn and print the last message; what happens meanwhile goes to stderr. Nobody is asked for approval: "
        "what would need one is refused.",
        "countersign exec [OPTION ...] [resume (ID | --last)] [PROMPT | -]",
    )
    parser.add_proxy_options()
    parser.add_recording_options(capture=False)
    parser.add_argument(
        "--json",
        "--experimental-json",
        action="store_true",
        dest="as_json",
        help="print events as JSON lines",
    )
    parser.add_argument("-m", "--model", help="the model to use")
    parser.add_argument(
        "-s", "--sandbox", choices=["read-only", "workspace-write", "danger-full-access"], help="what commands may do"
    )
    parser.add_argument(
        "--dangerously-bypass-approvals-and-sandbox", "--yolo", action="store_true", dest="is_free",
        help="commands may do everything, and nobody is asked; only where something else confines them",
    )  # fmt: skip
    parser.add_argument("-p", "--profile", metavar="NAME", help="lay $CODEX_HOME/NAME.config.toml over config.toml")
    parser.add_argument("--enable", action="append", default=[], metavar="FEATURE", help="as -c features.FEATURE=true")
    parser.add_argument(
        "--disable", action="append", default=[], metavar="FEATURE", help="as -c features.FEATURE=false"
    )
    parser.add_argument("--color", choices=["always", "never", "auto"], help="there are no colors; for scripts")
    parser.add_argument("-C", "--cd", metavar="DIR", help="the directory to work in")
    parser.add_argument("--add-dir", action="append", default=[], metavar="DIR", help="one more writable directory")
    parser.add_argument("-i", "--image", action="append", default=[], metavar="FILE", help="an image for the prompt")
    parser.add_argument("--output-schema", metavar="FILE", help="a JSON Schema that the last message must fit")
    parser.add_argument("-o", "--output-last-message", metavar="FILE", help="write the last message there too")
    parser.add_argument("--skip-git-repo-check", action="store_true", help="work outside of a Git repository as well")
    parser.add_argument("--ephemeral", action="store_true", help="keep nothing of it on disk")
    parser.add_argument("--thread-source", metavar="NAME", help="who started the thread, for lists")
    parser.add_argument("--last", action="store_true", help="with resume: the newest thread of this directory")
    parser.add_argument("--all", action="store_true", help="with resume --last: the newest thread of any directory")
    parser.add_argument("words", nargs="*", metavar="PROMPT", help="what to do; - or nothing to read it from stdin")
    arguments = parser.parse_intermixed_args(argv)
    start_logging(arguments.verbose if arguments.verbose else 0)
    try:
        features = [f"features.{name}=true" for name in arguments.enable]
        features += [f"features.{name}=false" for name in arguments.disable]
        overrides = (*overrides, *features)
        settings, home, config = read_settings(arguments, overrides)
        if arguments.is_free and arguments.sandbox is not None:
            raise CommandFailed("--sandbox and --dangerously-bypass-approvals-and-sandbox exclude one another", 2)
        if arguments.profile is not None:
            config = _with_profile(config, home, arguments.profile, (*overrides, *arguments.overrides))
        options = parser.recording_options(arguments, home)
        resumed, prompt = _what(arguments)
        schema = None if arguments.output_schema is None else _schema(arguments.output_schema)
        cwd = _directory(arguments.cd)
        if not arguments.skip_git_repo_check and not _in_repository(cwd):
            raise CommandFailed(
                f"{str(cwd)!r} is not inside a Git repository, so changes could not be taken back; go into one, "
                "or say --skip-git-repo-check"
            )
        last = None
        if arguments.output_last_message is not None:
            last = OutputFile(arguments.output_last_message, "the last message")
    except CommandFailed as exc:
        return fail("exec", exc)
    return run("exec", _exec(settings, options, home, config, arguments, resumed, prompt, schema, cwd, last))


def _what(arguments: "argparse.Namespace") -> tuple[str | None, str]:
    """(the thread to resume, "" for the newest, None for a new one; the prompt)."""
    words: list[str] = arguments.words
    resumed: str | None = None
    if words[:1] == ["resume"]:
        words = words[1:]
        if arguments.last:
            resumed = ""
        elif words:
            resumed, words = words[0], words[1:]
        else:
            raise CommandFailed("resume needs the id of a thread, or --last", 2)
    elif arguments.last:
        raise CommandFailed("--last belongs to resume, as in: countersign exec resume --last", 2)
    if len(words) > 1:
        raise CommandFailed(f"one prompt is needed, found {len(words)} words; put it in quotes", 2)
    # None: it was closed.
    is_piped = sys.stdin is not None and not sys.stdin.isatty()
    if words and words[0] != "-":
        if resumed is not None or not is_piped:
            return resumed, words[0]
        print("countersign exec: reading what else belongs to the prompt from stdin", file=sys.stderr)
        more = _read_prompt()
        if not more.strip():
            return None, words[0]
        return None, f"{words[0]}\n\n<stdin>\n{more}{'' if more.endswith('\n') else '\n'}</stdin>"
    if sys.stdin is None or not (words or is_piped):
        raise CommandFailed("a prompt is needed: as an argument, or on stdin", 2)
    prompt = _read_prompt()
    if not prompt.strip():
        raise CommandFailed("no prompt was found on stdin", 2)
    return resumed, prompt


def _read_prompt() -> str:
    raw = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(raw) > MAX_PROMPT_BYTES:
        raise CommandFailed(f"the prompt on stdin is longer than {MAX_PROMPT_BYTES >> 20} MiB", 2)
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise CommandFailed(f"the prompt on stdin is not UTF-8: byte {exc.start}", 2) from exc


def _with_profile(config: dict[str, Any], home: str, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with that of a profile over it, and what was said with `-c` over both."""
    from agent.home import HomeError, laid_over, override_config

    path = Path(home) / f"{name}.config.toml"
    if path.parent != Path(home):
        raise CommandFailed(f"--profile is the name of a file in CODEX_HOME, found {name!r}", 2)
    try:
        profile = tomllib.loads(path.read_text("utf-8"))
        return override_config(laid_over(config, profile), overrides)
    except FileNotFoundError as exc:
        raise CommandFailed(f"--profile {name}: there is no {str(path)!r}", 2) from exc
    except (OSError, ValueError, RecursionError, HomeError) as exc:
        raise CommandFailed(f"--profile {name}: {str(path)!r} cannot be used: {exc}", 2) from exc


def _schema(path: str) -> dict[str, Any]:
    try:
        schema = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise CommandFailed(f"--output-schema {path!r} cannot be read: {exc}", 2) from exc
    if not isinstance(schema, dict):
        raise CommandFailed(f"--output-schema {path!r} must hold a JSON object", 2)
    return schema


def _directory(path: str | None) -> Path:
    cwd = Path(path or ".").absolute()
    if not cwd.is_dir():
        raise CommandFailed(f"--cd {path!r} is not a directory", 2)
    return cwd


def _in_repository(cwd: Path) -> bool:
    return any((directory / ".git").exists() for directory in (cwd, *cwd.parents))


async def _exec(
    settings: "ProxySettings",
    options: "RecordingOptions",
    home: str,
    config: dict[str, Any],
    arguments: "argparse.Namespace",
    resumed: str | None,
    prompt: str,
    schema: dict[str, Any] | None,
    cwd: Path,
    last: OutputFile | None,
) -> int:
    from agent.rpc.jsonrpc import RequestFailed

    events = ExecEvents()
    async with stop_signals() as stop, _client(settings, options, home, config, stop) as client:
        if stop.is_set():
            return stop.code
        try:
            thread_id = await _thread(client, arguments, config, resumed, cwd)
            if arguments.as_json:
                await _print({"type": "thread.started", "thread_id": thread_id})
            turn: dict[str, Any] = {"threadId": thread_id, "input": _input(prompt, arguments.image)}
            if schema is not None:
                turn["outputSchema"] = schema
            started = await client.request("turn/start", turn)
        except RequestFailed as exc:
            raise CommandFailed(exc.message) from exc
        listening = asyncio.create_task(_listen(client, events, as_json=arguments.as_json))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((listening, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set() and not listening.done():
            with contextlib.suppress(RequestFailed):
                await client.request("turn/interrupt", {"threadId": thread_id, "turnId": started["turn"]["id"]})
            await asyncio.wait((listening,), timeout=1.5)
            listening.cancel()
            return stop.code
        await listening
    if last is not None:
        last.write(events.last_message)
    if events.failure is not None:
        if not arguments.as_json:
            print(f"countersign exec: {events.failure}", file=sys.stderr)
        return 1
    return 0


@contextlib.asynccontextmanager
async def _client(
    settings: "ProxySettings", options: "RecordingOptions", home: str, config: dict[str, Any], stop: Stop
) -> AsyncIterator["PipeClient"]:
    """A client of an app-server in this process; a desktop may come by --rpc, to make the tokens, until `stop`."""
    from agent.app import App
    from agent.rpc.listen import SocketUnavailable, listen_unix, socket_path
    from agent.rpc.pipe import PipeClient

    app = App(settings, options, home, config, None, any_desktop=settings.rpc is not None)
    client = PipeClient()
    serving = asyncio.create_task(app.serve(client.stream, greeted=False))
    try:
        await client.request(
            "initialize",
            {
                "clientInfo": {"name": os.environ.get("CODEX_INTERNAL_ORIGINATOR_OVERRIDE") or NAME, "version": "0"},
                "capabilities": {"experimentalApi": True},
            },
        )
        client.notify("initialized")
        async with contextlib.AsyncExitStack() as stack:
            if settings.rpc is not None:
                try:
                    await stack.enter_async_context(listen_unix(socket_path(settings.rpc), app.serve_also))
                except SocketUnavailable as exc:
                    raise CommandFailed(settings.blamed("rpc", exc)) from exc
                if not await arrives(app.attester_arrived, stop, PATIENCE_S):
                    text = f"no desktop that makes tokens came to {settings.rpc} within {PATIENCE_S:g} s"
                    print(f"countersign exec: {text}; the turn runs without attestation", file=sys.stderr)
            yield client
    finally:
        await client.aclose()
        await asyncio.wait((serving,), timeout=2)
        await app.aclose()


async def _thread(
    client: "PipeClient", arguments: "argparse.Namespace", config: dict[str, Any], resumed: str | None, cwd: Path
) -> str:
    settings = _thread_settings(arguments, config)
    if resumed is None:
        settings |= {"cwd": str(cwd), "ephemeral": arguments.ephemeral}
        if arguments.thread_source is not None:
            settings["threadSource"] = arguments.thread_source
        return str((await client.request("thread/start", settings))["thread"]["id"])
    if not resumed:
        which = {} if arguments.all else {"cwd": str(cwd)}
        found = await client.request("thread/list", {"limit": 1, "sortKey": "updated_at", **which})
        if not found["data"]:
            where = "" if arguments.all else f" of {str(cwd)!r}"
            raise CommandFailed(f"there is no thread{where} to resume")
        resumed = found["data"][0]["id"]
    if arguments.cd is not None:
        settings["cwd"] = str(cwd)
    answer = await client.request("thread/resume", {"threadId": resumed, "excludeTurns": True, **settings})
    return str(answer["thread"]["id"])


def _thread_settings(arguments: "argparse.Namespace", config: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if arguments.model is not None:
        settings["model"] = arguments.model
    if arguments.sandbox is not None:
        settings["sandbox"] = arguments.sandbox
    own: dict[str, Any] = {}
    if "approval_policy" in config:
        own["approval_policy"] = config["approval_policy"]  # also for a thread that was begun with another one
    else:
        settings["approvalPolicy"] = "never"  # whoever wants to be asked is not here
    if arguments.is_free:
        settings |= {"sandbox": "danger-full-access", "approvalPolicy": "never"}
    if arguments.add_dir:
        table = dict(config.get("sandbox_workspace_write") or {})
        roots = [*table.get("writable_roots", ()), *(str(Path(one).absolute()) for one in arguments.add_dir)]
        own["sandbox_workspace_write"] = {**table, "writable_roots": roots}
    return {**settings, "config": own} if own else settings


def _input(prompt: str, images: list[str]) -> list[dict[str, Any]]:
    texts = [{"type": "text", "text": prompt, "text_elements": []}]
    return [*({"type": "localImage", "path": str(Path(one).absolute())} for one in images), *texts]


async def _listen(client: "PipeClient", events: ExecEvents, *, as_json: bool) -> None:
    """Show what happens, until the turn has ended."""
    while True:
        told = await client.told.get()
        for event in events.of(told.method, told.params):
            if as_json:
                await _print(event)
            elif told.method != "error" or told.params["willRetry"]:  # what the turn fails with is its last line
                _tell(event)
        if told.method == "turn/completed":
            if not as_json and events.failure is None and events.last_message:
                await _write(events.last_message)
            return


async def _print(event: dict[str, Any]) -> None:
    await _write(json.dumps(event, ensure_ascii=False, separators=(",", ":")))


async def _write(line: str) -> None:
    """Write it to stdout. Who does not read that holds up the turn, and not what a signal brings about.

    Raises:
        BrokenPipeError: Nobody reads it any more.
    """
    loop = asyncio.get_running_loop()
    written: asyncio.Future[OSError | None] = loop.create_future()

    def tell(problem: OSError | None) -> None:
        if not written.done():
            written.set_result(problem)

    def write() -> None:
        problem = None
        try:
            rest = memoryview(f"{line}\n".encode("utf-8", "replace"))
            while rest:
                rest = rest[os.write(STDOUT, rest) :]
        except OSError as exc:
            problem = exc
        with contextlib.suppress(RuntimeError):  # the loop has ended first
            loop.call_soon_threadsafe(tell, problem)

    # A daemon, and past the buffer of sys.stdout: the end of the process waits for neither.
    threading.Thread(target=write, daemon=True, name="stdout").start()
    if (problem := await written) is not None:
        raise problem


def _tell(event: dict[str, Any]) -> None:
    """For people, on stderr."""
    item = event.get("item") or {}
    match event["type"], item.get("type"):
        case "item.started", "command_execution":
            print(f"$ {_plain(item['command'])}", file=sys.stderr)
        case "item.completed", "command_execution":
            print(_plain(item["aggregated_output"]).rstrip("\n"), file=sys.stderr)
            ended = "not run" if item["exit_code"] is None else f"exit {item['exit_code']}"
            print(f"  {ended} ({item['status']})", file=sys.stderr)
        case "item.completed", "file_change":
            for change in item["changes"]:
                print(f"  {change['kind']} {_plain(change['path'])} ({item['status']})", file=sys.stderr)
        case "item.completed", "reasoning" if item["text"]:
            print(_plain(item["text"]), file=sys.stderr)
        case "item.completed", "web_search":
            print(f"  searched: {_plain(item['query'])}", file=sys.stderr)
        case "error", _:
            print(f"! {_plain(event['message'])}", file=sys.stderr)
        case "turn.completed", _:
            usage = event["usage"]
            print(f"tokens: {usage['input_tokens']} in, {usage['output_tokens']} out", file=sys.stderr)


def _plain(text: str) -> str:
    """Nothing in it steers the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)
