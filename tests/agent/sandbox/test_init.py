"""When bubblewrap has ended its sandbox has not yet; the init tells when."""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time

import pytest

from agent.sandbox.discovery import bundled
from agent.sandbox.init import STATUS_FD, Init, Told, end, told
from tests.bubblewrap import BWRAP

VIEW = (
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--unshare-user",
    "--unshare-pid",
    "--die-with-parent",
)


on_each_bubblewrap = pytest.mark.parametrize("bwrap", sorted({BWRAP, bundled() or BWRAP}), ids=os.path.dirname)


@contextlib.contextmanager
def sandbox(*command: str, bwrap: str = BWRAP):
    """A bubblewrap, the init that follows it, and the end of a pipe that every process inside holds open."""
    init = Init()
    read, write = os.pipe()
    (number, descriptor), *_ = init.descriptors.items()
    assert number == STATUS_FD
    process = subprocess.Popen(
        [bwrap, *VIEW, "--json-status-fd", str(descriptor), "--", *command],
        pass_fds=[descriptor, write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        yield process, init, read
    finally:
        process.kill()
        process.wait()
        init.close()
        os.close(read)


@on_each_bubblewrap
def test_all_processes_of_the_sandbox_are_dead_when_the_init_has_ended(bwrap):
    for _ in range(20):
        with sandbox("sh", "-c", "sleep 60 & sleep 60 & exit 0", bwrap=bwrap) as (process, init, held):
            assert process.wait(10) == 0
            assert init.wait() is True
            # Nobody holds the other end: reading finds the end at once, and does not wait.
            os.set_blocking(held, False)
            assert os.read(held, 1) == b""


@on_each_bubblewrap
def test_the_init_is_known_while_the_command_runs(bwrap):
    with sandbox("sh", "-c", "read line", bwrap=bwrap) as (process, init, _):
        which = init.awaited(lambda: process.poll() is None)
        assert which == init.told() and which.pid != process.pid
        with open(f"/proc/{which.pid}/status") as status:
            assert f"PPid:\t{process.pid}\n" in status.read()
        assert which.pid_namespace == os.stat(f"/proc/{which.pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino
        assert which.mount_namespace == os.stat(f"/proc/{which.pid}/ns/mnt").st_ino
        assert which.lives()


@on_each_bubblewrap
@pytest.mark.parametrize(("command", "executed"), [("true", True), ("false", True), ("no-such-command-xyz", False)])
def test_it_is_known_whether_the_command_could_be_executed(bwrap, command, executed):
    """bubblewrap ends with 1 if not, as a command may as well."""
    with sandbox(command, bwrap=bwrap) as (process, init, _):
        process.wait()
        assert init.executed() is executed


@pytest.mark.parametrize("command", [["true"], [BWRAP, "--no-such-option"]], ids=["nobody", "refused"])
def test_a_bubblewrap_that_ends_without_an_init_is_not_waited_for(command):
    init = Init()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=list(init.descriptors.values()))
    assert init.awaited(lambda: process.poll() is None) is None
    process.wait()
    assert init.wait() is True
    assert (init.told(), init.end(), init.insist()) == (None, -1, False)
    init.close()
    init.close()


def test_an_init_that_stays_when_bubblewrap_has_ended_is_killed():
    """A command that may trace can keep it from dying with bubblewrap; its masks were then taken away all the same."""
    view = [word for word in VIEW if word != "--die-with-parent"]
    init = Init()
    (descriptor,) = init.descriptors.values()
    command = [BWRAP, *view, "--json-status-fd", str(descriptor), "--", "sleep", "60"]
    with subprocess.Popen(command, pass_fds=[descriptor]) as process:
        which = init.awaited(lambda: process.poll() is None)
        process.kill()
    assert which.lives()
    assert init.wait() is True and not which.lives()
    init.close()


# What bubblewrap tells


INFO = b"""{
    "child-pid": 5857,
    "ipc-namespace": 4026532179,
    "mnt-namespace": 4026532178,
    "pid-namespace": 4026532180
}
"""
STATUS = b'{ "child-pid": 7, "mnt-namespace": 4026532180 }\n{ "exit-code": 0 }\n'


def test_both_of_its_forms_are_read_and_neither_before_it_is_whole():
    assert told(INFO) == Told(5857, 4026532180, 4026532178)
    assert told(STATUS) == Told(7, None, 4026532180)
    for length in range(len(INFO) - 2):
        assert told(INFO[:length]) is None
    assert told(b"no JSON } at all") is None


def test_another_process_with_the_pid_is_not_taken_for_the_init():
    with subprocess.Popen(["sleep", "60"]) as other:
        ours = os.stat("/proc/self/ns/pid").st_ino
        stranger, same = Told(other.pid, ours + 1, 0), Told(other.pid, ours, 0)
        assert stranger.witness() == -1 and not stranger.lives()
        # The control.
        assert same.lives()
        other.kill()
        witness = os.pidfd_open(other.pid)
        select.select([witness], [], [], 10)
        os.close(witness)
        # Not reaped: it still has the pid, and is dead.
        assert not same.lives()
    assert not same.lives()


# Ending one


FORKING = """
import os, sys, time
os.write(1, b".")
os.read(0, 1)
deadline = time.monotonic() + float(sys.argv[1])
while time.monotonic() < deadline:
    pass
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def late_signals(monkeypatch):
    """Signals that take a moment, as where this process is preempted before each."""
    kill = os.kill

    def kill_later(pid, number):
        deadline = time.monotonic() + 0.0005
        while time.monotonic() < deadline:
            pass
        kill(pid, number)

    monkeypatch.setattr(os, "kill", kill_later)


def test_a_process_that_is_about_to_have_a_child_is_not_ended_without_it(late_signals):
    """Its children were listed, then it had one, then it was killed: the sandbox was an orphan, and ran on for ever."""
    moments = random.Random(1)
    for _ in range(40):
        read, write = os.pipe()
        command = [sys.executable, "-I", "-S", "-c", FORKING, str(moments.uniform(0, 0.0006))]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=[write]
        ) as process:
            os.close(write)
            process.stdout.read(1)
            process.stdin.write(b".")
            end(process.pid, signal.SIGKILL)
            process.kill()
        # At the end of all that hold the other end; a child that was missed holds it for a minute.
        ended = bool(select.select([read], [], [], 5)[0])
        os.close(read)
        assert ended


@on_each_bubblewrap
def test_a_bubblewrap_that_is_just_starting_is_ended_with_all_it_has_started(bwrap):
    moments = random.Random(2)
    for _ in range(60):
        with sandbox("sleep", "60", bwrap=bwrap) as (process, _, held):
            deadline = time.monotonic() + moments.uniform(0, 0.005)
            while time.monotonic() < deadline:
                pass
            end(process.pid, signal.SIGKILL)
            process.wait(10)
            assert select.select([held], [], [], 5)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_without_a_child_ends_of_the_signal_that_was_to_be_passed_on(number):
    with subprocess.Popen(["sleep", "60"]) as process:
        end(process.pid, number)
        assert process.wait(10) == -number
        end(process.pid, number)
