import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from certs.run_directory import RunDirectory

# Makes a run directory, says where, and waits for its end.
CHILD = """
import sys
from certs.run_directory import RunDirectory
run = RunDirectory()
(run.path / "key.pem").write_text("secret")
print(run.path, flush=True)
sys.stdin.read()
run.remove()
"""


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    """Where run directories go: a private directory, as $XDG_RUNTIME_DIR is."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def child():
    """Another process with a run directory of its own, and that directory."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        yield it, it.stdout.readline().strip()
        it.kill()


def test_it_is_only_for_its_owner_and_gone_at_the_end(base):
    with RunDirectory() as run:
        assert run.path.parent == base
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        (run.path / "key.pem").write_text("secret")
    assert list(base.iterdir()) == []


def test_it_is_gone_when_the_run_fails(base):
    with pytest.raises(RuntimeError), RunDirectory():
        raise RuntimeError
    assert list(base.iterdir()) == []


def test_a_second_removal_does_nothing():
    run = RunDirectory()
    run.remove()
    run.remove()


def test_what_a_killed_process_left_is_swept_by_the_next_run(base, child):
    process, path = child
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(os.path.join(path, "key.pem"))  # nobody could clean up behind SIGKILL
    with RunDirectory() as run:
        assert list(base.iterdir()) == [run.path]


def test_the_directory_of_a_living_process_is_not_swept(base, child):
    """The negative control of the sweep: one fact is changed, the other process lives."""
    process, path = child
    with RunDirectory():
        assert os.path.exists(os.path.join(path, "key.pem"))
    process.communicate("")
    assert list(base.iterdir()) == []


def test_a_fresh_directory_without_its_lock_is_left_to_whoever_is_making_it(base):
    (base / "countersign-young").mkdir()
    with RunDirectory():
        assert (base / "countersign-young").exists()


def test_an_old_directory_without_its_lock_is_swept(base):
    (base / "countersign-old").mkdir()
    os.utime(base / "countersign-old", (0, 0))
    with RunDirectory():
        assert not (base / "countersign-old").exists()


def test_a_link_of_that_name_is_neither_followed_nor_removed(base, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "lock").touch()
    (base / "countersign-link").symlink_to(elsewhere)
    with RunDirectory():
        pass
    assert (elsewhere / "lock").exists() and (base / "countersign-link").is_symlink()


def test_a_link_in_the_place_of_the_lock_is_not_followed(base, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere") / "file"
    target.touch()
    (base / "countersign-odd").mkdir()
    (base / "countersign-odd" / "lock").symlink_to(target)
    with RunDirectory():
        assert target.exists()


def test_a_runtime_directory_that_others_may_enter_is_not_used(base, tmp_path_factory, monkeypatch):
    base.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temp")))
    with RunDirectory() as run:
        assert run.path.parent != base


def test_runs_that_start_at_the_same_moment_do_not_sweep_each_other():
    """Between making the lock and locking it there was a moment in which another start took the run for a dead one."""
    failures = []
    start = threading.Barrier(4)

    def start_often():
        start.wait()
        for _ in range(150):
            try:
                with RunDirectory() as run:
                    (run.path / "key.pem").write_text("secret")
                    assert sorted(os.listdir(run.path)) == ["key.pem", "lock"]
            except (OSError, AssertionError) as exc:
                failures.append(exc)

    threads = [threading.Thread(target=start_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
