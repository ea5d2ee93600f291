"""Commands outside of bubblewrap end with who started them, also when that is killed."""

import os
import signal
import subprocess
import sys

import pytest

from agent.sandbox.leash import Leash
from agent.sandbox.plan import Backend

# Holds two process groups, lets go of the first, does what it is told, and is killed.
HOLDER = """
import os, signal, sys
from agent.sandbox.leash import Leash
from agent.sandbox.plan import Backend
leash = Leash()
released, held = map(int, sys.argv[1:3])
for group in (released, held):
    leash.hold(Backend.NONE, group)
{}
leash.release(released)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def sleepers():
    """Two processes, each the first of a group."""
    started = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2)]
    yield started
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.parametrize(
    "first",
    ["", "os.kill(leash._pid, signal.SIGKILL); os.waitid(os.P_PID, leash._pid, os.WEXITED | os.WNOWAIT)"],
    ids=["as-it-is", "after-its-own-end"],
)
def test_what_is_held_dies_with_its_killed_holder_and_what_was_released_does_not(sleepers, first):
    released, held = sleepers
    words = [sys.executable, "-c", HOLDER.format(first), str(released.pid), str(held.pid)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert held.wait(timeout=10) == -signal.SIGKILL
    assert released.poll() is None


def test_what_ends_in_order_kills_nothing_and_leaves_nobody(sleepers):
    leash = Leash()
    leash.hold(Backend.NONE, sleepers[0].pid)
    watcher = leash._pid
    leash.close()
    leash.close()
    with pytest.raises(ProcessLookupError):
        os.kill(watcher, 0)
    assert sleepers[0].poll() is None


def test_for_a_sandbox_that_ends_by_itself_nobody_is_started(sleepers):
    leash = Leash()
    leash.hold(Backend.BUBBLEWRAP, sleepers[0].pid)
    leash.release(sleepers[0].pid)
    assert leash._pid < 0
