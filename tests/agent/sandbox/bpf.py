"""The classic BPF of seccomp, small: what the kernel's checker lets in (as far as we use it), and what it then does.

Written after bpf_check_classic (net/core/filter.c) and seccomp_check_filter (kernel/seccomp.c), not after our
assembler. An instruction that seccomp allows and we do not use is refused too: a program with one is not ours.
"""

import struct
from collections.abc import Sequence

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
SECCOMP_DATA_BYTES = 64

ALLOW = 0x7FFF0000
EPERM = 0x00050001
KILL_PROCESS = 0x80000000

AUDIT_X86_64, AUDIT_AARCH64, AUDIT_I386 = 0xC000003E, 0xC00000B7, 0x40000003

LD_W_ABS, JA, RET_K = 0x20, 0x05, 0x06
JUMPS = {
    0x15: lambda a, k: a == k,  # JEQ
    0x25: lambda a, k: a > k,  # JGT
    0x35: lambda a, k: a >= k,  # JGE
    0x45: lambda a, k: a & k != 0,  # JSET
}

Instruction = tuple[int, int, int, int]


class Rejected(ValueError):
    """The kernel would answer EINVAL."""


def assemble(*instructions: Instruction) -> bytes:
    """`(code, jt, jf, k)` each, as an array of struct sock_filter."""
    return b"".join(struct.pack("<HBBI", *one) for one in instructions)


def check(program: bytes) -> list[Instruction]:
    """The instructions of a program that the kernel would take.

    Raises:
        Rejected: It would not, or we do not know.
    """
    if len(program) % 8:
        raise Rejected(f"{len(program)} bytes are not whole instructions of 8")
    instructions: list[Instruction] = list(struct.iter_unpack("<HBBI", program))
    if not 1 <= len(instructions) <= MAX_INSTRUCTIONS:
        raise Rejected(f"{len(instructions)} instructions, and 1 to {MAX_INSTRUCTIONS} may be")
    for at, (code, jt, jf, k) in enumerate(instructions):
        left = len(instructions) - at - 1
        if code == LD_W_ABS:
            if k % 4 or k >= SECCOMP_DATA_BYTES:
                raise Rejected(f"instruction {at} loads from {k}, which is no word of seccomp_data")
        elif code == JA:
            if k >= left:
                raise Rejected(f"instruction {at} jumps out of the program")
        elif code in JUMPS:
            if jt >= left or jf >= left:
                raise Rejected(f"instruction {at} jumps out of the program")
        elif code != RET_K:
            raise Rejected(f"instruction {at} has the code {code:#x}")
    if instructions[-1][0] != RET_K:
        raise Rejected("the last instruction does not return")
    return instructions


def seccomp_data(number: int, arch: int, arguments: Sequence[int] = (), instruction_pointer: int = 0) -> bytes:
    """What a program reads: `struct seccomp_data` of a little-endian machine."""
    return struct.pack("<iIQ6Q", number, arch, instruction_pointer, *(*arguments, *(0,) * (6 - len(arguments))))


def run(instructions: Sequence[Instruction], data: bytes) -> int:
    """What the program returns for one call."""
    accumulator = 0
    at = 0
    while True:
        code, jt, jf, k = instructions[at]
        at += 1
        if code == LD_W_ABS:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == JA:
            at += k
        elif code == RET_K:
            return k
        else:
            at += jt if JUMPS[code](accumulator, k) else jf
