"""The calls that a thread's tools carry out, each in a task of its own."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from agent.core.chronicle import Chronicle
from agent.core.pursuit import Pursuit
from agent.core.steps import ToolFinished
from agent.core.surroundings import Surroundings, now_ms
from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput

logger = logging.getLogger(__name__)


class CallsAtWork:
    """Those of the turn that runs, and what tools keep from one to the next.

    Args:
        goals: What a tool may do with the thread's goal; None where there can be none.
        running_id: The id of the turn that runs, None if none does.
    """

    def __init__(
        self,
        around: Surroundings,
        thread: Thread,
        chronicle: Chronicle,
        *,
        goals: Pursuit | None,
        running_id: Callable[[], str | None],
    ) -> None:
        self._around = around
        self._thread = thread
        self._chronicle = chronicle
        self._goals = goals
        self._running_id = running_id
        self._finished: asyncio.Queue[ToolFinished] = asyncio.Queue()
        self._kept: dict[str, Any] = {}  # by the tools
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something that a call began still runs."""
        return self._around.tools.is_busy(self._kept)

    def start(self, turn_id: str, call: ToolCall) -> asyncio.Task[None]:
        """Carry out a call; what it ends with is kept until it is asked for, and dropped once the turn is over."""
        self.tasks.add(task := asyncio.create_task(self._carry_out(turn_id, call)))
        task.add_done_callback(self.tasks.discard)
        return task

    async def next_finished(self) -> ToolFinished:
        """What the next call ends with."""
        return await self._finished.get()

    def finished(self) -> list[ToolFinished]:
        """What the calls that have ended ended with, as far as nobody has asked for it."""
        return [self._finished.get_nowait() for _ in range(self._finished.qsize())]

    async def forget(self) -> None:
        """End what calls have begun; the thread is closed."""
        await self._around.tools.forget(self._thread.id, self._kept)

    async def _carry_out(self, turn_id: str, call: ToolCall) -> None:
        """A bug in a tool is an output too."""
        try:
            output = await self._around.tools.run(call, self.context(turn_id))
        except Exception as exc:
            logger.exception("tool failed thread=%s tool=%s", self._thread.id, call.name)
            output = ToolOutput(f"{call.name} failed: internal error: {type(exc).__name__}")
        if self._running_id() != turn_id:
            return  # stopped, and answered as such
        self._chronicle.add_output(call, output)
        self._finished.put_nowait(ToolFinished(call, output))

    def context(self, turn_id: str) -> CallContext:
        """What a tool is given in this turn, besides its arguments."""
        return CallContext(
            thread=self._thread,
            turn_id=turn_id,
            notify=self._chronicle.publish,
            ask=functools.partial(self._around.ask, self._thread.id),
            waiting=self._chronicle.waiting,
            now_ms=now_ms,
            new_id=self._around.new_id,
            session=self._kept,
            goals=self._goals,
        )
