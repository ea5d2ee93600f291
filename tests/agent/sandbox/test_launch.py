"""A command in the place of the process that starts it: its end, its signals, its descriptors, and what is left."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sandbox.launch import prepare, spawn
from agent.sandbox.plan import Backend, Placeholder, SandboxPlan, SandboxUnavailable
from agent.sandbox.seccomp import NetworkFilter, program
from tests.agent.sandbox.policies import ENABLED, as_json
from tests.bubblewrap import BWRAP

# Runs a command as `run_here` does, under a profile and in the working directory of its own.
STORY = f"""
import json, os, signal, sys
sys.path[:0] = {sys.path!r}
from agent.sandbox.host import look, places
from agent.sandbox.launch import run_here
from agent.sandbox.plan import Command, Options, SandboxUnavailable, plan
from agent.sandbox.policy import resolve
from agent.sandbox.profile_json import parse_profile
exec(sys.argv[3])
policy = resolve(parse_profile(json.loads(sys.argv[1])), places(os.getcwd(), {{}}))
options = Options(legacy_landlock=sys.argv[2] == "landlock")
command, cwd = Command(tuple(sys.argv[4:]), os.getcwd()), os.getcwd()
try:
    code = run_here(lambda: plan(policy, command, look(policy, cwd, options, os.environ), options), os.environ)
except SandboxUnavailable as exc:
    sys.exit("not run: " + exc.reason)
sys.stderr.write("returned\\n")
sys.exit(code)
"""
PROFILES = {
    "bubblewrap": as_json("read /", "write :project_roots"),
    "landlock": as_json("read /", "write :project_roots"),
    "seccomp": as_json("write :root"),
    "none": as_json("write :root", network=ENABLED),
}
REPLACING = ["landlock", "seccomp", "none"]
on_each_backend = pytest.mark.parametrize("backend", PROFILES)


@pytest.fixture
def workspace(tmp_path):
    """A writable root that is to be empty again after each launch."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def words(backend, *command, before=""):
    return [sys.executable, "-c", STORY, PROFILES[backend], backend, before, *command]


def launched(workspace, backend, *command, before="", **options):
    return subprocess.run(
        words(backend, *command, before=before), cwd=workspace, capture_output=True, text=True, check=False, **options
    )


@contextlib.contextmanager
def running(workspace, backend, script, before=""):
    """A shell script that says `ready` first; killed if it is still there at the end."""
    command = words(backend, "sh", "-c", f"echo ready; {script}", before=before)
    with subprocess.Popen(
        command, cwd=workspace, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


# The end


@on_each_backend
@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_commands_own_code_is_the_code(workspace, backend, code):
    done = launched(workspace, backend, "sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (done.returncode, done.stdout) == (code, "out\n")
    assert done.stderr == ("err\nreturned\n" if backend == "bubblewrap" else "err\n")
    assert os.listdir(workspace) == []


@on_each_backend
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_dies_of_a_signal_ends_as_a_shell_would_say_it(workspace, backend, number):
    done = launched(workspace, backend, "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$")
    # What replaced this process died itself.
    assert done.returncode == (128 + number if backend == "bubblewrap" else -number)
    assert os.listdir(workspace) == []


@pytest.mark.parametrize("backend", REPLACING)
def test_a_command_that_cannot_be_executed_is_101(workspace, backend):
    done = launched(workspace, backend, "no-such-command-xyz")
    assert (done.returncode, done.stderr) == (101, "Failed to execvp no-such-command-xyz: No such file or directory\n")


def test_a_command_that_cannot_be_executed_fails_in_bubblewrap_by_name(workspace):
    done = launched(workspace, "bubblewrap", "no-such-command-xyz")
    assert done.returncode != 0 and "execvp no-such-command-xyz" in done.stderr
    assert os.listdir(workspace) == []


@on_each_backend
def test_a_caller_that_ignores_its_children_still_gets_the_code(workspace, backend):
    """With SIGCHLD ignored the kernel keeps no exit code, and the wait for bubblewrap failed with ECHILD."""
    done = launched(workspace, backend, "sh", "-c", "exit 7", before="signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    assert done.returncode == 7, done.stderr
    assert os.listdir(workspace) == []


@pytest.mark.parametrize("backend", ["seccomp", "landlock"])
def test_a_working_directory_that_is_gone_is_refused(workspace, backend):
    gone = f"os.mkdir({str(workspace / 'gone')!r}); os.chdir({str(workspace / 'gone')!r}); cwd = os.getcwd(); "
    gone += "os.rmdir(cwd); os.getcwd = lambda: cwd"
    done = launched(workspace, backend, "echo", "ran", before=gone)
    assert done.stdout == "" and done.stderr.startswith("not run: the working directory ")


# Signals


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["bubblewrap", "seccomp"])
def test_a_signal_ends_the_sandbox_and_this_process_of_the_same(workspace, backend, number):
    with running(workspace, backend, "ulimit -c 0; trap 'echo trapped' HUP INT QUIT TERM; exec sleep 60") as process:
        # exec keeps no traps; the shell's would not run in bubblewrap either.
        process.send_signal(number)
        # The end of its stdout: nothing of it lives on.
        assert process.stdout.read() == ""
        assert process.wait() == -number
    assert os.listdir(workspace) == []


def test_a_second_signal_does_not_interrupt_the_cleaning_up(workspace):
    with running(workspace, "bubblewrap", "exec sleep 60") as process:
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    assert os.listdir(workspace) == []


def test_a_signal_that_the_caller_ignores_is_not_passed_on(workspace):
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with running(workspace, "bubblewrap", "read line; echo $line", before=ignoring) as process:
        process.send_signal(signal.SIGHUP)
        assert process.communicate("still here\n")[0] == "still here\n"
    assert process.returncode == 0


@on_each_backend
def test_the_command_starts_with_the_signals_of_the_caller_and_not_of_python(workspace, backend):
    def signals(before=""):
        done = launched(workspace, backend, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", before=before)
        blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
        return {number for number in signal.valid_signals() if blocked >> (number - 1) & 1}, ignored

    pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    blocked, ignored = signals()
    assert (blocked, ignored & pythons) == (set(), 0)
    blocked, _ = signals("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGHUP])")
    assert blocked == {signal.SIGUSR1, signal.SIGHUP}


@on_each_backend
def test_a_pipe_without_a_reader_ends_its_writer(workspace, backend):
    """Python ignores SIGPIPE, and what is ignored stays so through exec."""
    done = launched(workspace, backend, "bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}", timeout=20)
    assert done.stdout.splitlines() == ["y", str(128 + signal.SIGPIPE)]


# Descriptors and environment


@on_each_backend
def test_a_descriptor_that_the_caller_left_open_does_not_reach_a_confined_command(workspace, backend):
    directory = os.open("/", os.O_RDONLY)
    try:
        done = launched(workspace, backend, "ls", "-l", "/proc/self/fd", pass_fds=(directory,))
        numbers = {line.split()[8]: line.split()[-1] for line in done.stdout.splitlines()[1:]}
    finally:
        os.close(directory)
    assert ("/" in numbers.values()) is (backend == "none")
    if backend != "none":
        assert sorted(numbers) == ["0", "1", "2", "3"] and numbers["3"].endswith("/fd")


def test_what_starts_bubblewrap_gives_it_the_streams_and_what_its_words_name():
    view = (BWRAP, "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--seccomp", "3", "--")
    filtered = program(NetworkFilter.NETWORK_ON, os.uname().machine)
    plan = SandboxPlan(Backend.BUBBLEWRAP, (*view, "ls", "/proc/self/fd"), "/", seccomp=filtered)
    left_open, null = os.open("/", os.O_RDONLY), os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(left_open, True)
    read, write = os.pipe()
    try:
        pid = spawn(plan, {"PATH": "/usr/bin:/bin"}, None, {}, streams=(null, write, write))
    finally:
        for descriptor in (left_open, null, write):
            os.close(descriptor)
    with open(read) as said:
        assert said.read().split() == ["0", "1", "2", "3"]  # the last one is the listing's own
    assert os.waitpid(pid, 0)[1] == 0


def test_the_streams_are_the_callers_own(workspace):
    with open(workspace.parent / "out", "w") as out:
        command = words("bubblewrap", "sh", "-c", "readlink /proc/self/fd/1; cat")
        subprocess.run(command, cwd=workspace, input="in", stdout=out, text=True, check=True)
    assert (workspace.parent / "out").read_text() == f"{workspace.parent}/out\nin"


# What is left


def test_when_the_launcher_is_killed_the_sandbox_dies_and_a_guardian_cleans_up(workspace):
    with running(workspace, "bubblewrap", "exec sleep 60") as process:
        assert sorted(os.listdir(workspace)) == [".agents", ".aws", ".codex", ".git"]
        witnesses = [os.pidfd_open(pid) for pid in children(process)]
        assert len(witnesses) == 2
        process.kill()
        assert process.stdout.read() == ""
        for witness in witnesses:
            assert select.select([witness], [], [], 10)[0]
            os.close(witness)
    assert os.listdir(workspace) == []


def test_when_bubblewrap_is_killed_the_launcher_cleans_up_and_ends_of_the_same(workspace):
    with running(workspace, "bubblewrap", "exec sleep 60") as process:
        for pid in children(process):
            if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n":
                os.kill(pid, signal.SIGKILL)
        assert process.stdout.read() == ""
        assert process.wait() == -signal.SIGKILL
    assert os.listdir(workspace) == []


def test_nobody_waits_for_the_guardian_at_the_end_of_a_pipe(workspace):
    """It holds none of the streams; `$(countersign sandbox …)` ends with the command."""
    with running(workspace, "bubblewrap", "exec sleep 60") as process:
        guardians = [pid for pid in children(process) if Path(f"/proc/{pid}/comm").read_text() != "bwrap\n"]
        assert [os.readlink(f"/proc/{guardians[0]}/fd/{number}") for number in range(3)] == [os.devnull] * 3


def test_two_at_once_share_what_they_mask_and_the_last_one_removes_it(workspace):
    with running(workspace, "bubblewrap", "read line; touch .git/x") as first:
        with running(workspace, "bubblewrap", "read line") as second:
            second.communicate("\n")
        assert sorted(os.listdir(workspace)) == [".agents", ".aws", ".codex", ".git"]
        assert "Read-only file system" in first.communicate("\n")[1]
    assert os.listdir(workspace) == []


# Planning and placeholders


def masking(*paths, directory=True):
    held = tuple(Placeholder(str(path), directory) for path in paths)
    return SandboxPlan(Backend.BUBBLEWRAP, ("/usr/bin/bwrap",), "/", placeholders=held, masked=tuple(map(str, paths)))


def test_a_plan_without_masks_holds_nothing():
    plan = masking()
    assert prepare(lambda: plan) == (plan, None)


def test_when_the_disk_changed_after_the_plan_it_is_planned_again(workspace):
    planned = []

    def make_plan():
        planned.append(masking(*[name for name in (workspace / ".git", workspace / ".aws") if not name.exists()]))
        (workspace / ".git").mkdir(exist_ok=True)
        return planned[-1]

    plan, hold = prepare(make_plan)
    hold.release()
    assert len(planned) == 2 and plan is planned[1]
    assert os.listdir(workspace) == [".git"]


def test_a_disk_that_never_stands_still_is_given_up(workspace):
    attempts = []

    def make_plan():
        (workspace / str(len(attempts))).mkdir()
        attempts.append(masking(workspace / str(len(attempts))))
        return attempts[-1]

    with pytest.raises(SandboxUnavailable, match="changed 5 times"):
        prepare(make_plan)
    assert len(attempts) == 5


def test_a_placeholder_that_cannot_be_made_refuses_the_command(workspace):
    with pytest.raises(SandboxUnavailable, match="No such file or directory: '.*/gone/x'; the command was not run"):
        prepare(lambda: masking(workspace / ".git", workspace / "gone" / "x"))
    assert os.listdir(workspace) == []


def test_a_command_line_that_is_too_long_for_the_kernel_is_refused_with_advice():
    plan = SandboxPlan(Backend.BUBBLEWRAP, (BWRAP, "--", "echo", "x" * 200_000), "/")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxUnavailable, match="Argument list too long; deny or grant whole directories"):
        spawn(plan, {}, None, {})
    assert len(os.listdir("/proc/self/fd")) == before
