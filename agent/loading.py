"""Imports modules beside the loop: what the first answer does not need."""

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Callable, Sequence


async def imported(loop: asyncio.AbstractEventLoop, names: Sequence[str]) -> None:
    """Import modules in a thread of their own, which does not hold up the end of the process."""
    done: asyncio.Future[None] = loop.create_future()

    def settle(act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended first
            loop.call_soon_threadsafe(act)

    def work() -> None:
        try:
            for name in names:
                importlib.import_module(name)
        except BaseException as exc:
            error = exc
            settle(lambda: None if done.done() else done.set_exception(error))
        else:
            settle(lambda: None if done.done() else done.set_result(None))

    threading.Thread(target=work, daemon=True, name="import").start()
    await done
