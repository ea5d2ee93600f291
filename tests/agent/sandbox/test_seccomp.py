"""The seccomp programs, decided by an interpreter of our own for both machines, and by the kernel under bubblewrap."""

import os
import subprocess
import sys
from itertools import product

import pytest

from agent.sandbox.seccomp import NetworkFilter, UnsupportedArchitecture, program
from tests.agent.sandbox import bpf
from tests.agent.sandbox.children import MACHINE
from tests.bubblewrap import BWRAP

RESTRICTED, PROXY_ROUTED, NETWORK_ON = NetworkFilter

# What is recorded of the original, in its own words; the second source beside the tables of the module.
RINGS = "io_uring_setup io_uring_enter io_uring_register"
TRACING = "ptrace process_vm_readv process_vm_writev"
DENIED = {
    RESTRICTED: "connect accept accept4 bind listen getpeername getsockname shutdown sendto sendmmsg recvmmsg "
    f"getsockopt setsockopt {TRACING} {RINGS}".split(),
    PROXY_ROUTED: f"{TRACING} {RINGS}".split(),
    NETWORK_ON: RINGS.split(),
}
AF_UNIX, AF_INET, AF_INET6, AF_VSOCK = 1, 2, 10, 40
DOMAINS = range(64)
ALLOWED_DOMAINS = {
    (RESTRICTED, "socket"): {AF_UNIX},
    (RESTRICTED, "socketpair"): {AF_UNIX},
    (PROXY_ROUTED, "socket"): {AF_INET, AF_INET6},
    (PROXY_ROUTED, "socketpair"): {AF_UNIX},
    (NETWORK_ON, "socket"): set(DOMAINS) - {AF_VSOCK},
    (NETWORK_ON, "socketpair"): set(DOMAINS) - {AF_VSOCK},
}

# In the order of their numbers, copied from asm/unistd_64.h and asm-generic/unistd.h of Debian's linux-libc-dev 6.1.
NAMES = {
    "x86_64": {
        **dict(enumerate("socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen".split(), 41)),
        **dict(enumerate("getsockname getpeername socketpair setsockopt getsockopt clone fork".split(), 51)),
        **{101: "ptrace", 288: "accept4", 299: "recvmmsg", 307: "sendmmsg"},
        **{310: "process_vm_readv", 311: "process_vm_writev", 438: "pidfd_getfd"},
        **dict(enumerate(RINGS.split(), 425)),
    },
    "aarch64": {
        **dict(enumerate("socket socketpair bind listen accept connect getsockname getpeername".split(), 198)),
        **dict(enumerate("sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg readahead".split(), 206)),
        **{117: "ptrace", 242: "accept4", 243: "recvmmsg", 269: "sendmmsg"},
        **{270: "process_vm_readv", 271: "process_vm_writev", 438: "pidfd_getfd"},
        **dict(enumerate(RINGS.split(), 425)),
    },
}
AUDIT = {"x86_64": bpf.AUDIT_X86_64, "aarch64": bpf.AUDIT_AARCH64}
SOCKET_CALLS = ("socket", "socketpair")
X32 = 0x40000000

each_mode = pytest.mark.parametrize("mode", list(NetworkFilter))
each_machine = pytest.mark.parametrize("machine", AUDIT)


def number_of(call: str, machine: str) -> int:
    (number,) = (number for number, name in NAMES[machine].items() if name == call)
    return number


@each_mode
@each_machine
def test_each_call_that_takes_no_domain_is_decided_by_its_number_alone(mode, machine):
    instructions = bpf.check(program(mode, machine))
    for number in range(601):
        name = NAMES[machine].get(number)
        if name not in SOCKET_CALLS:
            # Cut off before the arguments: a program that reads one fails here, and is not cached by the kernel.
            decided = bpf.run(instructions, bpf.seccomp_data(number, AUDIT[machine])[:16])
            assert decided == (bpf.EPERM if name in DENIED[mode] else bpf.ALLOW), (number, name)


@each_mode
@each_machine
@pytest.mark.parametrize("call", SOCKET_CALLS)
def test_a_socket_is_decided_by_the_lower_half_of_its_domain(mode, machine, call):
    instructions = bpf.check(program(mode, machine))
    number = number_of(call, machine)
    # The kernel takes an int and never sees the upper half; the other arguments are there to mislead.
    for domain, upper, other in product(DOMAINS, (0, 1, 0x7FFFFFFF, 0xFFFFFFFF), (AF_UNIX, AF_INET, AF_VSOCK)):
        data = bpf.seccomp_data(number, AUDIT[machine], (upper << 32 | domain, *(other,) * 5), other)
        allowed = domain in ALLOWED_DOMAINS[mode, call]
        assert bpf.run(instructions, data) == (bpf.ALLOW if allowed else bpf.EPERM), (domain, upper)


@each_mode
@each_machine
def test_a_call_by_another_architecture_kills_whatever_it_is(mode, machine):
    instructions = bpf.check(program(mode, machine))
    others = {*AUDIT.values(), bpf.AUDIT_I386, 0x40000028, 0, 0xFFFFFFFF} - {AUDIT[machine]}
    for other, number in product(others, range(-1, 601)):
        assert bpf.run(instructions, bpf.seccomp_data(number, other, (AF_UNIX,))) == bpf.KILL_PROCESS


@each_mode
def test_no_number_of_the_x32_table_gets_past_a_denial(mode):
    instructions = bpf.check(program(mode, "x86_64"))
    for number in (*range(601), X32 - 1):
        x32 = bpf.seccomp_data(number | X32, bpf.AUDIT_X86_64, (AF_UNIX,))
        assert bpf.run(instructions, x32) == bpf.EPERM, number
    below = bpf.seccomp_data(X32 - 1, bpf.AUDIT_X86_64)
    assert bpf.run(instructions, below) == bpf.ALLOW


@each_mode
@each_machine
def test_a_program_is_the_same_each_time_and_short(mode, machine):
    assert program(mode, machine) == program(mode, machine)
    assert len(program(mode, machine)) <= 8 * 36  # the original's are 114 and 34 instructions


@pytest.mark.parametrize("machine", ["i686", "armv8l", "riscv64", "X86_64", ""])
def test_a_machine_without_numbers_is_refused_by_name(machine):
    with pytest.raises(UnsupportedArchitecture, match=f"none are known for {machine!r}; .* x86_64 and aarch64"):
        program(RESTRICTED, machine)


# Runs in the sandbox: what becomes of each attempt, one word each.
ATTEMPTS = """
import errno, socket
def attempt(act):
    try:
        act()
        return "OK"
    except OSError as exc:
        return errno.errorcode[exc.errno]
def pair():
    one, other = socket.socketpair(socket.AF_UNIX)
    one.sendmsg([b"x"])
    assert other.recv(1) == b"x"
print(
    attempt(lambda: socket.socket(socket.AF_INET)),
    attempt(lambda: socket.socket(socket.AF_UNIX)),
    attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    attempt(pair),
)
"""


def under_bubblewrap(*options: str, descriptors: tuple[int, ...] = ()) -> list[str]:
    bwrap = BWRAP
    assert bwrap, "the tests of the sandbox need bubblewrap; install it"
    command = [bwrap, "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-user", *options, "--"]
    python = [sys.executable, "-I", "-S", "-c", ATTEMPTS]
    done = subprocess.run([*command, *python], pass_fds=descriptors, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# AF_INET, AF_UNIX, AF_NETLINK, a pair that talks
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (RESTRICTED, ["EPERM", "OK", "EPERM", "OK"]),
        (PROXY_ROUTED, ["OK", "EPERM", "EPERM", "OK"]),
        (NETWORK_ON, ["OK", "OK", "OK", "OK"]),
    ],
)
def test_bubblewrap_takes_the_program_from_a_descriptor(tmp_path, mode, expected):
    assert under_bubblewrap() == ["OK"] * 4
    path = tmp_path / "program"
    path.write_bytes(program(mode, MACHINE))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert under_bubblewrap("--seccomp", str(descriptor), descriptors=(descriptor,)) == expected
    finally:
        os.close(descriptor)
