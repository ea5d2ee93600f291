"""Commands that are given up, again and again: nothing of them runs on, and nothing of them is left."""

import asyncio
import os
import random
import select
import signal
import threading
from pathlib import Path

import pytest

from agent.sandbox.run import Runner
from tests.agent.sandbox.test_run import alive, children_of, our_children, shell, started
from tests.loops import LOOPS, on_each_loop


@pytest.fixture
def slow_ends(monkeypatch):
    """A bubblewrap whose init is killed does not notice for a third of a second: it goes on that much later."""
    kill, waiting = os.kill, []

    def kill_later(pid, number):
        if number == signal.SIGCONT:
            waiting.append(threading.Timer(0.3, kill, (pid, number)))
            waiting[-1].start()
        else:
            kill(pid, number)

    monkeypatch.setattr(os, "kill", kill_later)
    yield
    for timer in waiting:
        timer.join()


@on_each_loop
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_command_that_is_given_up_keeps_its_masks_until_its_sandbox_is_gone(run, runner, workspace, slow_ends, times):
    """A second cancellation broke out of the wait: the placeholders went while the sandbox lived, a zombie stayed."""

    async def scenario():
        begun = asyncio.Event()
        make_plan = shell(workspace, "echo begun; sleep 60")
        task = asyncio.create_task(started(runner, make_plan, on_output=lambda *_: begun.set()))
        await begun.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done() and len(os.listdir(workspace)) == 4
        with pytest.raises(asyncio.CancelledError):
            await task
        assert our_bubblewraps() == [] and os.listdir(workspace) == []

    run(scenario())


@on_each_loop
def test_a_command_whose_time_is_up_is_cleaned_up_also_if_it_is_then_given_up(run, runner, workspace, slow_ends):
    async def scenario():
        begun = asyncio.Event()
        make_plan = shell(workspace, "echo begun; sleep 60")
        task = asyncio.create_task(started(runner, make_plan, timeout_s=0.2, on_output=lambda *_: begun.set()))
        await begun.wait()
        (bubblewrap,) = our_bubblewraps()
        (init,) = (os.pidfd_open(int(child)) for child in children_of(bubblewrap))
        while not select.select([init], [], [], 0)[0]:
            await asyncio.sleep(0)
        os.close(init)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert our_bubblewraps() == [] and os.listdir(workspace) == []

    run(scenario())


@on_each_loop
@pytest.mark.parametrize("plans_quickly", [True, False])
def test_whenever_a_command_is_given_up_nothing_of_it_runs_on(run, runner, workspace, plans_quickly):
    """From before bubblewrap has its init until the command runs: an orphan that was just made ran on for ever."""
    moments = random.Random(3)
    marker = f"64.{os.getpid()}{id(run)}"

    async def scenario():
        await started(runner, shell(workspace, "true"))
        for _ in range(30):
            task = asyncio.create_task(
                started(runner, shell(workspace, f"sleep {marker}; :"), plans_quickly=plans_quickly)
            )
            await asyncio.sleep(moments.uniform(0, 0.008))
            for _ in range(moments.randint(1, 3)):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert our_bubblewraps() == [] and os.listdir(workspace) == []
        assert alive(marker) == []

    run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_when_the_loop_ends_all_its_tasks_what_they_hold_is_released(workspace, loop):
    """It cancels what it finds, also what a task waits for; nobody then took the result of the planning."""
    planning, go_on = threading.Event(), threading.Event()

    def make_plan():
        planning.set()
        assert go_on.wait(10)
        return shell(workspace, "true")()

    async def scenario():
        asyncio.create_task(started(runner, make_plan))  # noqa: RUF006 - its end is the loop's
        running = asyncio.Event()
        script = shell(workspace, "echo begun; sleep 60")
        asyncio.create_task(started(runner, script, on_output=lambda *_: running.set()))  # noqa: RUF006 - the same
        await running.wait()
        await asyncio.to_thread(planning.wait, 10)
        asyncio.get_running_loop().call_soon(go_on.set)

    runner = Runner()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as loops:
        loops.run(scenario())
    assert os.listdir(workspace) == [] and our_bubblewraps() == []
    runner.close()


@on_each_loop
def test_two_cancellations_while_it_is_planned_leave_no_placeholder(run, runner, workspace):
    planning, go_on = threading.Event(), threading.Event()

    def make_plan():
        planning.set()
        assert go_on.wait(10)
        return shell(workspace, "true")()

    async def scenario():
        task = asyncio.create_task(started(runner, make_plan))
        await asyncio.to_thread(planning.wait, 10)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert os.listdir(workspace) == []

    run(scenario())


def our_bubblewraps():
    return [int(pid) for pid in our_children() if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"]
