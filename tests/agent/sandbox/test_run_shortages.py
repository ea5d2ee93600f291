"""Commands that cannot be started for what is missing."""

import asyncio
import contextlib
import fcntl
import os
import resource

import pytest

from agent.sandbox.plan import Backend, SandboxUnavailable
from agent.sandbox.state import state_directory
from tests.agent.sandbox.policies import open_descriptors
from tests.agent.sandbox.test_run import ENVIRON, on_each_backend, planner, shell, started
from tests.agent.sandbox.test_run_given_up import our_bubblewraps
from tests.loops import on_each_loop


@on_each_loop
def test_records_that_somebody_has_locked_do_not_stop_the_loop(run, runner, workspace):
    """The lock was waited for on the loop, and with it everything else waited."""

    async def scenario():
        await started(runner, shell(workspace, "true"))
        locked = os.open(f"{state_directory()}/launches.lock", os.O_RDONLY)
        fcntl.flock(locked, fcntl.LOCK_EX)
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(started(runner, shell(workspace, "true"), plans_quickly=True))
        longest = 0.0
        last = begun = loop.time()
        while loop.time() < begun + 0.3:
            await asyncio.sleep(0.005)
            longest, last = max(longest, loop.time() - last), loop.time()
        assert not task.done()
        os.close(locked)
        assert (await task).exit_code == 0
        assert longest < 0.25

    run(scenario())
    assert os.listdir(workspace) == []


@on_each_backend
def test_without_descriptors_a_command_is_refused_and_nothing_leaks(run, runner, workspace, backend):
    """At each of the places where one is opened."""

    async def scenario():
        await started(runner, shell(workspace, "true", backend))  # what it imports is not imported later
        runner.close()
        before = open_descriptors()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ends = []
        for room in range(30):
            filled = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        filled.append(os.dup(0))
                for descriptor in filled[:room]:
                    os.close(descriptor)
                task = started(runner, shell(workspace, "echo ran", backend), plans_quickly=True)
                with contextlib.suppress(SandboxUnavailable):
                    ends.append((await task).stdout)
            finally:
                for descriptor in filled[room:]:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            runner.close()
            assert open_descriptors() == before and our_bubblewraps() == [], room
            assert os.listdir(workspace) == [], room
        assert ends[-1] == b"ran\n" and len(ends) < 29
        # What could be run was run as it should.
        assert set(ends) <= {b"ran\n", b""}

    run(scenario())


@on_each_backend
@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_what_no_process_can_be_given_is_an_error_of_ours(run, runner, workspace, backend, word):
    confines_itself = backend in (Backend.SECCOMP, Backend.LANDLOCK)
    for make_plan, environ in (
        (planner(workspace, backend, "echo", word), None),
        (planner(workspace, backend, word), None),
        (planner(workspace, backend, "env"), {**ENVIRON, "NAME": word}),
    ):
        if confines_itself:
            made = run(started(runner, make_plan, environ=environ))
            assert made.exit_code == 101 and b"Failed to execvp" in made.stderr and b"Traceback" not in made.stderr
        else:
            with pytest.raises(SandboxUnavailable, match=r"cannot be started.*(null|surrogates)"):
                run(started(runner, make_plan, environ=environ))
    assert os.listdir(workspace) == []


@on_each_loop
def test_what_is_done_after_the_outcome_is_told_is_done_soon(run, runner, workspace):
    """Most of the removal of a directory is; until then a descriptor is kept for each."""

    async def scenario():
        await started(runner, shell(workspace, "true"))
        kept = {name for name in open_descriptors() if "(deleted)" in name and str(workspace) in name}
        assert len(kept) == 4 and os.listdir(workspace) == []
        while kept & open_descriptors():
            await asyncio.sleep(0)

    run(scenario())
