"""Placeholders and their records, with real processes that hold them and die."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.sandbox import placeholders
from agent.sandbox.placeholders import Placeholders, Stale, guard
from agent.sandbox.state import state_directory
from tests.agent.sandbox.children import in_child, outcome
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


def wanting(*paths, directory=AS_DIRECTORY):
    return [(str(path), directory) for path in paths]


def left(tmp_path):
    return os.listdir(tmp_path / "state" / "launches")


@contextlib.contextmanager
def holder(tmp_path, *paths, beside=""):
    """Another process that holds placeholders until its stdin ends."""
    story = f"""
import sys; sys.path[:0] = {sys.path!r}
from agent.sandbox.placeholders import Placeholders
hold = Placeholders({str(tmp_path / "state")!r}).hold({wanting(*paths)!r}, [])
{beside}
print(flush=True)
sys.stdin.read()
hold.release()
"""
    with subprocess.Popen(
        [sys.executable, "-c", story], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "\n"
        try:
            yield process
        finally:
            process.stdin.close()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


# Making and removing


def test_what_is_missing_stands_while_it_is_held_and_is_gone_afterwards(records, root, tmp_path):
    wanted = [(str(root / ".git"), AS_DIRECTORY), (str(root / "key\n'é"), AS_FILE)]
    hold = records.hold(wanted, [str(root)])
    assert (root / ".git").is_dir() and (root / "key\n'é").read_bytes() == b""
    hold.release()
    hold.release()
    assert os.listdir(root) == [] and left(tmp_path) == []


def test_a_placeholder_inside_a_placeholder_goes_before_it(records, root):
    """The outer one was removed first, was not empty then, and stayed for ever."""
    hold = records.hold([*wanting(root / ".git"), *wanting(root / ".git/x", directory=AS_FILE)], [])
    hold.release()
    assert os.listdir(root) == []


def test_what_somebody_has_put_into_a_placeholder_is_kept(records, root):
    hold = records.hold([*wanting(root / ".git"), *wanting(root / "key", directory=AS_FILE)], [])
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
    beside = "import subprocess; subprocess.Popen(['cat'], pass_fds=[hold.descriptor])"
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
    record = Path(hold.name).read_text().split(" ")
    os.close(hold.descriptor)
    noted = " ".join(["0", "0", *record[2:]])
    old = noted.replace(os.fsencode(str(root / ".git")).hex(), os.fsencode(str(root / "before")).hex())
    Path(hold.name).write_text(noted + old)
    records.sweep()
    assert os.listdir(root) == ["before"] and left(tmp_path) == []


def test_a_record_that_was_cut_off_does_not_stop_the_sweeping(records, root, tmp_path):
    (tmp_path / "state" / "launches" / "1-1").write_text("12 34\n")
    records.hold(wanting(root / ".git"), []).release()
    assert left(tmp_path) == [] and os.listdir(root) == []


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


# The guardian


def test_the_guardian_does_not_wait_for_the_sandboxes_of_others(records, tmp_path, root):
    living = records.hold(wanting(root / ".codex"), [])
    with holder(tmp_path, root / ".git") as other:
        kill(other)
    lifeline, end = os.pipe()
    os.close(end)
    guard(lifeline, str(tmp_path / "state"), other.pid, wait=lambda _: pytest.fail("it waits"))
    os.close(lifeline)
    assert os.listdir(root) == [".codex"]
    living.release()


@pytest.mark.parametrize(("said", "remains"), [(b"", []), (b".", [".git"])])
def test_the_guardian_sweeps_up_only_if_nobody_said_that_all_is_well(tmp_path, root, said, remains):
    (tmp_path / "state").mkdir(mode=0o700)
    with holder(tmp_path, root / ".git") as other:
        kill(other)
    lifeline, end = os.pipe()
    os.write(end, said)
    os.close(end)
    guard(lifeline, str(tmp_path / "state"), other.pid)
    os.close(lifeline)
    assert os.listdir(root) == remains


def test_the_guardian_waits_for_a_sandbox_that_dies_a_little_later_than_its_launcher(records, tmp_path, root):
    hold = records.hold(wanting(root / ".git"), [])
    lifeline, end = os.pipe()
    os.close(end)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        # The last of the sandbox ends: nobody holds the lock now.
        os.close(hold.descriptor)

    guard(lifeline, str(tmp_path / "state"), os.getpid(), wait)
    os.close(lifeline)
    assert len(waits) == 1 and os.listdir(root) == []


def test_the_guardian_of_an_agent_runs_by_its_file_name_alone_in_a_session_of_its_own(tmp_path, root):
    """It asked for a session that it already had, and died of the refusal; its stderr is nowhere."""
    (tmp_path / "state").mkdir(mode=0o700)
    with holder(tmp_path, root / ".git") as other:
        command = [sys.executable, "-I", "-S", placeholders.__file__, str(tmp_path / "state"), str(other.pid)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as guardian:
            kill(other)
            _, said = guardian.communicate(timeout=10)
    assert (guardian.returncode, said) == (0, b"")
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
