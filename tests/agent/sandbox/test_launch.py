"""A command in the place of the process that starts it: its end, its signals, its descriptors, and what is left.

Longer than most modules: all of it goes through one way of starting, with each backend, in place and beside it.
"""

import contextlib
import errno
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sandbox.launch import prepare
from agent.sandbox.plan import Backend, Placeholder, SandboxPlan, SandboxUnavailable
from tests.agent.sandbox.policies import ENABLED, as_json
from tests.bubblewrap import BWRAP

# Runs a command as `run_here` does, under a profile and in the working directory of its own: as the helper does, in the
# place of this process where that can be, or as the command `sandbox` does, always as a process of its own.
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
options = Options(legacy_landlock="landlock" in sys.argv[2])
command, cwd = Command(tuple(sys.argv[4:]), os.getcwd()), os.getcwd()
try:
    make_plan = lambda: plan(policy, command, look(policy, cwd, options, os.environ), options)
    code = run_here(make_plan, os.environ, in_place="in-place" in sys.argv[2])
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
on_each_way = pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "in-a-child"])


@pytest.fixture
def workspace(tmp_path):
    """A writable root that is to be empty again after each launch."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def words(backend, *command, before="", in_place=True):
    how = f"{backend} in-place" if in_place else backend
    return [sys.executable, "-c", STORY, PROFILES[backend], how, before, *command]


def launched(workspace, backend, *command, before="", in_place=True, **options):
    line = words(backend, *command, before=before, in_place=in_place)
    return subprocess.run(line, cwd=workspace, capture_output=True, text=True, check=False, **options)


@contextlib.contextmanager
def running(workspace, backend, script, before="", in_place=True):
    """A shell script that says `ready` first; killed if it is still there at the end."""
    command = words(backend, "sh", "-c", f"echo ready; {script}", before=before, in_place=in_place)
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


@on_each_way
@on_each_backend
@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_commands_own_code_is_the_code(workspace, backend, code, in_place):
    done = launched(workspace, backend, "sh", "-c", f"echo out; echo err >&2; exit {code}", in_place=in_place)
    assert (done.returncode, done.stdout) == (code, "out\n")
    returns = backend == "bubblewrap" or not in_place
    assert done.stderr == ("err\nreturned\n" if returns else "err\n")
    assert os.listdir(workspace) == []


@on_each_way
@on_each_backend
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_dies_of_a_signal_ends_as_a_shell_would_say_it(workspace, backend, number, in_place):
    """The original's `sandbox` says 128 + N for each policy; ours died of the signal itself where it had become it."""
    done = launched(workspace, backend, "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$", in_place=in_place)
    # What replaced this process died itself.
    assert done.returncode == (-number if backend != "bubblewrap" and in_place else 128 + number)
    assert os.listdir(workspace) == []


@on_each_way
@pytest.mark.parametrize("name", ["no-such-command-xyz", "", "/etc/passwd", "/proc"])
@on_each_backend
def test_a_command_that_cannot_be_executed_is_101(workspace, backend, in_place, name):
    done = launched(workspace, backend, name, in_place=in_place)
    assert done.returncode == 101
    assert f"execvp {name}: " in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(workspace) == []


@on_each_way
def test_what_bubblewrap_has_no_part_in_is_no_failure_to_execute(workspace, in_place):
    """A command may end with bubblewrap's own code for its failures."""
    assert launched(workspace, "bubblewrap", "sh", "-c", "exit 1", in_place=in_place).returncode == 1


@on_each_way
@on_each_backend
def test_a_caller_that_ignores_its_children_still_gets_the_code(workspace, backend, in_place):
    """With SIGCHLD ignored the kernel keeps no exit code, and the wait for bubblewrap failed with ECHILD."""
    ignoring = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    done = launched(workspace, backend, "sh", "-c", "exit 7", before=ignoring, in_place=in_place)
    assert done.returncode == 7, done.stderr
    assert os.listdir(workspace) == []


@on_each_way
def test_what_cannot_be_confined_is_not_run(workspace, in_place):
    """Said by the child, and told by its parent."""
    refused = "import agent.sandbox.linux as linux; linux.program = lambda *_: bytes(8)"
    done = launched(workspace, "seccomp", "echo", "ran", before=refused, in_place=in_place)
    assert done.stdout == "" and done.stderr.startswith("not run: cannot install a seccomp program"), done.stderr


@on_each_way
@pytest.mark.parametrize("backend", ["seccomp", "landlock"])
def test_a_working_directory_that_is_gone_is_refused(workspace, backend, in_place):
    gone = f"os.mkdir({str(workspace / 'gone')!r}); os.chdir({str(workspace / 'gone')!r}); cwd = os.getcwd(); "
    gone += "os.rmdir(cwd); os.getcwd = lambda: cwd"
    done = launched(workspace, backend, "echo", "ran", before=gone, in_place=in_place)
    assert done.stdout == "" and done.stderr.startswith("not run: the working directory ")


# Signals


@on_each_way
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["bubblewrap", "seccomp"])
def test_a_signal_ends_the_sandbox_and_this_process_of_the_same(workspace, backend, number, in_place):
    # A trap of the command would not run in bubblewrap.
    trap = "trap 'echo trapped' HUP INT QUIT TERM;" if backend == "bubblewrap" else ""
    script = f"ulimit -c 0; {trap} exec sleep 60"
    with running(workspace, backend, script, in_place=in_place) as process:
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


@pytest.mark.parametrize("backend", REPLACING)
def test_a_signal_is_passed_on_to_a_command_that_has_its_own_answer(workspace, backend):
    """The original's `sandbox` dies of it and leaves the command alone."""
    script = "trap 'echo trapped; exit 9' TERM; echo armed; while :; do sleep 0.01; done"
    with running(workspace, backend, script, in_place=False) as process:
        assert process.stdout.readline() == "armed\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "trapped\n"
        assert process.wait() == 9


@pytest.mark.parametrize("backend", REPLACING)
def test_what_the_terminal_sends_to_all_is_not_sent_to_the_command_a_second_time(workspace, backend):
    """Many programs take a second Ctrl-C for "at once"."""
    script = "trap 'echo once' INT; echo armed; while :; do read line && exit 3; done"
    line = words(backend, "sh", "-c", script, in_place=False)
    with_terminal = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    with_terminal += "os.execv(sys.argv[1], sys.argv[1:])"
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", with_terminal, *line]
    process = subprocess.Popen(command, cwd=workspace, stdin=terminal, stdout=terminal)
    os.close(terminal)
    said = b""

    def hear(word):
        nonlocal said
        while word not in said:
            said += os.read(controller, 1000)

    hear(b"armed")
    os.write(controller, b"\x03")
    hear(b"once")
    # Answered in order: had there been a second one, it would be said before this.
    os.write(controller, b"end\n")
    assert process.wait(10) == 3
    with contextlib.suppress(OSError):
        hear(b"nothing more")
    os.close(controller)
    assert said.count(b"once") == 1


@on_each_way
@on_each_backend
def test_the_command_starts_with_the_signals_of_the_caller_and_not_of_python(workspace, backend, in_place):
    def signals(before=""):
        command = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
        done = launched(workspace, backend, *command, before=before, in_place=in_place)
        blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
        return {number for number in signal.valid_signals() if blocked >> (number - 1) & 1}, ignored

    pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    blocked, ignored = signals()
    assert (blocked, ignored & pythons) == (set(), 0)
    blocked, _ = signals("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGHUP])")
    assert blocked == {signal.SIGUSR1, signal.SIGHUP}


@on_each_way
@on_each_backend
def test_a_pipe_without_a_reader_ends_its_writer(workspace, backend, in_place):
    """Python ignores SIGPIPE, and what is ignored stays so through exec."""
    command = ["bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}"]
    done = launched(workspace, backend, *command, in_place=in_place, timeout=20)
    assert done.stdout.splitlines() == ["y", str(128 + signal.SIGPIPE)]


# Descriptors and environment


@on_each_way
@on_each_backend
def test_a_descriptor_that_the_caller_left_open_does_not_reach_a_confined_command(workspace, backend, in_place):
    directory = os.open("/", os.O_RDONLY)
    try:
        done = launched(workspace, backend, "ls", "-l", "/proc/self/fd", pass_fds=(directory,), in_place=in_place)
        numbers = {line.split()[8]: line.split()[-1] for line in done.stdout.splitlines()[1:]}
    finally:
        os.close(directory)
    assert ("/" in numbers.values()) is (backend == "none")
    if backend != "none":
        assert sorted(numbers) == ["0", "1", "2", "3"] and numbers["3"].endswith("/fd")


def test_a_descriptor_that_has_a_number_of_bubblewraps_by_chance_does_not_reach_it(workspace):
    command = words("bubblewrap", "sh", "-c", "readlink /proc/self/fd/* /proc/1/fd/*")
    crowded = ["bash", "-c", 'exec 3</ 4</ 5</ 6</ 7</ 8</ 9</ 10</; exec "$@"', "bash", *command]
    done = subprocess.run(crowded, cwd=workspace, capture_output=True, text=True)
    assert "pipe:" in done.stdout and "/" not in done.stdout.split()
    assert os.listdir(workspace) == []


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


def test_the_guardian_is_gone_when_the_launcher_is(workspace):
    """A caller that takes orphans in, as the first process of a container does, kept one for each command."""
    adopt = (
        "import ctypes, os, subprocess, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); subprocess.run(sys.argv[1:]); "
    )
    adopt += "left = open(f'/proc/self/task/{os.getpid()}/children').read().split(); "
    adopt += "print([open(f'/proc/{pid}/comm').read() for pid in left])"
    command = [sys.executable, "-c", adopt, *words("bubblewrap", "true")]
    left = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True).stdout
    # bubblewrap ends before its init does: that one is the caller's, and not to be helped.
    assert left in ("[]\n", "['bwrap\\n']\n")


def test_when_the_guardian_was_killed_the_command_ends_as_it_ends(workspace):
    """The end of the launch was told to it by a pipe, which had no reader then: a traceback, and another code."""
    with running(workspace, "bubblewrap", "read line; exit 7") as process:
        (guardian,) = [pid for pid in children(process) if os.getsid(pid) == pid]
        os.kill(guardian, signal.SIGKILL)
        _, said = process.communicate("\n")
    assert (process.returncode, said) == (7, "returned\n")
    assert os.listdir(workspace) == []


def test_a_record_that_bubblewrap_cannot_write_to_leaves_nobody_behind(workspace):
    """It ends then, and its child waited for ever to be told to go on: here at each length of what can be written."""
    ran = []
    for length in range(0, 2000, 40):
        full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({length}, {length}))"
        done = launched(workspace, "bubblewrap", "true", before=full)
        assert os.listdir(workspace) == [], length
        ran.append(done.returncode == 0)
    # From some length on there is room for all.
    assert ran == sorted(ran) and not ran[0] and ran[-1]
    mine = f"--chdir\0{workspace}\0".encode()
    assert not [pid for pid in filter(str.isdigit, os.listdir("/proc")) if mine in command_of(pid)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


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
    with pytest.raises(SandboxUnavailable, match="created: No such file or directory: '.*/gone/x'$"):
        prepare(lambda: masking(workspace / ".git", workspace / "gone" / "x"))
    assert os.listdir(workspace) == []


LOCKED = f"""
import fcntl, os, sys
sys.path[:0] = {sys.path!r}
from agent.sandbox.launch import prepare
from agent.sandbox.placeholders import Busy
from agent.sandbox.plan import SandboxUnavailable
from agent.sandbox.state import state_directory
from tests.agent.sandbox.test_launch import masking
# As a confined command can lock them that sees them.
fcntl.flock(os.open(state_directory() + "/launches.lock", os.O_RDONLY | os.O_CREAT, 0o600), fcntl.LOCK_EX)
for patient in (False, True):
    try:
        prepare(lambda: masking(sys.argv[1] + "/.git"), patient=patient)
    except (Busy, SandboxUnavailable) as exc:
        print(type(exc).__name__, exc)
"""


def test_records_that_somebody_keeps_locked_are_not_waited_for_without_end(workspace):
    view = [BWRAP, "--bind", "/", "/", "--dev", "/dev", "--", sys.executable, "-c", LOCKED, str(workspace)]
    done = subprocess.run(view, capture_output=True, text=True, check=True, timeout=30)
    busy, refused = done.stdout.splitlines()
    assert busy == "Busy "
    assert refused.startswith("SandboxUnavailable another process keeps the records in '/dev/shm/")
    assert refused.endswith(" locked; end it")
    assert os.listdir(workspace) == []


def test_a_path_that_no_disk_can_have_refuses_the_command(workspace):
    with pytest.raises(SandboxUnavailable, match="cannot make the placeholder .*: .*surrogates not allowed"):
        prepare(lambda: masking(workspace / "\ud800"))
    assert os.listdir(workspace) == []


def test_a_guardian_that_cannot_be_had_refuses_the_command(workspace):
    def guarded(_directory):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(SandboxUnavailable, match="no record can be kept of what is masked: Too many open files"):
        prepare(lambda: masking(workspace / ".git"), guarded)
    assert os.listdir(workspace) == []
