"""What a bubblewrap is started with: descriptors, words and variables."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from agent.sandbox.discovery import bundled
from agent.sandbox.frozen import replaced
from agent.sandbox.init import Init
from agent.sandbox.plan import Backend, SandboxPlan, SandboxUnavailable
from agent.sandbox.seccomp import NetworkFilter, program
from agent.sandbox.spawn import spawn
from tests.agent.sandbox.policies import open_descriptors
from tests.bubblewrap import BWRAP

on_each_bubblewrap = pytest.mark.parametrize("bwrap", sorted({BWRAP, bundled() or BWRAP}), ids=os.path.dirname)
PATH = {"PATH": "/usr/bin:/bin"}


def planned(*command, bwrap=BWRAP):
    view = (bwrap, "--bind", "/", "/", "--dev", "/dev", "--unshare-user", "--unshare-pid", "--proc", "/proc")
    view = (*view, "--seccomp", "3", "--")
    return SandboxPlan(
        Backend.BUBBLEWRAP, (*view, *command), "/", seccomp=program(NetworkFilter.NETWORK_ON, os.uname().machine)
    )


def said(plan, environ=PATH, given=None):
    """What the command of a plan prints."""
    null = os.open(os.devnull, os.O_RDWR)
    read, write = os.pipe()
    try:
        pid = spawn(plan, environ, None, given or {}, streams=(null, write, write))
    finally:
        for descriptor in (null, write):
            os.close(descriptor)
    with open(read) as output:
        text = output.read()
    assert os.waitpid(pid, 0)[1] == 0, text
    return text


@on_each_bubblewrap
def test_it_gets_the_streams_and_what_its_words_name(bwrap):
    left_open = [os.open("/", os.O_RDONLY) for _ in range(12)]
    for descriptor in left_open:
        os.set_inheritable(descriptor, True)
    init = Init()
    try:
        listing = said(planned("ls", "/proc/self/fd", bwrap=bwrap), given=init.descriptors)
        inside = said(planned("sh", "-c", "readlink /proc/1/fd/*", bwrap=bwrap), given=init.descriptors)
        assert init.executed()
    finally:
        init.close()
        for descriptor in left_open:
            os.close(descriptor)
    assert listing.split() == ["0", "1", "2", "3"]  # the last one is the listing's own
    assert "/" not in inside.split() and "memfd" not in inside


def test_a_command_line_that_is_too_long_for_the_kernel_is_refused_with_advice():
    before = open_descriptors()
    with pytest.raises(SandboxUnavailable, match="Argument list too long; deny or grant whole directories"):
        spawn(planned("echo", "x" * 200_000), {}, None, {})
    assert open_descriptors() == before


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_what_no_process_can_be_given_is_refused_by_name(word):
    before = open_descriptors()
    for plan, environ in ((planned("echo", word), PATH), (planned("env"), {**PATH, "NAME": word})):
        with pytest.raises(SandboxUnavailable, match="bwrap' cannot be started: .*(null|surrogates)"):
            spawn(plan, environ, None, {})
    with pytest.raises(SandboxUnavailable, match="cannot be started"):
        spawn(planned("env"), {**PATH, "LD_X": word}, None, {})
    assert open_descriptors() == before


def test_without_a_descriptor_left_it_is_refused():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    filled = []
    try:
        with contextlib.suppress(OSError):
            while True:
                filled.append(os.dup(0))
        for _ in range(2):
            with pytest.raises(SandboxUnavailable, match=os.strerror(errno.EMFILE)):
                spawn(planned("true"), {**PATH, "LD_X": "x"}, None, {})
            # One more, with which the next attempt gets further.
            os.close(filled.pop())
    finally:
        for descriptor in filled:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Variables

ODD = {"LD_LIBRARY_PATH": "/a:/b", "LD_PRELOAD": "", "GLIBC_TUNABLES": "x\ny = z", "GCONV_PATH": "/é", "A": "1"}


@on_each_bubblewrap
def test_the_command_has_every_variable_as_it_was_given(bwrap):
    found = dict(
        pair.split("=", 1) for pair in said(planned("env", "-0", bwrap=bwrap), {**PATH, **ODD}).split("\0") if pair
    )
    found.pop("PWD", None)
    assert found == {**PATH, **ODD}


def test_more_than_a_pipe_takes_is_given_too():
    long = "x" * 100_000
    assert (
        said(planned("sh", "-c", "echo ${#LD_A} ${#LD_B}"), {**PATH, "LD_A": long, "LD_B": long}).split()
        == ["100000"] * 2
    )


def test_no_value_is_on_a_command_line():
    """Everybody can read those; a variable may be a secret."""
    init = Init()
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    pid = spawn(
        planned("sleep", "60"), {**PATH, "LD_SECRET": "word-xyz"}, None, init.descriptors, streams=(null, write, write)
    )
    try:
        which = init.awaited(lambda: True)
        for process in (pid, which.pid):
            with open(f"/proc/{process}/cmdline", "rb") as file:
                assert b"word-xyz" not in file.read()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        init.wait()
        init.close()
        for descriptor in (read, write, null):
            os.close(descriptor)


PLANTED = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void planted(void) {
    int file = open("%s", O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (file >= 0) { write(file, "ran\\n", 4); close(file); }
}
"""


@pytest.fixture
def planted(tmp_path):
    """A library that writes to a file when it is loaded: with its path, that of the file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("a C compiler is needed to make a library that tells whether it was loaded")
    (tmp_path / "planted.c").write_text(PLANTED % (tmp_path / "outside"))
    library = tmp_path / "planted.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "planted.c"], check=True)
    return library, tmp_path / "outside"


@on_each_bubblewrap
def test_a_library_that_a_variable_names_is_loaded_by_the_command_alone(planted, bwrap):
    """bubblewrap, still unconfined, loaded it from the workspace: code of the model's, outside of the sandbox."""
    library, outside = planted
    loaded = "print('planted.so' in open('/proc/self/maps').read())"
    plan = planned(sys.executable, "-I", "-S", "-c", loaded, bwrap=bwrap)
    plan = replaced(plan, argv=tuple("--ro-bind" if word == "--bind" else word for word in plan.argv))
    assert said(plan, {**PATH, "LD_PRELOAD": str(library)}) == "True\n"
    assert not outside.exists()
    # The control: so it would have been.
    subprocess.run([bwrap, "--version"], env={"LD_PRELOAD": str(library)}, check=True, stdout=subprocess.DEVNULL)
    assert outside.read_text().startswith("ran\n")
