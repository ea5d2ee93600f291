"""Forked children that confine themselves, which cannot be undone, and tell what then happened to them."""

import ctypes
import errno
import json
import os
import traceback
import warnings
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
MACHINE = os.uname().machine


class ChildKilled(Exception):
    """The child died by a signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


def in_child(story: Callable[[], Any]) -> Any:
    """What the story returned in a forked child, after a way through JSON.

    Raises:
        ChildKilled: It died by a signal.
        AssertionError: It raised, with its traceback.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # A worker of xdist has a second thread, and a fork may leave its locks locked. The child takes none of them: it
        # makes system calls and leaves by _exit.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _tell(story, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise ChildKilled(os.WTERMSIG(status))
    result, failure = json.loads(told)
    assert failure is None, failure
    return result


def _tell(story: Callable[[], Any], writing: int) -> None:
    try:
        try:
            told = json.dumps((story(), None))
        except BaseException:
            told = json.dumps((None, traceback.format_exc()))
        os.write(writing, told.encode())
    finally:
        os._exit(0)


def outcome(attempt: Callable[[], Any]) -> str:
    """ "OK", or the name of the errno that the attempt failed with."""
    try:
        attempt()
    except OSError as exc:
        assert exc.errno is not None
        return errno.errorcode[exc.errno]
    return "OK"


def call(name: str, *arguments: Any) -> str:
    """The same for a function of libc that returns -1 on failure."""
    ctypes.set_errno(0)
    if getattr(LIBC, name)(*arguments) == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "OK"


def system_call(number: int, *arguments: int) -> str:
    """The same for a system call by its number; each argument is 64 bits wide."""
    return call("syscall", ctypes.c_long(number), *(ctypes.c_ulong(one) for one in arguments))


def become_nobody() -> None:
    """Give up root, if we have it."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
