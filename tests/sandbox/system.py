"""System calls that Python 3.11 has no function for, to be sent along with attempts."""

import ctypes
import os

AT_FDCWD = -100
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWCGROUP = 0x20000, 0x10000000, 0x20000000, 0x02000000
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MNT_DETACH = 32, 4096, 8192, 16384, 1 << 18, 2

# (x86_64, aarch64); the newer ones are the same on both.
NUMBERS = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "renameat2": (316, 276),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "prctl": (157, 167),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "add_key": (248, 217),
    "keyctl": (250, 219),
}


def system_call(name, *arguments):
    """The result of a system call; OSError if it fails. Bytes are passed as a C string, None as NULL."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = NUMBERS[name][os.uname().machine == "aarch64"]
    wide = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount(source, target, kind, flags, options):
    """mount(2) with text; None where nothing is said."""
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    return system_call("mount", *words, flags, None if options is None else options.encode())


def enter_own_namespaces(flags):
    """Become the owner of new namespaces, with all rights in them, and with the user id that we have outside."""
    user, group = os.getuid(), os.getgid()
    system_call("unshare", CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
        except PermissionError:
            # Root needs CAP_SETFCAP to map itself (user_namespaces(7)); it has the rights all the same.
            pass


def tried(function, *arguments):
    """Try something whose failure does not matter; the name of its errno or "OK"."""
    import errno

    try:
        function(*arguments)
    except OSError as exc:
        return errno.errorcode.get(exc.errno, str(exc))
    return "OK"
