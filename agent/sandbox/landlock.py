"""Landlock, the primitive of the explicit legacy path: rules for files, and for a few more things, on this thread.

What is granted is what the original's legacy mode grants: reading and executing below the readable roots, everything
below the writable roots, and `/dev/null`. It is not a view of its own: what is not granted is seen and refused (EACCES;
EXDEV for a rename or a link that would widen what may be done with a file). Nothing below a writable root can be taken
out again, and Landlock has no rule for modes, owners, times and extended attributes: these change as file modes permit.

Newer kernels can hold back more (the ABI, landlock(7)). `restrict` takes what there is, and `unavailable` says what is
then left open; the numbers are those of include/uapi/linux/landlock.h.
"""

import ctypes
import errno
import os
import stat

from agent.sandbox.inner import forbid_new_privileges

# One number on all architectures: they are newer than the common table.
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
# Up to MAKE_SYM: removing and making entries of all kinds.
_ABI_1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = (1 << bit for bit in (13, 14, 15))
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1 << 0, 1 << 1

_READ = _EXECUTE | _READ_FILE | _READ_DIR
# What makes sense for a file; the kernel refuses a rule for one that names more.
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_FILES, _NETWORK, _SCOPE = range(3)
# The first ABI that has it, where it belongs, the bits, only with a restricted network, what it means not to have it.
_RIGHTS = (
    (1, _FILES, _ABI_1, False, ""),
    (2, _FILES, _REFER, False, "moving and linking files from directory to directory is refused everywhere"),
    (3, _FILES, _TRUNCATE, False, "any file can be truncated by its path"),
    (4, _NETWORK, _BIND_TCP | _CONNECT_TCP, True, "TCP is not held back by Landlock"),
    (5, _FILES, _IOCTL_DEV, False, "ioctl on devices is not held back"),
    (6, _SCOPE, _SCOPE_ABSTRACT_UNIX, True, "abstract UNIX sockets of other processes can be reached"),
    (6, _SCOPE, _SCOPE_SIGNAL, False, "processes outside can be signalled"),
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class LandlockError(OSError):
    """The process could not be restricted. With the kernel's errno, and the path if it was about one."""


class _RulesetAttributes(ctypes.Structure):
    """struct landlock_ruleset_attr. An older kernel takes the whole of it if what it does not know is 0."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scope", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr"""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi_version() -> int:
    """The Landlock ABI of this kernel, 0 if there is none: not built in, not enabled at boot, or closed to us.

    Raises:
        LandlockError: The kernel gave another answer.
    """
    try:
        return _call("ask the kernel for its Landlock ABI", _SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except LandlockError as error:
        # ENOSYS and EOPNOTSUPP are landlock_create_ruleset(2)'s; EPERM is the seccomp filter of a container.
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def unavailable(abi: int, network_restricted: bool) -> tuple[str, ...]:
    """What a kernel of this ABI cannot do for us, one clause each; empty if nothing is missing."""
    return tuple(
        f"{without} (needs Landlock ABI {first})"
        for first, _, _, only_restricted, without in _RIGHTS
        if first > abi and without and (network_restricted or not only_restricted)
    )


def restrict(
    abi: int, readable_roots: tuple[str, ...], writable_roots: tuple[str, ...], network_restricted: bool
) -> tuple[str, ...]:
    """Restrict this thread, and all it starts or executes, for good; sets no_new_privs. Descriptors stay as opened.

    Other threads that run already are not restricted: call this where there is one. When it raises, no_new_privs may
    be set, and nothing is restricted: the command must not run then.

    Args:
        abi: What `abi_version` said; an older one asks for less.
        readable_roots: What may be read and executed, with all below; `("/",)` for everything. Files are roots, too.
        writable_roots: What may be read, executed and written. Links are followed. A root that does not exist is left
            out, as bubblewrap plans do: it grants nothing, also when it is made later.
        network_restricted: Also hold back TCP and abstract UNIX sockets; the rest of the network is seccomp's.

    Returns:
        What the ABI could not do, as `unavailable` says it.

    Raises:
        LandlockError: There is no Landlock, or a step failed; it says which and for which path.
        ConfinementError: no_new_privs could not be set.
    """
    if abi < 1:
        raise LandlockError(
            errno.EOPNOTSUPP,
            "the legacy sandbox needs Landlock, and this kernel has none, has it off (`lsm=` on its command line) or "
            "keeps it from this container; use bubblewrap: leave features.use_legacy_landlock off",
        )
    handled = [0, 0, 0]
    for first, kind, bits, only_restricted, _ in _RIGHTS:
        if first <= abi and (network_restricted or not only_restricted):
            handled[kind] |= bits
    attributes = _RulesetAttributes(*handled)
    ruleset = _call(
        f"make a Landlock ruleset of ABI {abi}",
        _SYS_CREATE_RULESET,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
        0,
    )
    try:
        for path in readable_roots:
            _grant(ruleset, path, _READ)
        for path in ("/dev/null", *writable_roots):
            _grant(ruleset, path, handled[_FILES])
        forbid_new_privileges()
        _call("enforce the Landlock ruleset", _SYS_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return unavailable(abi, network_restricted)


def _grant(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        number = exc.errno or errno.EINVAL
        raise LandlockError(
            number, f"cannot open a root of the sandbox: {os.strerror(number)}; take it out of the policy", path
        ) from exc
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _FOR_FILES
        rule = _PathBeneath(rights, parent)
        _call(
            "grant a root of the sandbox", _SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0, path=path
        )
    finally:
        os.close(parent)


def _call(step: str, number: int, *arguments: object, path: str | None = None) -> int:
    """One system call.

    Raises:
        LandlockError: The kernel refused; `step` says what was wanted.
    """
    # syscall(2) reads each argument as a long, and ctypes would pass an int in half of it.
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result >= 0:
        return result
    found = ctypes.get_errno()
    text = f"cannot {step}: the kernel answered {errno.errorcode.get(found, found)} ({os.strerror(found)})"
    raise LandlockError(found, f"{text}; run without features.use_legacy_landlock", *([path] if path else []))
