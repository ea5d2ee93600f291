"""The seccomp programs of the network modes, as `bwrap --seccomp` and the kernel take them. Pure.

The rules are those of codex 0.169, whose filters were dumped from live processes with PTRACE_SECCOMP_GET_FILTER: all is
allowed but what is named here, a denied call fails with EPERM, and a call by another architecture's table (int 0x80 on
x86_64) kills the process, because its numbers mean other calls.

One thing is ours. On x86_64 the calls of the x32 table have the same architecture; their numbers are the native ones
with bit 30 set, and some of their own. The original does not look, so where the kernel has x32, `connect | 1 << 30`
passes. Here every x32 number gets EPERM. Not a kill: a program that only probes for x32 goes on, and whatever else
fails reads like any denial of the sandbox.

Cost: since Linux 5.11 the kernel works out at installation which calls are allowed whatever their arguments, and does
not run the program for these at all. So the order of the comparisons matters only for `socket` and `socketpair`, which
come first, and a search tree would save nothing.
"""

from agent.sandbox.choice import Choice


class NetworkFilter(Choice):
    """Which program a confined command gets. With full disk write and network there is none."""

    RESTRICTED = "restricted"  # no network: only AF_UNIX, and no addresses, options or connections
    PROXY_ROUTED = "proxy-routed"  # TCP and UDP in a network namespace that has only the bridge to the proxy
    NETWORK_ON = "network-on"  # the network is allowed and files are not: what goes around the rules for files


class UnsupportedArchitecture(ValueError):
    """No system call numbers are known for this machine."""


AF_UNIX, AF_INET, AF_INET6, AF_VSOCK = 1, 2, 10, 40

_TRACING = ("ptrace", "process_vm_readv", "process_vm_writev")
# A ring does what the calls would do, and seccomp never sees it.
_RINGS = ("io_uring_setup", "io_uring_enter", "io_uring_register")
_CONNECTIONS = (
    *("connect", "accept", "accept4", "bind", "listen", "shutdown", "getpeername", "getsockname"),
    *("sendto", "sendmmsg", "recvmmsg", "getsockopt", "setsockopt"),
)

# What a program does in the end, and the value it returns for it (include/uapi/linux/seccomp.h; EPERM is 1).
_ALLOW, _DENY, _KILL = "allow", "deny", "kill"
_VALUES = {_ALLOW: 0x7FFF0000, _DENY: 0x00050000 | 1, _KILL: 0x80000000}

# mode -> (calls denied whatever their arguments, {call: (domains, for one of these, for any other)})
_RULES: dict[NetworkFilter, tuple[tuple[str, ...], dict[str, tuple[tuple[int, ...], str, str]]]] = {
    NetworkFilter.RESTRICTED: (
        (*_CONNECTIONS, *_TRACING, *_RINGS),
        {"socket": ((AF_UNIX,), _ALLOW, _DENY), "socketpair": ((AF_UNIX,), _ALLOW, _DENY)},
    ),
    NetworkFilter.PROXY_ROUTED: (
        (*_TRACING, *_RINGS),
        {"socket": ((AF_INET, AF_INET6), _ALLOW, _DENY), "socketpair": ((AF_UNIX,), _ALLOW, _DENY)},
    ),
    NetworkFilter.NETWORK_ON: (
        _RINGS,
        {"socket": ((AF_VSOCK,), _DENY, _ALLOW), "socketpair": ((AF_VSOCK,), _DENY, _ALLOW)},
    ),
}

# AUDIT_ARCH_* of linux/audit.h, by the machine's name in uname(2). Both are little-endian.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000

# call: (x86_64, aarch64); arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_NUMBERS = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    "shutdown": (48, 210),
    "getpeername": (52, 205),
    "getsockname": (51, 204),
    "sendto": (44, 206),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}

# Classic BPF: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06

# Offsets in struct seccomp_data. A domain is an int: the kernel drops the upper half of the register, and so do we.
_NUMBER, _ARCHITECTURE, _DOMAIN = 0, 4, 16

_NEXT = ""
# (its label, code, operand, label to go to if it holds, label to go to if not); a label is `_NEXT` where there is none
_Line = tuple[str, int, int, str, str]


def program(mode: NetworkFilter, architecture: str) -> bytes:
    """The program, an array of `struct sock_filter` (8 bytes each) in the byte order of both machines.

    The same bytes each time. Its process must have no_new_privs set when it is installed; bubblewrap sees to that.

    Args:
        architecture: The machine as uname(2) calls it, "x86_64" or "aarch64".

    Raises:
        UnsupportedArchitecture: It is another one. A process must not run without the filter then.
    """
    if architecture not in _AUDIT:
        raise UnsupportedArchitecture(
            f"a seccomp program is made of the machine's system call numbers, and none are known for {architecture!r}; "
            f"the sandbox works on {' and '.join(_AUDIT)}"
        )
    made = _made.get((mode, architecture))
    if made is None:
        made = _made[mode, architecture] = _assemble(_lines(mode, architecture))
    return made


_made: dict[tuple[NetworkFilter, str], bytes] = {}


def _lines(mode: NetworkFilter, architecture: str) -> list[_Line]:
    column = list(_AUDIT).index(architecture)
    denied, domains = _RULES[mode]
    lines: list[_Line] = [
        (_NEXT, _LOAD, _ARCHITECTURE, _NEXT, _NEXT),
        (_NEXT, _IF_EQUAL, _AUDIT[architecture], _NEXT, _KILL),
        (_NEXT, _LOAD, _NUMBER, _NEXT, _NEXT),
    ]
    if architecture == "x86_64":
        lines.append((_NEXT, _IF_AT_LEAST, _X32, _DENY, _NEXT))
    lines += [(_NEXT, _IF_EQUAL, _NUMBERS[call][column], call, _NEXT) for call in domains]
    lines += [(_NEXT, _IF_EQUAL, _NUMBERS[call][column], _DENY, _NEXT) for call in denied]
    lines.append((_NEXT, _RETURN, _VALUES[_ALLOW], _NEXT, _NEXT))
    for call, (listed, if_listed, otherwise) in domains.items():
        lines.append((call, _LOAD, _DOMAIN, _NEXT, _NEXT))
        lines += [(_NEXT, _IF_EQUAL, domain, if_listed, _NEXT) for domain in listed]
        lines.append((_NEXT, _RETURN, _VALUES[otherwise], _NEXT, _NEXT))
    lines += [(end, _RETURN, value, _NEXT, _NEXT) for end, value in _VALUES.items()]
    return lines


def _assemble(lines: list[_Line]) -> bytes:
    """The instructions, with labels turned into how many to skip; classic BPF jumps only forward, 255 at most."""
    at = {label: index for index, (label, *_) in enumerate(lines) if label}

    def skipped(label: str, index: int) -> int:
        return at[label] - index - 1 if label else 0

    # By hand: `struct` is one more shared library to load at the start of the helper.
    return b"".join(
        code.to_bytes(2, "little")
        + bytes((skipped(if_so, index), skipped(if_not, index)))
        + operand.to_bytes(4, "little")
        for index, (_, code, operand, if_so, if_not) in enumerate(lines)
    )
