"""Files by where they are: names may lead elsewhere between a look and a deed. Imports little: apply_patch needs it."""

import errno
import os
import sys


def path_of(descriptor: int) -> str:
    """Where an open file or directory is now, without symlinks on the way."""
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")


def check_place(descriptor: int, path: str) -> None:
    """Raises OSError, unless what was opened is at that path."""
    if path_of(descriptor) != path:
        raise OSError(errno.ESTALE, "it leads elsewhere by now", path)


def remove_there(path: str) -> None:
    """Remove a file, or a symlink, if no directory on the way has become a symlink; raises OSError."""
    parent, name = os.path.split(path)
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check_place(directory, parent)
        os.remove(name, dir_fd=directory)
    finally:
        os.close(directory)
