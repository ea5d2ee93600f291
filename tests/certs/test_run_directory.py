import os
import re
import signal
import stat
import subprocess
import sys
import threading

import pytest

from certs.run_directory import RunDirectory
from tests.sandbox.place import with_mounts

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
def runs(base):
    """The private directory in it, which stays."""
    return base / f"countersign-runs-{os.geteuid()}"


@pytest.fixture
def child():
    """Another process with a run directory of its own, and that directory."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        yield it, it.stdout.readline().strip()
        it.kill()


def test_it_is_only_for_its_owner_and_gone_at_the_end(base, runs):
    with RunDirectory() as run:
        assert run.path.parent == runs and runs.parent == base
        assert stat.S_IMODE(runs.stat().st_mode) == 0o700
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        (run.path / "key.pem").write_text("secret")
    assert list(runs.iterdir()) == []


def test_it_is_gone_when_the_run_fails(runs):
    with pytest.raises(RuntimeError), RunDirectory():
        raise RuntimeError
    assert list(runs.iterdir()) == []


def test_a_second_removal_does_nothing():
    run = RunDirectory()
    run.remove()
    assert not run.path.exists()
    run.path.mkdir()
    run.remove()
    assert run.path.exists(), "what is there by now is somebody else's"
    run.path.rmdir()


def test_what_a_killed_process_left_is_swept_by_the_next_run(runs, child):
    process, path = child
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(os.path.join(path, "key.pem"))  # nobody could clean up behind SIGKILL
    with RunDirectory() as run:
        assert list(runs.iterdir()) == [run.path]


def test_the_directory_of_a_living_process_is_not_swept(runs, child):
    """The negative control of the sweep: one fact is changed, the other process lives."""
    process, path = child
    with RunDirectory():
        assert os.path.exists(os.path.join(path, "key.pem"))
    process.communicate("")
    assert list(runs.iterdir()) == []


def abandoned(directory, lock="what somebody else wrote"):
    """A directory of long ago with a file of the user's in it, and with this in its lock file, if anything."""
    directory.mkdir(parents=True)
    (directory / "thesis.txt").write_text("years of work")
    if lock is not None:
        (directory / "lock").write_text(lock)
    os.utime(directory, (0, 0))
    return directory / "thesis.txt"


@pytest.mark.parametrize("lock", [None, "", "what somebody else wrote"])
@pytest.mark.parametrize("name", ["countersign-old", "countersign-demo-1", "countersign-notes", "run-1"])
def test_what_the_user_has_beside_the_runs_is_never_touched(base, name, lock):
    """Whatever was called "countersign-*" and a minute old was once deleted, the user's own notes among it."""
    precious = abandoned(base / name, lock)
    with RunDirectory():
        pass
    assert precious.exists()


@pytest.mark.parametrize("lock", [None, "", "what somebody else wrote"])
def test_nor_is_what_lies_among_them_without_our_lock_file(runs, lock):
    runs.mkdir(mode=0o700)
    precious = abandoned(runs / "run-other", lock)
    with RunDirectory():
        pass
    assert precious.exists()


def test_with_our_lock_file_it_is_swept(runs):
    """The negative control: one fact is changed, what the lock file says."""
    with RunDirectory() as run:
        ours = (run.path / "lock").read_text()
    precious = abandoned(runs / "run-other", ours)
    with RunDirectory():
        assert not precious.exists()


def test_a_link_of_that_name_is_neither_followed_nor_removed(runs, tmp_path_factory):
    with RunDirectory() as run:
        ours = (run.path / "lock").read_text()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "lock").write_text(ours)
    (runs / "run-link").symlink_to(elsewhere)
    with RunDirectory():
        pass
    assert (elsewhere / "lock").exists() and (runs / "run-link").is_symlink()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_in_the_place_of_the_lock_is_left_alone(runs, tmp_path_factory, kind):
    with RunDirectory() as run:
        ours = (run.path / "lock").read_text()
    target = tmp_path_factory.mktemp("elsewhere") / "file"
    target.write_text(ours)
    precious = abandoned(runs / "run-odd", None)
    match kind:
        case "link":
            (runs / "run-odd" / "lock").symlink_to(target)
        case "fifo":
            os.mkfifo(runs / "run-odd" / "lock")
        case "directory":
            (runs / "run-odd" / "lock").mkdir()
    with RunDirectory():
        assert target.exists() and precious.exists()


def in_the_way(place, kind, elsewhere):
    match kind:
        case "open to others":
            place.mkdir()
            place.chmod(0o777)
        case "link":
            place.symlink_to(elsewhere)
        case "file":
            place.touch()


@pytest.mark.parametrize("kind", ["open to others", "link", "file"])
def test_where_the_place_of_the_runs_is_not_private_the_next_one_is_taken(base, runs, tmp_path, kind):
    """Somebody else can be the first to make it. The run was then put beside it, where no sandbox hides it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    in_the_way(runs, kind, elsewhere)
    before = sorted(base.rglob("*"))
    with RunDirectory() as run:
        assert run.path.parent.name == runs.name and base not in run.path.parents
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        assert sorted(base.rglob("*")) == before


def test_a_place_that_belongs_to_somebody_else_is_not_taken(runs, base):
    if os.geteuid() == 0:
        runs.mkdir(mode=0o700)
        os.chown(runs, 65534, 65534)
        with RunDirectory() as run:
            assert base not in run.path.parents


# Says where a run is put, or why nowhere.
PLACE = """
from certs.run_directory import RunDirectory
try:
    with RunDirectory() as run:
        print(run.path.parent)
except OSError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("in_the_way", "expected"),
    [
        ("true", "/tmp/runs"),
        ("touch /tmp/runs", "/var/tmp/runs"),
        ("mkdir -m 755 /tmp/runs && ln -s /usr /var/tmp/runs", "/mnt/own/runs"),
        (
            "mkdir -m 755 /tmp/runs && ln -s /usr /var/tmp/runs && touch /mnt/own/runs",
            "no private directory can be made for the keys and sockets of a run: '/tmp/runs' is open to others "
            "(mode 755); '/var/tmp/runs' is no directory; '/mnt/missing/runs' cannot be made: No such file or "
            "directory; '/mnt/own/runs' is no directory; remove what is in the way, or let XDG_RUNTIME_DIR name a "
            "directory of mode 0700 that is yours",
        ),
    ],
)
def test_a_run_is_put_into_the_first_place_that_is_private_and_else_does_not_start(in_the_way, expected):
    """Better no run than one whose keys any tool can read. `runs` stands for the name with the user id."""
    name = "countersign-runs-" + ("0" if os.geteuid() == 0 else "$(id -u)")
    mounts = [f"mount -t tmpfs none {directory}" for directory in ("/tmp", "/var/tmp", "/mnt")]
    script = " && ".join([*mounts, "mkdir /mnt/own", in_the_way.replace("/runs", f"/{name}"), 'exec "$@"'])
    environ = {"PATH": os.environ["PATH"], "TMPDIR": "/mnt/missing", "TEMP": "relative", "TMP": "/mnt/./own/"}
    done = subprocess.run(
        with_mounts(script, sys.executable, "-c", PLACE),
        capture_output=True,
        text=True,
        env={**environ, "PYTHONPATH": os.getcwd()},
        timeout=30,
    )
    said = re.sub(r"countersign-runs-\d+", "runs", done.stdout)
    assert said == f"{expected}\n", done.stderr


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
