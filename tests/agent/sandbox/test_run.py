"""Commands of the agent, run for real on both event loops."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.sandbox.host import look, places
from agent.sandbox.plan import Backend, Command, Options, SandboxPlan, SandboxUnavailable, plan
from agent.sandbox.policy import resolve
from agent.sandbox.run import TIMED_OUT
from agent.sandbox.state import state_directory
from tests.agent.sandbox.policies import ENABLED, open_descriptors, profile
from tests.loops import on_each_loop

POLICIES = {
    Backend.BUBBLEWRAP: (("read /", "write :project_roots"), {}),
    Backend.LANDLOCK: (("read /", "write :project_roots"), {}),
    Backend.SECCOMP: (("write :root",), {}),
    Backend.NONE: (("write :root",), {"network": ENABLED}),
}
on_each_backend = pytest.mark.parametrize("backend", list(POLICIES), ids=lambda backend: backend.value)
ENVIRON = {"PATH": "/usr/bin:/bin"}


def planner(workspace, backend, *argv):
    """Makes the plan of a command under the policy that leads to this backend."""
    lines, options = POLICIES[backend]
    policy = resolve(profile(*lines, **options), places(str(workspace), {}))
    how = Options(legacy_landlock=backend is Backend.LANDLOCK)
    cwd = str(workspace)

    def make_plan():
        made = plan(policy, Command(argv, cwd), look(policy, cwd, how, os.environ), how)
        assert made.backend is backend
        return made

    return make_plan


def shell(workspace, script, backend=Backend.BUBBLEWRAP):
    return planner(workspace, backend, "sh", "-c", script)


def started(runner, make_plan, *, timeout_s=10.0, max_output_bytes=100_000, environ=None, **options):
    """The coroutine of one command."""
    return runner.run(
        make_plan,
        ENVIRON if environ is None else environ,
        timeout_s=timeout_s,
        max_output_bytes=max_output_bytes,
        **options,
    )


def children_of(pid):
    # The kernel lists them by the thread that started each.
    return {child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()}


def our_children():
    return children_of(os.getpid())


def alive(marker):
    """Processes with the marker on their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def all_killed(marker, backend):
    """Whether none is left. In bubblewrap at once: its masks go next. Elsewhere the kernel may take a moment."""
    witnesses = []
    for pid in alive(marker) if backend is not Backend.BUBBLEWRAP else ():
        with contextlib.suppress(ProcessLookupError):
            witnesses.append(os.pidfd_open(pid))
    for witness in witnesses:
        select.select([witness], [], [], 5)
        os.close(witness)
    return alive(marker) == []


# Ends


@on_each_loop
@on_each_backend
def test_a_command_runs_to_its_end_and_leaves_nothing(run, runner, workspace, backend):
    run(asyncio.sleep(0))  # the first loop of a process keeps a pipe for signals
    before = open_descriptors()
    made = run(started(runner, shell(workspace, "echo out; echo err >&2; exit 7", backend)))
    assert (made.exit_code, made.stdout, made.stderr) == (7, b"out\n", b"err\n")
    assert (made.dropped_stdout, made.dropped_stderr, made.timed_out, made.likely_denied) == (0, 0, False, False)
    assert 0 < made.duration_s < 10
    runner.close()
    assert open_descriptors() == before
    assert os.listdir(workspace) == []


@on_each_backend
def test_a_death_by_signal_is_128_and_its_number(run, runner, workspace, backend):
    assert run(started(runner, shell(workspace, "kill -TERM $$", backend))).exit_code == 128 + signal.SIGTERM


@on_each_backend
def test_each_command_has_a_session_of_its_own_and_no_terminal(run, runner, workspace, backend):
    script = "cut -d' ' -f6,7 /proc/self/stat; (: < /dev/tty) 2>/dev/null || echo no terminal"
    session, terminal, *said = run(started(runner, shell(workspace, script, backend))).stdout.split(maxsplit=2)
    assert int(session) != os.getsid(0) and terminal == b"0"
    assert said == [b"no terminal\n"]


@pytest.mark.parametrize("backend", [Backend.BUBBLEWRAP, Backend.SECCOMP, Backend.LANDLOCK])
def test_what_cannot_be_executed_is_101(run, runner, workspace, backend):
    made = run(started(runner, planner(workspace, backend, "no-such-command-xyz")))
    assert made.exit_code == 101
    assert made.stderr.endswith(b"execvp no-such-command-xyz: No such file or directory\n")
    # A command of its own may end as bubblewrap does for that.
    assert run(started(runner, shell(workspace, "exit 1", backend))).exit_code == 1


def test_what_cannot_be_started_at_all_was_not_run(run, runner, workspace):
    before = open_descriptors()
    with pytest.raises(SandboxUnavailable, match="'no-such-command-xyz' cannot be started"):
        run(started(runner, planner(workspace, Backend.NONE, "no-such-command-xyz")))
    runner.close()  # it keeps who would end its commands, should we be killed
    assert open_descriptors() == before


def test_a_plan_that_cannot_be_made_is_the_callers_to_hear(run, runner):
    def make_plan():
        raise SandboxUnavailable(Backend.BUBBLEWRAP, "none here")

    with pytest.raises(SandboxUnavailable, match="none here"):
        run(started(runner, make_plan))


def test_the_managed_network_is_refused_here(run, runner):
    made = SandboxPlan(Backend.BUBBLEWRAP, ("/usr/bin/bwrap",), "/", bridge_ports=(3128,))
    with pytest.raises(SandboxUnavailable, match="start the sandbox helper for it"):
        run(started(runner, lambda: made))


# Confinement


@pytest.mark.parametrize("backend", [Backend.BUBBLEWRAP, Backend.LANDLOCK])
def test_writing_outside_the_workspace_is_denied_and_told_as_such(run, runner, workspace, backend):
    outside = workspace.parent / "outside"
    made = run(started(runner, shell(workspace, f"echo x > inside; echo x > {outside}", backend)))
    assert made.exit_code != 0 and made.likely_denied
    assert (workspace / "inside").exists() and not outside.exists()
    free = run(started(runner, shell(workspace, f"echo x > {outside}; echo permission denied; exit 1", Backend.NONE)))
    assert outside.exists() and free.exit_code == 1 and not free.likely_denied


@pytest.mark.parametrize("backend", [Backend.BUBBLEWRAP, Backend.LANDLOCK, Backend.SECCOMP])
def test_without_the_network_no_socket_can_be_made(run, runner, workspace, backend):
    attempt = "import socket; socket.socket(socket.AF_INET)"
    made = run(started(runner, planner(workspace, backend, "/usr/bin/python3", "-c", attempt)))
    assert made.exit_code != 0 and b"Operation not permitted" in made.stderr
    assert run(started(runner, planner(workspace, Backend.NONE, "/usr/bin/python3", "-c", attempt))).exit_code == 0


# Time


@on_each_loop
@on_each_backend
def test_when_its_time_is_up_all_that_it_started_is_killed(run, runner, workspace, backend):
    marker = f"60.{os.getpid()}{id(run)}"
    made = run(
        started(runner, shell(workspace, f"echo sandbox; sh -c 'sleep {marker}; :' & wait", backend), timeout_s=0.4)
    )
    assert (made.exit_code, made.timed_out, made.stdout, made.likely_denied) == (TIMED_OUT, True, b"sandbox\n", False)
    assert all_killed(marker, backend)
    assert os.listdir(workspace) == []


@on_each_loop
@on_each_backend
def test_a_command_that_is_given_up_is_killed_and_its_placeholders_go(run, runner, workspace, backend):
    marker = f"61.{os.getpid()}{id(run)}"

    async def scenario():
        begun = asyncio.Event()
        # The shell that is awaited here is there before it says so.
        make_plan = shell(workspace, f"sh -c 'echo begun; sleep {marker}; :' & wait", backend)
        task = asyncio.create_task(started(runner, make_plan, on_output=lambda *_: begun.set()))
        await begun.wait()
        assert os.getsid(0) not in {os.getsid(pid) for pid in alive(marker)}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all_killed(marker, backend)
        assert os.listdir(workspace) == []

    run(scenario())


@on_each_loop
def test_a_command_that_is_given_up_while_it_is_planned_leaves_no_placeholder(run, runner, workspace):
    """The thread that plans cannot be stopped; what it then held, nobody released."""
    planning, go_on = threading.Event(), threading.Event()

    def make_plan():
        planning.set()
        assert go_on.wait(10)
        return shell(workspace, "true")()

    async def scenario():
        before = open_descriptors()
        task = asyncio.create_task(started(runner, make_plan))
        await asyncio.to_thread(planning.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert os.listdir(workspace) == []
        runner.close()
        assert open_descriptors() == before

    run(scenario())


@on_each_loop
def test_what_a_command_leaves_in_the_background_dies_with_it_and_delays_nothing(run, runner, workspace):
    marker = f"62.{os.getpid()}{id(run)}"
    made = run(started(runner, shell(workspace, f"sleep {marker} & echo done")))
    assert (made.exit_code, made.stdout) == (0, b"done\n")
    assert made.duration_s < 0.5 and alive(marker) == []


def test_without_a_pid_namespace_it_lives_on_and_its_pipes_are_waited_for_only_a_moment(run, runner, workspace):
    marker = f"63.{os.getpid()}"
    made = run(started(runner, shell(workspace, f"sleep {marker} & echo done", Backend.SECCOMP)))
    left = alive(marker)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert (made.exit_code, made.stdout, len(left)) == (0, b"done\n", 1)
    assert made.duration_s < 5


# Many


@on_each_loop
def test_twenty_at_once_end_each_as_it_should_and_leave_nothing(run, runner, workspace):
    async def scenario():
        async with asyncio.TaskGroup() as group:
            backends = list(POLICIES)
            tasks = [
                group.create_task(
                    started(runner, shell(workspace, f"cat; exit {number}", backends[number % 4]), stdin=b"%d" % number)
                )
                for number in range(20)
            ]
        return [task.result() for task in tasks]

    run(asyncio.sleep(0))
    descriptors, children = open_descriptors(), our_children()
    ended = run(scenario())
    assert [(made.exit_code, made.stdout) for made in ended] == [(number, b"%d" % number) for number in range(20)]
    runner.close()
    assert open_descriptors() == descriptors
    # No zombie either: it would still be our child.
    assert our_children() == children
    assert os.listdir(workspace) == []
    assert not [name for name in os.listdir(f"{state_directory()}/launches") if name.startswith(f"{os.getpid()}-")]


# The guardian


AGENT = """
import asyncio, os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from agent.sandbox.run import Runner
from tests.agent.sandbox.test_run import shell, started

async def main():
    make_plan = shell(Path({workspace!r}), "echo begun; sleep 60")
    await started(Runner(), make_plan, on_output=lambda *_: print("begun", flush=True))

asyncio.run(main())
"""


def test_when_the_agent_is_killed_its_sandboxes_die_and_a_guardian_takes_their_placeholders_away(workspace):
    story = AGENT.format(path=sys.path, workspace=str(workspace))
    with subprocess.Popen([sys.executable, "-c", story], stdout=subprocess.PIPE) as agent:
        assert agent.stdout.readline() == b"begun\n"
        assert len(os.listdir(workspace)) == 4
        witnesses = [os.pidfd_open(int(pid)) for pid in children_of(agent.pid)]
        assert len(witnesses) == 2
        agent.kill()
    for witness in witnesses:
        assert select.select([witness], [], [], 10)[0]
        os.close(witness)
    assert os.listdir(workspace) == []


def test_a_closed_runner_has_no_guardian_and_a_new_command_gets_a_new_one(run, runner, workspace):
    before = our_children()
    run(started(runner, shell(workspace, "true")))
    assert len(our_children() - before) == 1
    run(started(runner, shell(workspace, "true")))
    assert len(our_children() - before) == 1
    runner.close()
    runner.close()
    assert our_children() == before
