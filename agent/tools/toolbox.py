"""All tools of the model, by name: one more tool is one more row."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput, UserCommand, unsupported
from agent.model.wire import Item
from agent.tools.command import BadArguments

logger = logging.getLogger(__name__)


class Tool(Protocol):
    """A tool, or several that belong together."""

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        """What the model is told of it."""
        ...

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        """Its names, and what each does. What they raise as BadArguments becomes the output."""
        ...

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        """The thread is over."""
        ...


class Tools:
    """A `ToolBox` of these tools; an earlier one's name wins.

    Args:
        user_command: Makes a command of the user.
        is_busy: Whether something runs that earlier calls of a thread have left.
    """

    def __init__(
        self,
        *tools: Tool,
        user_command: Callable[[str, int | None, CallContext], UserCommand],
        is_busy: Callable[[dict[str, Any]], bool],
    ) -> None:
        self._tools = tools
        self.user_command = user_command
        self.is_busy = is_busy

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return tuple(item for tool in self._tools for item in tool.declared(thread))

    async def run(self, call: ToolCall, context: CallContext) -> ToolOutput:
        for tool in self._tools:
            act = tool.rows(context.thread).get(call.name)
            if act is not None:
                try:
                    return await act(call, context)
                except BadArguments as exc:
                    return ToolOutput(str(exc))
        return ToolOutput(unsupported(call))

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        for tool in self._tools:
            await tool.forget(thread_id, session)
