"""exec_command and write_stdin: shell commands, in the sandbox of their thread unless the user lets them out."""

import asyncio
import os
import pwd
import time
from collections.abc import Awaitable, Callable
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


class Shell:
    """The tools.

    Args:
        patching: Carries out a patch that a command line is.
        rules: What the user has laid down; nothing by default.
        additional: Commands may ask for permissions of their own.
        snapshots: The user's profile is read once for a thread.
    """

    def __init__(
        self,
        runner: Runner,
        confinement: Confinement,
        patching: Patching,
        rules: RuleFiles | None = None,
        *,
        additional: bool = False,
        snapshots: bool = True,
    ) -> None:
        self._additional = additional
        self._runner = runner
        self._confinement = confinement
        self._patching = patching
        self._rules = rules or RuleFiles(None)
        self._shell = _users_shell()
        self._snapshots = ShellSnapshots(runner, confinement, self._shell, enabled=snapshots)

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return declared(self._additional)

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return {EXEC: self._exec, WRITE: self._write}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
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
        if patch is not None:
            return await self._patching.apply(call, context, patch.text, workdir(patch.cwd, context.thread.cwd))
        argv = shell_words(wanted, self._shell)
        cwd = workdir(wanted.workdir, context.thread.cwd)
        grant = granted = in_force(context.session, context.turn_id)
        if wanted.additional is not None:
            grant = self._wanted(wanted, cwd, granted) + granted
        item = ShownCommand(call.id, context, shown(argv), wanted.cmd, STARTUP, cwd)
        # What was allowed of the user's shell was not allowed of a program that the model calls a shell.
        words = command_words(wanted.cmd, argv) if wanted.shell is None else argv
        decision = decide_command(
            context.thread.approval_policy,
            context.thread.sandbox_mode,
            escalated=wanted.escalated,
            words=words,
            allowed=_allowed(context.session),
            rule=self._rules.of(wanted.cmd, words),
            dangerous=removes_by_force(wanted.cmd),
            additional=grant != granted and (words, grant) not in _allowed_with(context.session),
            shown=item.command,
        )
        free = decision.verdict in (Verdict.RUN_FREE, Verdict.ASK_FREE)
        if decision.verdict is Verdict.REFUSE:
            return ToolOutput(decision.reason) if decision.is_whole else _rejected(decision.reason)
        if decision.verdict in (Verdict.ASK, Verdict.ASK_FREE):
            refused = await self._ask(call, context, wanted, item, words, decision, NOTHING if free else grant)
            if refused is not None:
                return refused
        return await self._run(context, wanted, item, free, grant)

    def _wanted(self, wanted: ExecCommand, cwd: str, granted: Grant) -> Grant:
        """The permissions that a command should have for itself; nothing if they were granted already."""
        asked = permissions_wanted(wanted.additional, self._confinement.absolute(cwd))
        if not asked:
            raise BadArguments(
                "`additional_permissions` must include at least one requested permission in `network` or `file_system`"
            )
        if granted.includes(asked):
            return NOTHING
        if not self._additional:
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
        words: tuple[str, ...],
        decision: Decision,
        grant: Grant,
    ) -> ToolOutput | None:
        """None if the client lets it run; else what the model is told.

        Args:
            grant: What it may do beyond the policy, if it stays in the sandbox.
        """
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
            amendment = list(words) if wanted.shell else proposed_amendment(wanted.cmd, argv, wanted.prefix)
            params |= {
                "command": item.command,
                "cwd": item.cwd,
                "commandActions": actions(wanted.cmd, item.cwd),
                "availableDecisions": ["accept", _CANCEL],
            }
            if grant:
                params |= {"additionalPermissions": grant.wire(), "proposedExecpolicyAmendment": amendment}
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
            if isinstance(said, dict) and "acceptWithExecpolicyAmendment" in said:
                accepted = said["acceptWithExecpolicyAmendment"]
                given = accepted.get("execpolicy_amendment") if isinstance(accepted, dict) else None
                if decision.can_amend and not grant:
                    prefix = tuple(_words(given) or amendment)
                    _allowed(context.session).add(prefix)
                    await asyncio.to_thread(self._rules.amend, prefix)
                return None
            if said in _YES:
                if said == "acceptForSession" and grant:
                    _allowed_with(context.session).add((words, grant))
                elif said == "acceptForSession":
                    _allowed(context.session).add(words)
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
            environ = {**self._snapshots.environment(snapshot, environ), **more}
        try:
            argv = on_terminal(words) if wanted.tty else words
            make_plan, _ = self._confinement.planner(thread, argv, item.cwd, free=free, grant=grant)
        except PolicyError as exc:
            return ToolOutput(f"exec_command failed: the sandbox policy cannot be used: {exc}")
        session = Session(item.output, tty=wanted.tty)
        item.process_id = str(session.id)
        session.start(self._runner, make_plan, environ)
        try:
            await session.wait(wanted.yield_s)
        except asyncio.CancelledError:
            await session.stop()
            raise
        if session.failure is not None:
            return ToolOutput(f"exec_command failed: {session.failure}")
        if by_snapshot:
            self._snapshots.begin(thread, context.session)
        item.begin()
        sessions = _sessions(context.session)
        if not session.is_over:
            sessions[session.id] = session
            context.session.setdefault("items", {})[session.id] = item
            while len(sessions) > MOST_SESSIONS:
                await sessions.pop(next(iter(sessions))).stop()
        return self._told(context, session, item, session.began, wanted.output_bytes)

    # write_stdin

    async def _write(self, call: ToolCall, context: CallContext) -> ToolOutput:
        wanted = parse_write(call.text)
        session = _sessions(context.session).get(wanted.session_id)
        if session is None:
            return ToolOutput(f"write_stdin failed: Unknown process id {wanted.session_id}")
        item: ShownCommand = context.session["items"][session.id]
        began = time.monotonic()
        if wanted.chars:
            if not session.tty:
                raise BadArguments(
                    "write_stdin failed: stdin is closed for this session; "
                    "rerun exec_command with tty=true to keep it open"
                )
            context.delta(
                "item/commandExecution/terminalInteraction", item.id, processId=str(session.id), stdin=wanted.chars
            )
            try:
                await session.write(wanted.chars.encode(errors="replace"))
            except TimeoutError:
                return ToolOutput("write_stdin failed: the command does not read what it is told")
        await session.wait(wanted.yield_s)
        return self._told(context, session, item, began, wanted.output_bytes)

    def _told(
        self, context: CallContext, session: Session, item: ShownCommand, began: float, output_bytes: int
    ) -> ToolOutput:
        output, dropped = session.said.take()
        code: int | None = None
        if session.is_over:
            _sessions(context.session).pop(session.id, None)
            context.session.get("items", {}).pop(session.id, None)
            code = session.outcome.exit_code if session.outcome is not None else 1
            item.completed("completed" if code == 0 else "failed", session.all.text(), code)
        wall_s = time.monotonic() - began
        return ToolOutput(
            output_text(wall_s, output, output_bytes, exit_code=code, session_id=session.id, dropped=dropped)
        )


def _sessions(kept: dict[str, Any]) -> dict[int, Session]:
    sessions: dict[int, Session] = kept.setdefault("sessions", {})
    return sessions


def _allowed(kept: dict[str, Any]) -> set[tuple[str, ...]]:
    """Beginnings of commands that the user has allowed in this thread."""
    allowed: set[tuple[str, ...]] = kept.setdefault("allowed", set())
    return allowed


def _allowed_with(kept: dict[str, Any]) -> set[tuple[tuple[str, ...], Grant]]:
    """Commands that the user has allowed in this thread with permissions of their own."""
    allowed: set[tuple[tuple[str, ...], Grant]] = kept.setdefault("allowed with", set())
    return allowed


def _words(given: Any) -> list[str]:
    return given if isinstance(given, list) and all(isinstance(word, str) for word in given) else []


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
