"""Roots, policies, patterns, environments and bubblewraps as nobody wants them: a clear error, or the rule."""

import json
import os
import time
from pathlib import Path

import pytest

from agent.sandbox.discovery import bundled
from tests.bubblewrap import BWRAP
from tests.processes import COUNTERSIGN
from tests.sandbox.attempts import NOT_RUN, Told, attempt, carry_out, environment
from tests.sandbox.place import Place, as_user, with_mounts
from tests.sandbox.profiles import (
    READ_ALL,
    WRITE_TMPDIR,
    deny,
    deny_matching,
    restricted,
    workspace,
    write,
)
from tests.sandbox.system import tried


def outcomes(paths):
    """Whether a file can be made at or below each path."""
    made = []
    for path in paths:
        target = path + "/new" if os.path.isdir(path) else path
        made.append(tried(append_to, target))
    return made


def append_to(path):
    with open(path, "a") as file:
        file.write("x")


# Roots


def test_a_root_that_is_a_file_opens_that_file_only(place: Place):
    kept = place.outside / "keep.txt"
    profile = restricted([READ_ALL, write(kept)])
    told = place.confined(outcomes, [str(kept), str(place.secret), str(place.outside)], profile=profile)
    assert told.value == ["OK", "EROFS", "EROFS"]


def test_a_root_that_does_not_exist_opens_nothing_and_is_not_made(place: Place):
    missing = place.outside / "missing"
    told = place.confined(make_and_fill, missing, profile=workspace(write(missing)))
    assert told.outcome == "EROFS"
    assert not missing.exists()
    missing.mkdir()
    place.give()
    assert place.confined(make_and_fill, missing, profile=workspace(write(missing))).outcome == "OK"


def make_and_fill(path):
    os.makedirs(path, exist_ok=True)
    append_to(path + "/new")


def test_a_root_that_is_a_symlink_opens_what_it_leads_to_with_its_protected_names(place: Place):
    target, alias = place.outside / "target", place.outside / "alias"
    target.mkdir()
    alias.symlink_to(target)
    place.give()
    paths = [str(alias), str(target), f"{alias}/.git", f"{target}/.codex", str(place.outside)]
    told = place.confined(outcomes, paths, profile=workspace(write(alias)))
    assert told.value == ["OK", "OK", "EROFS", "EROFS", "EROFS"]


ODD_NAMES = {
    "newline": "a\nb",
    "quotes": 'it\'s "quoted"',
    "spaces": "  two  blanks ",
    "unicode": "Übung-日本-🦊",
    "leading-dash": "--ro-bind",
    "backslash": "a\\x41\\n",
    "dollar": "$HOME`id`;echo",
    "glob": "[ab]*?{c,d}",
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_an_odd_name_is_a_name(place: Place, name):
    """As the project, as a root and as a denied directory; the placeholders in it are removed."""
    project, root, denied = place.root / name, place.outside / name, place.outside / f"{name}.secrets"
    for directory in (project, root, denied):
        directory.mkdir()
    place.give()
    paths = [str(project), str(root), f"{project}/.git", f"{root}/.aws", str(denied), str(place.outside)]
    profile = workspace(write(root), deny(denied))
    line = place.sandbox(profile, *attempt(outcomes, paths), cwd=project)
    told = carry_out(line, cwd=project)
    assert told.outcome == "OK", told
    assert told.value == ["OK", "OK", "EROFS", "EROFS", told.value[4], "EROFS"]
    assert told.value[4] in {"EROFS", "EACCES"}
    assert sorted(os.listdir(project)) == ["new"] and sorted(os.listdir(root)) == ["new"]
    assert os.listdir(denied) == []


def test_a_name_that_is_no_text_is_denied_and_protected_like_any_other(place: Place):
    root, denied = (place.outside / os.fsdecode(name) for name in (b"\xff\xfe", b"\xfd"))
    for directory in (root, denied):
        directory.mkdir()
    place.give()
    paths = [str(root), f"{root}/.git", str(denied)]
    told = place.confined(outcomes, paths, profile=workspace(write(root), deny(denied)))
    assert told.value[:2] == ["OK", "EROFS"] and told.value[2] in {"EROFS", "EACCES"}, told
    assert os.listdir(root) == ["new"]


# Policies


def test_a_policy_of_ten_thousand_entries_is_carried_out_or_refused_in_time(place: Place):
    """9000 that need no mount are carried out; 10,000 directories that do are more than bubblewrap takes."""
    missing = [write(place.outside / f"missing-{number}") for number in range(10_000)]
    started = time.monotonic()
    told = told_of_state(place, workspace(*missing), attempt(outcomes, [str(place.project), str(place.outside)]))
    assert told.value == ["OK", "EROFS"], told
    many = place.outside / "many"
    many.mkdir()
    for number in range(10_000):
        (many / str(number)).touch()
    told = told_of_state(place, workspace(*(deny(many / str(number)) for number in range(10_000))), ["true"])
    assert told.outcome == NOT_RUN and "9000 words" in told.stderr and "whole directories" in told.stderr, told
    assert time.monotonic() - started < 20
    assert sorted(os.listdir(place.project)) == [".git", "new", "notes.txt"]


def told_of_state(place: Place, profile, command: list[str]) -> Told:
    """By a configuration file: an argument may have no more than 128 KiB (MAX_ARG_STRLEN)."""
    home = place.root / "home"
    home.mkdir(exist_ok=True)
    place.give()
    files = {entry["path"]["path"]: entry["access"] for entry in profile["file_system"]["entries"][2:]}
    lines = ["[permissions.big.filesystem]", '":root" = "read"', '":workspace_roots" = "write"']
    lines += [f"{json.dumps(path)} = {json.dumps(access)}" for path, access in files.items()]
    (home / "config.toml").write_text("\n".join(lines))
    environ = environment({"CODEX_HOME": str(home)})
    line = as_user(place.uid, COUNTERSIGN, "sandbox", "-P", "big", "--", *command)
    return carry_out(line, cwd=place.project, env=environ)


def test_a_pattern_that_matches_ten_thousand_files_is_refused_and_the_command_not_run(place: Place):
    many = place.project / "many"
    many.mkdir()
    for number in range(10_000):
        (many / f"{number}.env").touch()
    place.give()
    told = place.confined(append_to, place.project / "ran", profile=workspace(deny_matching("**/*.env")))
    assert told.outcome == NOT_RUN and "more than 8192" in told.stderr, told
    assert not (place.project / "ran").exists()
    assert sorted(os.listdir(place.project)) == [".git", "many", "notes.txt"]

    for number in range(1000, 10_000):
        (many / f"{number}.env").unlink()
    told = place.confined(
        outcomes, [f"{many}/{number}.env" for number in (0, 999)], profile=workspace(deny_matching("**/*.env"))
    )
    assert told.value == ["EACCES", "EACCES"], told


BAD_POLICIES = {
    "not-json": "{",
    "a-list": "[]",
    "unknown-type": '{"type":"other"}',
    "unknown-access": json.dumps(restricted([{"path": {"type": "path", "path": "/"}, "access": "maybe"}])),
    "relative-path": json.dumps(restricted([write("relative")])),
    "nul": json.dumps(restricted([write("/a\0b")])),
    "nested": "[" * 100_000,
    "depth-0": json.dumps(restricted([READ_ALL], depth=0)),
    "negative-depth": json.dumps(restricted([READ_ALL], depth=-1)),
    "unknown-kind": json.dumps(restricted([{"path": {"type": "special", "value": {"kind": 5}}, "access": "read"}])),
}


@pytest.mark.parametrize("policy", BAD_POLICIES.values(), ids=BAD_POLICIES.keys())
def test_a_policy_that_is_none_is_an_error_and_the_command_not_run(place: Place, policy):
    state = f'{{"permissionProfile":{policy},"sandboxCwd":"file://{place.project}"}}'
    line = as_user(place.uid, COUNTERSIGN, "sandbox", "--sandbox-state-json", state, "--", "touch", "ran")
    told = carry_out(line, cwd=place.project)
    assert (told.outcome, told.code) == (NOT_RUN, 1) and "error:" in told.stderr, told
    assert len(told.stderr) < 2000
    assert not (place.project / "ran").exists()


# TMPDIR


def test_tmpdir_unset_empty_or_missing_opens_nothing_more(place: Place):
    """The original gave up here (101); there is no reason to: what is not there cannot be written."""
    temporary = place.outside / "tmp"
    profile = workspace(WRITE_TMPDIR)
    for value in (None, "", str(temporary)):
        told = place.confined(
            outcomes, [str(place.project), str(temporary)], profile=profile, environ={"TMPDIR": value}
        )
        assert told.value == ["OK", "EROFS"], value
    temporary.mkdir()
    place.give()
    told = place.confined(
        outcomes, [str(temporary), f"{temporary}/.git"], profile=profile, environ={"TMPDIR": str(temporary)}
    )
    assert told.value == ["OK", "EROFS"]
    assert sorted(os.listdir(temporary)) == ["new"]


# Bubblewraps

FAKES = {
    "garbage": "head -c 100000 /dev/urandom",
    "nothing": "exit 0",
    "too-old": "echo 'usage: bwrap --ro-bind --as-pid-1'",
    "crashes": "kill -SEGV $$",
    "cannot-make-namespaces": f'[ "$1" = --help ] && exec {BWRAP} --help; echo "No permissions" >&2; exit 1',
    "not-a-program": None,
}


def fake(place: Place, directory: Path, script: str | None) -> Path:
    """A bwrap that notes that it was asked, and then does what the script says."""
    directory.mkdir(exist_ok=True)
    path = directory / "bwrap"
    asked = place.outside / "asked"
    path.write_text("\x7fELF not really" if script is None else f'#!/bin/sh\necho "$*" >> {asked}\n{script}\n')
    path.chmod(0o755)
    asked.touch()
    place.give()
    return path


def with_path(*directories: Path | str) -> dict[str, str | None]:
    return {"PATH": ":".join(map(str, directories))}


@pytest.mark.parametrize("script", FAKES.values(), ids=FAKES.keys())
def test_a_bubblewrap_that_cannot_be_used_is_passed_over_for_the_one_that_came_with_us(place: Place, script):
    directory = fake(place, place.outside / "bin", script).parent
    told = place.confined(
        outcomes, [str(place.outside), str(place.project)], environ=with_path(directory, "/usr/bin", "/bin")
    )
    assert told.value == ["EROFS", "OK"], told
    if script is not None:
        assert (place.outside / "asked").read_text().startswith("--help\n")


def test_a_bubblewrap_that_hangs_is_not_waited_for(place: Place):
    directory = fake(place, place.outside / "bin", "exec sleep 60").parent
    started = time.monotonic()
    told = place.confined(outcomes, [str(place.outside)], environ=with_path(directory, "/usr/bin", "/bin"))
    assert told.value == ["EROFS"], told
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("where", ["cwd", "below-cwd", "writable-root", "link-into-cwd"])
def test_a_bubblewrap_that_a_tool_could_have_put_there_is_not_even_asked(place: Place, where):
    root = place.outside / "root"
    root.mkdir()
    directory = {"cwd": place.project, "below-cwd": place.project / "bin", "writable-root": root / "bin"}.get(where)
    fake(place, directory or place.project, f'exec {BWRAP} "$@"')
    if directory is None:
        directory = place.outside / "bin"
        directory.symlink_to(place.project)
    environ = with_path(directory, "/usr/bin", "/bin")
    told = place.confined(outcomes, [str(place.outside)], profile=workspace(write(root)), environ=environ)
    assert told.value == ["EROFS"], told
    assert (place.outside / "asked").read_text() == ""

    # The same one where a tool cannot have put it is used.
    elsewhere = place.outside / "trusted"
    fake(place, elsewhere, f'exec {BWRAP} "$@"')
    told = place.confined(outcomes, [str(place.outside)], environ=with_path(elsewhere, "/usr/bin", "/bin"))
    assert told.value == ["EROFS"]
    assert "--new-session" in (place.outside / "asked").read_text()


def test_without_any_bubblewrap_nothing_is_run_and_the_user_is_told_what_to_do(place: Place):
    (place.outside / "bin").mkdir()
    place.give()
    inner = place.line(workspace(), *attempt(append_to, place.project / "ran"))
    line = as_user(place.uid, "env", f"PATH={place.outside}/bin", *inner)
    told = carry_out(with_mounts(f'mount --bind /dev/null "{bundled()}"; exec "$@"', *line), cwd=place.project)
    assert told.outcome == NOT_RUN and "bwrap" in told.stderr and "not run" in told.stderr, told
    assert not (place.project / "ran").exists()
    # Without the mount the bundled one does it.
    assert carry_out(line, cwd=place.project).outcome == "OK"


# Disks


FULL = 'mount -t tmpfs -o mode=777,nr_inodes={} none {}; cd "$PWD"; "$@"; echo "left: $(ls -A "$PWD" | tr "\\n" " ")"'


@pytest.mark.parametrize(("inodes", "runs"), [(1, False), (3, False), (4, False), (100, True)])
def test_when_the_disk_is_full_the_command_is_not_run_and_no_placeholder_stays(place: Place, inodes, runs):
    """A file system that has room for none, two or three of the four placeholders, and one that has for all."""
    script = FULL.format(inodes, place.project)
    told = carry_out(with_mounts(script, *place.sandbox(workspace(), "echo", "ran")), cwd=place.project)
    said = told.stdout.splitlines()
    assert said == (["ran", "left: "] if runs else ["left: "]), told
    assert runs or "No space left on device" in told.stderr and "not run" in told.stderr


@pytest.mark.parametrize(("inodes", "runs"), [(1, False), (2, False), (3, False), (4, False), (100, True)])
def test_when_there_is_no_room_for_the_records_the_command_is_not_run(place: Place, inodes, runs):
    script = FULL.format(inodes, "/dev/shm")
    told = carry_out(with_mounts(script, *place.sandbox(workspace(), "echo", "ran")), cwd=place.project)
    said = told.stdout.splitlines()
    assert said == [*(["ran"] if runs else []), "left: .git notes.txt "], told
    assert runs or "No space left on device" in told.stderr
