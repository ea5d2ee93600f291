"""The threads of this process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.running import ModelFacts, ModelSession, Running, StartedTurn, Surroundings, ThreadNotFound
from agent.core.steps import Steered
from agent.core.thread import Thread
from agent.core.tooling import ToolBox
from agent.model.wire import Item


class Core:
    """All threads.

    Args:
        open_session: Makes the model session of a new thread.
        facts: What is known of a model.
        publish: Tells the followers of a thread: (thread id, method, params).
        installation_id: As told to the model service.
        stream_retries: How often a broken stream is retried on each transport; 5 in the original.
        ask: Asks the followers of a thread, and gives the first answer: (thread id, method, params).
        tools: What the model may call.
    """

    def __init__(
        self,
        *,
        open_session: Callable[[str], ModelSession],
        facts: Callable[[str], ModelFacts],
        publish: Callable[[str, str, dict[str, Any]], None],
        installation_id: str,
        stream_retries: int,
        ask: Callable[[str, str, dict[str, Any]], Awaitable[Any]],
        tools: ToolBox,
    ) -> None:
        self._open_session = open_session
        self._around = Surroundings(facts, publish, installation_id, stream_retries, ask, tools)
        self._threads: dict[str, Running] = {}

    def new_id(self) -> str:
        """A fresh UUIDv7."""
        return self._around.new_id()

    def add(self, thread: Thread) -> None:
        """Take in a new thread; nothing is sent yet."""
        self._threads[thread.id] = Running(self._around, thread, self._open_session(thread.id))

    def thread(self, thread_id: str) -> Thread:
        """Raises ThreadNotFound."""
        return self._running(thread_id).thread

    def prewarm(self, thread_id: str) -> None:
        """Start loading the static input of a new thread."""
        self._running(thread_id).prewarm()

    def start_turn(
        self,
        thread_id: str,
        content: list[dict[str, Any]],
        item: Item,
        client_id: str | None,
        output_schema: Item | None,
        override: Callable[[Thread], None],
    ) -> "StartedTurn":
        """Begin a turn, or add the input to the one that runs. `begin` starts it: call it once it was answered.

        Args:
            override: Sets what the client wants otherwise from this turn on; with a turn that runs, from the next.

        Raises:
            ThreadNotFound: There is no such thread.
            NothingToAdd: A turn runs, and the input is empty.
        """
        return self._running(thread_id).start_turn(content, item, client_id, output_schema, override)

    def steer(
        self, thread_id: str, turn_id: str, content: list[dict[str, Any]], item: Item, client_id: str | None
    ) -> None:
        """Add input to the turn that runs.

        Raises:
            ThreadNotFound, TurnNotRunning: There is no such turn.
            NothingToAdd: The input is empty.
        """
        self._running(thread_id).steer(turn_id, Steered(content, item, client_id))

    def interrupt(self, thread_id: str, turn_id: str) -> Callable[[], None]:
        """What stops the turn; call it once the request was answered.

        Raises:
            ThreadNotFound, TurnNotRunning: There is no such turn.
        """
        return self._running(thread_id).interrupt(turn_id)

    async def aclose(self) -> None:
        """Stop all turns and close all sockets."""
        await asyncio.gather(*(running.aclose() for running in self._threads.values()))

    def _running(self, thread_id: str) -> "Running":
        running = self._threads.get(thread_id)
        if running is None:
            raise ThreadNotFound(thread_id)
        return running
