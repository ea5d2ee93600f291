"""What the user runs with "!": in the thread's directory and history, but neither confined nor asked about."""

import asyncio

from agent.core.thread import message
from agent.core.tooling import CallContext
from agent.model.wire import Item
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Runner
from agent.tools.command import DEFAULT_OUTPUT_BYTES, shorten, shown
from agent.tools.confinement import Confinement
from agent.tools.sessions import Session
from agent.tools.shown_command import USER, ShownCommand

# As in the original, where the client names none.
DEFAULT_TIMEOUT_MS = 3_600_000
# A timer takes no more; it is a hundred years.
_MOST_TIMEOUT_S = 3.2e9
# What a command that has no code of its own is shown with: it was stopped, or could not be started.
_NO_CODE = -1
_ABORTED = "command aborted by user"


class UserCommand:
    """One command; `run` it once. It has no proxy credentials in its environment, as no tool has."""

    def __init__(
        self,
        command: str,
        timeout_ms: int | None,
        context: CallContext,
        runner: Runner,
        confinement: Confinement,
        shell: str,
    ) -> None:
        self._command = command
        self._timeout_s = min((DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms) / 1000, _MOST_TIMEOUT_S)
        self._context = context
        self._runner = runner
        self._confinement = confinement
        self._words = (shell, "-lc", command)
        self._item = ShownCommand(context.new_id(), context, shown(self._words), command, USER, context.thread.cwd)

    async def run(self) -> Item:
        """Show it and run it; what the model is told of it. Cancelled, it is stopped first."""
        self._item.begin()
        thread = self._context.thread
        try:
            make_plan, _ = self._confinement.planner(thread, self._words, thread.cwd, free=True)
        except PolicyError as exc:
            return self._ended(_NO_CODE, f"execution error: {exc}")
        session = Session(self._item.output, tty=False)
        session.start(self._runner, make_plan, self._confinement.tool_environment(thread))
        try:
            await session.wait(self._timeout_s)
        except asyncio.CancelledError:
            await session.stop()
            raise
        if not session.is_over:
            await session.stop()
            problem = f"execution error: stopped after {self._timeout_s:g} seconds"
            return self._ended(_NO_CODE, session.all.text() + problem)
        if session.outcome is None:
            return self._ended(_NO_CODE, f"execution error: {session.failure}")
        return self._ended(session.outcome.exit_code, session.all.text(), session.outcome.duration_s)

    def abort(self) -> Item:
        """The user stops it: clients see that at once, and what the model is told. Cancel `run` then."""
        return self._ended(_NO_CODE, _ABORTED)

    def _ended(self, code: int, output: str, duration_s: float = 0.0) -> Item:
        self._item.completed("completed" if code == 0 else "failed", output, code)
        text, _ = shorten(output.encode(), DEFAULT_OUTPUT_BYTES)
        return message(
            "user",
            f"<user_shell_command>\n<command>\n{self._command}\n</command>\n<result>\nExit code: {code}\n"
            f"Duration: {duration_s:.4f} seconds\nOutput:\n{text}\n</result>\n</user_shell_command>",
        )
