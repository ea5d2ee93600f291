"""Attempts to read what a policy denies, by every route to it, and to take masks away. The controls read it."""

import glob
import os
import shutil
from pathlib import Path

import pytest

from tests.sandbox.place import SECRET, Place
from tests.sandbox.profiles import READ_ALL, WRITE_PROJECT, deny, deny_matching, restricted, workspace
from tests.sandbox.system import (
    AT_FDCWD,
    CLONE_NEWNS,
    MNT_DETACH,
    MS_BIND,
    MS_MOVE,
    MS_PRIVATE,
    MS_REC,
    MS_REMOUNT,
    enter_own_namespaces,
    mount,
    system_call,
    tried,
)


def contents(path):
    with open(path) as file:
        return file.read()


def contents_below(directory):
    """What every file below a directory says, where it can be read."""
    found = []
    for top, _, names in os.walk(directory):
        for name in names:
            try:
                found.append(contents(os.path.join(top, name)))
            except OSError:
                pass
    return found


def open_it(secret, project):
    return contents(secret)


def what_is_seen(path):
    status = os.stat(path)
    return [oct(status.st_mode), status.st_size, os.access(path, os.R_OK)]


def test_a_denied_file_looks_like_an_empty_one_that_nobody_may_read(place: Place):
    """Once it was a device, and programs that ask before they open were told that they may read it."""
    for denied in (deny(place.secret), deny_matching(f"{place.outside}/secret.*")):
        told = place.confined(what_is_seen, place.secret, profile=workspace(denied))
        assert told.value == ["0o100000", 0, False]
    assert place.confined(what_is_seen, place.secret).value[2] is True


def by_a_symlink(secret, project):
    os.symlink(secret, project + "/alias")
    return contents(project + "/alias")


def by_a_hard_link(secret, project):
    os.link(secret, project + "/linked")
    return contents(project + "/linked")


def by_moving_it(secret, project):
    os.rename(secret, project + "/moved")
    return contents(project + "/moved")


def by_moving_its_directory(secret, project):
    os.rename(os.path.dirname(secret), project + "/moved")
    return contents(project + "/moved/" + os.path.basename(secret))


def by_replacing_its_directory(secret, project):
    """The mask moves along with what it covers, and what is made in the old place is not the secret."""
    directory = os.path.dirname(secret)
    tried(os.rename, directory, directory + ".old")
    tried(os.mkdir, directory)
    for path in (secret, os.path.join(directory + ".old", os.path.basename(secret))):
        if tried(contents, path) == "OK":
            return contents(path)
    return contents(secret)


def by_the_root_of_processes(secret, project):
    said = [
        contents(f"/proc/{pid}/root{secret}")
        for pid in os.listdir("/proc")
        if pid.isdigit() and tried(contents, f"/proc/{pid}/root{secret}") == "OK"
    ]
    return said or contents("/proc/self/root" + secret)


def by_the_cwd_of_processes(secret, project):
    for pid in [pid for pid in os.listdir("/proc") if pid.isdigit()]:
        path = f"/proc/{pid}/cwd/{os.path.relpath(secret, project)}"
        if tried(contents, path) == "OK":
            return contents(path)
    return contents(secret)


def by_the_descriptors_of_processes(secret, project):
    """Whatever a process around us holds open: its directories are ways around a mask."""
    root = os.open("/", os.O_PATH)
    for path in [*glob.glob("/proc/[0-9]*/fd/*"), f"/proc/self/fd/{root}"]:
        for seen in (path + secret, path + "/" + os.path.relpath(secret, project)):
            if tried(contents, seen) == "OK":
                return contents(seen)
    return contents(secret)


def by_its_handle(secret, project):
    descriptor = os.open(secret, os.O_PATH)
    return contents(f"/proc/self/fd/{descriptor}")


def by_mapping_it(secret, project):
    import mmap

    with open(secret, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:].decode()


def by_running_it(secret, project):
    return os.popen(f". {secret} 2>&1; grep . {secret} 2>&1").read()


ROUTES = [
    open_it,
    by_a_symlink,
    by_a_hard_link,
    by_moving_it,
    by_moving_its_directory,
    by_replacing_its_directory,
    by_the_root_of_processes,
    by_the_cwd_of_processes,
    by_the_descriptors_of_processes,
    by_its_handle,
    by_mapping_it,
    by_running_it,
]


@pytest.fixture(params=["directory", "pattern"])
def denied(request, place: Place):
    """A file with the secret, and the entry that denies it: its directory outside, or a pattern in the project."""
    if request.param == "directory":
        return place.secret, deny(place.outside)
    inside = place.project / "conf" / "server.key"
    inside.parent.mkdir()
    shutil.move(place.secret, inside)
    place.give()
    return inside, deny_matching("**/*.key")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_no_route_leads_to_a_denied_file(place: Place, denied, route):
    secret, entry = denied
    told = place.confined(route, secret, place.project, profile=workspace(entry))
    assert SECRET.strip() not in told.stdout + told.stderr
    assert SECRET.strip() in find(place, SECRET)
    for path in (place.project / "alias", place.project / "linked"):
        path.unlink(missing_ok=True)
    put_back(secret)
    assert SECRET.strip() in place.with_full_access(route, secret, place.project).stdout


def find(place: Place, content: str) -> str:
    """The secret is where it was or where an attempt moved it, and still says what it said."""
    files = [path for path in place.root.rglob("*") if path.is_file() and not path.is_symlink()]
    return next((path.read_text() for path in files if path.read_text() == content), "it is gone")


def put_back(secret: Path) -> None:
    """After an attempt that moved the directory, mask and all."""
    for moved in (secret.parent.with_name(secret.parent.name + ".old"), secret.parent.parent / "moved"):
        if moved.is_dir() and secret.parent.is_dir() and not secret.exists():
            secret.parent.rmdir()
        if moved.is_dir() and not secret.exists():
            moved.rename(secret.parent)


# What takes a mask away, for who has the right to


def unmount(masked, project):
    system_call("umount2", masked.encode(), MNT_DETACH)
    return contents_below(masked)


def remount_readable(masked, project):
    mount(None, masked, None, MS_REMOUNT | MS_BIND, None)
    os.chmod(masked, 0o755)
    mount("none", masked, None, MS_REMOUNT, "mode=755")
    return unmount(masked, project)


def bind_what_is_below(masked, project):
    mount(os.path.dirname(masked), project, None, MS_BIND, None)
    return contents_below(f"{project}/{os.path.basename(masked)}")


def bind_all_and_unmount(masked, project):
    mount(os.path.dirname(masked), project, None, MS_BIND | MS_REC, None)
    return unmount(f"{project}/{os.path.basename(masked)}", project)


def move_the_mask(masked, project):
    mount(masked, project, None, MS_MOVE, None)
    return contents_below(masked)


def clone_the_tree(masked, project):
    open_tree_clone = 1
    tree = system_call("open_tree", AT_FDCWD, os.path.dirname(masked).encode(), open_tree_clone)
    return contents_below(f"/proc/self/fd/{tree}/{os.path.basename(masked)}")


def clone_and_attach(masked, project):
    open_tree_clone, from_empty_path = 1, 4
    tree = system_call("open_tree", AT_FDCWD, os.path.dirname(masked).encode(), open_tree_clone)
    system_call("move_mount", tree, b"", AT_FDCWD, project.encode(), from_empty_path)
    return contents_below(f"{project}/{os.path.basename(masked)}")


def overlay_it(masked, project):
    """An overlay looks at its layers by mounts of its own, without what is mounted on them."""
    mount("none", project, "tmpfs", 0, None)
    mount("none", project, "overlay", 0, f"lowerdir={os.path.dirname(masked)}:{project}")
    return contents_below(f"{project}/{os.path.basename(masked)}")


def overlay_by_the_newer_calls(masked, project):
    set_string, create = 1, 6
    mount("none", project, "tmpfs", 0, None)
    context = system_call("fsopen", b"overlay", 0)
    layers = f"{os.path.dirname(masked)}:{project}".encode()
    system_call("fsconfig", context, set_string, b"lowerdir", layers, 0)
    system_call("fsconfig", context, create, None, None, 0)
    made = system_call("fsmount", context, 0, 0)
    return contents_below(f"/proc/self/fd/{made}/{os.path.basename(masked)}")


def change_the_root(masked, project):
    mount("none", project, "tmpfs", 0, None)
    os.mkdir(project + "/old")
    system_call("pivot_root", project.encode(), (project + "/old").encode())
    return unmount("/old" + masked, "/old" + project)


UNMASKINGS = [
    unmount,
    remount_readable,
    bind_what_is_below,
    bind_all_and_unmount,
    move_the_mask,
    clone_the_tree,
    clone_and_attach,
    overlay_it,
    overlay_by_the_newer_calls,
    change_the_root,
]


def in_own_namespaces(unmask, masked, project):
    """With all rights over a copy of the mounts, in a user namespace of our own."""
    enter_own_namespaces(CLONE_NEWNS)
    return unmask(masked, project)


def with_a_mask_of_our_own(unmask, masked, project):
    """With all rights over the mask, too. Root in a user namespace has no user id, so it stays itself."""
    if os.getuid() == 0:
        system_call("unshare", CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_PRIVATE, None)
    else:
        enter_own_namespaces(CLONE_NEWNS)
    mount("none", masked, "tmpfs", 0, "mode=000")
    return unmask(masked, project)


@pytest.mark.parametrize("unmask", UNMASKINGS, ids=lambda unmask: unmask.__name__)
def test_a_mask_cannot_be_taken_away(place: Place, unmask):
    profile = restricted([READ_ALL, WRITE_PROJECT, deny(place.outside)])
    told = place.confined(unmask, place.outside, place.project, profile=profile)
    assert told.outcome == "EPERM", told

    # Others than root may make a user namespace, and have all rights there; but the sandbox's mounts are locked.
    told = place.confined(in_own_namespaces, unmask, place.outside, place.project, profile=profile)
    assert told.outcome == "ENOSPC" if place.uid == 0 else told.outcome in {"EINVAL", "EPERM", "OK"}, told
    assert SECRET.strip() not in told.stdout + told.stderr

    told = place.with_full_access(with_a_mask_of_our_own, unmask, place.outside, place.project)
    assert told.outcome == "OK", told
    assert SECRET in told.value
