"""Event loops for tests: uvloop as in production, and asyncio's own where the difference could matter."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}

# No scenario takes seconds; one that hangs should say where, and not wait for the timeout of pytest.
DEADLINE_S = 15.0

# For tests that use the `run` fixture and would notice another loop.
on_each_loop = pytest.mark.parametrize("run", list(LOOPS), indirect=True)


def run_on[T](loop: str, scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario on a fresh loop of this kind; errors that only the loop got to see fail it too."""
    unseen: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(DEADLINE_S):
            return await scenario

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(bounded())
    assert not unseen, f"errors that nobody awaited: {unseen}"
    return result
