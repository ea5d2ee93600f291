"""The rules of a policy, each seen by a command that runs under it: what may be read and written.

The rules are those that were recorded of the original (facts/sandbox.md 1 to 9), in cases of our own.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.sandbox.attempts import NOT_RUN
from tests.sandbox.place import Place
from tests.sandbox.profiles import (
    MINIMAL,
    READ_ALL,
    WRITE_PROJECT,
    Entry,
    deny,
    deny_matching,
    read,
    restricted,
    special,
    workspace,
    write,
)
from tests.sandbox.system import tried


def rights(paths):
    """For each path what may be done: "w", "r" or "-"; with "+" if a directory cannot be listed but entered."""
    found = []
    for path in paths:
        if os.path.isdir(path):
            can_read = tried(os.listdir, path) == "OK"
            can_write = tried(os.mkdir, path + "/probe") == "OK"
            if can_write:
                os.rmdir(path + "/probe")
        else:
            can_read = tried(open_for, path, os.O_RDONLY) == "OK"
            can_write = tried(open_for, path, os.O_WRONLY) == "OK"
        found.append("w" if can_write else "r" if can_read else "-")
    return "".join(found)


def open_for(path, flags):
    os.close(os.open(path, flags))


@dataclass(frozen=True)
class Case:
    """Entries, with paths below `outside`, and the rights that come of them, one letter for each of PATHS."""

    entries: Sequence[Callable[[str], Entry]]
    rights: str
    reads_all: bool = True


PATHS = ("a", "a/b", "a/b/c", "a/b/c/file", "x", "x/file")


def at(function: Callable[[str], Entry], path: str) -> Callable[[str], Entry]:
    return lambda outside: function(f"{outside}/{path}")


def also(kind: str, access: str) -> Callable[[str], Entry]:
    return lambda outside: special(kind, access)


# On the way to what is reopened there are empty directories, which may be listed.
# The rights of:                                       a, a/b, a/b/c, a/b/c/file, x, x/file
PRECEDENCE = {
    "nothing-but-reading": Case([], "rrrrrr"),
    "a-root": Case([at(write, "a")], "wwwwrr"),
    "the-longer-path-wins": Case([at(write, "a"), at(read, "a/b"), at(write, "a/b/c")], "wrwwrr"),
    "order-does-not-count": Case([at(write, "a/b/c"), at(read, "a/b"), at(write, "a")], "wrwwrr"),
    "deny-below-write": Case([at(write, "a"), at(deny, "a/b/c/file")], "www-rr"),
    "deny-a-directory": Case([at(deny, "a/b")], "r---rr"),
    "writing-is-reopened-below-a-denied-directory": Case([at(deny, "a"), at(write, "a/b/c")], "-rwwrr"),
    "reading-is-not-reopened-below-a-denied-directory": Case([at(deny, "a"), at(read, "a/b/c")], "----rr"),
    "deny-beats-write-on-one-path": Case([at(write, "a"), at(deny, "a")], "----rr"),
    "write-beats-read-on-one-path": Case([at(read, "a"), at(write, "a")], "wwwwrr"),
    "a-file-alone": Case([at(write, "a/b/c/file")], "rrrwrr"),
    "reads-limited-to-a-root": Case([also("minimal", "read"), at(read, "a/b")], "rrrr--", reads_all=False),
    "reads-limited-and-a-root-to-write": Case([also("minimal", "read"), at(write, "a/b/c")], "rrww--", reads_all=False),
    "reads-limited-and-denied-in-part": Case(
        [also("minimal", "read"), at(read, "a"), at(deny, "a/b/c")], "rr----", reads_all=False
    ),
    "unknown-places-are-ignored": Case(
        [lambda _: {"path": {"type": "special", "value": {"kind": "unknown", "path": ":new"}}, "access": "write"}],
        "rrrrrr",
    ),
    "a-pattern-that-grants-is-ignored": Case(
        [lambda outside: {"path": {"type": "glob_pattern", "pattern": f"{outside}/**"}, "access": "write"}], "rrrrrr"
    ),
}


@pytest.mark.parametrize("case", PRECEDENCE.values(), ids=PRECEDENCE.keys())
def test_the_most_specific_entry_decides_and_then_deny_write_read(place: Place, case: Case):
    for path in PATHS:
        target = place.outside / path
        target.touch() if path.endswith("file") else target.mkdir()
    place.give()
    entries = [make(str(place.outside)) for make in case.entries]
    profile = restricted([READ_ALL, *entries] if case.reads_all else entries)
    told = place.confined(rights, [f"{place.outside}/{path}" for path in PATHS], profile=profile)
    # What is not mounted is an empty directory made for what is below it (which may be listed, and written to no end),
    # or nothing.
    expected = case.rights
    if not case.reads_all:
        told_rights = "".join(
            right if wanted != "r" or right != "w" else "r" for right, wanted in zip(told.value, expected, strict=True)
        )
        assert told_rights == expected, told
    else:
        assert told.value == expected, told
    assert place.with_full_access(rights, [f"{place.outside}/{path}" for path in PATHS]).value == "wwwwww"


# Protected names


def test_the_four_names_are_seen_in_each_writable_root_and_are_not_there_afterwards(place: Place):
    other = place.outside / "other"
    other.mkdir()
    place.give()
    told = place.confined(list_all, [str(place.project), str(other)], profile=workspace(write(other)))
    assert told.value == [[".agents", ".aws", ".codex", ".git", "notes.txt"], [".agents", ".aws", ".codex", ".git"]]
    assert sorted(os.listdir(place.project)) == [".git", "notes.txt"] and os.listdir(other) == []


def list_all(directories):
    return [sorted(os.listdir(directory)) for directory in directories]


def test_names_that_only_look_like_it_and_deeper_ones_are_free(place: Place):
    names = [".gitignore", ".github", "git", "sub", "sub/.git", "sub/.codex", ".agents.md"]
    told = place.confined(make_directories, names)
    assert told.value == ["OK"] * len(names)
    assert (place.project / "sub/.git").is_dir()


def make_directories(names):
    return [tried(os.mkdir, name) for name in names]


def test_an_entry_that_grants_writing_at_or_below_a_protected_name_opens_it(place: Place):
    hooks = place.project / ".git" / "hooks"
    paths = [str(hooks), str(place.project / ".git")]
    assert place.confined(rights, paths).value == "rr"
    assert place.confined(rights, paths, profile=workspace(write(hooks))).value == "wr"
    assert place.confined(rights, paths, profile=workspace(write(place.project / ".git"))).value == "ww"


def pointer(place: Place, text: str) -> None:
    """A `.git` file instead of the directory."""
    (place.project / ".git").rename(place.outside / "moved")
    (place.project / ".git").write_text(text)
    place.give()


def test_a_pointer_file_protects_what_it_points_to_in_this_root_and_in_another(place: Place):
    here, there = place.project / "store", place.outside / "other" / "worktrees" / "one"
    for directory in (here, there):
        directory.mkdir(parents=True)
    root = write(place.outside / "other")
    for text in (f"gitdir: {there}\n", f"gitdir:   {there}  ", "gitdir: ../outside/other/worktrees/one\n"):
        (place.project / ".git").is_dir() and pointer(place, text)
        (place.project / ".git").write_text(text)
        place.give()
        paths = [str(place.project / ".git"), str(there), str(there.parent), str(here)]
        assert place.confined(rights, paths, profile=workspace(root)).value == "rrww", text
    (place.project / ".git").write_text("gitdir: store\n")
    place.give()
    assert place.confined(rights, paths, profile=workspace(root)).value == "rwwr"
    assert place.confined(rights, paths, profile=workspace(root, write(here))).value == "rwww"


@pytest.mark.parametrize("text", ["gitdir\n", "", "gitdir:\n", "ref: store", "gitdir: nowhere\n", "\0" * 100])
def test_of_a_pointer_that_points_nowhere_only_the_file_is_protected(place: Place, text):
    (place.project / "store").mkdir()
    pointer(place, text)
    assert place.confined(rights, [str(place.project / ".git"), str(place.project / "store")]).value == "rw"


@pytest.mark.parametrize("target", ["store", "/etc", "nowhere"])
def test_a_protected_name_that_is_a_symlink_stops_the_launch(place: Place, target):
    (place.project / ".codex").symlink_to(target)
    told = place.confined(make_directories, ["ran"])
    assert (told.outcome, told.code) == (NOT_RUN, 1), told
    assert str(place.project / ".codex") in told.stderr and "symlink" in told.stderr
    assert not (place.project / "ran").exists()


# Patterns

TREE = ("a.env", "A.ENV", "sub/b.env", "sub/deep/c.env", "sub/x1.txt", "sub/x22.txt", "[y]", "dir.env/inner")
PATTERNS = {
    "*.env": (1, "-rrrrrrr"),
    "**/*.env": (None, "-r--rrrr"),
    "**/*.env at depth 1": (1, "-rrrrrrr"),
    "**/*.env at depth 2": (2, "-r-rrrrr"),
    "sub/x?.txt": (None, "rrrr-rrr"),
    "sub/x[0-9]*.txt": (None, "rrrr--rr"),
    "sub/**": (None, "rr----rr"),
    "[ab].env": (None, "-rrrrrrr"),
    "*nothing*": (None, "rrrrrrrr"),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_denies_the_files_that_match_when_the_command_starts(place: Place, pattern):
    for name in TREE:
        (place.project / name).parent.mkdir(parents=True, exist_ok=True)
        (place.project / name).touch()
    place.give()
    depth, expected = PATTERNS[pattern]
    profile = restricted([READ_ALL, deny_matching(f"{place.project}/{pattern.split(' at ')[0]}")], depth=depth)
    assert place.confined(rights, [str(place.project / name) for name in TREE], profile=profile).value == expected


def test_what_matches_only_later_is_not_denied(place: Place):
    told = place.confined(make_and_read, "new.env", profile=workspace(deny_matching("**/*.env")))
    assert told.value == "made"


def make_and_read(name):
    with open(name, "w") as file:
        file.write("made")
    with open(name) as file:
        return file.read()


@pytest.mark.parametrize("pattern", ["/*.env", "/**", "/etc*/passwd"])
def test_a_pattern_that_would_search_the_whole_disk_stops_the_launch(place: Place, pattern):
    told = place.confined(make_directories, ["ran"], profile=workspace(deny_matching(pattern)))
    assert (told.outcome, told.code) == (NOT_RUN, 1) and "non-root directory prefix" in told.stderr
    assert not (place.project / "ran").exists()


# Limited reads


def test_with_limited_reads_there_is_nothing_else_and_the_root_is_private(place: Place):
    told = place.confined(look_around, profile=restricted([MINIMAL]))
    seen, made = told.value
    assert "usr" in seen and not {"root", "home", "var", "tmp", "work"} & set(seen)
    assert made == "OK" and not os.path.lexists("/countersign-probe")


def look_around():
    return os.listdir("/"), tried(os.mkdir, "/countersign-probe")


def test_a_working_directory_that_is_not_there_becomes_the_root(place: Place):
    assert place.confined(os_getcwd, profile=restricted([MINIMAL])).value == "/"
    assert place.confined(os_getcwd, profile=restricted([MINIMAL, WRITE_PROJECT])).value == str(place.project)


def os_getcwd():
    return os.getcwd()
