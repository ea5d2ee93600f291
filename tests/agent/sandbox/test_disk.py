"""Where paths lead, on an imagined disk and beside the kernel's own answer."""

import errno
import os
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.disk import Kind, RealDisk, Route
from agent.sandbox.policy import PolicyError
from tests.agent.sandbox.children import become_nobody, in_child
from tests.agent.sandbox.imagined_disk import DIRECTORY, File, ImaginedDisk, Link
from tests.bubblewrap import BWRAP

DISK = ImaginedDisk(
    {
        "/w/dir/inner": DIRECTORY,
        "/w/file": File("text"),
        "/w/to-dir": Link("dir"),
        "/w/to-inner": Link("/w/to-dir/inner"),
        "/w/chain": Link("to-inner"),
        "/w/up": Link("../w/dir/inner/.."),
        "/w/dangling": Link("nowhere/at/all"),
        "/w/loop": Link("pool"),
        "/w/pool": Link("loop"),
        "/w/into-file": Link("file/.."),
    }
)


@pytest.mark.parametrize(
    ("path", "real", "kind", "links"),
    [
        ("/", "/", Kind.DIRECTORY, []),
        ("/w/file", "/w/file", Kind.FILE, []),
        ("/w/to-dir", "/w/dir", Kind.DIRECTORY, ["/w/to-dir"]),
        ("/w/to-dir/inner", "/w/dir/inner", Kind.DIRECTORY, ["/w/to-dir"]),
        ("/w/chain", "/w/dir/inner", Kind.DIRECTORY, ["/w/chain", "/w/to-inner", "/w/to-dir"]),
        ("/w/up", "/w/dir", Kind.DIRECTORY, ["/w/up"]),
        # `..` belongs to where the symlink led, not to where it stands.
        ("/w/to-inner/..", "/w/dir", Kind.DIRECTORY, ["/w/to-inner", "/w/to-dir"]),
        ("/../w/./dir", "/w/dir", Kind.DIRECTORY, []),
    ],
)
def test_a_route_ends_where_the_kernel_would(path, real, kind, links):
    route = Route(path, DISK)
    assert (route.real, route.kind, route.links, route.missing) == (real, kind, links, None)


@pytest.mark.parametrize(
    ("path", "real", "missing"),
    [
        ("/w/none", "/w/none", "/w/none"),
        ("/w/none/below/it", "/w/none/below/it", "/w/none"),
        ("/w/file/below", "/w/file/below", "/w/file/below"),
        ("/w/to-dir/none/x", "/w/dir/none/x", "/w/dir/none"),
        ("/w/dangling", "/w/nowhere/at/all", "/w/nowhere"),
        ("/w/none/../dir", "/w/dir", "/w/none"),
    ],
)
def test_a_route_that_breaks_off_names_the_first_component_that_is_not_there(path, real, missing):
    route = Route(path, DISK)
    assert (route.kind, route.real, route.missing) == (None, real, missing)


def test_what_lies_behind_a_file_is_nowhere_also_when_the_way_leads_back():
    """The kernel says ENOTDIR; once the route ended on the directory and called it a file."""
    for path in ("/w/file/..", "/w/into-file", "/w/file/../dir"):
        assert Route(path, DISK).kind is None, path
    assert Route("/w/dir/../dir", DISK).kind is Kind.DIRECTORY


def test_a_loop_of_symlinks_leads_nowhere_and_all_its_links_are_told():
    for path in ("/w/loop", "/w/loop/x"):
        route = Route(path, DISK)
        assert route.kind is None and route.missing is not None
        assert set(route.links) == {"/w/loop", "/w/pool"}


@pytest.mark.parametrize(("hops", "kind"), [(40, Kind.DIRECTORY), (41, None)])
def test_as_many_symlinks_are_followed_as_linux_follows(hops, kind, tmp_path):
    (tmp_path / "0").mkdir()
    for hop in range(hops):
        (tmp_path / str(hop + 1)).symlink_to(str(hop))
    assert Route(str(tmp_path / str(hops)), RealDisk()).kind is kind
    assert os.path.isdir(tmp_path / str(hops)) is (kind is Kind.DIRECTORY)


names = st.sampled_from(["a", "b", "c"])
targets = st.one_of(
    st.just("dir"),
    st.just("file"),
    st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=3).map("/".join),
)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), targets, max_size=6)
asked = st.lists(st.sampled_from(["a", "b", "c", ".."]), min_size=1, max_size=4).map("/".join)


@given(trees, st.lists(asked, min_size=1, max_size=4))
def test_on_any_tree_a_route_agrees_with_the_kernel(tmp_path_factory, tree, paths):
    top = tmp_path_factory.mktemp("tree")
    for name, what in sorted(tree.items()):
        at = top / "x" / name
        try:
            at.parent.mkdir(parents=True, exist_ok=True)
            if what == "dir":
                at.mkdir()
            elif what == "file":
                at.write_text("")
            else:
                at.symlink_to(what)
        except OSError:
            continue  # a file or a link stands in the way
    for path in paths:
        whole = f"{top}/x/{path}"
        route = Route(whole, RealDisk())
        try:
            there = os.open(whole, os.O_PATH)
        except OSError as exc:
            assert route.kind is (Kind.SYMLINK if exc.errno == errno.ELOOP and route.kind is not None else None), exc
            continue
        expected = os.readlink(f"/proc/self/fd/{there}")
        os.close(there)
        assert (route.real, route.missing) == (expected, None)
        assert route.kind is (Kind.DIRECTORY if os.path.isdir(whole) else Kind.FILE)


def test_kinds_are_those_of_the_path_itself(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    disk = RealDisk()
    kinds = {name: disk.kind(str(tmp_path / name)) for name in ("file", "link", "pipe", "none", "file/x")}
    expected = {"file": Kind.FILE, "link": Kind.SYMLINK, "pipe": Kind.OTHER, "none": None, "file/x": None}
    assert kinds == expected
    assert disk.kind(str(tmp_path)) is Kind.DIRECTORY
    assert disk.kind("/" + "n" * 300) is None
    assert dict(disk.entries(str(tmp_path))) == {"file": Kind.FILE, "link": Kind.SYMLINK, "pipe": Kind.OTHER}
    assert list(disk.entries(str(tmp_path / "none"))) == []


def test_the_head_of_a_file_is_short_and_never_fails(tmp_path):
    (tmp_path / "long").write_text("x" * 9000)
    (tmp_path / "bytes").write_bytes(b"gitdir: \xff\r\n")
    disk = RealDisk()
    assert len(disk.head(str(tmp_path / "long"))) == 8192
    assert os.fsencode(disk.head(str(tmp_path / "bytes"))) == b"gitdir: \xff\r\n"
    assert disk.head(str(tmp_path)) == disk.head(str(tmp_path / "none")) == ""


def test_a_directory_that_is_ours_and_shut_is_told_from_one_that_is_not_there_and_one_of_somebody_elses():
    """A tool shut a directory, and what was in it was taken for missing; then it opened the directory again."""

    def as_nobody():
        become_nobody()
        top = tempfile.mkdtemp()
        inner = f"{top}/inner"
        with open(f"{top}/file", "w"):
            assert not RealDisk().is_barred(f"{top}/file"), "no chmod opens that"
        os.unlink(f"{top}/file")
        os.makedirs(f"{inner}/deep")
        told = []
        try:
            for mode in (0o700, 0o000, 0o300, 0o400):
                os.chmod(inner, mode)
                disk = RealDisk()
                told.append((disk.is_barred(inner), disk.is_barred(f"{inner}/deep"), listed(disk, inner)))
        finally:
            os.chmod(inner, 0o700)
            os.rmdir(f"{inner}/deep")
            os.rmdir(inner)
            os.rmdir(top)
        theirs = f"/proc/{os.getppid()}/fd"
        return told, (RealDisk().is_barred(theirs), listed(RealDisk(), theirs)) if os.getuid() != parent else None

    def listed(disk, directory):
        try:
            return [name for name, _ in disk.entries(directory)]
        except PermissionError:
            return "refused"

    parent = os.getuid()
    told, theirs = in_child(as_nobody)
    assert told == [
        [False, False, ["deep"]],
        [True, True, "refused"],
        [False, False, "refused"],
        [True, True, ["deep"]],
    ]
    # Nobody of ours can open it, so that nothing in it need be found.
    assert theirs in (None, [False, []])


def test_a_link_that_may_not_be_followed_leads_nowhere_and_one_that_changes_is_an_error(tmp_path):
    def as_nobody():
        become_nobody()
        link = "/proc/1/cwd"
        route = Route(f"{link}/x", RealDisk())
        return route.kind is None, route.missing

    if os.getuid() == 0:
        assert in_child(as_nobody) == [True, "/proc/1/cwd"]
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError, match="changed while we looked"):
        RealDisk().link(str(tmp_path / "file"))
    with pytest.raises(PolicyError, match="changed while we looked"):
        RealDisk().link(str(tmp_path / "none"))


def test_a_directory_is_sealed_only_if_it_is_somebody_elses(tmp_path):
    ours, shut = tmp_path / "ours", tmp_path / "shut"
    ours.mkdir()
    shut.mkdir(mode=0o555)
    disk = RealDisk()
    # Its owner can make it writable again.
    assert not disk.is_sealed(str(ours)) and not disk.is_sealed(str(shut))
    assert not disk.is_sealed(str(tmp_path / "none"))

    def as_nobody():
        become_nobody()
        own = tempfile.mkdtemp()
        os.chmod(own, 0o555)
        try:
            return [RealDisk().is_sealed(path) for path in ("/usr", "/tmp", own)]
        finally:
            os.rmdir(own)

    assert in_child(as_nobody) == [True, False, False]


def test_a_directory_on_a_read_only_mount_is_sealed(tmp_path):
    def sealed(how):
        ask = f"import sys; sys.path[:0] = {sys.path!r}\nfrom agent.sandbox.disk import RealDisk\n"
        ask += f"print(RealDisk().is_sealed({str(tmp_path)!r}))"
        bind = [BWRAP, "--bind", "/", "/", "--dev", "/dev", how, str(tmp_path), str(tmp_path)]
        return subprocess.run([*bind, sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout

    assert sealed("--ro-bind") == "True\n"
    assert sealed("--bind") == "False\n"
