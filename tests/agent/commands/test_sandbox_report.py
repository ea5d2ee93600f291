"""`countersign sandbox --check`: what it says of paths is what a command finds there."""

import os
import subprocess

import pytest

from tests.agent.sandbox.policies import as_json
from tests.processes import COUNTERSIGN


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def confined(project, lines, *words):
    state = f'{{"permissionProfile": {as_json(*lines)}, "sandboxCwd": "file://{project}"}}'
    command = [COUNTERSIGN, "sandbox", "--sandbox-state-json", state, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=project, timeout=30, check=False)


def verdict(project, lines, path):
    told = confined(project, lines, "--check", str(path))
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout.split()[0]


def finds(project, lines, test, path):
    """Whether `test -r`, `test -w` and the like say so inside."""
    return confined(project, lines, "--", "test", test, str(path)).returncode == 0


def test_the_systems_directories_are_open_where_the_root_is_denied(project):
    lines = ("read :minimal", "deny :root")
    for path in ("/etc/passwd", "/usr/bin/env", "/bin/sh"):
        assert verdict(project, lines, path) == "read" and finds(project, lines, "-r", path)
    assert verdict(project, lines, project) == "denied" and not finds(project, lines, "-e", project)


def test_a_symlink_counts_only_where_it_is_seen_itself(project):
    out, link = project.parent / "out", project.parent / "link"
    out.mkdir()
    link.symlink_to(out)
    hidden = ("read :minimal", "write :project_roots", f"read {out}")
    assert verdict(project, hidden, link) == "denied" and not finds(project, hidden, "-e", link)
    for seen in (("read /",), ("read :minimal", f"read {link}"), ("read :minimal", f"read {project.parent}")):
        assert verdict(project, seen, link) == "read" and finds(project, seen, "-r", link)
    masked = ("read /", f"deny {project.parent / 'shut'}")
    (project.parent / "shut").mkdir()
    (project.parent / "shut/link").symlink_to(out)
    assert verdict(project, masked, project.parent / "shut/link") == "denied"
    assert not finds(project, masked, "-e", project.parent / "shut/link")


def test_what_is_the_sandboxs_own_is_private(project):
    for path in ("/dev", "/dev/shm", "/dev/shm/new"):
        assert verdict(project, ("read /",), path) == "private"
    assert confined(project, ("read /",), "--", "touch", "/dev/shm/new").returncode == 0
    assert not os.path.exists("/dev/shm/new")
    assert verdict(project, ("read /", "deny /dev/shm"), "/dev/shm/new") == "denied"
    assert verdict(project, ("read /",), "/dev/pts") == "read"


def test_a_loop_of_symlinks_leads_nowhere(project):
    (project / "loop").symlink_to("pool")
    (project / "pool").symlink_to("loop")
    assert verdict(project, ("read /", "write :project_roots"), project / "loop") == "denied"


def test_a_check_of_nothing_or_for_another_system_is_refused(project):
    assert "one of the paths is empty" in confined(project, ("read /",), "--check", "").stderr
    other = subprocess.run(
        [COUNTERSIGN, "sandbox", "macos", "--check", "."], capture_output=True, text=True, timeout=30
    )
    assert other.returncode == 2 and "--check answers for this machine" in other.stderr


def test_a_writable_root_that_is_not_there_is_told_to_be_left_out(project):
    lines = ("read /", f"write {project}/later")
    assert f"Left out, since it does not exist: write {project}/later" in confined(project, lines, "--explain").stdout
    (project / "later").mkdir()
    assert "Left out" not in confined(project, lines, "--explain").stdout
