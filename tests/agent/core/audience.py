"""The clients of a core's threads, as a list of what they were told."""

import asyncio
from collections.abc import Callable
from typing import Any


class Audience:
    """What was published, in order; `publish` is what a `Core` is given."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Event()

    def publish(self, thread_id: str, method: str, params: dict[str, Any]) -> None:
        assert params.get("threadId", thread_id) == thread_id
        self.told.append((method, params))
        self._news.set()

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.told]

    async def hears(self, method: str, count: int = 1) -> dict[str, Any]:
        """The params of the `count`-th notification of this method, once it has come."""
        await self.until(lambda: self.methods.count(method) >= count)
        return [params for heard, params in self.told if heard == method][count - 1]

    async def until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self._news.clear()
            await self._news.wait()
