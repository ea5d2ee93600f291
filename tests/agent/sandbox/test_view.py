"""What is seen under several names in a view with limited reads, and which directories are held in their places."""

import pytest

from tests.agent.sandbox.imagined_disk import DIRECTORY, File, Link
from tests.agent.sandbox.mounts import bound, flags, mounts, planned, steps, view

LINKS = {"/l": Link("/x/d"), "/x/d/s": File(), "/x/d/in": DIRECTORY}


def test_a_root_behind_a_symlink_is_shown_under_the_name_it_is_given_and_only_that():
    argv = planned(LINKS, "read /l", "write /w").argv
    assert ("--ro-bind", "/x/d", "/l") in mounts(argv)
    assert (view(argv, "/l/s"), view(argv, "/x/d/s")) == ("read", "nothing")


@pytest.mark.parametrize("entry", ["deny /x/d/s", "deny /l/s", "deny /l/**/s*", "deny /x/d/s*"])
def test_what_is_denied_is_denied_under_each_name(entry):
    argv = planned(LINKS, "read /l", "read :minimal", entry).argv
    assert (view(argv, "/l/s"), view(argv, "/l/in/x")) == ("nothing", "read")
    assert view(planned(LINKS, "read /l").argv, "/l/s") == "read"


def test_what_is_writable_or_read_only_or_private_is_so_under_each_name():
    lines = ("read /l", "write /x/d/in", "read /x/d/in/kept", "deny /x/d/shut")
    contents = {**LINKS, "/x/d/in/kept": DIRECTORY, "/x/d/keys": DIRECTORY, "/x/d/shut/open": DIRECTORY}
    argv = planned(contents, *lines, "write /x/d/shut/open", host={"private_paths": ("/x/d/keys",)}).argv
    for name in ("/l", "/x/d"):
        seen = {path: view(argv, f"{name}/{path}") for path in ("in/f", "in/kept/f", "in/.git/f", "keys/f", "shut/f")}
        assert seen == {
            **{"in/f": "write", "in/kept/f": "read", "in/.git/f": "read"},
            **{"keys/f": "nothing", "shut/f": "nothing"},
        }
        assert view(argv, f"{name}/shut/open/f") == "write"
        assert ("--remount-ro", f"{name}/shut") in steps(argv)


def test_a_root_that_is_denied_by_any_name_or_behind_a_denied_symlink_is_not_shown():
    for line in ("deny /x/d", "deny /x"):
        assert view(planned(LINKS, "read /l", line).argv, "/l/s") == "nothing"
    behind = {"/shut/l": Link("/x/d"), "/x/d/s": File()}
    assert view(planned(behind, "read /shut/l").argv, "/shut/l/s") == "read"
    assert view(planned(behind, "read /shut/l", "deny /shut").argv, "/shut/l/s") == "nothing"
    system = {"/usr/bin/x": File(), "/bin": Link("usr/bin")}
    assert ("--symlink", "/usr/bin", "/bin") in steps(planned(system, "read :minimal").argv)
    argv = planned(system, "read :minimal", "deny /usr/bin").argv
    assert view(argv, "/bin/x") == view(argv, "/usr/bin/x") == "nothing" and "--symlink" not in argv


def test_what_the_system_s_symlinks_lead_to_elsewhere_is_masked_where_it_is_shown():
    argv = planned({"/lib64": Link("/opt/libs"), "/opt/libs/key": File()}, "read :minimal", "deny /lib64/key").argv
    assert (view(argv, "/lib64/key"), view(argv, "/lib64/other")) == ("nothing", "read")


def test_a_symlink_inside_a_root_that_is_shown_leads_to_what_is_shown_beside_it():
    inside = {"/r/l": Link("/x/d"), "/x/d/s": File()}
    argv = planned(inside, "read /r", "read /r/l", "deny /x/d/s").argv
    assert ("--ro-bind", "/x/d", "/x/d") in mounts(argv) and not any(step[-1] == "/r/l" for step in steps(argv))
    assert (view(argv, "/x/d/s"), view(argv, "/x/d/t")) == ("nothing", "read")
    # Two names of one thing, and a name in what another one shows.
    argv = planned({**LINKS, "/m": Link("/l"), "/n": Link("/r/n"), "/r/n": DIRECTORY}, *("read /l", "read /m")).argv
    assert view(argv, "/l/s") == view(argv, "/m/s") == "read"
    assert ("--symlink", "/r/n", "/n") in steps(
        planned({"/n": Link("/r/n"), "/r/n": File()}, "read /r", "read /n").argv
    )


def test_the_command_starts_where_its_directory_is_shown():
    for lines, cwd, expected in [
        (("read /l",), "/l/in", "/l/in"),
        (("read /l",), "/x/d/in", "/l/in"),
        (("read /l", "read /x"), "/l/in", "/x/d/in"),
        (("read /",), "/l/in", "/x/d/in"),
        (("read /w",), "/l/in", "/"),
    ]:
        assert flags(planned(LINKS, *lines, cwd=cwd).argv)["--chdir"] == (expected,), (lines, cwd)


# What must not be moved


@pytest.mark.parametrize(
    ("lines", "held"),
    [
        (("read /w/a/b/kept",), ["/w/a", "/w/a/b"]),
        (("deny /w/a/b/kept",), ["/w/a", "/w/a/b"]),
        (("deny /w/a/b/none/x",), ["/w/a", "/w/a/b"]),
        (("write /w/a/b",), ["/w/a"]),
        (("deny /w/a/b/*.env",), ["/w/a", "/w/a/b"]),
        (("deny /w/a/**/*.env",), ["/w/a"]),
        (("deny /w/**/*.env",), []),
        (("deny /w/a/b/*.none",), []),
        (("read /w/a", "read /w/a/b/kept"), []),
        (("deny /w/a", "write /w/a/b"), []),
        (("read /w/kept",), []),
        ((), []),
    ],
)
def test_the_directories_that_lead_to_what_is_masked_are_mount_points(lines, held):
    """One could be moved away, mask and all, and another be made in its place."""
    contents = {"/w/a/b/kept": File(), "/w/a/b/x.env": File(), "/w/a/b": DIRECTORY, "/w/other": DIRECTORY}
    made = planned(contents, "read /", "write /w", *lines)
    roots = {"/w", *(line.split()[1] for line in lines if line.startswith("write"))}
    assert set(bound(made.argv)) == roots | set(held)
    assert [note for note in made.notes if "Cannot be moved" in note] == [
        f"Cannot be moved, since it leads there: {path}" for path in held
    ]


def test_the_directory_of_a_pointer_file_is_held_and_fresh_mounts_are_not_undone():
    contents = {"/w/.git": File("gitdir: mods/gd"), "/w/mods/gd": DIRECTORY}
    assert bound(planned(contents, "read /", "write /w").argv) == ["/w", "/w/mods"]
    keys = {"/dev/shm/keys": DIRECTORY, "/home/me/key": File()}
    argv = planned(keys, "write /", "deny /home/me/key", host={"private_paths": ("/dev/shm/keys",)}).argv
    assert bound(argv) == ["/", "/home", "/home/me"]
    assert view(argv, "/dev/sda") == "--dev" and view(argv, "/dev/shm/keys/x") == "nothing"
    argv = planned({"/dev/shm/a/x": File()}, "write /", "deny /dev/shm/a/x").argv
    assert bound(argv) == ["/", "/dev/shm/a"] and view(argv, "/dev/shm/a/x") == "nothing"
