"""What waits to be done, and its bounds."""

import asyncio

import pytest

from agent.core import backlog
from agent.core.backlog import Backlog, TooFast


@pytest.fixture
def small(monkeypatch):
    """Room for two steps without content, and for eight at most."""
    monkeypatch.setattr(backlog, "HIGH_WATER_CHARACTERS", 2 * backlog.STEP_CHARACTERS)
    monkeypatch.setattr(backlog, "MOST_CHARACTERS", 8 * backlog.STEP_CHARACTERS)


def test_whoever_adds_too_much_waits_until_enough_is_done(run, small):
    async def scenario():
        steps = Backlog()
        await steps.offer("a", 0)
        await steps.offer("b", 0)
        waits = asyncio.create_task(steps.offer("c", 0))
        for expected in "abc":
            step, size = await steps.take()
            assert step == expected and waits.done() is (expected != "a")
            steps.done(size)
            await asyncio.sleep(0)
        assert waits.done()

    run(scenario())


def test_what_does_not_fit_is_refused_and_our_own_steps_are_not(run, small):
    async def scenario():
        steps = Backlog()
        with pytest.raises(TooFast):
            await steps.offer("a", 8 * backlog.STEP_CHARACTERS + 1)
        steps.put("b", 8 * backlog.STEP_CHARACTERS)
        assert not steps.fits(0)
        with pytest.raises(TooFast):
            await steps.offer("c", 0)
        step, size = await steps.take()
        steps.done(size)
        assert step == "b" and steps.fits(8 * backlog.STEP_CHARACTERS)

    run(scenario())


def test_closing_lets_whoever_waits_go_on(run, small):
    async def scenario():
        steps = Backlog()
        waits = asyncio.create_task(steps.offer("a", 3 * backlog.STEP_CHARACTERS))
        await steps.take()
        assert not waits.done()
        steps.close()
        await waits

    run(scenario())


def test_what_waits_can_be_forgotten_and_what_is_being_done_is_not(run, small):
    async def scenario():
        steps = Backlog()
        steps.put("a", 4 * backlog.STEP_CHARACTERS)
        _, size = await steps.take()
        steps.put("b", 2 * backlog.STEP_CHARACTERS)
        steps.clear()
        assert not steps.fits(4 * backlog.STEP_CHARACTERS) and steps.fits(3 * backlog.STEP_CHARACTERS)
        steps.done(size)
        steps.put("c")
        assert (await steps.take())[0] == "c"

    run(scenario())


def test_what_comes_after_the_end_is_not_kept(run, small):
    async def scenario():
        steps = Backlog()
        steps.put("before")
        steps.close()
        for _ in range(9):
            await steps.offer("a", backlog.STEP_CHARACTERS)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await steps.take()

    run(scenario())
