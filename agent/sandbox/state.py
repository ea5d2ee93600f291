"""The directory of this user in which sandboxes keep records and caches. It ends with the boot."""

from __future__ import annotations

import os
import stat


class StateUnusable(OSError):
    """The directory cannot be used; nothing was made."""


def state_directory(make: bool = True) -> str:
    """Its path; made if needed, mode 0700, unless `make` is false.

    /dev/shm before /tmp, since no sandbox sees the host's /dev/shm, while /tmp is usually a writable root.

    Raises:
        StateUnusable: It is not ours or open to others.
    """
    uid = os.geteuid()
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else "/tmp"
    path = f"{base}/countersign-sandbox-{uid}"
    if not make:
        return path
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as exc:
        raise StateUnusable(exc.errno, f"cannot make {path!r} for the sandbox's records: {exc.strerror}") from exc
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        import errno

        raise StateUnusable(
            errno.EPERM,
            f"{path!r} is to hold the sandbox's records, and is not a directory that only we may enter; remove it",
        )
    return path
