"""Placeholders and their records, with real processes that hold them and die.

Longer than most modules: each test is one way in which holders meet over the same two fixtures.
"""

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.sandbox.placeholders import Busy, Placeholders, Stale
from agent.sandbox.state import state_directory
from tests.agent.sandbox.children import in_child, outcome
from tests.agent.sandbox.launches import holder, kill, left, sandboxed, wanting
from tests.agent.sandbox.policies import open_descriptors
from tests.bubblewrap import BWRAP

AS_DIRECTORY, AS_FILE = True, False


@pytest.fixture
def records(tmp_path):
    """Records in a state directory of their own."""
    (tmp_path / "state").mkdir(mode=0o700)
    return Placeholders(str(tmp_path / "state"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# Making and removing


def test_what_is_missing_stands_while_it_is_held_and_is_gone_afterwards(records, root, tmp_path):
    wanted = [(str(root / ".git"), AS_DIRECTORY), (str(root / "key\n'é"), AS_FILE)]
    hold = records.hold(wanted, [str(root)])
    assert (root / ".git").is_dir() and (root / "key\n'é").read_bytes() == b""
    hold.release()
    hold.release()
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_one_that_is_made_but_cannot_be_made_ready_is_taken_back(records, root, tmp_path):
    """Its mode takes a descriptor where the umask is strict."""
    before = os.umask(0o077)
    with without_descriptors(2 + 1):
        with pytest.raises(OSError, match="Too many open files"):
            records.hold(wanting(root / ".git"), [])
    os.umask(before)
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_a_placeholder_inside_a_placeholder_goes_before_it(records, root):
    """The outer one was removed first, was not empty then, and stayed for ever."""
    hold = records.hold([*wanting(root / ".git"), *wanting(root / ".git/x", directory=AS_FILE)], [])
    hold.release()
    assert os.listdir(root) == []


def test_what_somebody_has_put_into_a_placeholder_is_kept(records, root):
    hold = records.hold([*wanting(root / ".git"), *wanting(root / "key", directory=AS_FILE)], [])
    (root / ".git").chmod(0o755)
    (root / ".git" / "config").write_text("mine")
    (root / "key").write_text("mine")
    hold.release()
    assert (root / ".git" / "config").read_text() == (root / "key").read_text() == "mine"


def test_what_somebody_has_put_in_place_of_a_placeholder_is_kept(records, root):
    hold = records.hold(wanting(root / ".git"), [])
    (root / ".git").rename(root / "away")
    (root / ".git").mkdir()
    hold.release()
    assert (root / ".git").is_dir()


def test_when_one_cannot_be_made_those_before_it_are_taken_back(records, root, tmp_path):
    wanted = wanting(root / ".git", root / "gone" / "x")
    with pytest.raises(FileNotFoundError):
        records.hold(wanted, [])
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_on_a_full_disk_nothing_is_left_behind(tmp_path):
    story = f"""
import sys; sys.path[:0] = {sys.path!r}
import os
from agent.sandbox.placeholders import Placeholders
records = Placeholders({str(tmp_path)!r})
names = [(f"{{sys.argv[1]}}/{{number}}", True) for number in range(8)]
for count in (8, 2):
    try:
        records.hold(names[:count], []).release()
        print("OK")
    except OSError as exc:
        print(exc.errno)
    print(os.listdir(sys.argv[1]), os.listdir({str(tmp_path / "launches")!r}))
"""
    (tmp_path / "full").mkdir()
    script = 'mount -t tmpfs -o nr_inodes=6 tmpfs "$1" && exec "$2" -c "$3" "$1"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path / "full"), sys.executable]
    done = subprocess.run([*words, story], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [str(errno.ENOSPC), "[] []", "OK", "[] []"], done.stderr


# Sharing


def test_two_launches_share_a_placeholder_and_the_last_one_removes_it(records, root, tmp_path):
    first = records.hold(wanting(root / ".git"), [])
    second = records.hold(wanting(root / ".git"), [])
    # A third planned when the directory was already there.
    third = records.hold([], [str(root / ".git")])
    for hold in (first, second):
        hold.release()
        assert (root / ".git").is_dir()
    third.release()
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_a_launch_that_masks_something_else_does_not_keep_it(records, root):
    first = records.hold(wanting(root / ".git"), [])
    second = records.hold(wanting(root / ".codex"), [])
    first.release()
    assert os.listdir(root) == [".codex"]
    second.release()


def test_processes_share_as_launches_of_one_process_do(records, root, tmp_path):
    with holder(tmp_path, root / ".git") as other:
        records.hold(wanting(root / ".git"), []).release()
        assert (root / ".git").is_dir()
        other.stdin.close()
        other.wait()
        assert os.listdir(root) == []


def test_a_shared_placeholder_that_somebody_took_away_is_made_again(records, root):
    """It was believed to stand for as long as its maker lived, and no launch could mask it."""
    first = records.hold(wanting(root / ".git"), [])
    (root / ".git").rmdir()
    second = records.hold(wanting(root / ".git"), [])
    third = records.hold(wanting(root / ".git"), [])
    first.release()
    second.release()
    assert (root / ".git").is_dir()
    third.release()
    assert os.listdir(root) == []


# The dead


def test_what_a_killed_holder_left_is_swept_up_by_the_next(records, root, tmp_path):
    with holder(tmp_path, root / ".git", root / ".codex") as other:
        (root / ".codex").chmod(0o755)
        (root / ".codex" / "mine").write_text("mine")
        records.sweep()
        assert sorted(os.listdir(root)) == [".codex", ".git"]
        kill(other)
    records.sweep()
    assert os.listdir(root) == [".codex"] and left(tmp_path) == []


def test_what_the_living_need_is_not_swept_up_with_the_dead(records, root, tmp_path):
    mine = records.hold(wanting(root / ".git"), [])
    with holder(tmp_path, root / ".git", root / ".codex") as other:
        kill(other)
    records.sweep()
    assert os.listdir(root) == [".git"]
    mine.release()
    assert os.listdir(root) == []


def test_a_child_that_inherited_the_record_keeps_it_alive(records, root, tmp_path):
    beside = "import subprocess; subprocess.Popen(['cat'], pass_fds=[hold.descriptor]); print()"
    with holder(tmp_path, root / ".git", beside=beside) as other:
        kill(other)
        # `cat` lives on our end of the pipe, and with it the lock.
        records.sweep()
        assert os.listdir(root) == [".git"]
        other.stdin.close()
        deadline = time.monotonic() + 5
        while os.listdir(root) and time.monotonic() < deadline:
            records.sweep()
    assert os.listdir(root) == []


def test_a_holder_killed_between_noting_and_making_leaves_nothing(records, root, tmp_path):
    """The record names what is about to be made, so that what then appeared can be told from what was there."""
    (root / "before").mkdir()
    while time.time_ns() < (root / "before").stat().st_ctime_ns + 20_000_000:
        pass  # file times go by ticks of up to 10 ms
    hold = records.hold(wanting(root / ".git"), [])
    noted = Path(hold.name).read_text().splitlines(keepends=True)[0]
    hold.leave()
    assert noted.startswith("0 0 ")
    old = noted.replace(os.fsencode(str(root / ".git")).hex(), os.fsencode(str(root / "before")).hex())
    Path(hold.name).write_text(noted + old)
    records.sweep()
    assert os.listdir(root) == ["before"] and left(tmp_path) == []


def test_a_record_that_was_cut_off_does_not_stop_the_sweeping(records, root, tmp_path):
    (tmp_path / "state" / "launches" / "1-1").write_text("12 34\n")
    records.hold(wanting(root / ".git"), []).release()
    assert left(tmp_path) == [] and os.listdir(root) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_owner_can_fill_a_placeholder_whatever_the_umask(records, root, umask):
    """`git init` outside, while a command runs."""
    before = os.umask(umask)
    try:
        hold = records.hold(wanting(root / ".git"), [])
        assert (root / ".git").stat().st_mode & 0o700 == 0o700
    finally:
        os.umask(before)
    hold.release()
    assert os.listdir(root) == []


@pytest.mark.parametrize("launcher", ["alive", "dead"])
def test_a_lock_that_a_command_has_dropped_does_not_make_its_launch_a_dead_one(records, root, tmp_path, launcher):
    """bubblewrap's init had the launcher's own lock, and a command can take it from there (pidfd_getfd(2)).

    The next launch took the first for dead and removed its placeholders, and with them the masks on them.
    """
    drop = "import fcntl; fcntl.flock(hold.descriptor, fcntl.LOCK_UN); print()"
    with holder(tmp_path, root / ".git", beside=drop) as other:
        if launcher == "dead":
            kill(other)
        records.hold(wanting(root / ".codex"), []).release()
        records.sweep()
        # Dead it was without a sandbox: that is the control.
        assert os.listdir(root) == ([".git"] if launcher == "alive" else [])


def test_a_sandbox_that_outlives_its_launcher_without_a_lock_keeps_what_it_masks(records, root, tmp_path):
    """A command that may trace can make its init let go of everything. What bubblewrap wrote down it cannot change."""
    with holder(tmp_path, root / ".git", beside=sandboxed("sleep", "60")) as other:
        init = int(other.said)
        kill(other)
        records.hold(wanting(root / ".codex"), []).release()
        assert os.listdir(root) == [".git"]
        end_of(init)
        records.sweep()
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_where_the_pid_namespace_is_shared_what_a_command_left_behind_counts(records, root, tmp_path):
    """It outlives its init there, and sees the masks."""
    script = "sleep 60 & echo $! >&2; exit 0"
    view = sandboxed("sh", "-c", f"({script}) 2>{root}/pid; exec sleep 60", pid_namespace=False)
    view = view.replace("'--ro-bind', '/', '/'", "'--bind', '/', '/'")
    with holder(tmp_path, root / ".git", beside=view) as other:
        init = int(other.said)
        kill(other)
        deadline = time.monotonic() + 5
        while not (root / "pid").exists() or not (root / "pid").read_text():
            assert time.monotonic() < deadline
        end_of(init)
        records.sweep()
        assert sorted(os.listdir(root)) == [".git", "pid"]
        end_of(int((root / "pid").read_text()))
        records.sweep()
    assert os.listdir(root) == ["pid"]


def end_of(pid):
    witness = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([witness], [], [], 10)[0]
    os.close(witness)


def test_a_record_may_be_cut_off_anywhere(records, root, tmp_path):
    """One cut off in a number stopped every later launch; one cut off in a path named a directory that was above."""
    (root / "a").mkdir()
    while time.time_ns() < (root / "a").stat().st_ctime_ns + 20_000_000:
        pass  # file times go by ticks of up to 10 ms
    wanted = [*wanting(root / "a" / "b"), *wanting(root / "a" / "c", directory=AS_FILE)]
    with holder(tmp_path, *(Path(path) for path, _ in wanted)) as other:
        (name,) = left(tmp_path)
        whole = (tmp_path / "state" / "launches" / name).read_bytes()
        kill(other)
    for path, _ in wanted:
        os.rmdir(path)
    for length in range(len(whole)):
        (root / "a" / "mine").mkdir()
        (tmp_path / "state" / "launches" / "1-1").write_bytes(whole[:length])
        (root / "a" / "mine").rename(root / "a" / "b")
        records.sweep()
        assert (root / "a").is_dir() and left(tmp_path) == []
        if (root / "a" / "b").exists():
            (root / "a" / "b").rmdir()


# The lock over the records


@contextlib.contextmanager
def locked(tmp_path):
    """The records as somebody else has them locked: by a descriptor that may only read, as a confined tool gets one."""
    descriptor = os.open(tmp_path / "state" / "launches.lock", os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_who_will_not_wait_for_the_lock_is_told_and_nothing_is_made(records, root, tmp_path):
    """It was waited for without end, on the event loop."""
    before = open_descriptors()
    with locked(tmp_path):
        with pytest.raises(Busy):
            records.hold(wanting(root / ".git"), [], patient=False)
    assert os.listdir(root) == [] and left(tmp_path) == [] and open_descriptors() == before
    hold = records.hold(wanting(root / ".git"), [])
    with locked(tmp_path):
        assert hold.release(patient=False) is False
        assert os.listdir(root) == [".git"]
    assert hold.release(patient=False) is True
    assert os.listdir(root) == []
    hold.close()
    assert open_descriptors() == before


def test_who_waits_gets_the_lock_when_it_is_free_and_else_gives_up(tmp_path, root):
    (tmp_path / "state").mkdir(mode=0o700)
    records = Placeholders(str(tmp_path / "state"), wait_s=0.2)
    hold = records.hold(wanting(root / ".git"), [])
    with locked(tmp_path):
        with pytest.raises(Busy):
            records.hold(wanting(root / ".codex"), [])
        # Left to the next: nobody is to wait for ever for the end of a command.
        assert hold.release() is True
        assert os.listdir(root) == [".git"] and len(left(tmp_path)) == 1
    begun = threading.Event()
    with locked(tmp_path):
        waiting = threading.Thread(target=lambda: (begun.set(), records.hold(wanting(root / ".aws"), []).release()))
        waiting.start()
        begun.wait()
    waiting.join()
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_when_there_is_no_descriptor_left_the_end_is_none_the_worse(records, root, tmp_path):
    """It took one more to release what was held; the placeholders stayed, and the command's result was lost."""
    hold = records.hold(wanting(root / ".git"), [])
    with without_descriptors():
        hold.release()
    assert os.listdir(root) == [] and left(tmp_path) == []


@contextlib.contextmanager
def without_descriptors(but=0):
    """With no more than some descriptors left to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    filled = []
    try:
        with contextlib.suppress(OSError):
            while True:
                filled.append(os.dup(0))
        for _ in range(but):
            os.close(filled.pop())
        yield
    finally:
        for descriptor in filled:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Stale


def test_a_mask_whose_place_is_gone_means_to_plan_again(records, root, tmp_path):
    with pytest.raises(Stale):
        records.hold(wanting(root / ".git"), [str(root / ".codex")])
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_a_place_that_somebody_filled_meanwhile_means_to_plan_again(records, root, tmp_path):
    (root / ".git").mkdir()
    with pytest.raises(Stale):
        records.hold(wanting(root / ".codex", root / ".git"), [])
    assert os.listdir(root) == [".git"] and left(tmp_path) == []


def test_a_leftover_that_the_plan_took_for_the_users_means_to_plan_again(records, root, tmp_path):
    with holder(tmp_path, root / ".git") as other:
        kill(other)
    with pytest.raises(Stale):
        records.hold([], [str(root / ".git")])
    assert os.listdir(root) == []


# The state directory


def in_private_shm(tmp_path, prepare):
    """What `state_directory` says where /dev/shm is a directory of ours, prepared by a line of Python."""
    (tmp_path / "shm").mkdir()
    story = f"""
import os, sys; sys.path[:0] = {sys.path!r}
from agent.sandbox.state import StateUnusable, state_directory
path = state_directory(make=False)
assert path.startswith("/dev/shm/") and not os.path.lexists(path)
{prepare}
try:
    print(state_directory(), oct(os.stat(path).st_mode & 0o777))
except StateUnusable as exc:
    print("refused:", exc.strerror)
"""
    bwrap = [BWRAP, "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--bind", str(tmp_path / "shm"), "/dev/shm"]
    return subprocess.run([*bwrap, sys.executable, "-c", story], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("prepare", ["", "os.mkdir(path, 0o700)"])
def test_the_state_directory_is_made_for_its_owner_alone(tmp_path, prepare):
    assert in_private_shm(tmp_path, prepare) == f"/dev/shm/countersign-sandbox-{os.geteuid()} 0o700\n"


@pytest.mark.parametrize(
    "prepare",
    [
        "os.mkdir(path); os.chmod(path, 0o750)",
        "os.mkdir(path); os.chmod(path, 0o701)",
        "os.mkdir(path + '-real', 0o700); os.symlink(path + '-real', path)",
        "os.symlink('/root', path)",
        "open(path, 'w'); os.chmod(path, 0o600)",
    ],
)
def test_a_state_directory_that_somebody_prepared_is_refused(tmp_path, prepare):
    said = in_private_shm(tmp_path, prepare)
    assert said.startswith("refused: '/dev/shm/countersign-sandbox-")
    assert "not a directory that only we may enter; remove it" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a directory that belongs to somebody else")
def test_a_state_directory_of_another_user_is_refused():
    somebody, stranger = 54321, 54322

    def story():
        os.setresuid(somebody, somebody, 0)
        path = state_directory(make=False)
        os.seteuid(0)
        os.mkdir(path, 0o700)
        try:
            results = []
            for owner in (stranger, somebody):
                os.chown(path, owner, owner)
                os.seteuid(somebody)
                results.append(outcome(state_directory))
                os.seteuid(0)
            return results
        finally:
            os.rmdir(path)

    assert in_child(story) == ["EPERM", "OK"]
