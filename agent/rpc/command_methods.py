"""`command/exec` and what is said to such a command later: a client runs one without a thread, in the sandbox.

A command belongs to its connection: its id means nothing to others, and it dies when the client leaves.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from agent.rpc.command_params import EXEC, RESIZE, TERMINATE, WRITE
from agent.rpc.file_methods import os_error
from agent.rpc.input import NAME
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.process_streams import Capture, CaptureFull, Input, PipeInput, Terminal
from agent.rpc.server import Answer, Connection, Method, Methods
from agent.rpc.thread_pages import given
from agent.sandbox.environment import apply, parse_environment_policy
from agent.sandbox.host import look, places
from agent.sandbox.legacy import READ_ONLY, LegacyPolicy, Mode, to_profile
from agent.sandbox.paths import flaw
from agent.sandbox.plan import Command, Options, SandboxPlan, SandboxUnavailable, plan
from agent.sandbox.policy import Policy, PolicyError, Profile, resolve
from agent.sandbox.profile_toml import default_profile, legacy_policy, named_profile
from agent.sandbox.run import Runner

# As in the original, where a request names none.
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_OUTPUT_BYTES = 1024 * 1024
# Of each stream, also without a cap: what is buffered has to be held, and sent as one message.
MOST_OUTPUT_BYTES = 32 * 1024 * 1024
# Of a command that was terminated (observed).
KILLED = 137


class _Running:
    """A command, from its request to its answer."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.input: Input | None = None
        self.is_terminated = False

    def terminate(self) -> None:
        """Kill it and all that it started, also before it has begun."""
        self.is_terminated = True
        if self.task is not None:
            self.task.cancel()


class CommandMethods:
    """The methods.

    Args:
        config: config.toml with the overrides; says how a command is confined whose request does not.
        options: Of the sandbox.
        own_proxy: () -> (host:port of our proxy, loopback ports that stamp, directories of our certificates): what no
            command may have.
        environ: Of this process.
        home: CODEX_HOME.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        config: dict[str, Any],
        options: Options,
        own_proxy: Callable[[], tuple[str | None, frozenset[int], tuple[str, ...]]],
        environ: Mapping[str, str],
        home: str,
    ) -> None:
        self._runner = runner
        self._config = config
        self._options = options
        self._own_proxy = own_proxy
        self._environ = environ
        self._home = home
        self._running: dict[tuple[int, str], _Running] = {}

    def table(self) -> Methods:
        """The rows."""
        return {
            "command/exec": Method(given(EXEC), self._exec),
            "command/exec/write": Method(given(WRITE), self._write),
            "command/exec/resize": Method(given(RESIZE), self._resize),
            "command/exec/terminate": Method(given(TERMINATE), self._terminate),
        }

    # command/exec

    async def _exec(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        _check(wanted)
        process_id = wanted.get("processId")
        running = _Running()
        key = (connection.number, process_id or "")
        # Before anything is awaited: what is said to the command may come right behind.
        if process_id is not None:
            if key in self._running:
                shown = json.dumps(process_id, ensure_ascii=False)
                raise RequestFailed(INVALID_REQUEST, f"duplicate active command/exec process id: {shown}")
            self._running[key] = running
        try:
            return Answer(await self._carried_out(connection, running, wanted))
        finally:
            if process_id is not None:
                del self._running[key]

    async def _carried_out(self, connection: Connection, running: _Running, wanted: dict[str, Any]) -> dict[str, Any]:
        capture = Capture(_cap(wanted), wanted.get("disableOutputCap", False))
        if wanted.get("tty") or wanted.get("streamStdoutStderr"):
            capture.stream = lambda name, piece, full: connection.notify(
                "command/exec/outputDelta",
                {
                    "processId": wanted["processId"],
                    "stream": name,
                    "deltaBase64": base64.b64encode(piece).decode(),
                    "capReached": full,
                },
            )
        with contextlib.ExitStack() as stack:
            try:
                if wanted.get("tty"):
                    cells = wanted.get("size")
                    terminal = Terminal(capture, None if cells is None else (cells["rows"], cells["cols"]))
                    running.input = stack.enter_context(terminal)
                elif wanted.get("streamStdin"):
                    running.input = stack.enter_context(PipeInput())
            except OSError as exc:
                raise _not_spawned(os_error(exc)) from exc
            make_plan = self._planner(wanted)
            running.task = asyncio.create_task(
                self._runner.run(
                    make_plan,
                    self._tool_environment(wanted),
                    timeout_s=_timeout_s(wanted),
                    max_output_bytes=0,
                    on_output=capture.add,
                    **({} if running.input is None else running.input.for_runner()),
                )
            )
            capture.on_full = running.task.cancel
            await _over(running.task)
            if running.input is not None:
                running.input.ended()
        return _result(running, capture)

    def _planner(self, wanted: dict[str, Any]) -> Callable[[], SandboxPlan]:
        cwd = os.path.abspath(wanted.get("cwd") or ".")
        try:
            policy = self._policy(wanted.get("sandboxPolicy"), cwd)
        except PolicyError as exc:
            raise RequestFailed(INVALID_REQUEST, f"invalid sandbox policy: {exc}") from exc
        command = Command(tuple(wanted["command"]), cwd)

        def make_plan() -> SandboxPlan:
            host = look(policy, cwd, self._options, self._environ, self._own_proxy()[1])
            return plan(policy, command, host, self._options)

        return make_plan

    def _policy(self, asked: dict[str, Any] | None, cwd: str) -> Policy:
        if asked is not None:
            return resolve(_asked_profile(asked), places(cwd, self._environ))
        user_home = os.path.expanduser("~")
        name = default_profile(self._config)
        if name is not None:
            found = named_profile(name, self._config, user_home, cwd)
            return resolve(found.profile, places(cwd, self._environ, found.workspace_roots))
        legacy = legacy_policy(self._config, user_home, self._home)
        return resolve(READ_ONLY if legacy is None else to_profile(legacy), places(cwd, self._environ))

    def _tool_environment(self, wanted: dict[str, Any]) -> dict[str, str]:
        """What a tool may see of ours, and over it what the client says."""
        address, _, directories = self._own_proxy()
        try:
            policy = parse_environment_policy(self._config)
        except PolicyError as exc:
            raise RequestFailed(INVALID_REQUEST, f"failed to load configuration: {exc}") from exc
        held: dict[str, str | None] = {**apply(policy, self._environ, address, directories)}
        for name, value in (wanted.get("env") or {}).items():
            if not name or "=" in name or "\0" in f"{name}{value or ''}":
                text = f"env has the name {name!r}; a name is not empty and has no '=', and nothing has a NUL"
                raise RequestFailed(INVALID_REQUEST, text)
            held[name] = value
        return {name: value for name, value in held.items() if value is not None}

    # What is said to it

    def _found(self, connection: Connection, wanted: dict[str, Any]) -> _Running:
        running = self._running.get((connection.number, wanted["processId"]))
        if running is None:
            shown = json.dumps(wanted["processId"], ensure_ascii=False)
            raise RequestFailed(INVALID_REQUEST, f"no active command/exec for process id {shown}")
        return running

    async def _write(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        delta, closes = wanted.get("deltaBase64"), wanted.get("closeStdin", False)
        if delta is None and not closes:
            raise RequestFailed(INVALID_REQUEST, "command/exec/write requires deltaBase64 or closeStdin")
        try:
            content = base64.b64decode(delta or "", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise RequestFailed(INVALID_REQUEST, f"invalid deltaBase64: {exc}") from exc
        running = self._found(connection, wanted)
        if running.input is None:
            raise RequestFailed(INVALID_REQUEST, "stdin streaming is not enabled for this command/exec")
        try:
            await running.input.write(content, closes=closes)
        except OSError as exc:
            raise RequestFailed(INVALID_REQUEST, "stdin is already closed") from exc
        return Answer({})

    async def _resize(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        cells = _sized(wanted["size"])
        running = self._found(connection, wanted)
        if not isinstance(running.input, Terminal):
            raise RequestFailed(INVALID_REQUEST, "command/exec was not started with tty: it has no size")
        running.input.resize(cells["rows"], cells["cols"])
        return Answer({})

    async def _terminate(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        return Answer({}, self._found(connection, wanted).terminate)


async def _over(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a command. If we are cancelled, since the client has gone, it is killed first."""
    given_up = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:  # the server may say so twice
            given_up = True
            task.cancel()
    if given_up:
        raise asyncio.CancelledError


def _check(wanted: dict[str, Any]) -> None:
    """What can be said of a request as it stands, in the original's order."""
    interactive = [name for name in ("tty", "streamStdin", "streamStdoutStderr") if wanted.get(name)]
    refusal = None
    if not wanted["command"]:
        refusal = "command must not be empty"
    elif any("\0" in word for word in wanted["command"]):
        refusal = "command must not hold a NUL"
    elif (problem := flaw(wanted.get("cwd") or "")) is not None:
        refusal = f"cwd has {problem}"
    elif wanted.get("permissionProfile") is not None:
        refusal = f"command/exec.permissionProfile is not supported by {NAME}; give a sandboxPolicy"
    elif wanted.get("size") is not None and not wanted.get("tty"):
        refusal = "command/exec size requires tty: true"
    elif wanted.get("disableOutputCap") and wanted.get("outputBytesCap") is not None:
        refusal = "command/exec cannot set both outputBytesCap and disableOutputCap"
    elif wanted.get("disableTimeout") and wanted.get("timeoutMs") is not None:
        refusal = "command/exec cannot set both timeoutMs and disableTimeout"
    elif (wanted.get("timeoutMs") or 0) < 0:
        refusal = f"command/exec timeoutMs must be non-negative, got {wanted['timeoutMs']}"
    elif interactive and wanted.get("processId") is None:
        refusal = "command/exec tty or streaming requires a client-supplied processId"
    if refusal is not None:
        raise RequestFailed(INVALID_REQUEST, refusal)
    if wanted.get("size") is not None:
        _sized(wanted["size"])


def _sized(cells: dict[str, int]) -> dict[str, int]:
    if not cells["rows"] or not cells["cols"]:
        raise RequestFailed(INVALID_REQUEST, "command/exec size rows and cols must be greater than 0")
    return cells


def _cap(wanted: dict[str, Any]) -> int:
    if wanted.get("disableOutputCap"):
        return MOST_OUTPUT_BYTES
    cap = wanted.get("outputBytesCap")
    return DEFAULT_OUTPUT_BYTES if cap is None else min(int(cap), MOST_OUTPUT_BYTES)


def _timeout_s(wanted: dict[str, Any]) -> float | None:
    if wanted.get("disableTimeout"):
        return None
    timeout_ms = wanted.get("timeoutMs")
    # An end that nobody lives to see is none, and a loop's clock cannot count that far.
    if timeout_ms is not None and timeout_ms > 2**40:
        return None
    return DEFAULT_TIMEOUT_S if timeout_ms is None else timeout_ms / 1000


def _asked_profile(asked: dict[str, Any]) -> Profile:
    network = asked.get("networkAccess") in (True, "enabled")
    match asked["type"]:
        case "dangerFullAccess":
            legacy = LegacyPolicy(Mode.DANGER_FULL_ACCESS)
        case "externalSandbox":
            legacy = LegacyPolicy(Mode.EXTERNAL, network_access=network)
        case "workspaceWrite":
            legacy = LegacyPolicy(
                Mode.WORKSPACE_WRITE,
                tuple(asked.get("writableRoots", ())),
                network,
                asked.get("excludeTmpdirEnvVar", False),
                asked.get("excludeSlashTmp", False),
            )
        case _:
            legacy = LegacyPolicy(Mode.READ_ONLY, network_access=network)
    return to_profile(legacy)


def _result(running: _Running, capture: Capture) -> dict[str, Any]:
    assert running.task is not None
    if running.task.cancelled():
        if isinstance(capture.failure, CaptureFull):
            raise RequestFailed(INTERNAL_ERROR, str(capture.failure))
        assert running.is_terminated, "nobody else cancels it"
        code = KILLED
    else:
        exc = running.task.exception()
        if isinstance(exc, SandboxUnavailable):
            # The system's own word where the command could not be started, as in the original.
            why = os_error(exc.__cause__) if isinstance(exc.__cause__, OSError) else str(exc)
            raise _not_spawned(why) from exc
        if isinstance(exc, PolicyError):
            raise RequestFailed(INVALID_REQUEST, f"invalid sandbox policy: {exc}") from exc
        if exc is not None:
            raise exc
        code = running.task.result().exit_code
    return {"exitCode": code, "stdout": capture.text("stdout"), "stderr": capture.text("stderr")}


def _not_spawned(why: str) -> RequestFailed:
    return RequestFailed(INTERNAL_ERROR, f"failed to spawn command: {why}")
