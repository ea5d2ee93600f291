"""What the model is told of where a thread works, and what is known of it: each once."""

import asyncio

from agent.core import rollout
from agent.core.chronicle import Chronicle
from agent.core.compaction import is_context
from agent.core.git_info import git_info
from agent.core.surroundings import Surroundings
from agent.core.thread import Thread


class Grounding:
    """Of one thread."""

    def __init__(self, around: Surroundings, thread: Thread, chronicle: Chronicle) -> None:
        self._around = around
        self._thread = thread
        self._chronicle = chronicle
        self._knows_context = any(is_context(item) for item in thread.history)
        # Of one that is kept: it is told of the repository that its first turn found it in.
        self._knows_git = not chronicle.is_kept or chronicle.is_on_disk or thread.git_info is not None

    async def learn_git(self) -> None:
        """Before the thread's first turn, and for good (observed)."""
        if self._knows_git:
            return
        self._knows_git = True
        found = await asyncio.to_thread(git_info, self._thread.cwd)
        if found is not None:
            self._thread.git_info = found
            if self._chronicle.is_on_disk:
                self._chronicle.write(rollout.UPDATED, {"git_info": found})

    async def add_context(self) -> None:
        """Before the first input that the model gets."""
        if not self._knows_context:
            context = await self._around.context(self._thread)
            self._knows_context = True
            for item in context:
                self._chronicle.add_to_history(item)
