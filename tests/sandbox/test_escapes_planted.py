"""Attempts in two steps: one command changes the disk, and the next one's plan is to be led astray by it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.sandbox.attempts import NOT_RUN, Told, attempt, environment, heard
from tests.sandbox.place import KEPT, SECRET, Place
from tests.sandbox.profiles import (
    FULL_ACCESS,
    READ_ALL,
    WRITE_PROJECT,
    WRITE_TMPDIR,
    Profile,
    deny,
    deny_matching,
    read,
    restricted,
    workspace,
    write,
)


def append(path):
    with open(path, "a") as file:
        file.write("evil")


def contents(path):
    with open(path) as file:
        return file.read()


def put_a_link(path, target):
    os.symlink(target, path)


def put_a_link_in_its_place(path, target):
    """The directory above is moved away, and made anew with a symlink of that name."""
    above = os.path.dirname(path)
    os.rename(above, above + ".old")
    os.mkdir(above)
    os.symlink(target, path)


# A root that may be written, and is not what it was


@pytest.mark.parametrize("root", ["an entry", "TMPDIR", "an entry that is there", "the policy's directory"])
def test_a_writable_root_is_not_followed_through_a_symlink_that_a_tool_planted(place: Place, root):
    """The next command was given the victim to write, by the name of a root of its policy."""
    inner = place.project / "a" / "root"
    environ: dict[str, str | None] = {"TMPDIR": None}
    cwd, profile, plant = None, workspace(write(inner)), put_a_link
    match root:
        case "TMPDIR":
            environ, profile = {"TMPDIR": str(inner)}, workspace(WRITE_TMPDIR)
        case "an entry that is there":
            plant = put_a_link_in_its_place
        case "the policy's directory":
            cwd, profile = inner, restricted([READ_ALL, WRITE_PROJECT, write(place.project)])
            plant = put_a_link_in_its_place
    (inner if plant is put_a_link_in_its_place else inner.parent).mkdir(parents=True)
    place.give()
    before = place.state_outside()

    def written(path: Path) -> Told:
        line = place.sandbox(profile, *attempt(append, path), cwd=cwd)
        done = subprocess.run(line, capture_output=True, cwd=place.project, env=environment(environ), timeout=30)
        return heard(done.returncode, done.stdout, done.stderr)

    assert written(place.project / "mine").outcome == "OK", "before that it is as good a policy as any"
    assert place.confined(plant, inner, place.outside).outcome == "OK"
    told = written(inner / "keep.txt")
    assert told.outcome == NOT_RUN and told.code == 1, told
    assert f"cannot enforce sandbox writable root {inner} because it crosses writable symlink {inner}" in told.stderr
    assert place.state_outside() == before
    assert place.with_full_access(append, inner / "keep.txt").outcome == "OK"
    assert (place.outside / "keep.txt").read_text() == KEPT + "evil"


# A directory above what is protected or denied, moved away


def replaced_above(path, above):
    """What is made at a path once a directory above it was moved."""
    os.rename(above, above + ".old")
    os.makedirs(os.path.dirname(path))
    append(path)
    return contents(path)


def moved_above(path, above):
    """What is found, by the next command, where a directory was moved to."""
    os.rename(above, above + ".old")


PLACES = {
    "the directory of a pointer file": ("mods/gd/hooks/pre-commit", "mods"),
    "a read-only file": ("a/b/kept", "a"),
    "the names of an inner root": ("sub/proj/.git/hooks/pre-commit", "sub"),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_protected_is_not_replaced_by_moving_a_directory_above(place: Place, name):
    protected, above = (place.project / path for path in PLACES[name])
    entries = []
    match name:
        case "the directory of a pointer file":
            (place.project / ".git").rename(place.project / "was-git")
            (place.project / ".git").write_text("gitdir: mods/gd\n")
        case "a read-only file":
            entries = [read(protected)]
        case "the names of an inner root":
            entries = [write(place.project / "sub" / "proj")]
    protected.parent.mkdir(parents=True)
    protected.write_text("kept")
    place.give()
    told = place.confined(replaced_above, protected, above, profile=workspace(*entries))
    assert told.outcome == "EBUSY", told
    assert protected.read_text() == "kept"
    assert place.with_full_access(replaced_above, protected, above).value == "evil"


@pytest.mark.parametrize("how", ["path", "pattern"])
def test_what_is_denied_is_not_opened_for_the_next_command_by_moving_a_directory_above(place: Place, how):
    secret = place.project / "conf" / "deep" / "server.env"
    secret.parent.mkdir(parents=True)
    secret.write_text(SECRET)
    place.give()
    above = place.project / "conf"
    entry = deny(secret) if how == "path" else deny_matching(f"{above}/deep/*.env")
    profile = workspace(entry)
    assert place.confined(moved_above, secret, above, profile=profile).outcome == "EBUSY"
    moved = Path(f"{above}.old/deep/server.env")
    assert place.confined(contents, secret, profile=profile).outcome == "EACCES"
    assert place.confined(moved_above, secret, above).outcome == "OK", "without the entry it is an ordinary directory"
    assert place.confined(contents, moved, profile=profile).value == SECRET


def test_directories_beside_what_is_protected_can_be_moved(place: Place):
    """The control: only what leads there stays where it is."""
    kept = place.project / "a" / "b" / "kept"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    (place.project / "a" / "beside").mkdir()
    place.give()
    told = place.confined(moved_above, kept, kept.parent.with_name("beside"), profile=workspace(read(kept)))
    assert told.outcome == "OK", told


# A directory that cannot be looked into when the command is planned


def shut(directory):
    os.chmod(directory, 0)


def open_and_read(path, directory):
    os.chmod(directory, 0o755)
    return contents(path)


def open_and_write(path, directory):
    os.chmod(directory, 0o755)
    append(path)


@pytest.mark.parametrize("how", ["path", "pattern"])
def test_a_denied_file_is_not_found_again_in_a_directory_that_was_shut_meanwhile(place: Place, how):
    secret = place.project / "d" / "x.env"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    place.give()
    profile = workspace(deny(secret) if how == "path" else deny_matching("**/*.env"))
    assert place.confined(contents, secret, profile=profile).outcome == "EACCES"
    place.confined(shut, secret.parent, profile=profile)
    told = place.confined(open_and_read, secret, secret.parent, profile=profile)
    # Root looks into any directory, so the mask is there.
    assert told.outcome == (NOT_RUN if place.uid else "EACCES"), told
    if place.uid:
        assert told.code == 1 and str(secret.parent) in told.stderr and "chmod u+" in told.stderr, told
    assert place.with_full_access(open_and_read, secret, secret.parent).value == SECRET


@pytest.mark.parametrize("what", ["the directory of a pointer file", "the names of an inner root"])
def test_what_is_protected_is_not_forgotten_in_a_directory_that_was_shut_meanwhile(place: Place, what):
    protected, above = (place.project / path for path in PLACES[what])
    protected.parent.mkdir(parents=True)
    protected.write_text("kept")
    entries = []
    if what == "the directory of a pointer file":
        (place.project / ".git").rename(place.project / "was-git")
        (place.project / ".git").write_text("gitdir: mods/gd\n")
    else:
        entries = [write(place.project / "sub" / "proj")]
    place.give()
    profile = workspace(*entries)
    assert place.confined(append, protected, profile=profile).outcome == "EROFS"
    place.confined(shut, above, profile=profile)
    told = place.confined(open_and_write, protected, above, profile=profile)
    assert told.outcome == (NOT_RUN if place.uid else "EROFS"), told
    above.chmod(0o755)
    assert protected.read_text() == "kept"
    assert place.with_full_access(open_and_write, protected, above).outcome == "OK"


# Where agents keep their keys


def await_and_read(path):
    """Wait until a key was put there."""
    os.write(1, b"waiting\n")
    os.read(0, 1)
    return contents(path)


@pytest.mark.parametrize("policy", ["read-only", "workspace", "full access"])
def test_a_key_that_is_put_there_while_a_command_runs_is_not_seen_by_it(place: Place, runtime: Path, policy):
    """What was not there when the command started was not masked, and the next agent put its keys there."""
    profiles: dict[str, Profile] = {
        "read-only": restricted([READ_ALL, write(place.project)]),
        "workspace": workspace(write(runtime)),
        "full access": FULL_ACCESS,
    }
    key = runtime / f"countersign-runs-{place.uid}" / "run-1" / "key"
    line = place.sandbox(profiles[policy], *attempt(await_and_read, key))
    environ = environment({"XDG_RUNTIME_DIR": str(runtime)})
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(line, cwd=place.project, env=environ, **pipes) as running:
        assert running.stdout is not None and running.stdout.readline() == b"waiting\n", running.communicate()
        key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key.write_text(SECRET)
        place.give()
        out, error = running.communicate(b".", timeout=30)
    told = heard(running.returncode, out, error)
    if policy == "full access":
        assert told.value == SECRET
    else:
        assert told.outcome == "EACCES" and SECRET not in told.stdout, told


def test_the_place_of_keys_cannot_be_taken_by_a_tool(place: Place, runtime: Path):
    runs = runtime / f"countersign-runs-{place.uid}"
    environ: dict[str, str | None] = {"XDG_RUNTIME_DIR": str(runtime)}
    profile = workspace(write(runtime))
    ways = {os.mkdir: (runs,), os.symlink: ("/usr", runs), os.rename: (runs, f"{runs}.old"), os.rmdir: (runs,)}
    for way, arguments in ways.items():
        told = place.confined(by_name, way.__name__, *arguments, profile=profile, environ=environ)
        assert told.outcome in {"EEXIST", "EBUSY"}, told
    assert runs.stat().st_mode & 0o777 == 0o700 and runs.stat().st_uid == place.uid
    runs.rmdir()
    assert place.with_full_access(by_name, "symlink", "/usr", runs).outcome == "OK"
    told = place.confined(append, place.project / "mine", environ=environ)
    assert told.outcome == NOT_RUN and f"{runs} is kept for sockets and keys of the agent" in told.stderr, told
    assert place.confined(append, place.project / "mine").outcome == "OK", "for who has another runtime directory"


def by_name(function, *arguments):
    getattr(os, function)(*arguments)
