"""The realtime conversations of the process, by thread."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.realtime import Conversation
from agent.core.realtime_wanted import Service
from agent.core.session import Core


class Conversations:
    """One for each loaded thread that was asked for it.

    Args:
        deserted: Returns once nobody follows a thread any more.
    """

    def __init__(
        self,
        core: Core,
        service: Service,
        publish: Callable[[str, str, dict[str, Any]], None],
        deserted: Callable[[str], Awaitable[None]],
    ) -> None:
        self._core = core
        self._service = service
        self._publish = publish
        self._deserted = deserted
        self._all: dict[str, Conversation] = {}

    def of(self, thread_id: str) -> Conversation:
        """The conversation of a thread, which may be silent. Raises ThreadNotFound."""
        if (found := self._all.get(thread_id)) is None:
            thread = self._core.thread(thread_id)
            found = self._all[thread_id] = Conversation(
                self._core,
                thread,
                self._service,
                functools.partial(self._publish, thread_id),
                functools.partial(self._deserted, thread_id),
                functools.partial(self._all.pop, thread_id, None),
            )
            self._core.accompany(thread_id, found)
        return found
