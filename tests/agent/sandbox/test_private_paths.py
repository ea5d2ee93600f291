"""No tool looks into the directories where agents of this user keep their keys and sockets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.sandbox.host import private_paths
from certs.run_directory import RunDirectory

COUNTERSIGN = Path(sys.executable).parent / "countersign"


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "TMPDIR"])
def test_the_directory_of_a_run_is_private(variable, tmp_path, monkeypatch):
    """Two rooms know the name, and neither imports the other: this holds them together."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    tmp_path.chmod(0o700)
    with RunDirectory() as run:
        assert str(run.path.parent) in private_paths(os.environ, os.geteuid())


@pytest.mark.parametrize(("mode", "code"), [("workspace-write", 1), ("read-only", 1), ("danger-full-access", 0)])
def test_a_tool_cannot_read_a_key_of_a_run(mode, code, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with RunDirectory() as run:
        (run.path / "key").write_text("secret")
        options = ["-c", f"sandbox_mode={mode}", "-c", "sandbox_workspace_write.network_access=true"]
        done = subprocess.run(
            [COUNTERSIGN, "sandbox", *options, "--", "cat", run.path / "key"], capture_output=True, cwd=tmp_path
        )
    assert done.returncode == code, done.stderr
    assert (b"secret" in done.stdout) == (code == 0)
