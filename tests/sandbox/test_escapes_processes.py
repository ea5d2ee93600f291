"""Attempts on processes outside: to see, trace, signal and outlive them, and to use what they left open."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.sandbox.attempts import attempt
from tests.sandbox.place import Place, as_user
from tests.sandbox.profiles import FULL_ACCESS, Profile, unrestricted, workspace
from tests.sandbox.system import system_call, tried

WORD = b"a word in its memory"


def live_until_told(word):
    """A victim: tells where a word is in its memory, lets itself be traced, and waits for its stdin to end."""
    let_all_trace, anyone = 0x59616D61, -1
    kept = ctypes.create_string_buffer(word)
    libc = ctypes.CDLL(None)
    libc.prctl(ctypes.c_int(let_all_trace), ctypes.c_ulong(anyone), 0, 0, 0)
    os.write(1, f"{ctypes.addressof(kept)}\n".encode())
    os.read(0, 1)
    os.write(1, kept.raw[: len(word)])


class Victim:
    """A process outside of the sandbox, of the same user, in a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes], address: int) -> None:
        self.process, self.pid, self.address = process, process.pid, address

    def last_word(self) -> bytes:
        """Let it end, if it still lives, and return what its memory then held."""
        return self.process.communicate(timeout=20)[0][: len(WORD)]


@contextlib.contextmanager
def victim_of(place: Place) -> Iterator[Victim]:
    command = as_user(place.uid, *attempt(live_until_told, WORD))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd=place.outside
    ) as process:
        try:
            assert process.stdout is not None
            yield Victim(process, int(process.stdout.readline()))
        finally:
            process.kill()


def signal_it(pid, address):
    os.kill(pid, 9)


def signal_its_group(pid, address):
    os.killpg(pid, 9)


def open_it(pid, address):
    return system_call("pidfd_open", pid, 0)


def take_a_descriptor(pid, address):
    """Its stdin: whoever has it can speak for it."""
    taken = system_call("pidfd_getfd", system_call("pidfd_open", pid, 0), 0, 0)
    return os.readlink(f"/proc/self/fd/{taken}")


def trace_it(pid, address):
    attach, detach = 16, 17
    system_call("ptrace", attach, pid, 0, 0)
    os.waitpid(pid, 0x40000000)
    system_call("ptrace", detach, pid, 0, 0)


def read_its_memory(pid, address):
    held = ctypes.create_string_buffer(20)
    ours = struct_iovec(ctypes.addressof(held), 20)
    theirs = struct_iovec(address, 20)
    system_call("process_vm_readv", pid, ctypes.addressof(ours), 1, ctypes.addressof(theirs), 1, 0)
    return held.raw.decode()


def write_its_memory(pid, address):
    held = ctypes.create_string_buffer(b"x" * 20)
    ours = struct_iovec(ctypes.addressof(held), 20)
    theirs = struct_iovec(address, 20)
    system_call("process_vm_writev", pid, ctypes.addressof(ours), 1, ctypes.addressof(theirs), 1, 0)


def struct_iovec(address, length):
    return (ctypes.c_ulong * 2)(address, length)


def write_its_memory_file(pid, address):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as file:
        file.seek(address)
        file.write(b"x" * 20)


def read_its_environment(pid, address):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return len(file.read())


def enter_its_root(pid, address):
    return os.listdir(f"/proc/{pid}/root/")


def list_its_descriptors(pid, address):
    return os.listdir(f"/proc/{pid}/fd")


def change_its_limits(pid, address):
    import resource

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))


def renice_it(pid, address):
    os.setpriority(os.PRIO_PROCESS, pid, 19)


def pin_it(pid, address):
    os.sched_setaffinity(pid, [min(os.sched_getaffinity(pid))])


ATTACKS = [
    *(signal_it, signal_its_group, open_it, take_a_descriptor, trace_it, read_its_memory, write_its_memory),
    *(write_its_memory_file, read_its_environment, enter_its_root, list_its_descriptors, change_its_limits),
    *(renice_it, pin_it),
]
# The filter refuses these before anyone looks for the process.
FILTERED = (trace_it, read_its_memory, write_its_memory)
NOT_THERE = {"ESRCH", "ENOENT"}


@pytest.mark.parametrize(
    ("attack", "network"),
    [*((attack, True) for attack in ATTACKS), *((attack, False) for attack in (*FILTERED, signal_it))],
    ids=lambda value: getattr(value, "__name__", f"network-{'on' if value else 'off'}"),
)
def test_a_process_outside_is_not_there(place: Place, attack, network):
    with victim_of(place) as victim:
        told = place.confined(attack, victim.pid, victim.address, profile=workspace(network=network))
        expected = {"EPERM"} if attack in FILTERED and not network else NOT_THERE
        assert told.outcome in expected, told
        assert victim.process.poll() is None

        assert place.with_full_access(attack, victim.pid, victim.address).outcome == "OK"
        if attack in (signal_it, signal_its_group):
            assert victim.process.wait(timeout=10) == -signal.SIGKILL
        elif attack in (write_its_memory, write_its_memory_file):
            assert victim.last_word() == b"x" * 20


def test_without_a_view_of_its_own_a_command_is_kept_from_tracing_by_the_filter(place: Place):
    """With full disk write there is no pid namespace, as observed: a process outside is seen, and can be killed."""
    with victim_of(place) as victim:
        for attack in (trace_it, read_its_memory, write_its_memory):
            told = place.confined(attack, victim.pid, victim.address, profile=unrestricted())
            assert told.outcome == "EPERM", told
        assert victim.last_word() == WORD
    with victim_of(place) as victim:
        assert place.confined(signal_it, victim.pid, victim.address, profile=unrestricted()).outcome == "OK"


def signal_everything(number):
    signal.signal(number, signal.SIG_IGN)
    return [tried(os.kill, -1, number), tried(os.kill, 0, number), tried(os.killpg, 0, number)]


def test_a_signal_to_everybody_or_to_the_group_stays_inside(place: Place):
    """The control reaches the group only: nobody wants -1 to be tried outside."""
    with in_a_group(place, workspace(), attempt(signal_everything, signal.SIGTERM)) as group:
        told, last = group.communicate(timeout=20)[0].splitlines()
        assert json.loads(told)[0] == "OK"
        assert last == b"alive"

    with in_a_group(place, FULL_ACCESS, attempt(os_kill_group, signal.SIGTERM)) as group:
        assert b"alive" not in group.communicate(timeout=20)[0]
        assert group.returncode == -signal.SIGTERM


def in_a_group(place: Place, profile: Profile, command: list[str]) -> subprocess.Popen[bytes]:
    """A shell that says when the sandbox has ended, and which would die of a signal to their process group."""
    line = as_user(place.uid, "sh", "-c", '"$@"; echo alive', "sh", *place.line(profile, *command))
    return subprocess.Popen(line, cwd=place.project, stdout=subprocess.PIPE, start_new_session=True)


def os_kill_group(number):
    signal.signal(number, signal.SIG_IGN)
    os.killpg(0, number)
