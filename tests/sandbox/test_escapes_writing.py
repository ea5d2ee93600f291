"""Attempts to change something outside the writable roots. Each is made for real, and succeeds with full access."""

import ctypes
import errno
import fcntl
import os
import socket
import struct

import pytest

from tests.sandbox.attempts import NOT_RUN, attempt
from tests.sandbox.place import Place
from tests.sandbox.profiles import READ_ALL, restricted, workspace
from tests.sandbox.system import AT_FDCWD, system_call

# What the kernel says to a change on a read-only mount, and to a rename or link from one mount to another.
REFUSALS = {"EROFS", "EXDEV"}


def create(outside, project):
    os.close(os.open(outside + "/new", os.O_CREAT | os.O_WRONLY))


def create_without_a_name(outside, project):
    descriptor = os.open(outside, os.O_TMPFILE | os.O_WRONLY)
    # With a dir_fd, because only then does Python pass AT_SYMLINK_FOLLOW.
    here = os.open("/proc/self/fd", os.O_RDONLY)
    os.link(str(descriptor), outside + "/new", src_dir_fd=here, follow_symlinks=True)


def append(outside, project):
    with open(outside + "/keep.txt", "a") as file:
        file.write("more")


def truncate(outside, project):
    os.truncate(outside + "/keep.txt", 0)


def truncate_by_opening(outside, project):
    os.close(os.open(outside + "/keep.txt", os.O_RDONLY | os.O_TRUNC))


def change_mode(outside, project):
    os.chmod(outside + "/keep.txt", 0o777)


def change_mode_by_descriptor(outside, project):
    os.fchmod(os.open(outside + "/keep.txt", os.O_RDONLY), 0o777)


def change_owner(outside, project):
    os.chown(outside + "/keep.txt", os.getuid(), os.getgid())


def change_times(outside, project):
    os.utime(outside + "/keep.txt", (1, 1))


def change_times_by_descriptor(outside, project):
    os.utime(os.open(outside + "/keep.txt", os.O_RDONLY), (1, 1))


def set_attribute(outside, project):
    os.setxattr(outside + "/keep.txt", "user.note", b"1")


def set_flags(outside, project):
    """chattr +A: by a descriptor that may only read."""
    get_flags, set_flags, no_access_times = 0x80086601, 0x40086602, 0x80
    descriptor = os.open(outside + "/keep.txt", os.O_RDONLY)
    flags = struct.unpack("l", fcntl.ioctl(descriptor, get_flags, bytes(8)))[0]
    fcntl.ioctl(descriptor, set_flags, struct.pack("l", flags ^ no_access_times))


def unlink(outside, project):
    os.unlink(outside + "/keep.txt")


def make_directory(outside, project):
    os.mkdir(outside + "/new")


def make_symlink(outside, project):
    os.symlink("/etc/passwd", outside + "/new")


def make_fifo(outside, project):
    os.mkfifo(outside + "/new")


def make_socket(outside, project):
    os.mknod(outside + "/new", 0o140644)


def rename_within(outside, project):
    os.rename(outside + "/keep.txt", outside + "/kept.txt")


def rename_over(outside, project):
    os.rename(project + "/notes.txt", outside + "/keep.txt")


def rename_out(outside, project):
    os.rename(outside + "/keep.txt", project + "/keep.txt")


def exchange(outside, project):
    rename_exchange = 2
    inside, kept = (project + "/notes.txt").encode(), (outside + "/keep.txt").encode()
    system_call("renameat2", AT_FDCWD, inside, AT_FDCWD, kept, rename_exchange)


def link_out(outside, project):
    os.link(project + "/notes.txt", outside + "/linked")


def link_in_then_write(outside, project):
    os.link(outside + "/keep.txt", project + "/linked")
    with open(project + "/linked", "a") as file:
        file.write("more")


def write_through_symlink(outside, project):
    os.symlink(outside + "/keep.txt", project + "/alias")
    with open(project + "/alias", "a") as file:
        file.write("more")


def create_through_directory_symlink(outside, project):
    os.symlink(outside, project + "/alias")
    os.mkdir(project + "/alias/new")


def write_below_the_root_of_a_process(outside, project):
    refused = None
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        try:
            with open(f"/proc/{pid}/root{outside}/keep.txt", "a") as file:
                file.write("more")
            return
        except OSError as exc:
            refused = refused if refused is not None and exc.errno in (errno.EACCES, errno.ENOENT) else exc
    raise refused


def write_from_the_parent_of_cwd(outside, project):
    os.chdir(project)
    with open("../outside/keep.txt", "a") as file:
        file.write("more")


def write_by_reopening(outside, project):
    descriptor = os.open(outside + "/keep.txt", os.O_RDONLY)
    with open(f"/proc/self/fd/{descriptor}", "a") as file:
        file.write("more")


def write_by_reopening_a_directory(outside, project):
    descriptor = os.open(outside, os.O_PATH)
    os.mkdir("new", dir_fd=descriptor)


def bind_a_socket(outside, project):
    socket.socket(socket.AF_UNIX).bind(outside + "/new")


IN_EVERY_WAY = [
    create,
    create_without_a_name,
    append,
    truncate,
    truncate_by_opening,
    change_mode,
    change_mode_by_descriptor,
    change_owner,
    change_times,
    change_times_by_descriptor,
    set_attribute,
    set_flags,
    unlink,
    make_directory,
    make_symlink,
    make_fifo,
    make_socket,
    rename_within,
    rename_over,
    rename_out,
    exchange,
    link_out,
    link_in_then_write,
    write_through_symlink,
    create_through_directory_symlink,
    write_below_the_root_of_a_process,
    write_from_the_parent_of_cwd,
    write_by_reopening,
    write_by_reopening_a_directory,
]


@pytest.mark.parametrize("change", IN_EVERY_WAY, ids=lambda change: change.__name__)
def test_nothing_outside_the_writable_roots_can_be_changed(place: Place, change):
    before = place.state_outside()
    told = place.confined(change, place.outside, place.project)
    assert told.outcome in REFUSALS, told
    assert place.state_outside() == before
    assert (place.project / "notes.txt").exists()

    restore(place)
    assert place.with_full_access(change, place.outside, place.project).outcome == "OK"
    assert place.state_outside() != before


def restore(place: Place) -> None:
    """Undo the half of an attempt that was allowed."""
    for name in ("alias", "linked"):
        (place.project / name).unlink(missing_ok=True)


def test_a_socket_cannot_be_bound_outside(place: Place):
    """With a restricted network `bind` is refused altogether; with the network, by the mount."""
    before = place.state_outside()
    assert place.confined(bind_a_socket, place.outside, place.project).outcome == "EPERM"
    with_network = place.confined(bind_a_socket, place.outside, place.project, profile=workspace(network=True))
    assert with_network.outcome == "EROFS"
    assert place.state_outside() == before
    assert place.with_full_access(bind_a_socket, place.outside, place.project).outcome == "OK"


@pytest.mark.parametrize("change", [create, append, truncate, unlink, change_mode], ids=lambda change: change.__name__)
def test_a_read_only_policy_lets_nothing_be_changed_in_the_project_either(place: Place, change):
    (place.project / "keep.txt").write_text("kept\n")
    place.give()
    told = place.confined(change, place.project, place.project, profile=restricted([READ_ALL]))
    assert told.outcome == "EROFS"
    assert place.confined(change, place.project, place.project).outcome == "OK"


LANDLOCK_HOLDS = [
    *(create, append, truncate, truncate_by_opening, unlink, make_directory, make_symlink, make_fifo, make_socket),
    *(rename_within, rename_over, rename_out, link_out, link_in_then_write),
    *(write_through_symlink, create_through_directory_symlink, write_below_the_root_of_a_process, write_by_reopening),
]


# Without /tmp, where other agents may have their keys at the time.
LANDLOCK = (
    *("--use-legacy-landlock", "-c", 'sandbox_mode="workspace-write"'),
    *("-c", "sandbox_workspace_write.exclude_slash_tmp=true"),
)


@pytest.mark.parametrize("change", LANDLOCK_HOLDS, ids=lambda change: change.__name__)
def test_landlock_by_name_holds_what_it_can_hold(place: Place, change):
    """Modes, owners, times and attributes it cannot (landlock(7)); `--explain` and the documentation say so."""
    before = place.state_outside()
    told = place.run(*LANDLOCK, command=attempt(change, place.outside, place.project))
    assert told.outcome in {"EACCES", "EXDEV"} or "no Landlock" in told.stderr, told
    assert place.state_outside() == before


def test_landlock_does_not_open_a_root_in_which_an_agent_keeps_its_keys(place: Place, runtime):
    """It cannot take back a part of a root, and a tool could put another authority in the place of the agent's."""
    key = runtime / f"countersign-runs-{place.uid}" / "run-1" / "key"
    environ: dict[str, str | None] = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": None}
    opened = (*LANDLOCK, "-c", f'sandbox_workspace_write.writable_roots=["{runtime}"]')

    def told(*options):
        return place.run(*options, environ=environ, command=attempt(append_to, key))

    key.parent.mkdir(parents=True, mode=0o700)
    key.write_text("the agent's")
    place.give()
    for found in (told(*opened), told(*LANDLOCK)):
        assert found.outcome in {NOT_RUN, "EACCES"} and key.read_text() == "the agent's", found
    refusals = ("holds sockets and keys of an agent in a writable root", "no Landlock")
    assert any(refusal in told(*opened).stderr for refusal in refusals)
    assert place.with_full_access(append_to, key).outcome == "OK"


def append_to(path):
    with open(path, "a") as file:
        file.write("evil")


def make_device(project):
    os.mknod(project + "/memory", 0o020666, os.makedev(1, 1))


def open_by_handle(project):
    """A handle names an inode and no path, so a mask would not matter."""
    handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)), ctypes.c_int()
    path = (project + "/notes.txt").encode()
    system_call("name_to_handle_at", AT_FDCWD, path, ctypes.addressof(handle), ctypes.addressof(mount), 0)
    system_call("open_by_handle_at", os.open(project, os.O_RDONLY), ctypes.addressof(handle), os.O_RDONLY)


@pytest.mark.parametrize("reach", [make_device, open_by_handle], ids=lambda reach: reach.__name__)
def test_the_disk_cannot_be_reached_below_its_directories(place: Place, reach):
    assert place.confined(reach, place.project).outcome == "EPERM"
    # The control takes privileges: nobody has none to lose.
    assert place.with_full_access(reach, place.project).outcome == ("OK" if place.uid == 0 else "EPERM")
