"""Which bubblewrap is taken, tried with scripts on PATH that log how often they are run."""

import os
import resource
import shlex
import stat
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.sandbox.discovery import bundled, find_bubblewrap, wsl_version
from tests.agent.sandbox.children import in_child
from tests.bubblewrap import BWRAP

REAL = BWRAP


class Script:
    """A `bwrap` that notes each of its runs, then does what its body says.

    Each is a file with a text of its own, so that nothing is known about it from an earlier test.
    """

    def __init__(self, directory: Path, body: str = f'exec {REAL} "$@"') -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.path = directory / "bwrap"
        self.log = directory / "runs"
        self.write(body)

    def write(self, body: str) -> None:
        note = f'printf "%s\\n" "$1" >> {shlex.quote(str(self.log))}'
        self.path.write_text(f"#!/bin/sh\n# {uuid.uuid4()}\n{note}\n{body}\n")
        self.path.chmod(0o755)

    @property
    def runs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@dataclass
class Answer:
    """What a search gave."""

    path: str | None
    mounts_proc: bool
    on_path: bool
    passed_over: list[str]
    missing: str


def found(*directories, cwd="/nowhere", writable=(), times=1):
    """The answer of a process that has not asked before; the last one, if it asks more than once."""
    path = ":".join(str(one.directory if isinstance(one, Script) else one) for one in directories)

    def ask():
        for _ in range(times):
            here = find_bubblewrap({"PATH": path}, str(cwd), [str(root) for root in writable])
        used = here.bubblewrap
        return used and used.path, bool(used and used.mounts_proc), here.on_path, here.passed_over, here.missing

    return Answer(*in_child(ask))


@pytest.fixture
def usable(tmp_path):
    return Script(tmp_path / "bin")


def test_the_first_on_path_is_taken_and_what_cannot_be_run_is_not_looked_at(tmp_path, usable):
    second = Script(tmp_path / "second")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "bwrap").write_text("#!/bin/sh\n")
    (tmp_path / "directory" / "bwrap").mkdir(parents=True)
    here = found(tmp_path / "gone", tmp_path / "plain", tmp_path / "directory", usable, second)
    assert (here.path, here.on_path, here.passed_over) == (str(usable.path), True, [])
    assert second.runs == []


@pytest.mark.parametrize("where", ["cwd", "cwd/deep", "link", "root"])
def test_one_that_a_command_could_have_put_there_is_passed_over_and_never_run(tmp_path, usable, where):
    (tmp_path / "cwd").mkdir()
    (tmp_path / "root").mkdir()
    planted = Script(tmp_path / ("cwd" if where == "link" else where))
    (tmp_path / "link").symlink_to("cwd") if where == "link" else None
    directory = tmp_path / where
    bounds = {"cwd": tmp_path / "cwd", "writable": [tmp_path / "root"]}
    here = found(directory, usable, **bounds)
    assert here.path == str(usable.path)
    assert str(directory / "bwrap") in here.passed_over[0] and "could have put it" in here.passed_over[0]
    assert planted.runs == []
    # The control: with other bounds the same one is taken.
    assert found(directory, usable, cwd=tmp_path / "other").path == str(planted.path)


def test_a_symlink_outside_to_a_binary_inside_is_passed_over_too(tmp_path):
    planted = Script(tmp_path / "cwd")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bwrap").symlink_to(planted.path)
    assert found(tmp_path / "bin", cwd=tmp_path / "cwd").path == bundled()
    assert planted.runs == []
    assert found(tmp_path / "bin").path == str(planted.path)


@pytest.mark.parametrize("where", ["directory", "link-to-a-directory", "directory-by-a-link", "a-link-on-the-way"])
def test_a_way_through_where_a_command_can_write_is_not_taken_also_if_it_leads_out_again(tmp_path, where):
    """A command could lead it somewhere else: to a program of its choice, which would then be run unconfined."""
    outside = Script(tmp_path / "out")
    inside = tmp_path / "cwd"
    inside.mkdir()
    asked = inside / "bin"
    if where == "link-to-a-directory":
        asked.symlink_to(outside.directory)
    else:
        asked.mkdir()
        (asked / "bwrap").symlink_to(outside.path)
    if where == "directory-by-a-link":
        asked = tmp_path / "alias"
        asked.symlink_to(inside / "bin")
    elif where == "a-link-on-the-way":
        asked = tmp_path / "bin"
        asked.mkdir()
        (asked / "bwrap").symlink_to("../cwd/bin/bwrap")
    here = found(asked, cwd=inside)
    assert here.path == bundled() and "could have put it" in here.passed_over[0]
    assert outside.runs == []
    # The control: with the working directory elsewhere the same way is taken.
    assert found(asked, cwd=tmp_path / "elsewhere").path == str(outside.path)


def test_the_root_as_working_directory_puts_nothing_out_of_bounds_but_as_writable_root_everything(usable):
    assert found(usable, cwd="/").path == str(usable.path)
    here = found(usable, cwd="/", writable=["/"])
    assert (here.path, here.on_path) == (bundled(), False)


def test_a_neighbour_with_a_longer_name_is_not_inside(tmp_path):
    neighbour = Script(tmp_path / "cwd-bin")
    assert found(neighbour, cwd=tmp_path / "cwd").path == str(neighbour.path)


HELP = """if [ "$1" = --help ]; then echo "%s"; exit 0; fi
exec /bin/false"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("head -c 4000 /dev/urandom", "does not know --as-pid-1"),
        (HELP % "--as-pid-1 --seccomp", "does not know --perms"),
        (
            f'[ "$1" = --help ] && exec {REAL} --help; echo "No permissions to create a new namespace" >&2; exit 1',
            "No perm",
        ),
        (f'[ "$1" = --help ] && exec {REAL} --help; kill -SEGV $$', "cannot make a sandbox here: exit -11"),
        ("exec sleep 60", "did not answer in time"),
        ("exec /dev/null", "does not know --as-pid-1"),
    ],
)
def test_one_that_cannot_do_it_is_passed_over_for_the_bundled_one_with_its_reason(tmp_path, body, reason):
    useless = Script(tmp_path / "bin", body)
    here = found(useless)
    assert (here.path, here.on_path) == (bundled(), False)
    assert here.passed_over[0].startswith(repr(str(useless.path))) and reason in here.passed_over[0]


def test_one_that_is_no_program_is_passed_over(tmp_path):
    broken = Script(tmp_path / "bin")
    broken.path.write_bytes(b"\x7fELF garbage")
    assert found(broken).path == bundled()
    assert "Exec format error" in found(broken).passed_over[0]


def test_where_no_fresh_proc_can_be_mounted_it_is_used_without(tmp_path):
    body = f"""case "$*" in
*--proc*) echo "bwrap: Can't mount proc on /newroot/proc: Operation not permitted" >&2; exit 1;;
esac
exec {REAL} "$@" """
    limited = Script(tmp_path / "bin", body)
    for _ in ("asked", "remembered"):
        here = found(limited)
        assert (here.path, here.mounts_proc) == (str(limited.path), False)
    assert len(limited.runs) == 3


def test_what_works_is_asked_once(usable):
    assert found(usable) == found(usable)
    assert usable.runs[0] == "--help" and len(usable.runs) == 2


@pytest.mark.parametrize("change", ["touched", "grown", "moved"])
def test_another_time_size_or_path_is_another_binary(usable, change, tmp_path):
    found(usable)
    before = len(usable.runs)
    there = usable
    if change == "touched":
        moment = uuid.uuid4().int % 10**18  # no earlier run had it
        os.utime(usable.path, ns=(moment, moment))
    elif change == "grown":
        times = usable.path.stat().st_mtime_ns
        usable.path.write_text(usable.path.read_text() + "\n")
        os.utime(usable.path, ns=(times, times))
    else:
        there = tmp_path / "else\nwhere"
        there.mkdir()
        usable.path.rename(there / "bwrap")
    assert found(there).on_path
    assert len(usable.runs) == 2 * before
    assert found(there).on_path
    assert len(usable.runs) == 2 * before


def test_one_process_asks_once_about_what_works_and_for_a_while_about_what_does_not(tmp_path, usable):
    """One that hangs cost each command of an agent half a second."""
    failing = Script(tmp_path / "failing", "exit 1")
    here = found(failing, usable, times=3)
    assert here.path == bundled() and "does not know" in here.passed_over[0]
    assert failing.runs == ["--help"]
    assert found(usable, times=3).on_path and len(usable.runs) == 2


def test_one_process_asks_again_about_a_binary_that_has_changed(tmp_path):
    repaired = Script(tmp_path / "bin", "exit 1")

    def ask():
        before = find_bubblewrap({"PATH": str(repaired.directory)}, "/nowhere", [])
        repaired.write(f'exec {REAL} "$@"')
        after = find_bubblewrap({"PATH": str(repaired.directory)}, "/nowhere", [])
        return before.on_path, after.on_path

    assert in_child(ask) == [False, True]


@pytest.mark.parametrize(
    ("body", "reason"),
    [("exec cat /dev/zero", "did not answer in time"), ("sleep 5 & exit 0", "does not know --as-pid-1")],
    ids=["endless", "left-behind"],
)
def test_what_prints_without_end_or_leaves_something_with_its_pipe_is_given_up_in_time(tmp_path, body, reason):
    """All of it was kept, hundreds of megabytes, and what was left behind was waited for."""
    script = Script(tmp_path / "bin", body)

    def ask():
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        here = find_bubblewrap({"PATH": str(script.directory)}, "/nowhere", [])
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
        return here.passed_over, time.monotonic() - begun, grown_kb

    passed_over, took_s, grown_kb = in_child(ask)
    assert reason in passed_over[0]
    assert took_s < 3 and grown_kb < 20_000


def test_what_failed_is_asked_again(tmp_path):
    repaired = Script(tmp_path / "bin", "exit 1")
    assert not found(repaired).on_path and not found(repaired).on_path
    assert repaired.runs == ["--help", "--help"]
    status = repaired.path.stat()
    repaired.write(f'exec {REAL} "$@"')
    os.utime(repaired.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert found(repaired).on_path


def test_without_a_path_nothing_of_the_working_directory_is_taken(tmp_path, monkeypatch):
    planted = Script(tmp_path / "cwd")
    monkeypatch.chdir(planted.directory)
    for path in ("", ":", "."):
        assert found(path, cwd=planted.directory).path == bundled()
    assert planted.runs == []


def test_the_bundled_one_is_executable_and_works():
    here = found("/nowhere")
    assert here.path == bundled() and not here.on_path
    assert os.stat(bundled()).st_mode & stat.S_IXUSR


def test_with_none_at_all_the_reason_says_what_was_tried(tmp_path):
    useless = Script(tmp_path / "bin", "exit 1")
    story = f"""
import sys; sys.path[:0] = {sys.path!r}
from agent.sandbox.discovery import find_bubblewrap
for path in ("/nowhere", {str(useless.directory)!r}):
    found = find_bubblewrap({{"PATH": path}}, "/nowhere", [])
    print(found.bubblewrap, found.missing)
"""
    hidden = [BWRAP, "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--tmpfs", os.path.dirname(bundled())]
    done = subprocess.run([*hidden, sys.executable, "-c", story], capture_output=True, text=True, check=True)
    nothing, failed = done.stdout.splitlines()
    assert nothing == "None bubblewrap cannot be used: no 'bwrap' is on PATH, and none came with us"
    assert failed.startswith(f"None bubblewrap cannot be used: {str(useless.path)!r} does not know")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", 1),
        ("Linux version 5.15.90.1-microsoft-standard-WSL2", 2),
        ("Linux version 5.15.90.1-microsoft-standard", 2),
        ("Linux version 6.1.0-wsl1", 1),
        ("Linux version 6.1.0-custom-WSL2 (Microsoft)", 2),
        ("Linux version 6.1.0-wsl12", 2),
        ("Linux version 6.1.0-WSL (x) wsl1", 1),
        ("Linux version 6.18.44-generic (gcc 14)", None),
        ("", None),
    ],
)
def test_the_subsystem_for_linux_is_told_by_the_text_of_proc_version(text, version):
    assert wsl_version(text) == version
