"""Attempts on the terminal at which the caller sits: to type into it, to take it, to be controlled by it."""

import errno
import fcntl
import os
import shutil
import struct
from pathlib import Path

import pytest

from tests.sandbox.attempts import attempt, carry_out
from tests.sandbox.place import Place
from tests.sandbox.profiles import workspace
from tests.sandbox.system import tried


def on_terminal(descriptor, command):
    """Become the leader of a session with a controlling terminal, then the command."""
    os.setsid()
    fcntl.ioctl(descriptor, 0x540E, 0)
    os.dup2(descriptor, 0)
    os.execv(command[0], command)


def inject(text):
    """TIOCSTI: as if it were typed."""
    for letter in text:
        fcntl.ioctl(0, 0x5412, letter.encode())


def paste(text):
    """TIOCLINUX, on a virtual console: paste the selection."""
    fcntl.ioctl(0, 0x541C, b"\x03")


def open_controlling_terminal(text):
    descriptor = os.open("/dev/tty", os.O_RDWR)
    os.write(descriptor, text.encode())


def take_the_foreground(text):
    os.tcsetpgrp(0, os.getpgrp())


def take_the_terminal(text):
    if os.fork() == 0:
        os.setsid()
        refused = tried(fcntl.ioctl, 0, 0x540E, 0)
        os._exit(list(errno.errorcode.values()).index(refused) + 1 if refused != "OK" else 0)
    ended = os.wait()[1]
    if ended:
        raise OSError(list(errno.errorcode)[os.waitstatus_to_exitcode(ended) - 1], "refused")
    return os.tcgetsid(0)


def at_a_terminal(place: Place, profile, function, text):
    """What comes of an attempt of a command that was started at a terminal, and what was then typed there."""
    ours, theirs = os.openpty()
    try:
        inner = place.sandbox(profile, *attempt(function, text))
        inner[0] = shutil.which(inner[0]) or inner[0]
        told = carry_out(attempt(on_terminal, theirs, inner), pass_fds=[theirs], cwd=place.project)
        return told, os.read(theirs, 100) if waiting(theirs) else b""
    finally:
        os.close(ours)
        os.close(theirs)


def waiting(descriptor: int) -> int:
    return struct.unpack("i", fcntl.ioctl(descriptor, 0x541B, bytes(4)))[0]


HELD = {"bubblewrap": workspace(), "network-on": workspace(network=True)}


@pytest.mark.parametrize("held", HELD)
def test_nothing_can_be_typed_into_the_callers_terminal(place: Place, held):
    told, typed = at_a_terminal(place, HELD[held], inject, "rm\n")
    assert told.outcome in {"EPERM", "EIO"}, told
    assert typed == b""

    told, typed = at_a_terminal(place, {"type": "disabled"}, inject, "rm\n")
    if told.outcome == "EIO":
        # dev.tty.legacy_tiocsti=0: nobody without CAP_SYS_ADMIN can. The next test observes the same by other means.
        assert place.uid != 0 and Path("/proc/sys/dev/tty/legacy_tiocsti").read_text().strip() == "0"
    else:
        assert (told.outcome, typed) == ("OK", b"rm\n")


@pytest.mark.parametrize("use", [open_controlling_terminal, take_the_foreground], ids=lambda use: use.__name__)
def test_the_callers_terminal_does_not_control_the_command(place: Place, use):
    told, _ = at_a_terminal(place, workspace(), use, "x")
    assert told.outcome in {"ENXIO", "ENOTTY"}, told
    told, _ = at_a_terminal(place, {"type": "disabled"}, use, "x")
    assert told.outcome == "OK", told


def test_the_callers_terminal_cannot_be_taken_from_its_session(place: Place):
    """Root may steal it (tty_ioctl(4)), by CAP_SYS_ADMIN. The control shows that; for others it is refused anywhere."""
    told, _ = at_a_terminal(place, workspace(), take_the_terminal, "")
    assert told.outcome in {"EPERM", "ENOTTY"}, told


def test_a_console_cannot_be_pasted_into(place: Place):
    """The terminal here is no console, on which the control would succeed; but there is none in the sandbox either."""
    told, typed = at_a_terminal(place, workspace(), paste, "")
    assert told.outcome in {"ENOTTY", "EPERM", "EINVAL"} and typed == b""
    assert place.confined(consoles).value == []
    if list(Path("/dev").glob("tty[0-9]*")):
        assert place.with_full_access(consoles).value


def consoles():
    return [name for name in os.listdir("/dev") if name.startswith(("tty", "vcs")) and name != "tty"]
