"""When bubblewrap has ended its sandbox has not yet; the init tells when."""

import contextlib
import os
import subprocess

import pytest

from agent.sandbox.init import Init
from agent.sandbox.plan import INFO_FD
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


@contextlib.contextmanager
def sandbox(script: str):
    """A bubblewrap, the init that follows it, and the end of a pipe that every process inside holds open."""
    init = Init()
    read, write = os.pipe()
    (number, descriptor), *_ = init.descriptors.items()
    assert number == INFO_FD
    process = subprocess.Popen(
        [BWRAP, *VIEW, "--info-fd", str(descriptor), "--", "sh", "-c", script], pass_fds=[descriptor, write]
    )
    os.close(write)
    try:
        yield process, init, read
    finally:
        process.kill()
        process.wait()
        init.close()
        os.close(read)


def test_all_processes_of_the_sandbox_are_dead_when_the_init_has_ended():
    for _ in range(20):
        with sandbox("sleep 60 & sleep 60 & exit 0") as (process, init, held):
            assert process.wait(10) == 0
            init.wait()
            # Nobody holds the other end: reading finds the end at once, and does not wait.
            os.set_blocking(held, False)
            assert os.read(held, 1) == b""


def test_the_init_is_known_while_the_command_runs():
    with sandbox("read line") as (process, init, _):
        pid = init.awaited(lambda: process.poll() is None)
        assert pid == init.pid() and pid not in (None, process.pid)
        with open(f"/proc/{pid}/status") as status:
            assert f"PPid:\t{process.pid}\n" in status.read()


@pytest.mark.parametrize("command", [["true"], [BWRAP, "--no-such-option"]], ids=["nobody", "refused"])
def test_a_bubblewrap_that_ends_without_an_init_is_not_waited_for(command):
    init = Init()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=list(init.descriptors.values()))
    assert init.awaited(lambda: process.poll() is None) is None
    process.wait()
    init.wait()
    assert (init.pid(), init.end()) == (None, -1)
    init.close()
    init.close()
