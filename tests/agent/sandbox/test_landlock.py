"""Landlock, tried on this kernel in forked children; each refusal with the same attempt unrestricted."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import termios
import threading

import pytest

from agent.sandbox import inner, landlock
from agent.sandbox.landlock import LandlockError
from tests.agent.sandbox import bpf
from tests.agent.sandbox.children import become_nobody, in_child, outcome

ABI = landlock.abi_version()
EVERYTHING = ("/",)

WRITING = os.O_WRONLY


@pytest.fixture
def project(tmp_path):
    """A writable root with two directories and a file in it, and a file and a directory outside."""
    root = tmp_path / "project"
    (root / "one").mkdir(parents=True)
    (root / "two").mkdir()
    (root / "one" / "mine.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outside.txt").write_text("untouched")
    return root


def tried(attempt, *, readable=EVERYTHING, writable=(), network_restricted=True, abi=ABI):
    """The outcome of the attempt in a restricted child."""

    def story():
        landlock.restrict(abi, readable, tuple(map(str, writable)), network_restricted)
        return outcome(attempt)

    return in_child(story)


def free(attempt):
    """The outcome in a child that is not restricted."""
    return in_child(lambda: outcome(attempt))


def open_and_close(path, flags):
    os.close(os.open(path, flags))


def test_this_kernel_has_landlock():
    # No skips below: a machine without it is not one that shows what the legacy sandbox does.
    assert ABI >= 1, "boot with lsm=landlock,..."


def test_a_file_is_written_below_a_writable_root_and_not_beside_it(project):
    outside, inside = project.parent / "outside.txt", project / "one" / "mine.txt"
    assert tried(lambda: open_and_close(inside, WRITING), writable=[project]) == "OK"
    assert tried(lambda: open_and_close(outside, WRITING), writable=[project]) == "EACCES"
    assert free(lambda: open_and_close(outside, WRITING)) == "OK"


@pytest.mark.parametrize(
    "attempt",
    [
        lambda place: open_and_close(place / "new", os.O_CREAT | WRITING),
        lambda place: os.mkdir(place / "new"),
        lambda place: os.symlink("x", place / "new"),
        lambda place: os.mkfifo(place / "new"),
        lambda place: socket.socket(socket.AF_UNIX).bind(str(place / "new")),
        lambda place: os.rename(place / "old", place / "new"),
        lambda place: os.link(place / "old", place / "new"),
        lambda place: os.unlink(place / "old"),
        lambda place: os.rmdir(place / "empty"),
        lambda place: os.truncate(place / "old", 0),
        lambda place: open_and_close(place / "old", os.O_RDWR | os.O_TRUNC),
    ],
    ids="create mkdir symlink mkfifo bind rename link unlink rmdir truncate open-to-truncate".split(),
)
def test_no_entry_is_made_moved_removed_or_cut_outside_the_roots(project, attempt):
    for place in (project, project.parent / "elsewhere"):
        (place / "old").write_text("old")
        (place / "empty").mkdir()
    before = sorted(os.listdir(project.parent / "elsewhere"))
    assert tried(lambda: attempt(project.parent / "elsewhere"), writable=[project]) == "EACCES"
    assert sorted(os.listdir(project.parent / "elsewhere")) == before
    assert (project.parent / "elsewhere" / "old").read_text() == "old"
    assert tried(lambda: attempt(project), writable=[project]) == "OK"


@pytest.mark.parametrize("act", [os.rename, os.link])
def test_a_file_goes_from_directory_to_directory_only_below_the_roots(project, act):
    outside, inside = project.parent / "outside.txt", project / "one" / "mine.txt"

    def into(target):
        return lambda: act(inside, target)

    assert tried(into(project.parent / "stolen"), writable=[project]) in ("EACCES", "EXDEV")
    assert tried(lambda: act(outside, project / "in"), writable=[project]) in ("EACCES", "EXDEV")
    assert tried(into(project / "two" / "moved"), writable=[project], abi=1) == "EXDEV"
    assert tried(into(project / "two" / "moved"), writable=[project]) == "OK"
    assert free(lambda: act(outside, project / "in")) == "OK"


def test_a_link_below_a_root_leads_to_no_more_rights(project):
    outside = project.parent / "outside.txt"
    (project / "link").symlink_to(outside)
    assert tried(lambda: open_and_close(project / "link", WRITING), writable=[project]) == "EACCES"
    assert free(lambda: open_and_close(project / "link", WRITING)) == "OK"


def test_a_root_that_is_a_link_stands_for_its_target(project):
    link = project.parent / "link"
    link.symlink_to(project)
    assert tried(lambda: open_and_close(project / "one" / "mine.txt", WRITING), writable=[link]) == "OK"
    assert tried(lambda: os.unlink(link), writable=[link]) == "EACCES"


def test_a_file_can_be_a_root(project):
    outside, inside = project.parent / "outside.txt", project / "one" / "mine.txt"
    assert tried(lambda: open_and_close(outside, os.O_RDWR | os.O_TRUNC), writable=[outside]) == "OK"
    assert tried(lambda: open_and_close(inside, WRITING), writable=[outside]) == "EACCES"
    assert tried(lambda: open_and_close(outside, os.O_RDONLY), readable=(str(outside),)) == "OK"


def test_only_dev_null_can_be_written_of_the_devices():
    assert tried(lambda: open_and_close("/dev/null", os.O_RDWR | os.O_TRUNC)) == "OK"
    assert tried(lambda: open_and_close("/dev/zero", os.O_RDWR)) == "EACCES"
    assert free(lambda: open_and_close("/dev/zero", os.O_RDWR)) == "OK"


def test_everything_can_be_read_and_executed_below_the_readable_root(project):
    assert tried(lambda: open_and_close(project.parent / "outside.txt", os.O_RDONLY)) == "OK"
    assert tried(lambda: os.listdir(project.parent)) == "OK"
    assert tried(lambda: subprocess.run(["/bin/true"], check=True)) == "OK"


def test_nothing_is_read_listed_or_executed_outside_narrow_roots(project):
    system = tuple(path for path in ("/usr", "/lib", "/lib64", "/bin") if os.path.exists(path))
    program = project.parent / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    attempts = [
        lambda: open_and_close(project.parent / "outside.txt", os.O_RDONLY),
        lambda: os.listdir(project.parent),
        lambda: subprocess.run([str(program)], check=True),
    ]
    for attempt in attempts:
        assert tried(attempt, readable=system, writable=[project]) == "EACCES"
        assert tried(attempt, readable=(*system, str(project.parent))) == "OK"
    assert tried(lambda: (project / "one" / "mine.txt").read_text(), readable=system, writable=[project]) == "OK"


def test_a_root_that_does_not_exist_grants_nothing_also_when_it_is_made_later(project):
    missing = project.parent / "missing"
    below_a_file = project.parent / "outside.txt" / "below"

    restricted, made = threading.Event(), threading.Event()

    def make():
        restricted.wait(30)
        missing.mkdir()
        made.set()

    def story():
        maker = threading.Thread(target=make)  # runs already, so it is not restricted
        maker.start()
        landlock.restrict(ABI, EVERYTHING, (str(missing), str(below_a_file)), True)
        restricted.set()
        assert made.wait(30)
        maker.join()
        return outcome(lambda: open_and_close(missing / "new", os.O_CREAT | WRITING))

    assert in_child(story) == "EACCES"
    assert free(lambda: open_and_close(missing / "new", os.O_CREAT | WRITING)) == "OK"


def test_a_root_that_cannot_be_opened_is_an_error_with_its_path(project):
    loop = project / "loop"
    loop.symlink_to("loop")

    def story():
        with pytest.raises(
            LandlockError, match="cannot open a root .* take it out of the policy: '.*/loop'"
        ) as refused:
            landlock.restrict(ABI, EVERYTHING, (str(project), str(loop)), True)
        written = outcome(lambda: open_and_close(project.parent / "outside.txt", WRITING))
        return [refused.value.errno, refused.value.filename, written]

    assert in_child(story) == [errno.ELOOP, str(loop), "OK"]


def test_tcp_is_held_back_only_with_a_restricted_network():
    assert ABI >= 4
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect():
            socket.create_connection(server.getsockname(), 5).close()

        def listen():
            socket.create_server(("127.0.0.1", 0)).close()

        for attempt in (connect, listen):
            assert tried(attempt, network_restricted=True) == "EACCES"
            assert tried(attempt, network_restricted=False) == "OK"
            assert tried(attempt, network_restricted=True, abi=3) == "OK"


def test_abstract_sockets_of_others_are_reached_only_with_network():
    assert ABI >= 6
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0countersign-test-{os.getpid()}")
        server.listen()

        def connect():
            socket.socket(socket.AF_UNIX).connect(server.getsockname())

        assert tried(connect, network_restricted=True) == "EPERM"
        assert tried(connect, network_restricted=False) == "OK"


def test_processes_outside_cannot_be_signalled_and_own_ones_can():
    assert ABI >= 6
    parent = os.getpid()

    def own():
        child = subprocess.Popen(["/bin/sleep", "60"])
        child.send_signal(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM

    for network_restricted in (True, False):
        assert tried(lambda: os.kill(parent, 0), network_restricted=network_restricted) == "EPERM"
    assert tried(own) == "OK"
    assert free(lambda: os.kill(parent, 0)) == "OK"
    assert tried(lambda: os.kill(parent, 0), abi=5) == "OK"


def test_devices_take_no_ioctl_but_dev_null():
    assert ABI >= 5

    def ask(device):
        with open(device, "rb", buffering=0) as opened:
            fcntl.ioctl(opened, termios.TIOCGWINSZ, b"\0" * 8)

    assert tried(lambda: ask("/dev/zero")) == "EACCES"
    assert tried(lambda: ask("/dev/null")) == "ENOTTY"
    assert free(lambda: ask("/dev/zero")) == "ENOTTY"
    assert tried(lambda: ask("/dev/zero"), abi=4) == "ENOTTY"


def test_what_the_process_starts_is_restricted_too(project):
    outside = project.parent / "outside.txt"

    def attempt():
        subprocess.run(["/bin/sh", "-c", f"echo written > '{outside}'"], stderr=subprocess.DEVNULL, check=False)

    assert tried(attempt, writable=[project]) == "OK"
    assert outside.read_text() == "untouched"
    assert free(attempt) == "OK"
    assert outside.read_text() == "written\n"


def test_an_unprivileged_user_can_restrict_itself_and_keeps_no_descriptor():
    def story():
        become_nobody()
        before = os.listdir("/proc/self/fd")
        landlock.restrict(ABI, EVERYTHING, (), True)
        return [
            inner.has_no_new_privileges(),
            os.listdir("/proc/self/fd") == before,
            outcome(lambda: open_and_close("/dev/zero", WRITING)),
        ]

    assert in_child(story) == [True, True, "EACCES"]


def test_an_older_kernel_leaves_open_what_it_says_it_does(project):
    outside = project.parent / "outside.txt"

    def story():
        left_open = landlock.restrict(2, EVERYTHING, (str(project),), True)
        return [list(left_open), outcome(lambda: os.truncate(outside, 0))]

    left_open, truncated = in_child(story)
    assert "any file can be truncated by its path (needs Landlock ABI 3)" in left_open
    assert truncated == "OK"
    assert tried(lambda: os.truncate(outside, 0), writable=[project], abi=3) == "EACCES"
    assert landlock.unavailable(3, True) == tuple(left_open[1:])


@pytest.mark.parametrize(
    ("abi", "restricted", "with_network"),
    [(1, 6, 4), (2, 5, 3), (3, 4, 2), (4, 3, 2), (5, 2, 1), (6, 0, 0), (99, 0, 0)],
)
def test_each_older_abi_is_said_to_lack_more(abi, restricted, with_network):
    assert len(landlock.unavailable(abi, network_restricted=True)) == restricted
    assert len(landlock.unavailable(abi, network_restricted=False)) == with_network


@pytest.mark.parametrize("abi", range(1, ABI + 1))
def test_each_abi_up_to_the_kernels_protects_what_is_outside(project, abi):
    outside = project.parent / "outside.txt"
    assert tried(lambda: open_and_close(outside, WRITING), writable=[project], abi=abi) == "EACCES"
    assert tried(lambda: os.unlink(outside), writable=[project], abi=abi) == "EACCES"
    assert tried(lambda: open_and_close(project / "new", os.O_CREAT | WRITING), writable=[project], abi=abi) == "OK"


def answering(number):
    """Restricts this process so that landlock_create_ruleset(2) fails with the errno, as on another kernel."""
    inner.forbid_new_privileges()
    inner.install(
        bpf.assemble(
            (bpf.LD_W_ABS, 0, 0, 0),
            (0x15, 0, 1, 444),
            (bpf.RET_K, 0, 0, 0x00050000 | number),
            (bpf.RET_K, 0, 0, bpf.ALLOW),
        )
    )


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_kernel_without_landlock_has_abi_0_and_refuses_with_what_to_do(number):
    def story():
        answering(number)
        abi = landlock.abi_version()
        with pytest.raises(LandlockError, match="needs Landlock, and this kernel has none.*use bubblewrap") as refused:
            landlock.restrict(abi, EVERYTHING, (), True)
        return [abi, refused.value.errno]

    assert in_child(story) == [0, errno.EOPNOTSUPP]


def test_another_failure_of_the_kernel_is_told_with_the_step():
    def story():
        answering(errno.ENOMEM)
        with pytest.raises(
            LandlockError, match="cannot ask the kernel for its Landlock ABI: .* ENOMEM .*; run without"
        ):
            landlock.abi_version()
        with pytest.raises(LandlockError, match=f"cannot make a Landlock ruleset of ABI {ABI}: .* ENOMEM") as refused:
            landlock.restrict(ABI, EVERYTHING, (), True)
        return refused.value.errno

    assert in_child(story) == errno.ENOMEM
