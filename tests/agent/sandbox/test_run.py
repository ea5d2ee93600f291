"""Commands of the agent, run for real on both event loops."""

import asyncio
import contextlib
import fcntl
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.sandbox.host import look, places
from agent.sandbox.plan import Backend, Command, Options, SandboxPlan, SandboxUnavailable, plan
from agent.sandbox.policy import resolve
from agent.sandbox.run import TIMED_OUT, Runner
from agent.sandbox.state import state_directory
from agent.sandbox.streams import Output
from tests.agent.sandbox.policies import ENABLED, open_descriptors, profile
from tests.loops import LOOPS, on_each_loop

POLICIES = {
    Backend.BUBBLEWRAP: (("read /", "write :project_roots"), {}),
    Backend.LANDLOCK: (("read /", "write :project_roots"), {}),
    Backend.SECCOMP: (("write :root",), {}),
    Backend.NONE: (("write :root",), {"network": ENABLED}),
}
on_each_backend = pytest.mark.parametrize("backend", list(POLICIES), ids=lambda backend: backend.value)
ENVIRON = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def workspace(tmp_path):
    """A writable root that is to be empty again after each command."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def runner():
    """A runner, closed afterwards."""
    runner = Runner()
    yield runner
    runner.close()


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


# Streams


@pytest.mark.parametrize(
    ("limit", "head", "tail"), [(10, b"01234", b"56789"), (11, b"01234", b"456789"), (0, b"", b"")]
)
def test_of_too_much_output_the_beginning_and_the_end_are_kept(limit, head, tail):
    output = Output(limit)
    for _ in range(100_000):
        output.write(b"0123456789")
    assert output.kept() == head + tail
    assert output.dropped == 1_000_000 - len(head + tail)
    exact = Output(20)
    exact.write(b"0123456789" * 2)
    assert (exact.kept(), exact.dropped) == (b"0123456789" * 2, 0)


@on_each_loop
def test_each_stream_is_cut_by_itself_and_passed_on_whole(run, runner, workspace):
    heard = {"stdout": bytearray(), "stderr": bytearray()}
    script = "seq 1 200000; echo short >&2"
    made = run(
        started(
            runner,
            shell(workspace, script),
            max_output_bytes=1000,
            on_output=lambda stream, piece: heard[stream].extend(piece),
        )
    )
    whole = b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert bytes(heard["stdout"]) == whole and heard["stderr"] == b"short\n"
    assert made.stdout == whole[:500] + whole[-500:]
    assert (made.dropped_stdout, made.stderr, made.dropped_stderr) == (len(whole) - 1000, b"short\n", 0)


@on_each_loop
@on_each_backend
def test_stdin_is_what_is_given_and_nothing_otherwise(run, runner, workspace, backend):
    megabyte = bytes(1_000_000)
    assert run(started(runner, shell(workspace, "wc -c", backend), stdin=megabyte)).stdout.strip() == b"1000000"
    assert run(started(runner, shell(workspace, "wc -c", backend), stdin=b"")).stdout.strip() == b"0"
    nothing = run(started(runner, shell(workspace, "readlink /proc/self/fd/0", backend)))
    assert nothing.stdout == b"/dev/null\n"


def test_what_a_listener_raises_costs_it_nothing_of_the_result(runner, workspace):
    def fail(_stream, _piece):
        raise RuntimeError("the listener's own")

    heard = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
        return await started(runner, shell(workspace, "echo out"), on_output=fail)

    assert asyncio.run(scenario()).stdout == b"out\n"
    assert heard == ["the listener's own"]


@on_each_loop
@pytest.mark.parametrize("backend", [Backend.BUBBLEWRAP, Backend.LANDLOCK])
def test_what_a_slow_listener_has_not_heard_when_the_command_ends_is_kept_all_the_same(run, runner, workspace, backend):
    """What was still in the pipe half a second after the end was neither kept nor counted."""
    big = "import fcntl, os; fcntl.fcntl(1, 1031, 1 << 20); os.write(1, b'x' * (1 << 20))"
    heard = bytearray()

    def hear(_stream, piece):
        deadline = time.monotonic() + 0.08
        while time.monotonic() < deadline:
            pass
        heard.extend(piece)

    # Something that it leaves behind has the pipe, too, and never ends it.
    script = f'/usr/bin/python3 -I -S -c "{big}"; sleep 5 &'
    make_plan = shell(workspace, script, backend)
    made = run(started(runner, make_plan, max_output_bytes=1 << 21, on_output=hear))
    assert made.stdout == bytes(heard) == b"x" * (1 << 20)


def test_a_command_that_does_not_read_its_stdin_ends_all_the_same(run, runner, workspace):
    assert run(started(runner, shell(workspace, "exec <&-; exit 3"), stdin=bytes(1_000_000))).exit_code == 3


@on_each_backend
def test_the_environment_is_what_is_given_and_what_the_plan_adds(run, runner, workspace, backend):
    environ = {"PATH": "/usr/bin:/bin", "GREETING": "good\nday"}
    made = run(started(runner, planner(workspace, backend, "env", "-0"), environ=environ))
    found = dict(pair.split("=", 1) for pair in made.stdout.decode().split("\0") if pair)
    network = {} if backend is Backend.NONE else {"CODEX_SANDBOX_NETWORK_DISABLED": "1"}
    # bubblewrap says where it went.
    here = {"PWD": str(workspace)} if backend is Backend.BUBBLEWRAP else {}
    assert found == {**environ, **network, **here}


@on_each_backend
def test_a_command_line_longer_than_a_pipe_is_started_too(run, runner, workspace, backend):
    """The stage was told its plan by a pipe, which takes 64 KiB: a longer one stopped the whole agent."""
    made = run(started(runner, planner(workspace, backend, "sh", "-c", "echo $#", *["x" * 1000] * 200)))
    assert made.stdout == b"199\n"


@on_each_backend
def test_a_library_that_the_tools_environment_names_is_loaded_by_nothing_that_is_not_confined(
    run, runner, workspace, backend
):
    """LD_PRELOAD of the model's choice ran in bubblewrap, and in the interpreter that confines itself.

    The dynamic linker complains of an empty file: once for each program that starts with the variable.
    """
    (workspace / "planted.so").touch()
    environ = {**ENVIRON, "LD_PRELOAD": str(workspace / "planted.so")}
    made = run(started(runner, planner(workspace, backend, "env"), environ=environ))
    assert f"LD_PRELOAD={environ['LD_PRELOAD']}" in made.stdout.decode().splitlines()
    # The one is the command's own.
    assert made.stderr.count(b"ERROR: ld.so") == 1


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


# Given up again and again


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


# What is missing


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
from tests.agent.sandbox.test_run import Runner, shell, started

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
