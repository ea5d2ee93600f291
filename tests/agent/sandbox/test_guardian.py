"""What cleans up after a launcher that was killed, with real processes that are killed."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.sandbox.guardian import Guardian, begun_before, guard
from agent.sandbox.placeholders import Placeholders
from tests.agent.sandbox.launches import holder, kill, left, sandboxed, wanting
from tests.bubblewrap import BWRAP


@pytest.fixture
def records(tmp_path):
    """Records in a state directory of their own."""
    (tmp_path / "state").mkdir(mode=0o700)
    return Placeholders(str(tmp_path / "state"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def ended_lifeline():
    read, write = os.pipe()
    os.close(write)
    return read


def guarded(tmp_path, launcher, **options):
    lifeline = ended_lifeline()
    try:
        guard(lifeline, str(tmp_path / "state"), launcher, **options)
    finally:
        os.close(lifeline)


# What it does


def test_it_does_not_wait_for_the_sandboxes_of_others(records, tmp_path, root):
    living = records.hold(wanting(root / ".codex"), [])
    with holder(tmp_path, root / ".git") as other:
        kill(other)
    guarded(tmp_path, other.pid, wait=lambda _: pytest.fail("it waits"))
    assert os.listdir(root) == [".codex"]
    living.release()


def test_it_waits_for_a_sandbox_that_dies_a_little_later_than_its_launcher(records, tmp_path, root):
    hold = records.hold(wanting(root / ".git"), [])
    waits = []

    def wait(seconds):
        waits.append(seconds)
        # The last of the sandbox ends: nobody holds a lock now.
        hold.leave()

    guarded(tmp_path, os.getpid(), wait=wait)
    assert len(waits) == 1 and os.listdir(root) == []


def test_it_looks_only_for_launches_from_before_the_end_of_its_launcher(records, root):
    """Else it would end the launches of whoever gets the pid next."""
    before_ns = time.monotonic_ns()
    hold = records.hold(wanting(root / ".git"), [])
    assert begun_before(before_ns, os.getpid(), records.directory) == []
    assert begun_before(time.monotonic_ns(), os.getpid(), records.directory) == [hold.name]
    hold.release()


def test_it_ends_what_holds_a_lock_of_the_dead(tmp_path, root):
    """An orphan that was never told to go on would wait for ever, and the placeholders with it."""
    (tmp_path / "state").mkdir(mode=0o700)
    beside = (
        "import subprocess; orphan = subprocess.Popen(['sleep', '60'], pass_fds=[hold.descriptor]); print(orphan.pid)"
    )
    with holder(tmp_path, root / ".git", beside=beside) as other:
        orphan = os.pidfd_open(int(other.said))
        kill(other)
    guarded(tmp_path, other.pid)
    assert select.select([orphan], [], [], 10)[0]
    os.close(orphan)
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_it_ends_a_sandbox_that_has_dropped_its_lock_and_would_outlive_its_launcher(tmp_path, root):
    """A command that may trace can make its init close what it holds, and stay when bubblewrap dies."""
    (tmp_path / "state").mkdir(mode=0o700)
    with holder(tmp_path, root / ".git", beside=sandboxed("sleep", "60")) as other:
        init = os.pidfd_open(int(other.said))
        kill(other)
    assert not select.select([init], [], [], 0.2)[0]
    guarded(tmp_path, other.pid)
    assert select.select([init], [], [], 10)[0]
    os.close(init)
    assert os.listdir(root) == [] and left(tmp_path) == []


# What it is


def story(tmp_path, *lines, env=None):
    """A launcher: starts a guardian, and goes on until its stdin ends."""
    code = "\n".join(
        [
            f"import os, sys; sys.path[:0] = {sys.path!r}",
            "from agent.sandbox.guardian import Guardian",
            "from agent.sandbox.placeholders import Placeholders",
            f"state = {str(tmp_path / 'state')!r}",
            "guardian = Guardian()",
            "guardian.start(state)",
            *lines,
        ]
    )
    (tmp_path / "state").mkdir(mode=0o700, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_empty(directory):
    deadline = time.monotonic() + 10
    while os.listdir(directory) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return os.listdir(directory) == []


HOLD = "hold = Placeholders(state).hold({wanted!r}, [])"
SAY = "print(flush=True); sys.stdin.read()"


def test_it_survives_the_kill_of_its_launchers_whole_group_and_cleans_up(tmp_path, root):
    """It went into a session of its own only some time after the placeholders were made."""
    code = ["os.setpgid(0, 0)", HOLD.format(wanted=wanting(root / ".git")), "os.killpg(0, 9)"]
    with story(tmp_path, *code) as launcher:
        assert launcher.wait(20) == -signal.SIGKILL
    assert wait_until_empty(root)


def test_when_it_has_been_started_it_is_in_a_session_of_its_own_with_none_of_our_descriptors(tmp_path):
    lines = [
        "kept = os.open('/', os.O_RDONLY); os.set_inheritable(kept, True); guardian.dismiss(); guardian.start(state)"
    ]
    with story(tmp_path, *lines, SAY) as launcher:
        launcher.stdout.readline()
        (pid,) = children(launcher.pid)
        assert os.getsid(pid) == pid
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "S" and time.monotonic() < deadline:
            os.sched_yield()  # the shell is still loading its libraries
        opened = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert opened.keys() == {"0", "1", "2"} and opened["1"] == opened["2"] == os.devnull
        launcher.communicate()


def test_a_library_that_the_environment_asks_for_is_not_loaded_into_it(tmp_path):
    """It is not confined, and LD_PRELOAD may lead into a workspace. The control: the launcher itself gets it."""
    planted = tmp_path / "planted.so"
    planted.write_bytes(b"")  # the dynamic linker says that it cannot be preloaded
    with story(tmp_path, SAY, env={**os.environ, "LD_PRELOAD": str(planted)}) as launcher:
        launcher.stdout.readline()
        (pid,) = children(launcher.pid)
        assert b"LD_PRELOAD" in Path(f"/proc/{launcher.pid}/environ").read_bytes()
        assert b"LD_PRELOAD" not in Path(f"/proc/{pid}/environ").read_bytes()
        launcher.communicate()


@pytest.fixture
def guardian(tmp_path):
    """One of this process, started and in the end dismissed."""
    (tmp_path / "state").mkdir(mode=0o700)
    guardian = Guardian()
    guardian.start(str(tmp_path / "state"))
    yield guardian
    guardian.dismiss()


def test_one_that_has_died_is_replaced_and_one_that_has_not_is_kept(guardian, tmp_path):
    (first,) = our_guardians()
    guardian.start(str(tmp_path / "state"))
    assert our_guardians() == [first]
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    guardian.start(str(tmp_path / "state"))
    (second,) = our_guardians()
    assert second != first
    guardian.dismiss()
    assert our_guardians() == []


def our_guardians():
    return [pid for pid in children(os.getpid()) if os.getsid(pid) == pid]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_one_that_is_gone_or_stuck_is_dismissed_without_a_word(guardian, how):
    """Telling it went into a pipe without a reader, and a command that had ended well ended in a traceback."""
    (pid,) = our_guardians()
    os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    guardian.dismiss()
    guardian.dismiss()
    assert our_guardians() == []


def test_where_there_is_no_shell_it_is_started_all_the_same(tmp_path, root):
    (tmp_path / "empty").mkdir()
    (tmp_path / "state").mkdir(mode=0o700)
    code = "\n".join(
        [
            f"import os, sys; sys.path[:0] = {sys.path!r}",
            "from agent.sandbox.guardian import Guardian",
            "from agent.sandbox.placeholders import Placeholders",
            "assert not os.path.exists('/bin/sh')",
            f"Guardian().start({str(tmp_path / 'state')!r})",
            f"Placeholders({str(tmp_path / 'state')!r}).hold({wanting(root / '.git')!r}, [])",
            "os.kill(os.getpid(), 9)",
        ]
    )
    shell = os.path.realpath("/bin/sh")
    hidden = [BWRAP, "--bind", "/", "/", "--dev", "/dev", "--bind", str(tmp_path / "empty"), os.path.dirname(shell)]
    if Path(sys.executable).resolve().is_relative_to(os.path.dirname(shell)):
        hidden = [BWRAP, "--bind", "/", "/", "--dev", "/dev", "--ro-bind", "/dev/null", shell]
    subprocess.run([*hidden, sys.executable, "-c", code], check=False)
    assert wait_until_empty(root)
