"""Attempts on what a view shows under several names: what is denied by one of them, and read by another."""

import json
import os
from pathlib import Path

import pytest

from tests.sandbox.attempts import NOT_RUN, Told, attempt
from tests.sandbox.place import KEPT, SECRET, Place
from tests.sandbox.profiles import (
    MINIMAL,
    WRITE_PROJECT,
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


@pytest.fixture
def alias(place: Place) -> Path:
    """A symlink to the directory outside, which is a readable root by this name."""
    made = place.root / "alias"
    made.symlink_to(place.outside)
    return made


@pytest.mark.parametrize("spelled", ["outside/secret.txt", "alias/secret.txt", "alias/**/sec*", "outside/sec*"])
def test_a_denied_file_is_denied_under_each_name_of_its_directory(place: Place, alias: Path, spelled):
    entry = deny_matching if "*" in spelled else deny
    profile = restricted([MINIMAL, WRITE_PROJECT, read(alias), entry(f"{place.root}/{spelled}")])
    assert place.confined(contents, alias / "secret.txt", profile=profile).outcome == "EACCES"
    assert place.confined(contents, alias / "keep.txt", profile=profile).value == KEPT
    without = restricted([MINIMAL, WRITE_PROJECT, read(alias)])
    assert place.confined(contents, alias / "secret.txt", profile=without).value == SECRET


def test_what_is_denied_or_read_only_or_writable_below_is_so_under_each_name(place: Place, alias: Path):
    for name in ("shut", "open", "open/kept"):
        (place.outside / name).mkdir()
        (place.outside / name / "file").write_text(SECRET)
    place.give()
    entries = [deny(place.outside / "shut"), write(alias / "open"), read(alias / "open" / "kept")]
    profile = restricted([MINIMAL, WRITE_PROJECT, read(alias), *entries])
    assert place.confined(contents, alias / "shut" / "file", profile=profile).outcome == "EACCES"
    assert place.confined(append, alias / "open" / "file", profile=profile).outcome == "OK"
    assert place.confined(append, alias / "open" / "kept" / "file", profile=profile).outcome == "EROFS"
    assert place.confined(append, alias / "open" / ".git", profile=profile).outcome in {"EISDIR", "EROFS"}
    assert (place.outside / "open" / "file").read_text() == SECRET + "evil"


def test_a_root_that_is_denied_by_its_other_name_is_not_shown(place: Place, alias: Path):
    profile = restricted([MINIMAL, WRITE_PROJECT, read(alias), deny(place.outside)])
    assert place.confined(contents, alias / "keep.txt", profile=profile).outcome in {"ENOENT", "EACCES"}


def test_a_key_is_hidden_under_each_name_of_its_directory(place: Place, runtime: Path):
    runs = runtime / f"countersign-runs-{place.uid}"
    runs.mkdir(mode=0o700)
    (runs / "key").write_text(SECRET)
    (runtime / "beside").write_text(KEPT)
    (place.root / "alias").symlink_to(runtime)
    place.give()
    environ: dict[str, str | None] = {"XDG_RUNTIME_DIR": str(runtime)}
    for name in ("alias", "runtime"):
        profile = restricted([MINIMAL, WRITE_PROJECT, read(place.root / name)])
        told = place.confined(contents, f"{place.root}/{name}/{runs.name}/key", profile=profile, environ=environ)
        assert told.outcome == "EACCES", told
        told = place.confined(contents, f"{place.root}/{name}/beside", profile=profile, environ=environ)
        assert told.value == KEPT
        told = place.confined(contents, runs / "key", profile=restricted([MINIMAL, read(runs)]), environ=environ)
        assert told.outcome == NOT_RUN and "which no tool may reach" in told.stderr, told


def test_a_command_of_the_system_is_denied_under_both_names_of_its_directory(place: Place):
    """/bin is a symlink on most systems, and was bound with all that is in /usr/bin."""
    names = [path for path in ("/bin/cat", "/usr/bin/cat") if os.path.exists(path)]
    for denied in names:
        profile = restricted([MINIMAL, WRITE_PROJECT, deny(denied)])
        same = [path for path in names if os.path.realpath(path) == os.path.realpath(denied)]
        for path in same:
            told = place.confined(is_open, path, profile=profile)
            assert told.outcome == "EACCES", (denied, path, told)
    told = place.confined(is_open, names[0], profile=restricted([MINIMAL, WRITE_PROJECT]))
    assert told.outcome == "OK"


def is_open(path):
    os.close(os.open(path, os.O_RDONLY))


def names_in(path):
    return sorted(os.listdir(path))


@pytest.mark.parametrize("options", [(), ("--no-proc",)])
def test_a_denied_proc_is_denied_whosever_it_is(place: Place, options):
    def told(profile: Profile) -> Told:
        state = {"permissionProfile": profile, "sandboxCwd": f"file://{place.project}"}
        return place.run(
            "--sandbox-state-json", json.dumps(state), *options, command=attempt(names_in, "/proc"), timeout_s=30
        )

    assert told(workspace(deny("/proc"))).outcome == "EACCES"
    seen = told(workspace())
    assert seen.outcome == "OK" and (str(os.getpid()) in seen.value) is bool(options), (
        "the host's with this option only"
    )
