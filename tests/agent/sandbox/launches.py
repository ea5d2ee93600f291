"""Processes that hold placeholders, and die."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bubblewrap import BWRAP

type Wanted = list[tuple[str, bool]]


def wanting(*paths: Path, directory: bool = True) -> Wanted:
    return [(str(path), directory) for path in paths]


def left(tmp_path: Path) -> list[str]:
    """The records in the state directory of a test."""
    return os.listdir(tmp_path / "state" / "launches")


class Holder(subprocess.Popen[str]):
    """The process; `said` is what it printed once it held."""

    said: str


@contextlib.contextmanager
def holder(tmp_path: Path, *paths: Path, beside: str = "print()") -> Iterator[Holder]:
    """Another process that holds placeholders until its stdin ends.

    Args:
        beside: A line of Python that is carried out then, with `hold` at hand, and prints a line.
    """
    story = f"""
import os, sys; sys.path[:0] = {sys.path!r}
from agent.sandbox.placeholders import Placeholders
hold = Placeholders({str(tmp_path / "state")!r}).hold({wanting(*paths)!r}, [])
{beside}
sys.stdout.flush()
sys.stdin.read()
hold.release()
"""
    with Holder([sys.executable, "-c", story], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        process.said = process.stdout.readline()
        assert process.said.endswith("\n")
        try:
            yield process
        finally:
            process.stdin.close()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def sandboxed(*command: str, pid_namespace: bool = True) -> str:
    """For `beside`: a sandbox that tells of itself in the record, holds no lock and does not die with its parent.

    As a command leaves it that may trace its init. The pid of its init is printed.
    """
    view = [BWRAP, "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-user", "--info-fd"]
    more = ["--unshare-pid", "--proc", "/proc"] if pid_namespace else []
    return f"""
import subprocess, time
from agent.sandbox.placeholders import told_in
subprocess.Popen([*{view!r}, str(hold.record), *{more!r}, "--", *{command!r}], pass_fds=[hold.record], stdout=2)
while (which := told_in(open(hold.name, "rb").read())) is None:
    time.sleep(0.001)
print(which.pid)
"""
