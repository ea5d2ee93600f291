"""apply_patch for the model: as a tool, and as a command line that is one. Shown to clients before it is done.

The change itself is made by a process in the sandbox of the thread, so that a symlink in the workspace leads no
further than the policy does.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.approval import Verdict, decide_patch
from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput
from agent.model.wire import Item
from agent.sandbox.paths import flaw, normal
from agent.sandbox.plan import SandboxUnavailable
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Runner
from agent.tools.confinement import Confinement
from agent.tools.file_changes import FileChange, git_diff
from agent.tools.grants import in_force
from agent.tools.patch import AddFile, DeleteFile, Patch, PatchError, UpdateFile, apply_chunks, parse
from agent.tools.reach import Reach

NAME = "apply_patch"
_TIMEOUT_S = 60.0
_OUTPUT_BYTES = 64 * 1024
# Of a file that is changed: its content is shown, and kept for the turn.
MOST_FILE_BYTES = 16 * 1024 * 1024

# What the model writes, in the grammar language of the service (Lark).
_GRAMMAR = r"""start: begin hunk+ end
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?
hunk: add | delete | update
add: "*** Add File: " name LF added+
delete: "*** Delete File: " name LF
update: "*** Update File: " name LF move? change?
name: /(.+)/
added: "+" /(.*)/ LF
move: "*** Move to: " name LF
change: (place | line)+ eof?
place: ("@@" | "@@ " /(.+)/) LF
line: ("+" | "-" | " ") /(.*)/ LF
eof: "*** End of File" LF
%import common.LF
"""


@dataclass(frozen=True, slots=True)
class PatchInCommand:
    """A patch that stands in a command line, and the directory that the line changes to first, if it does."""

    text: str
    cwd: str | None


_HEREDOC = re.compile(
    r"\A\s*(?:cd\s+(?P<cwd>[^\s'\"&|;<>$`]+|'[^']*')\s*&&\s*)?(?:apply_patch|applypatch)\s+<<-?\s*"
    r"(?P<quote>['\"]?)(?P<end>\w+)(?P=quote)\s*\n(?P<text>.*?)\n(?P=end)\s*\Z",
    re.DOTALL,
)


def patch_in(cmd: str) -> PatchInCommand | None:
    """The patch of a command that does nothing but `[cd DIR &&] apply_patch <<EOF`."""
    found = _HEREDOC.match(cmd)
    if found is None:
        return None
    cwd = found["cwd"]
    return PatchInCommand(found["text"], cwd.strip("'") if cwd else None)


class Patching:
    """The tool."""

    def __init__(self, runner: Runner, confinement: Confinement) -> None:
        self._runner = runner
        self._confinement = confinement

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return (
            {
                "type": "custom",
                "name": NAME,
                "description": "Change files by a patch. The input is the patch itself, not JSON.",
                "format": {"type": "grammar", "syntax": "lark", "definition": _GRAMMAR},
            },
        )

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return {NAME: self._call}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass

    async def _call(self, call: ToolCall, context: CallContext) -> ToolOutput:
        return await self.apply(call, context, call.text, context.thread.cwd)

    async def apply(self, call: ToolCall, context: CallContext, text: str, cwd: str) -> ToolOutput:
        """Carry out a patch, after the client agreed where it has to.

        Args:
            cwd: What relative paths start from, absolute.
        """
        thread = context.thread
        grant = in_force(context.session, context.turn_id)
        try:
            planned = await asyncio.to_thread(
                lambda: _planned(parse(text), cwd, self._confinement.reach(thread, grant))
            )
        except (PatchError, PolicyError, OSError) as exc:
            return ToolOutput(f"apply_patch verification failed: {exc}")
        if not planned.changes:
            return ToolOutput("apply_patch verification failed: the patch changes nothing")
        touched = {real for place in planned.places.values() for real in place}
        decision = decide_patch(thread.approval_policy, inside=planned.is_inside)
        if decision.verdict is Verdict.REFUSE:
            return ToolOutput(f"patch rejected: {decision.reason}")
        item = _Shown(call, context, planned.shown)
        item.started()
        asks = decision.verdict in (Verdict.ASK, Verdict.ASK_FREE)
        if asks and not touched <= _allowed(context.session):
            refused = await self._ask(call, context, item, planned, touched)
            if refused is not None:
                return refused
        free = decision.verdict is Verdict.ASK_FREE
        return await self._carry_out(context, item, text, cwd, free, planned)

    async def _ask(
        self, call: ToolCall, context: CallContext, item: "_Shown", planned: "_Planned", touched: set[str]
    ) -> ToolOutput | None:
        # What is shown is spelled as in the patch.
        linked = sorted({real for name, (real, _) in planned.places.items() if real != _path(name, planned.cwd)})
        reason = None if planned.is_inside or not linked else f"by symbolic links it changes {', '.join(linked)}"
        params = {
            "threadId": context.thread.id,
            "turnId": context.turn_id,
            "itemId": call.id,
            "startedAtMs": item.started_ms,
            "reason": reason,
            "grantRoot": None,
        }
        with context.waiting("waitingOnApproval"):
            try:
                answer = await context.ask("item/fileChange/requestApproval", params)
                decision = answer.get("decision") if isinstance(answer, dict) else None
            except Exception:
                decision = None
            if decision == "acceptForSession":
                _allowed(context.session).update(touched)
            if decision in ("accept", "acceptForSession"):
                return None
        item.completed("declined")
        return ToolOutput("patch rejected by user", stops_turn=decision == "cancel")

    async def _carry_out(
        self, context: CallContext, item: "_Shown", text: str, cwd: str, free: bool, planned: "_Planned"
    ) -> ToolOutput:
        began = time.monotonic()
        argv = (sys.executable, "-IS", "-c", _RUN)
        # Outside of a sandbox just the files are changed that were looked at, wherever their names lead by now.
        places = planned.places if free else {}
        named = "\0".join(name for path, place in places.items() for name in (path, *place))
        try:
            grant = in_force(context.session, context.turn_id)
            make_plan, _ = self._confinement.planner(context.thread, argv, cwd, free=free, grant=grant)
            outcome = await self._runner.run(
                make_plan,
                self._confinement.tool_environment(context.thread),
                timeout_s=_TIMEOUT_S,
                max_output_bytes=_OUTPUT_BYTES,
                stdin=os.fsencode(named)
                + b"\0\0"
                + text.encode(errors="replace"),  # an argument is not longer than 128 KiB, and for all to see
            )
        except (SandboxUnavailable, PolicyError) as exc:
            item.completed("failed")
            return ToolOutput(f"apply_patch failed: {exc}")
        wall_s = time.monotonic() - began
        diffs = _diffs(context.session, context.turn_id)
        done = planned.changes
        if outcome.exit_code != 0:

            def made() -> list[FileChange]:
                return _done(planned.changes, self._confinement.reach(context.thread, grant))

            done = await asyncio.to_thread(made)
        for change in done:
            change.note(diffs)
        diff = await asyncio.to_thread(git_diff, dict(diffs), context.thread.cwd) if outcome.exit_code == 0 else None
        # From here on without a pause, to where the output is written down: a crash in between would tell the model
        # that what its client was shown was not done.
        item.completed("completed" if outcome.exit_code == 0 else "failed")
        if diff is not None:
            params = {"threadId": context.thread.id, "turnId": context.turn_id, "diff": diff}
            context.notify("turn/diff/updated", params)
        said = (outcome.stdout + outcome.stderr).decode(errors="replace")
        return ToolOutput(f"Exit code: {outcome.exit_code}\nWall time: {wall_s:.1f} seconds\nOutput:\n{said}")


def _diffs(kept: dict[str, Any], turn_id: str) -> dict[str, tuple[str | None, str | None]]:
    """What this turn has changed, see `FileChange.note`; that of the turn before is let go."""
    diffs: dict[str, tuple[str | None, str | None]]
    of, diffs = kept.get("diffs", (None, {}))
    if of != turn_id:
        diffs = {}
        kept["diffs"] = turn_id, diffs
    return diffs


def _allowed(kept: dict[str, Any]) -> set[str]:
    """Files whose changes the user has allowed in this thread."""
    allowed: set[str] = kept.setdefault("patches", set())
    return allowed


# What the process in the sandbox runs; this package may lie outside of what it could import by itself.
_ROOT = str(Path(__file__).resolve().parents[2])
_RUN = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); "
    "from agent.tools.apply_patch import run_at; sys.exit(run_at(sys.stdin.buffer.read()))"
)


@dataclass(frozen=True, slots=True)
class _Planned:
    """What a patch is about to do.

    Args:
        shown: The changes as clients see them.
        places: By the paths of the patch: the file that one leads to, and the name itself, without symlinks on the way.
        is_inside: All of them may be written in the sandbox.
    """

    cwd: str
    changes: list[FileChange]
    shown: list[dict[str, Any]]
    places: dict[str, tuple[str, str]]
    is_inside: bool


def _planned(patch: Patch, cwd: str, reach: Reach) -> _Planned:
    changes = preview(patch, cwd, reach)
    names = {hunk.path for hunk in patch.hunks}
    names |= {hunk.move_to for hunk in patch.hunks if isinstance(hunk, UpdateFile) and hunk.move_to is not None}
    places = {name: _place(_path(name, cwd)) for name in names}
    is_inside = all(reach.may_write(real) for place in places.values() for real in place)
    return _Planned(cwd, changes, [change.wire() for change in changes], places, is_inside)


def _place(path: str) -> tuple[str, str]:
    directory, name = os.path.split(path)
    return os.path.realpath(path), os.path.join(os.path.realpath(directory), name)


def preview(patch: Patch, cwd: str, reach: Reach) -> list[FileChange]:
    """What a patch would do, by path; nothing is written.

    Raises:
        PatchError, OSError: It does not fit the files, or one of them cannot be read or must not be.
    """
    held: dict[str, str | None] = {}
    changes: dict[str, FileChange] = {}

    def content(path: str) -> str:
        known = held[path] if path in held else _read(path, reach)
        if known is None:
            raise PatchError(None, f"{path}: there is no such file")
        return known

    for hunk in patch.hunks:
        path = _path(hunk.path, cwd)
        match hunk:
            case AddFile():
                try:
                    before: str | None = held[path] if path in held else _read(path, reach)
                except FileNotFoundError:
                    before = None
                change = FileChange(path, before, hunk.content)
            case DeleteFile():
                change = FileChange(path, content(path), None)
            case UpdateFile():
                before = content(path)
                after = apply_chunks(before, hunk.chunks, path)
                moved = None if hunk.move_to is None else _path(hunk.move_to, cwd)
                change = FileChange(path, before, after, moved)
        first = changes.get(path)
        changes[path] = change if first is None else FileChange(path, first.before, change.after, change.moved_to)
        held[path] = None if change.moved_to is not None else change.after
        if change.moved_to is not None:
            held[change.moved_to] = change.after
    return [changes[path] for path in sorted(changes)]


def _path(name: str, cwd: str) -> str:
    if (problem := flaw(name)) is not None:
        raise PatchError(None, f"{name!a}: the path has {problem}")
    return normal(os.path.join(cwd, name))


def _done(changes: list[FileChange], reach: Reach) -> list[FileChange]:
    """Those that were made: of a patch that fails, what came before that stays."""

    def content(path: str) -> str | None:
        try:
            return _read(path, reach)
        except FileNotFoundError:
            return None
        except (PatchError, OSError):
            return ""

    return [one for one in changes if one.before != one.after and content(one.moved_to or one.path) == one.after]


def _read(path: str, reach: Reach) -> str:
    content = reach.read(path, MOST_FILE_BYTES)
    if len(content) > MOST_FILE_BYTES:
        raise PatchError(None, f"{path}: it is longer than {MOST_FILE_BYTES >> 20} MiB; change it by a command")
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise PatchError(None, f"{path}: it is no text in UTF-8") from exc


class _Shown:
    """The fileChange item of a patch."""

    def __init__(self, call: ToolCall, context: CallContext, changes: list[dict[str, Any]]) -> None:
        self.started_ms = context.now_ms()
        self._context = context
        self._item = {
            "type": "fileChange",
            "id": call.id,
            "changes": changes,
            "status": "inProgress",
            "startedAtMs": self.started_ms,
            "completedAtMs": None,
        }

    def started(self) -> None:
        self._context.item("item/started", self._item)

    def completed(self, status: str) -> None:
        now = self._context.now_ms()
        self._context.item("item/completed", {**self._item, "status": status, "completedAtMs": now})
