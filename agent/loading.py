"""Imports modules beside the loop: what the first answer does not need."""

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Callable, Sequence


async def imported(loop: asyncio.AbstractEventLoop, names: Sequence[str]) -> None:
    """Import modules in a thread of their own. Once nobody waits for them any more, it ends with the one it is at.

    Not a daemon: the end of the interpreter kills one, and where extension modules are being loaded, that aborts the
    process ("FATAL: exception not rethrown", CPython 3.13).
    """
    done: asyncio.Future[None] = loop.create_future()
    given_up = threading.Event()

    def settle(act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended first
            loop.call_soon_threadsafe(act)

    def work() -> None:
        try:
            for name in names:
                if given_up.is_set():
                    return
                importlib.import_module(name)
        except BaseException as exc:
            error = exc
            settle(lambda: None if done.done() else done.set_exception(error))
        else:
            settle(lambda: None if done.done() else done.set_result(None))

    threading.Thread(target=work, name="import").start()
    try:
        await done
    finally:
        given_up.set()
