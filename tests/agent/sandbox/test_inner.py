"""Confinement of a process by itself, tried on this kernel in forked children."""

import ctypes
import errno
import mmap
import os
import signal
import socket
import subprocess
import sys

import pytest

from agent.sandbox import inner, seccomp
from agent.sandbox.inner import ConfinementError
from agent.sandbox.seccomp import NetworkFilter
from tests.agent.sandbox import bpf
from tests.agent.sandbox.children import (
    LIBC,
    MACHINE,
    ChildKilled,
    become_nobody,
    call,
    in_child,
    outcome,
    system_call,
)

RESTRICTED, PROXY_ROUTED, NETWORK_ON = NetworkFilter
FREE = None

# name: (arguments, errno without a filter). By libc's functions: it has the numbers from elsewhere than we.
NO_DESCRIPTOR, NO_PROCESS = -1, 0x3FFFFFFF
CALLS = {
    "connect": ((NO_DESCRIPTOR, None, 0), "EBADF"),
    "accept": ((NO_DESCRIPTOR, None, None), "EBADF"),
    "accept4": ((NO_DESCRIPTOR, None, None, 0), "EBADF"),
    "bind": ((NO_DESCRIPTOR, None, 0), "EBADF"),
    "listen": ((NO_DESCRIPTOR, 1), "EBADF"),
    "shutdown": ((NO_DESCRIPTOR, 0), "EBADF"),
    "getpeername": ((NO_DESCRIPTOR, None, None), "EBADF"),
    "getsockname": ((NO_DESCRIPTOR, None, None), "EBADF"),
    "sendto": ((NO_DESCRIPTOR, None, 0, 0, None, 0), "EBADF"),
    "sendmmsg": ((NO_DESCRIPTOR, None, 0, 0), "EBADF"),
    "recvmmsg": ((NO_DESCRIPTOR, None, 0, 0, None), "EBADF"),
    "getsockopt": ((NO_DESCRIPTOR, 0, 0, None, None), "EBADF"),
    "setsockopt": ((NO_DESCRIPTOR, 0, 0, None, 0), "EBADF"),
    "ptrace": ((1, NO_PROCESS, None, None), "ESRCH"),
    "process_vm_readv": ((NO_PROCESS, None, 0, None, 0, 0), "OK"),
    "process_vm_writev": ((NO_PROCESS, None, 0, None, 0, 0), "OK"),
}
INSPECTING = {"ptrace", "process_vm_readv", "process_vm_writev"}
STILL_ALLOWED = {
    "recvfrom": (NO_DESCRIPTOR, None, 0, 0, None, None),
    "recvmsg": (NO_DESCRIPTOR, None, 0),
    "sendmsg": (NO_DESCRIPTOR, None, 0),
    "read": (NO_DESCRIPTOR, None, 0),
    "write": (NO_DESCRIPTOR, None, 0),
}
X32 = 0x40000000

x86_64_only = pytest.mark.skipif(MACHINE != "x86_64", reason="it is about the tables that x86_64 has besides its own")


def confined(mode, attempt):
    """What the attempt returns in a child, under the program of the mode or, with `FREE`, under none."""

    def story():
        if mode is not FREE:
            inner.forbid_new_privileges()
            inner.install(seccomp.program(mode, MACHINE))
        return attempt()

    return in_child(story)


@pytest.mark.parametrize("name", CALLS)
def test_a_denied_call_fails_with_eperm_in_the_kernel_and_only_there(name):
    arguments, without = CALLS[name]

    def attempt():
        return call(name, *arguments)

    assert without != "EPERM"
    assert confined(FREE, attempt) == without
    assert confined(NETWORK_ON, attempt) == without
    assert confined(RESTRICTED, attempt) == "EPERM"
    assert confined(PROXY_ROUTED, attempt) == ("EPERM" if name in INSPECTING else without)


@pytest.mark.parametrize("number", [425, 426, 427])
@pytest.mark.parametrize("mode", list(NetworkFilter))
def test_io_uring_is_denied_in_each_mode(mode, number):
    def attempt():
        return system_call(number, 2**64 - 1, 0, 0, 0, 0, 0)

    assert confined(FREE, attempt) in ("EFAULT", "EINVAL", "EBADF")
    assert confined(mode, attempt) == "EPERM"


@pytest.mark.parametrize("name", STILL_ALLOWED)
@pytest.mark.parametrize("mode", [FREE, *NetworkFilter])
def test_what_an_open_descriptor_needs_stays_allowed(mode, name):
    assert confined(mode, lambda: call(name, *STILL_ALLOWED[name])) == "EBADF"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (FREE, ["OK", "OK", "OK", "OK", "OK"]),
        (RESTRICTED, ["EPERM", "EPERM", "OK", "EPERM", "OK"]),
        (PROXY_ROUTED, ["OK", "OK", "EPERM", "EPERM", "OK"]),
        (NETWORK_ON, ["OK", "OK", "OK", "OK", "OK"]),
    ],
)
def test_sockets_are_made_of_the_domains_of_the_mode_alone(mode, expected):
    kinds = ((socket.AF_INET, 1), (socket.AF_INET6, 1), (socket.AF_UNIX, 1), (socket.AF_NETLINK, 3))

    def attempt():
        made = [call("socket", int(family), kind, 0) for family, kind in kinds]
        return [*made, call("socketpair", int(socket.AF_UNIX), 1, 0, (ctypes.c_int * 2)())]

    assert confined(mode, attempt) == expected


def test_a_vsock_is_denied_also_with_the_network_on():
    def attempt():
        return call("socket", int(socket.AF_VSOCK), 1, 0)

    assert confined(FREE, attempt) != "EPERM"
    assert confined(NETWORK_ON, attempt) == "EPERM"


def test_a_socketpair_talks_by_write_and_sendmsg_but_not_by_send():
    def attempt():
        one, other = socket.socketpair()
        os.write(one.fileno(), b"w")
        one.sendmsg([b"m"])
        return [other.recv(2).decode(), outcome(lambda: one.send(b"s"))]

    assert confined(FREE, attempt) == ["wm", "OK"]
    assert confined(RESTRICTED, attempt) == ["wm", "EPERM"]


@pytest.mark.parametrize("upper", [0, 1, 0xFFFFFFFF])
def test_the_upper_half_of_the_domain_neither_helps_nor_hurts(upper):
    number = {"x86_64": 41, "aarch64": 198}[MACHINE]

    def attempt():
        return [system_call(number, upper << 32 | domain, 1, 0) for domain in (socket.AF_UNIX, socket.AF_INET)]

    assert confined(FREE, attempt) == ["OK", "OK"]
    assert confined(RESTRICTED, attempt) == ["OK", "EPERM"]


def test_what_the_process_executes_is_under_the_filter_too():
    script = "import socket\ntry: socket.socket()\nexcept OSError as exc: print(exc.errno)\nelse: print('made')"

    def attempt():
        command = [sys.executable, "-I", "-S", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()

    assert confined(FREE, attempt) == "made"
    assert confined(RESTRICTED, attempt) == str(errno.EPERM)


@x86_64_only
@pytest.mark.parametrize("mode", list(NetworkFilter))
def test_a_call_by_the_32_bit_table_kills_the_process(mode):
    def attempt():
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid there, writev here); int 0x80; ret
        getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        return getpid() == os.getpid()

    assert confined(FREE, attempt) is True
    with pytest.raises(ChildKilled) as killed:
        confined(mode, attempt)
    assert killed.value.signal == signal.SIGSYS


@x86_64_only
@pytest.mark.parametrize("mode", list(NetworkFilter))
@pytest.mark.parametrize("number", [39, 42, 521])  # getpid, connect, and x32's own ptrace
def test_a_call_by_the_x32_table_is_denied(mode, number):
    def attempt():
        return system_call(X32 | number, 2**64 - 1, 0, 0)

    assert confined(FREE, attempt) != "EPERM"  # ENOSYS, where the kernel has no x32
    assert confined(mode, attempt) == "EPERM"


def test_the_program_of_another_machine_is_installed_and_kills_at_the_next_call():
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"

    def story():
        inner.forbid_new_privileges()
        inner.install(seccomp.program(RESTRICTED, other))

    with pytest.raises(ChildKilled) as killed:
        in_child(story)
    assert killed.value.signal == signal.SIGSYS


def test_no_new_privileges_is_set_for_good_and_for_children():
    def flags():
        return [line for line in open("/proc/self/status").read().splitlines() if line.startswith("NoNewPrivs")]

    def story():
        before = flags()
        inner.forbid_new_privileges()
        return [before, inner.has_no_new_privileges(), in_child(flags)]

    assert in_child(story) == [["NoNewPrivs:\t0"], True, ["NoNewPrivs:\t1"]]


def test_without_no_new_privileges_nothing_is_installed_not_even_by_root():
    def story():
        with pytest.raises(ConfinementError, match="no_new_privs is not set.*call forbid_new_privileges") as refused:
            inner.install(seccomp.program(RESTRICTED, MACHINE))
        return [refused.value.errno, outcome(socket.socket)]

    assert in_child(story) == [errno.EACCES, "OK"]


def test_an_unprivileged_user_can_confine_itself():
    def story():
        become_nobody()
        inner.forbid_new_privileges()
        inner.install(seccomp.program(RESTRICTED, MACHINE))
        return [os.getuid() != 0, outcome(socket.socket)]

    assert in_child(story) == [True, "EPERM"]


ALLOW_ALL = bpf.assemble((bpf.RET_K, 0, 0, bpf.ALLOW))


@pytest.mark.parametrize(
    "program",
    [b"", ALLOW_ALL[:7], ALLOW_ALL + b"\0", ALLOW_ALL * 4097, ALLOW_ALL * 65537],
    ids=["empty", "cut", "a byte more", "too long", "one after 16 bits"],
)
def test_bytes_that_are_no_program_are_refused_with_their_size(program):
    def story():
        inner.forbid_new_privileges()
        with pytest.raises(ConfinementError, match=f"program of {len(program)} bytes: .* pass what") as refused:
            inner.install(program)
        return [refused.value.errno, open("/proc/self/status").read().count("Seccomp:\t0")]

    assert in_child(story) == [errno.EINVAL, 1]


LOAD, IF_EQUAL, RETURN, JUMP = (bpf.LD_W_ABS, 0, 0, 0), 0x15, (bpf.RET_K, 0, 0, bpf.ALLOW), bpf.JA


@pytest.mark.parametrize(
    "instructions",
    [
        (LOAD,),
        (RETURN, LOAD),
        ((bpf.LD_W_ABS, 0, 0, 2), RETURN),
        ((bpf.LD_W_ABS, 0, 0, 64), RETURN),
        ((0x30, 0, 0, 0), RETURN),  # a byte, not a word
        ((0xFF, 0, 0, 0), RETURN),
        ((IF_EQUAL, 1, 0, 0), RETURN),
        ((IF_EQUAL, 0, 1, 0), RETURN),
        ((JUMP, 0, 0, 1), RETURN),
        ((JUMP, 0, 0, 0xFFFFFFFF), RETURN),
    ],
)
def test_the_interpreter_of_these_tests_refuses_what_the_kernel_refuses(instructions):
    program = bpf.assemble(*instructions)

    def story():
        inner.forbid_new_privileges()
        with pytest.raises(ConfinementError, match="the kernel answered EINVAL") as refused:
            inner.install(program)
        return refused.value.errno

    assert in_child(story) == errno.EINVAL
    with pytest.raises(bpf.Rejected):
        bpf.check(program)


@pytest.mark.parametrize(
    "instructions",
    [
        (RETURN,),
        (RETURN,) * bpf.MAX_INSTRUCTIONS,
        ((bpf.LD_W_ABS, 0, 0, 60), (IF_EQUAL, 1, 0, 0), RETURN, RETURN),
        ((JUMP, 0, 0, 1), RETURN, RETURN),
    ],
    ids=["one", "as many as may be", "jump over one", "jump always"],
)
def test_the_interpreter_of_these_tests_takes_what_the_kernel_takes(instructions):
    program = bpf.assemble(*instructions)

    def story():
        inner.forbid_new_privileges()
        inner.install(program)
        return LIBC.getpid() == os.getpid()

    assert in_child(story) is True
    assert bpf.run(bpf.check(program), bpf.seccomp_data(39, bpf.AUDIT_X86_64)) == bpf.ALLOW
