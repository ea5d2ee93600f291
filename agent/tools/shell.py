"""exec_command and write_stdin: shell commands, in the sandbox of their thread unless the user lets them out."""

import asyncio
import os
import pwd
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent.core.approval import Decision, Verdict, command_words, decide_command, proposed_amendment
from agent.core.danger import removes_by_force
from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput
from agent.model.wire import Item
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Runner
from agent.tools.command import (
    EXEC,
    MOST_CMD_BYTES,
    WRITE,
    BadArguments,
    ExecCommand,
    declared,
    output_text,
    parse_exec,
    parse_write,
    shell_words,
    shown,
    workdir,
)
from agent.tools.command_actions import actions
from agent.tools.confinement import Confinement
from agent.tools.grants import NOTHING, Grant, in_force
from agent.tools.grants import wanted as permissions_wanted
from agent.tools.patching import Patching, patch_in
from agent.tools.rule_files import RuleFiles
from agent.tools.sessions import MOST_SESSIONS, Session, on_terminal
from agent.tools.shell_snapshot import ShellSnapshots
from agent.tools.shown_command import STARTUP, ShownCommand
from agent.tools.user_command import UserCommand

# A decision of the client that ends the turn, and those that let the command run.
_CANCEL = "cancel"
_YES = ("accept", "acceptForSession")
# Clients are shown a command that runs longer than this, also if it says nothing.
_SHOWN_AFTER_S = 0.15
# The feature by which commands may ask for permissions of their own.
_ADDITIONAL = "exec_permission_approvals"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a yes is for: the same words elsewhere, on a terminal or with less around them are another question.

    Args:
        words: The command, as `command_words`.
        free: Outside of the sandbox.
        grant: What it may do beyond the policy, inside.
    """

    words: tuple[str, ...]
    cwd: str
    tty: bool
    free: bool
    grant: Grant


class Shell:
    """The tools.

    Args:
        patching: Carries out a patch that a command line is.
        rules: What the user has laid down; nothing by default.
    """

    def __init__(
        self, runner: Runner, confinement: Confinement, patching: Patching, rules: RuleFiles | None = None
    ) -> None:
        self._runner = runner
        self._confinement = confinement
        self._patching = patching
        self._rules = rules or RuleFiles(None)
        self._shell = _users_shell()
        self._snapshots = ShellSnapshots(runner, confinement, self._shell)

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return declared(self._confinement.has(thread, _ADDITIONAL))

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return {EXEC: self._exec, WRITE: self._write}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        _items(session).clear()  # nobody is told of what ends with its thread
        await asyncio.gather(self._snapshots.forget(session), *(one.stop() for one in _sessions(session).values()))

    def is_busy(self, session: dict[str, Any]) -> bool:
        """Whether a command goes on that the model has started in the thread."""
        return any(not one.is_over for one in _sessions(session).values())

    def user_command(self, command: str, timeout_ms: int | None, context: CallContext) -> UserCommand:
        """A command of the user: nothing confines it, and nobody is asked."""
        return UserCommand(command, timeout_ms, context, self._runner, self._confinement, self._shell)

    # exec_command

    async def _exec(self, call: ToolCall, context: CallContext) -> ToolOutput:
        wanted = parse_exec(call.text)
        patch = patch_in(wanted.cmd)
        cwd = workdir(wanted.workdir, context.thread.cwd)
        if patch is not None:
            return await self._patching.apply(call, context, patch.text, workdir(patch.cwd, cwd))
        if len(wanted.cmd.encode(errors="replace")) > MOST_CMD_BYTES:
            raise BadArguments(f"cmd is longer than {MOST_CMD_BYTES} bytes; write it to a file and run that")
        argv = shell_words(wanted, self._shell)
        grant = granted = in_force(context.session, context.turn_id)
        if wanted.additional is not None:
            grant = self._wanted(context.thread, wanted, cwd, granted) + granted
        item = ShownCommand(call.id, context, shown(argv), wanted.cmd, STARTUP, cwd)
        # What was allowed of the user's shell was not allowed of a program that the model calls a shell.
        words = command_words(wanted.cmd, argv) if wanted.shell is None else argv
        decision = decide_command(
            context.thread.approval_policy,
            context.thread.sandbox_mode,
            escalated=wanted.escalated,
            rule=self._rules.of(wanted.cmd, words),
            dangerous=removes_by_force(wanted.cmd),
            additional=grant != granted,
            shown=item.command,
        )
        free = decision.verdict in (Verdict.RUN_FREE, Verdict.ASK_FREE)
        if decision.verdict is Verdict.REFUSE:
            return ToolOutput(decision.reason) if decision.is_whole else _rejected(decision.reason)
        asked = _Asked(words, cwd, wanted.tty, free, NOTHING if free else grant)
        if decision.verdict in (Verdict.ASK, Verdict.ASK_FREE) and asked not in _allowed(context.session):
            refused = await self._ask(call, context, wanted, item, asked, decision)
            if refused is not None:
                return refused
        return await self._run(context, wanted, item, free, grant)

    def _wanted(self, thread: Thread, wanted: ExecCommand, cwd: str, granted: Grant) -> Grant:
        """The permissions that a command should have for itself; nothing if they were granted already."""
        asked = permissions_wanted(wanted.additional, self._confinement.absolute(cwd))
        if not asked:
            raise BadArguments(
                "`additional_permissions` must include at least one requested permission in `network` or `file_system`"
            )
        if granted.includes(asked):
            return NOTHING
        if not self._confinement.has(thread, _ADDITIONAL):
            raise BadArguments(
                "additional permissions are disabled; enable `features.exec_permission_approvals` before using "
                "`with_additional_permissions`"
            )
        return asked

    async def _ask(
        self,
        call: ToolCall,
        context: CallContext,
        wanted: ExecCommand,
        item: ShownCommand,
        asked: "_Asked",
        decision: Decision,
    ) -> ToolOutput | None:
        """None if the client lets it run; else what the model is told."""
        with context.waiting("waitingOnApproval"):
            item.started(source="agent")
            params: dict[str, Any] = {
                "kind": "command",
                "threadId": context.thread.id,
                "turnId": context.turn_id,
                "itemId": call.id,
                "startedAtMs": item.started_ms,
                "environmentId": "local",
            }
            if (reason := decision.reason or wanted.justification) is not None:
                params["reason"] = reason
            argv = shell_words(wanted, self._shell)
            amendment = list(asked.words) if wanted.shell else proposed_amendment(wanted.cmd, argv, wanted.prefix)
            params |= {
                "command": item.command,
                "cwd": item.cwd,
                "commandActions": actions(wanted.cmd, item.cwd),
                "availableDecisions": ["accept", _CANCEL],
            }
            if asked.grant:
                params |= {"additionalPermissions": asked.grant.wire(), "proposedExecpolicyAmendment": amendment}
            elif decision.can_amend:
                allow = {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": amendment}}
                params["proposedExecpolicyAmendment"] = amendment
                params["availableDecisions"] = ["accept", allow, _CANCEL]
            try:
                answer = await context.ask("item/commandExecution/requestApproval", params)
            except Exception:
                item.completed("failed")
                return _rejected("approval request failed")
            said = answer.get("decision") if isinstance(answer, dict) else None
            if (prefix := _amendment(said)) is not None:
                if prefix and decision.can_amend and not asked.grant:
                    await asyncio.to_thread(self._rules.amend, prefix)
                return None
            if said in _YES:
                if said == "acceptForSession":
                    _allowed(context.session).add(asked)
                return None
            if said not in ("decline", _CANCEL):
                item.completed("failed")
                return _rejected("approval request failed")
            item.completed("declined")
            return _rejected("rejected by user", stops_turn=said == _CANCEL)

    async def _run(
        self, context: CallContext, wanted: ExecCommand, item: ShownCommand, free: bool, grant: Grant
    ) -> ToolOutput:
        thread = context.thread
        words, environ = shell_words(wanted, self._shell), self._confinement.model_environment(thread, item.id)
        # On a terminal a profile may do something else.
        by_snapshot = wanted.login and wanted.shell is None and not wanted.tty and not free
        snapshot = self._snapshots.ready(thread, context.session) if by_snapshot else None
        if snapshot is not None:
            words, more = snapshot.command(self._shell, wanted.cmd)
            environ = {**self._snapshots.environment(thread, snapshot, environ), **more}
        try:
            argv = on_terminal(words) if wanted.tty else words
            make_plan, _ = self._confinement.planner(thread, argv, item.cwd, free=free, grant=grant)
        except PolicyError as exc:
            item.completed("failed")
            return ToolOutput(f"exec_command failed: the sandbox policy cannot be used: {exc}")
        session = Session(item.output, tty=wanted.tty)
        item.process_id = str(session.id)
        session.start(self._runner, make_plan, environ)
        try:
            await session.wait(min(_SHOWN_AFTER_S, wanted.yield_s))
            if not session.is_over:
                item.begin()
                await session.wait(wanted.yield_s - _SHOWN_AFTER_S)
        except asyncio.CancelledError:
            await session.stop()
            raise
        if session.failure is not None:
            item.completed("failed")
            return ToolOutput(f"exec_command failed: {session.failure}")
        if by_snapshot:
            self._snapshots.begin(thread, context.session)
        item.begin()
        _items(context.session)[session.id] = item
        sessions = _sessions(context.session)
        if not session.is_over:
            sessions[session.id] = session
            session.when_over(lambda: _end(context.session, session))
            while len(sessions) > MOST_SESSIONS:
                await sessions.pop(next(iter(sessions))).stop()
        return self._told(context, session, session.began, wanted.output_bytes)

    # write_stdin

    async def _write(self, call: ToolCall, context: CallContext) -> ToolOutput:
        wanted = parse_write(call.text)
        session = _sessions(context.session).get(wanted.session_id)
        if session is None:
            return ToolOutput(f"write_stdin failed: Unknown process id {wanted.session_id}")
        began = time.monotonic()
        if wanted.chars:
            if not session.tty:
                raise BadArguments(
                    "write_stdin failed: stdin is closed for this session; "
                    "rerun exec_command with tty=true to keep it open"
                )
            if (item := _items(context.session).get(session.id)) is not None:
                talk = {"processId": str(session.id), "stdin": wanted.chars}
                context.delta("item/commandExecution/terminalInteraction", item.id, **talk)
            try:
                await session.write(wanted.chars.encode(errors="replace"))
            except TimeoutError:
                return ToolOutput("write_stdin failed: the command does not read what it is told")
        await session.wait(wanted.yield_s)
        return self._told(context, session, began, wanted.output_bytes)

    def _told(self, context: CallContext, session: Session, began: float, output_bytes: int) -> ToolOutput:
        output, dropped = session.said.take()
        code: int | None = None
        if session.is_over:
            _sessions(context.session).pop(session.id, None)
            code = _end(context.session, session)
        wall_s = time.monotonic() - began
        return ToolOutput(
            output_text(wall_s, output, output_bytes, exit_code=code, session_id=session.id, dropped=dropped)
        )


def _sessions(kept: dict[str, Any]) -> dict[int, Session]:
    sessions: dict[int, Session] = kept.setdefault("sessions", {})
    return sessions


def _end(kept: dict[str, Any], session: Session) -> int:
    """The exit code of a command that has ended; the clients that were shown it are told, once."""
    code = session.outcome.exit_code if session.outcome is not None else 1
    if (item := _items(kept).pop(session.id, None)) is not None:
        item.completed("completed" if code == 0 else "failed", session.all.text(), code)
    return code


def _items(kept: dict[str, Any]) -> dict[int, ShownCommand]:
    items: dict[int, ShownCommand] = kept.setdefault("items", {})
    return items


def _allowed(kept: dict[str, Any]) -> set[_Asked]:
    """What the user has allowed to run in this thread, again and again."""
    allowed: set[_Asked] = kept.setdefault("allowed", set())
    return allowed


def _amendment(said: Any) -> tuple[str, ...] | None:
    """Beginnings of commands that a client allows for good with its yes; None if it says something else."""
    match said:
        case {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": [*words]}} if len(said) == 1:
            return tuple(words) if all(isinstance(word, str) for word in words) else None
        case _:
            return None


def _rejected(reason: str, *, stops_turn: bool = False) -> ToolOutput:
    """In the words that the model knows from the original."""
    return ToolOutput(f'exec_command failed: CreateProcess {{ message: "Rejected(\\"{reason}\\")" }}', stops_turn)


def _users_shell() -> str:
    """The shell of this user, if it is one that we know to take -lc; else bash or sh."""
    try:
        shell = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        shell = ""
    if os.path.basename(shell) in ("bash", "zsh", "sh", "dash") and os.access(shell, os.X_OK):
        return shell
    return "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
