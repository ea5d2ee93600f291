"""Attempts on the protected names at the top of a writable root, by every way to make or replace something there."""

import os

import pytest

from agent.sandbox.policy import PROTECTED_NAMES
from tests.sandbox.place import HOOK, Place
from tests.sandbox.profiles import READ_ALL, WRITE_PROJECT, restricted, workspace, write
from tests.sandbox.system import AT_FDCWD, system_call, tried


def make_it(name):
    os.mkdir(name)


def make_a_file_of_it(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def make_a_link_of_it(name):
    os.symlink("/etc", name)


def link_a_file_to_it(name):
    make_a_file("another")
    os.link("another", name)


def make_a_file(name):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))


def make_something_in_it(name):
    make_a_file(name + "/new")


def make_a_directory_in_it(name):
    os.makedirs(name + "/hooks/deep")


def move_it_away(name):
    os.rename(name, name + ".old")


def move_a_directory_over_it(name):
    os.makedirs("other/hooks", exist_ok=True)
    os.rename("other", name)


def move_a_file_over_it(name):
    make_a_file("another")
    os.rename("another", name)


def exchange_it(name):
    rename_exchange = 2
    os.makedirs("other", exist_ok=True)
    system_call("renameat2", AT_FDCWD, b"other", AT_FDCWD, name.encode(), rename_exchange)


def remove_it(name):
    os.rmdir(name)


def make_it_writable(name):
    os.chmod(name, 0o777)


def replace_the_project(name):
    here = os.getcwd()
    os.rename(here, here + ".old")
    os.makedirs(here + "/" + name)


def make_it_by_another_spelling(name):
    os.makedirs("sub", exist_ok=True)
    os.makedirs(f"sub/..//./{name}/hooks")


def ways():
    return [
        *(make_it, make_a_file_of_it, make_a_link_of_it, link_a_file_to_it, make_something_in_it),
        *(make_a_directory_in_it, move_it_away, move_a_directory_over_it, move_a_file_over_it, exchange_it, remove_it),
        *(make_it_writable, replace_the_project, make_it_by_another_spelling),
    ]


def race(names, rounds):
    """What succeeded, of all ways by several processes at once: also what is open for a moment only is found."""
    found, told = os.pipe()
    for seed in range(4):
        if os.fork() == 0:
            for step in range(rounds):
                for turn in range(len(ways())):
                    way, name = ways()[(turn + seed * 5) % len(ways())], names[(step + seed) % len(names)]
                    if tried(way, name) == "OK":
                        os.write(told, f"{way.__name__} {name}\n".encode())
            os._exit(0)
    os.close(told)
    with open(found) as said:
        return sorted(set(said.read().splitlines()))


def alone(way, name):
    """Each by itself, since one that succeeds makes others fail."""
    way(name)


@pytest.mark.parametrize("way", ways(), ids=lambda way: way.__name__)
@pytest.mark.parametrize("state", ["missing", "with-hooks"])
def test_a_protected_name_cannot_be_made_filled_moved_or_replaced(place: Place, way, state):
    name = ".git" if state == "with-hooks" else ".codex"
    told = place.confined(way, name)
    assert told.outcome in {"EEXIST", "EROFS", "EBUSY", "ENOTDIR", "EISDIR", "EXDEV", "EACCES"}, told
    assert (place.project / ".git/hooks/pre-commit").read_text() == HOOK
    assert sorted(path.name for path in (place.project / ".git").rglob("*")) == ["hooks", "pre-commit"]
    assert not (place.project / ".codex").exists()

    if (way, state) in IMPOSSIBLE:
        return
    for made in ("other", "another"):
        (place.project / made).unlink(missing_ok=True) if (place.project / made).is_file() else None
    assert place.with_full_access(way, name).outcome == "OK"


# What fails on what is there, or on what is not, also with full access: no control says more than the other state's.
IMPOSSIBLE = {
    *((way, "with-hooks") for way in (make_it, make_a_file_of_it, make_a_link_of_it, link_a_file_to_it, remove_it)),
    *((way, "with-hooks") for way in (move_a_directory_over_it, move_a_file_over_it, make_it_by_another_spelling)),
    *((way, "missing") for way in (make_something_in_it, move_it_away, exchange_it, remove_it, make_it_writable)),
}


def test_no_race_of_all_ways_makes_a_protected_name(place: Place):
    """Tens of thousands of attempts, by four processes, on all four names, of which `.git` exists and is not empty."""
    told = place.confined(race, PROTECTED_NAMES, 400)
    assert told.outcome == "OK" and told.value == [], told
    assert (place.project / ".git/hooks/pre-commit").read_text() == HOOK
    assert [name for name in os.listdir(place.project) if name in PROTECTED_NAMES] == [".git"]

    told = place.with_full_access(race, PROTECTED_NAMES, 2)
    assert {line.split()[1] for line in told.value} == set(PROTECTED_NAMES)


def test_no_race_makes_one_in_roots_inside_roots(place: Place):
    """The inner root can be moved by the outer one only if it is no mount point."""
    inner = place.project / "inner"
    inner.mkdir()
    place.give()
    told = place.confined(race, [f"inner/{name}" for name in PROTECTED_NAMES], 100, profile=workspace(write(inner)))
    assert told.outcome == "OK" and told.value == [], told
    assert os.listdir(inner) == []
    told = place.confined(race, ["inner/.git"], 1)
    assert told.value, "without the entry for it, the inner directory is an ordinary one"


def swap_parents(directory, rounds):
    """While one process moves a directory to and fro, others use the moment in which it is not where the mask is."""
    if os.fork() == 0:
        for _ in range(rounds):
            tried(os.rename, directory, directory + ".away")
            tried(os.rename, directory + ".away", directory)
        os._exit(0)
    wins = 0
    for _ in range(rounds):
        for path in (f"{directory}/kept.txt", f"{directory}.away/kept.txt"):
            try:
                with open(path, "a") as file:
                    file.write("x")
                wins += 1
            except OSError:
                pass
    os.wait()
    return wins


def test_moving_the_directory_around_a_read_only_file_does_not_open_it(place: Place):
    kept = place.project / "deep" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("kept")
    place.give()
    narrowed = restricted([READ_ALL, WRITE_PROJECT, {**write(kept), "access": "read"}])
    told = place.confined(swap_parents, kept.parent, 3000, profile=narrowed)
    assert told.outcome == "OK" and told.value == 0, told
    assert [path.read_text() for path in place.project.rglob("kept.txt")] == ["kept"]
    assert place.confined(swap_parents, kept.parent, 100).value > 0
