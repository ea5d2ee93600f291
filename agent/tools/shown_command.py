"""A command as the clients of its thread see it."""

import codecs
from typing import Any

from agent.core.tooling import CallContext
from agent.tools.command_actions import actions
from agent.tools.sessions import MOST_KEPT_BYTES

# Who started a command, once it runs; one that waits for an approval is the agent's.
STARTUP, USER = "unifiedExecStartup", "userShell"


class ShownCommand:
    """The commandExecution item of a command.

    Args:
        command: As clients are shown it.
        cmd: As it was given.
        source: What clients are told of who started it, once it runs.
        cwd: Where it runs.
    """

    def __init__(self, item_id: str, context: CallContext, command: str, cmd: str, source: str, cwd: str) -> None:
        self.id = item_id
        self.cwd = cwd
        self.command = command
        self.started_ms = context.now_ms()
        self.process_id: str | None = None
        self._context = context
        self._cmd = cmd
        self._source = source
        self._is_shown = False
        self._is_over = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unshown_bytes = MOST_KEPT_BYTES  # the end of a long output is in the completed item

    def started(self, source: str) -> None:
        """Show it before it runs."""
        self._is_shown = True
        self._context.item("item/started", self._wire("inProgress", source))

    def begin(self) -> None:
        """It runs: show it, unless that was done."""
        if not self._is_shown:
            self.started(self._source)

    def output(self, piece: bytes) -> None:
        """It said something."""
        if self._is_over:
            return
        self.begin()
        if self._unshown_bytes <= 0:
            return
        self._unshown_bytes -= len(piece)
        # A letter may lie in two pieces.
        if text := self._decoder.decode(piece):
            self._context.delta("item/commandExecution/outputDelta", self.id, delta=text)

    def completed(self, status: str, output: str | None = None, code: int | None = None) -> None:
        """It has ended, or will not begin: who was shown it is told. The one that was first told of counts."""
        if self._is_over or not self._is_shown:
            return
        self._is_over = True
        source = "agent" if self._source == STARTUP and self.process_id is None else self._source
        now = self._context.now_ms()
        wire = self._wire(status, source)
        wire |= {"aggregatedOutput": output or None, "exitCode": code, "completedAtMs": now}
        wire["durationMs"] = None if code is None else now - self.started_ms
        self._context.item("item/completed", wire)

    def _wire(self, status: str, source: str) -> dict[str, Any]:
        return {
            "type": "commandExecution",
            "id": self.id,
            "pluginId": None,
            "scriptPath": None,
            "command": self.command,
            "cwd": self.cwd,
            "processId": self.process_id,
            "source": source,
            "status": status,
            "commandActions": actions(self._cmd, self.cwd),
            "aggregatedOutput": None,
            "exitCode": None,
            "durationMs": None,
            "startedAtMs": self.started_ms,
            "completedAtMs": None,
        }
