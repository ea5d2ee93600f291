"""A shell that outlives us, should we be killed, and then kills the commands that nothing else would end.

bubblewrap dies with us, and with it all that is in it; a command outside of it would go on.
"""

from __future__ import annotations

import os
import signal
import subprocess

from agent.sandbox.plan import Backend

_SHELL = "/bin/sh"
# It is told of process groups, "+ 5" and "- 5" a line; at the end of that it kills those that are left.
_WATCH = """
held=" "
while read -r what group; do
  case $what in
    +) held="$held$group " ;;
    -) held="${held%%" $group "*} ${held#*" $group "}" ;;
  esac
done
for group in $held; do kill -9 "-$group"; done
"""


class Leash:
    """Holds the process groups of commands."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._pid = -1
        self._lifeline = -1

    def prepare(self, backend: Backend) -> None:
        """A command is about to be started: from its start until it is held nothing must take long."""
        if backend is not Backend.BUBBLEWRAP and self._pid < 0:
            self._start()

    def hold(self, backend: Backend, group: int) -> None:
        """A command was started in a process group of its own."""
        if backend is Backend.BUBBLEWRAP:
            return
        self.prepare(backend)
        self._held.add(group)
        self._tell(f"+ {group}\n")

    def release(self, group: int) -> None:
        """It has ended; to be told before its number can be another's."""
        if group in self._held:
            self._held.remove(group)
            self._tell(f"- {group}\n")

    def close(self) -> None:
        """Nothing runs any more."""
        if self._pid >= 0:
            os.kill(self._pid, signal.SIGKILL)  # before its pipe ends
            os.waitpid(self._pid, 0)
            os.close(self._lifeline)
            self._pid = self._lifeline = -1

    def _tell(self, line: str) -> None:
        try:
            if self._lifeline >= 0:
                os.write(self._lifeline, line.encode())
        except BrokenPipeError:  # somebody has killed it: another one is told all
            self.close()
            self._start()

    def _start(self) -> None:
        read, self._lifeline = os.pipe()
        try:
            # Without our environment, which may name libraries, and away from a directory that may go.
            process = subprocess.Popen(  # noqa: S603 - a fixed command line
                (_SHELL, "-c", _WATCH),
                stdin=read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError:  # there is no shell
            os.close(self._lifeline)
            self._lifeline = -1
        else:
            process.returncode = 0  # we wait for it ourselves
            self._pid = process.pid
            os.write(self._lifeline, "".join(f"+ {group}\n" for group in self._held).encode())
        finally:
            os.close(read)
