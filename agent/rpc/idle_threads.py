"""Unloading threads that nobody follows any more."""

import asyncio
import logging

from agent.core.session import Core
from agent.rpc.connections import Connections

logger = logging.getLogger(__name__)


class IdleThreads:
    """Unloads a thread once nobody has followed it, and nothing has gone on in it, for a while.

    A command that the model has left running keeps its thread; the original stops the command instead (observed).

    Args:
        after_s: How long, in seconds.
    """

    def __init__(self, core: Core, connections: Connections, after_s: float) -> None:
        self._core = core
        self._connections = connections
        self.after_s = after_s
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        connections.watch(self._touched)

    def _touched(self, thread_id: str) -> None:
        """The time begins anew."""
        if (timer := self._timers.pop(thread_id, None)) is not None:
            timer.cancel()
        if self._core.is_loaded(thread_id) and not self._connections.is_followed(thread_id):
            loop = asyncio.get_running_loop()
            self._timers[thread_id] = loop.call_later(self.after_s, self._due, thread_id)

    def _due(self, thread_id: str) -> None:
        del self._timers[thread_id]
        task = asyncio.create_task(self._unload(thread_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unload(self, thread_id: str) -> None:
        if thread_id in self._timers or self._connections.is_followed(thread_id):
            return  # somebody came in the meantime
        if self._core.is_loaded(thread_id) and self._core.is_busy(thread_id):
            self._touched(thread_id)
            return
        if await self._core.unload(thread_id):
            logger.info("thread unloaded, nobody follows it: thread=%s", thread_id)
            status = {"threadId": thread_id, "status": {"type": "notLoaded"}}
            self._connections.publish(thread_id, "thread/status/changed", status)
            self._connections.broadcast("thread/closed", {"threadId": thread_id})

    async def aclose(self) -> None:
        """Unload nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._tasks)
