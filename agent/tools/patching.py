"""apply_patch for the model: as a tool, and as a command line that is one. Shown to clients before it is done.

The change itself is made by a process in the sandbox of the thread, so that a symlink in the workspace leads no
further than the policy does.
"""

import asyncio
import difflib
import hashlib
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
from agent.sandbox.plan import SandboxUnavailable
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Runner
from agent.tools.confinement import Confinement
from agent.tools.grants import in_force
from agent.tools.patch import AddFile, DeleteFile, Patch, PatchError, UpdateFile, apply_chunks, parse

NAME = "apply_patch"
_TIMEOUT_S = 60.0
_OUTPUT_BYTES = 64 * 1024

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
        try:
            patch = parse(text)
            changes = await asyncio.to_thread(preview, patch, cwd)
        except (PatchError, OSError) as exc:
            return ToolOutput(f"apply_patch verification failed: {exc}")
        if not changes:
            return ToolOutput("apply_patch verification failed: the patch changes nothing")
        thread = context.thread
        touched = [path for change in changes for path in (change.path, change.moved_to) if path]
        grant = in_force(context.session, context.turn_id)
        decision = decide_patch(
            thread.approval_policy,
            inside=all(self._confinement.may_write(thread, path, grant) for path in touched),
            allowed=set(touched) <= _allowed(context.session),
        )
        if decision.verdict is Verdict.REFUSE:
            return ToolOutput(f"patch rejected: {decision.reason}")
        item = _Shown(call, context, changes)
        item.started()
        free = decision.verdict in (Verdict.RUN_FREE, Verdict.ASK_FREE)
        if decision.verdict is Verdict.ASK_FREE:
            refused = await self._ask(call, context, item, touched)
            if refused is not None:
                return refused
        return await self._carry_out(context, item, text, cwd, free, changes)

    async def _ask(self, call: ToolCall, context: CallContext, item: "_Shown", touched: list[str]) -> ToolOutput | None:
        params = {
            "threadId": context.thread.id,
            "turnId": context.turn_id,
            "itemId": call.id,
            "startedAtMs": item.started_ms,
            "reason": None,
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
        self, context: CallContext, item: "_Shown", text: str, cwd: str, free: bool, changes: list["FileChange"]
    ) -> ToolOutput:
        began = time.monotonic()
        argv = (sys.executable, "-IS", "-c", _RUN)
        try:
            grant = in_force(context.session, context.turn_id)
            make_plan, _ = self._confinement.planner(context.thread, argv, cwd, free=free, grant=grant)
            outcome = await self._runner.run(
                make_plan,
                self._confinement.tool_environment(context.thread),
                timeout_s=_TIMEOUT_S,
                max_output_bytes=_OUTPUT_BYTES,
                stdin=text.encode(errors="replace"),  # an argument is not longer than 128 KiB, and for all to see
            )
        except (SandboxUnavailable, PolicyError) as exc:
            item.completed("failed")
            return ToolOutput(f"apply_patch failed: {exc}")
        item.completed("completed" if outcome.exit_code == 0 else "failed")
        diffs = _diffs(context.session, context.turn_id)
        for change in changes:
            change.note(diffs)
        if outcome.exit_code == 0:
            diff = git_diff(diffs, context.thread.cwd)
            params = {"threadId": context.thread.id, "turnId": context.turn_id, "diff": diff}
            context.notify("turn/diff/updated", params)
        said = (outcome.stdout + outcome.stderr).decode(errors="replace")
        wall_s = time.monotonic() - began
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
    "from agent.tools.apply_patch import run_as; sys.exit(run_as([sys.stdin.buffer.read().decode()]))"
)


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a patch does to one file; None for a content where there is no file.

    Args:
        path: Absolute.
        moved_to: Absolute, None if it stays.
    """

    path: str
    before: str | None
    after: str | None
    moved_to: str | None = None

    def wire(self) -> dict[str, Any]:
        """As clients see it."""
        if self.before is None:
            return {"path": self.path, "kind": {"type": "add"}, "diff": self.after or ""}
        if self.after is None:
            return {"path": self.path, "kind": {"type": "delete"}, "diff": self.before}
        kind = {"type": "update", "move_path": self.moved_to}
        diff = _hunks(self.before, self.after)
        if self.moved_to is not None:
            diff += f"\n\nMoved to: {self.moved_to}"
        return {"path": self.path, "kind": kind, "diff": diff}

    def note(self, diffs: dict[str, tuple[str | None, str | None]]) -> None:
        """Add it to what a turn has changed: the content of each file before, and now."""
        if self.moved_to is not None:
            diffs[self.path] = (diffs.get(self.path, (self.before, None))[0], None)
            diffs[self.moved_to] = (diffs.get(self.moved_to, (None, None))[0], self.after)
        else:
            diffs[self.path] = (diffs.get(self.path, (self.before, None))[0], self.after)


def preview(patch: Patch, cwd: str) -> list[FileChange]:
    """What a patch would do, by path; nothing is written.

    Raises:
        PatchError, OSError: It does not fit the files.
    """
    held: dict[str, str | None] = {}
    changes: dict[str, FileChange] = {}

    def content(path: str) -> str:
        known = held[path] if path in held else _read(path)
        if known is None:
            raise PatchError(None, f"{path}: there is no such file")
        return known

    for hunk in patch.hunks:
        path = os.path.normpath(os.path.join(cwd, hunk.path))
        match hunk:
            case AddFile():
                before: str | None = held[path] if path in held else (_read(path) if os.path.exists(path) else None)
                change = FileChange(path, before, hunk.content)
            case DeleteFile():
                change = FileChange(path, content(path), None)
            case UpdateFile():
                before = content(path)
                after = apply_chunks(before, hunk.chunks, path)
                moved = None if hunk.move_to is None else os.path.normpath(os.path.join(cwd, hunk.move_to))
                change = FileChange(path, before, after, moved)
        first = changes.get(path)
        changes[path] = change if first is None else FileChange(path, first.before, change.after, change.moved_to)
        held[path] = None if change.moved_to is not None else change.after
        if change.moved_to is not None:
            held[change.moved_to] = change.after
    return [changes[path] for path in sorted(changes)]


def _read(path: str) -> str:
    with open(path, encoding="utf-8", newline="") as file:
        try:
            return file.read()
        except UnicodeDecodeError as exc:
            raise PatchError(None, f"{path}: it is no text in UTF-8") from exc


def _hunks(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), n=3)
    return "".join(_ended(line) for line in list(lines)[2:])


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def git_diff(diffs: dict[str, tuple[str | None, str | None]], cwd: str) -> str:
    """What a turn has changed, as git shows it; paths below `cwd` are relative to it."""
    parts = []
    for path in sorted(diffs):
        before, after = diffs[path]
        if before == after:
            continue
        name = os.path.relpath(path, cwd) if path.startswith(cwd.rstrip("/") + "/") else path
        parts.append(f"diff --git a/{name} b/{name}\n")
        if before is None:
            parts.append("new file mode 100644\n")
        if after is None:
            parts.append("deleted file mode 100644\n")
        parts.append(f"index {_blob(before)}..{_blob(after)}\n")
        parts.append(f"--- {'/dev/null' if before is None else f'a/{name}'}\n")
        parts.append(f"+++ {'/dev/null' if after is None else f'b/{name}'}\n")
        parts.append(_hunks(before or "", after or ""))
    return "".join(parts)


def _blob(content: str | None) -> str:
    """The name that git gives to a content."""
    if content is None:
        return "0" * 40
    raw = content.encode("utf-8", "surrogatepass")
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()


class _Shown:
    """The fileChange item of a patch."""

    def __init__(self, call: ToolCall, context: CallContext, changes: list[FileChange]) -> None:
        self.started_ms = context.now_ms()
        self._context = context
        self._item = {
            "type": "fileChange",
            "id": call.id,
            "changes": [change.wire() for change in changes],
            "status": "inProgress",
            "startedAtMs": self.started_ms,
            "completedAtMs": None,
        }

    def started(self) -> None:
        self._context.item("item/started", self._item)

    def completed(self, status: str) -> None:
        now = self._context.now_ms()
        self._context.item("item/completed", {**self._item, "status": status, "completedAtMs": now})
