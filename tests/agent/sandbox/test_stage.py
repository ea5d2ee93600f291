"""The start of a command that confines itself, as a process of its own."""

import os
import subprocess
import sys

import pytest

from agent.sandbox import stage
from agent.sandbox.plan import Backend, LandlockRules, SandboxPlan
from agent.sandbox.seccomp import NetworkFilter, program

MACHINE = os.uname().machine
CONNECT = "import socket; socket.socket(socket.AF_INET)"


def staged(plan, environ=None, **options):
    """The stage run on a description of the plan."""
    environ = {"PATH": "/usr/bin:/bin"} if environ is None else environ
    told = os.memfd_create("plan")
    os.write(told, plan if isinstance(plan, bytes) else stage.describe(plan, environ))
    os.lseek(told, 0, os.SEEK_SET)
    words = [sys.executable, "-I", "-S", stage.__file__, str(told)]
    try:
        return subprocess.run(words, pass_fds=(told,), capture_output=True, check=False, env=environ, **options)
    finally:
        os.close(told)


def filtered(*argv, mode=NetworkFilter.RESTRICTED):
    return SandboxPlan(Backend.SECCOMP, argv, "/", seccomp=program(mode, MACHINE))


def held(*argv, writable=()):
    rules = LandlockRules(writable, True)
    return SandboxPlan(Backend.LANDLOCK, argv, "/", seccomp=program(NetworkFilter.RESTRICTED, MACHINE), landlock=rules)


def test_the_command_runs_under_the_filter_that_was_described():
    denied = staged(filtered("/usr/bin/python3", "-c", CONNECT))
    assert denied.returncode == 1 and b"Operation not permitted" in denied.stderr
    assert staged(filtered("/usr/bin/python3", "-c", CONNECT, mode=NetworkFilter.NETWORK_ON)).returncode == 0


def test_the_command_is_held_to_the_places_that_were_described(tmp_path):
    (tmp_path / "in").mkdir()
    script = f"echo x > {tmp_path}/in/x; echo x > {tmp_path}/out"
    done = staged(held("sh", "-c", script, writable=(str(tmp_path / "in"),)))
    assert done.returncode != 0 and b"Permission denied" in done.stderr
    assert (tmp_path / "in" / "x").exists() and not (tmp_path / "out").exists()


def test_nothing_gains_privileges_from_then_on():
    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"
    assert staged(filtered("sh", "-c", script)).stdout.split() == [b"NoNewPrivs:", b"1", b"Seccomp:", b"2"]


def test_words_and_variables_arrive_byte_for_byte():
    odd = [b"", b"\xff\xfe", "é\n'\"".encode(), b"{}"]
    environ = {"PATH": "/usr/bin:/bin", "ODD": os.fsdecode(b"\xff=\n")}
    script = 'printf \'%s|\' "$@"; printf %s "$ODD"'
    done = staged(filtered("sh", "-c", script, "sh", *map(os.fsdecode, odd)), environ)
    assert done.stdout == b"|".join([*odd, b"\xff=\n"])


def test_the_command_has_none_of_the_stages_descriptors():
    done = staged(filtered("ls", "/proc/self/fd"))
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]


def test_a_filter_that_the_kernel_refuses_runs_nothing():
    plan = SandboxPlan(Backend.SECCOMP, ("echo", "ran"), "/", seccomp=b"\0" * 8)
    done = staged(plan)
    assert (done.returncode, done.stdout) == (101, b"")
    assert done.stderr.startswith(b"the sandbox is not available: ")
    assert b"cannot install a seccomp program" in done.stderr


@pytest.mark.parametrize("description", [b"", b"{}", b'{"backend": "seccomp", "argv": ["echo", "ran"]}'])
def test_a_description_that_cannot_be_read_runs_nothing(description):
    done = staged(description)
    assert done.returncode != 0 and done.stdout == b""


def test_a_command_that_is_not_there_is_101():
    done = staged(filtered("no-such-command-xyz"))
    assert (done.returncode, done.stderr) == (101, b"Failed to execvp no-such-command-xyz: No such file or directory\n")
