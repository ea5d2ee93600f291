"""Confinement of this very process, for commands that need no view of their own: no new privileges, then the filter.

By prctl(2) through ctypes (2 to 3 ms to import): Python 3.13 has no call of its own for it. Whoever starts bubblewrap
does not need this module; bubblewrap does both itself (`--seccomp`).
"""

import ctypes
import errno
import os

# include/uapi/linux/prctl.h, include/uapi/linux/seccomp.h
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39
_SECCOMP_MODE_FILTER = 2

_INSTRUCTION_BYTES = 8
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_libc = ctypes.CDLL(None, use_errno=True)
# The kernel wants the unused arguments to be 0 in their whole width, and ctypes would pass an int in half of it.
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


class ConfinementError(OSError):
    """A step of the confinement failed, and the process is not confined. With the kernel's errno."""


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("instructions", ctypes.c_ushort), ("first", ctypes.c_char_p))


def forbid_new_privileges() -> None:
    """Nothing that this thread executes from now on gains privileges: not by setuid, not by file capabilities.

    It cannot be undone and goes over to children. The kernel asks for it before a filter or a Landlock ruleset.

    Raises:
        ConfinementError: The kernel refused (Linux before 3.5).
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failure("set no_new_privs", "run it on Linux 3.5 or newer")


def has_no_new_privileges() -> bool:
    """Whether `forbid_new_privileges` was called here or before this process was started."""
    return bool(_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)


def install(program: bytes) -> None:
    """Put every system call of this thread, and of all it starts or executes, under the program, for good.

    Other threads that run already are not under it: call this where there is one, then execute the command. Filters
    add up; the strictest answer counts.

    Args:
        program: An array of struct sock_filter, as `agent.sandbox.seccomp.program` makes it.

    Raises:
        ConfinementError: EACCES, no_new_privs is not set. The kernel lets root do without, and then a setuid program
            would run with more rights under a filter that it does not expect. EINVAL, the bytes are not a program, or
            this kernel has no seccomp filters.
    """
    count, rest = divmod(len(program), _INSTRUCTION_BYTES)
    # The count is 16 bits wide: a longer program would be cut off without a word.
    if rest or not 1 <= count <= _MAX_INSTRUCTIONS:
        raise ConfinementError(
            errno.EINVAL,
            f"cannot install a seccomp program of {len(program)} bytes: it has 1 to {_MAX_INSTRUCTIONS} instructions "
            f"of {_INSTRUCTION_BYTES} bytes each; pass what agent.sandbox.seccomp.program() returns",
        )
    if not has_no_new_privileges():
        raise ConfinementError(
            errno.EACCES,
            "cannot install a seccomp program: no_new_privs is not set; call forbid_new_privileges() first",
        )
    description = _Program(count, program)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(description), 0, 0) != 0:
        raise _failure(
            f"install a seccomp program of {count} instructions",
            "EINVAL is a kernel without CONFIG_SECCOMP_FILTER, or a program that its checker refuses",
        )


def _failure(step: str, advice: str) -> ConfinementError:
    number = ctypes.get_errno()
    found = errno.errorcode.get(number, str(number))
    return ConfinementError(number, f"cannot {step}: the kernel answered {found} ({os.strerror(number)}); {advice}")
