"""No tool looks into the directories where agents of this user keep their keys and sockets."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sandbox.host import look, private_paths
from agent.sandbox.plan import Options
from certs.run_directory import RunDirectory
from tests.agent.sandbox.policies import policy
from tests.sandbox.place import with_mounts

COUNTERSIGN = Path(sys.executable).parent / "countersign"


def test_the_directory_of_a_run_is_private(tmp_path, monkeypatch):
    """Two rooms know the name, and neither imports the other: this holds them together."""
    tmp_path.chmod(0o700)
    for runtime in (str(tmp_path), f"{tmp_path}/./", str(tmp_path / "none"), ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        with RunDirectory() as run:
            assert (tmp_path in run.path.parents) == os.path.isdir(runtime)
            assert str(run.path.parent) in private_paths(os.environ, os.geteuid())


def test_what_is_hidden_is_there_before_the_command_and_nothing_is_left_in_the_users_own_directories(
    tmp_path,
):
    runtime, own = tmp_path / "runtime", tmp_path / "own"
    runtime.mkdir(mode=0o700)
    own.mkdir()
    name = f"countersign-runs-{os.geteuid()}"

    def hidden():
        environ = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(own), "PATH": os.environ["PATH"]}
        found = look(policy("read /"), "/", Options(), environ).private_paths
        for path in found:
            assert os.path.isdir(path) or not os.path.exists(os.path.dirname(path)), path
        return found

    with RunDirectory() as run:
        assert str(run.path.parent) in hidden()
    assert str(runtime / name) in hidden() and os.listdir(own) == []
    assert stat.S_IMODE((runtime / name).stat().st_mode) == 0o700
    # One that is there may be of a time when the usual places could not be had; what a tool makes there is its own.
    (own / name).mkdir(mode=0o700)
    assert str(own / name) in hidden()
    (own / name).rmdir()
    (own / name).symlink_to("/usr")
    assert str(own / name) not in hidden()


@pytest.mark.parametrize("variable", ["TMPDIR", "TEMP", "TMP"])
def test_where_the_usual_places_are_taken_the_next_one_is_kept_free(variable):
    """By another user, say: the run is then put into TMPDIR, and so a tool must not see what comes there."""
    script = """
        mount -t tmpfs none /tmp && mount -t tmpfs none /var/tmp && mkdir /tmp/own
        touch /tmp/countersign-runs-$(id -u) && mkdir -m 755 /var/tmp/countersign-runs-$(id -u)
        exec "$@"
    """
    ask = (
        "import os; from agent.sandbox.host import look; from agent.sandbox.plan import Options\n"
        "from tests.agent.sandbox.policies import policy\n"
        "from certs.run_directory import RunDirectory\n"
        "found = look(policy('read /'), '/', Options(), os.environ).private_paths\n"
        "made = f'/tmp/own/countersign-runs-{os.geteuid()}'\n"
        "assert made in found and os.path.isdir(made), found\n"
        "with RunDirectory() as run: assert str(run.path.parent) == made, run.path\n"
    )
    environ = {variable: "/tmp/own/.", "PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        with_mounts(script, sys.executable, "-c", ask), capture_output=True, text=True, env=environ, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_a_disk_without_room_for_what_is_to_be_hidden_stops_the_launch():
    script = """
        mount -t tmpfs -o nr_inodes=1 none /tmp && exec "$@"
    """
    ask = (
        "import os; from agent.sandbox.host import look; from agent.sandbox.plan import Options, SandboxUnavailable\n"
        "from tests.agent.sandbox.policies import policy\n"
        "try: look(policy('read /'), '/', Options(), os.environ)\n"
        "except SandboxUnavailable as exc: print(exc)\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    command = with_mounts(script, sys.executable, "-c", ask)
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=30)
    assert "where agents keep sockets and keys, so that it can be hidden: No space left" in done.stdout, done


@pytest.mark.parametrize(("mode", "code"), [("workspace-write", 1), ("read-only", 1), ("danger-full-access", 0)])
def test_a_tool_cannot_read_a_key_of_a_run(mode, code, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    with RunDirectory() as run:
        assert tmp_path in run.path.parents
        (run.path / "key").write_text("secret")
        options = ["-c", f"sandbox_mode={mode}", "-c", "sandbox_workspace_write.network_access=true"]
        done = subprocess.run(
            [COUNTERSIGN, "sandbox", *options, "--", "cat", run.path / "key"], capture_output=True, cwd=tmp_path
        )
    assert done.returncode == code, done.stderr
    assert (b"secret" in done.stdout) == (code == 0)
