"""The commands that the user runs in a thread, in a turn of their own or beside a turn of the model."""

import asyncio
import logging
from collections.abc import Callable

from agent.core.tooling import UserCommand
from agent.model.wire import Item

logger = logging.getLogger(__name__)


class UserCommands:
    """Those that run in one thread. One may outlive the turn that it was started in (observed).

    Args:
        ended: Takes what the model is told of one.
    """

    def __init__(self, ended: Callable[[Item], None]) -> None:
        self._ended = ended
        self._open: dict[asyncio.Task[None], tuple[str, UserCommand]] = {}

    async def run(self, turn_id: str, command: UserCommand) -> None:
        """Until it has ended; one that is aborted ends by cancellation."""
        task = asyncio.current_task()
        assert task is not None, "coroutines run in tasks"
        self._open[task] = turn_id, command
        try:
            item = await command.run()
        except Exception:
            logger.exception("a command of the user failed turn=%s", turn_id)
            item = command.abort()
        if self._open.pop(task, None) is None:
            await asyncio.get_running_loop().create_future()  # aborted, which was told: the cancellation comes
        self._ended(item)

    def abort(self, turn_id: str | None = None) -> list[asyncio.Task[None]]:
        """Tell that those of a turn (None: all) are stopped; the tasks that have to be cancelled then."""
        aborted = [task for task, (of, _) in self._open.items() if turn_id in (None, of)]
        for task in aborted:
            self._ended(self._open.pop(task)[1].abort())
        return aborted
