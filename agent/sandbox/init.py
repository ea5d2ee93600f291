"""bubblewrap's init: the first process of a sandbox, with which all others in it end.

bubblewrap itself ends as soon as its init has told it the command's code, while the init, and what the command left in
the background, still run for a moment. The kernel reports the init's end only when all in its pid namespace are dead,
so that is what has to be awaited before anything that was masked may be touched.
"""

from __future__ import annotations

import os
import time

from agent.sandbox.plan import INFO_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Once bubblewrap has ended nothing keeps its init; this is for a machine that is stuck.
_END_S = 10.0
_STEP_S = 0.0005


class Init:
    """Made before bubblewrap is started, which is given `descriptors`.

    bubblewrap writes the pid into a file of ours. It was a pipe: when we were killed, bubblewrap died of writing to it
    (SIGPIPE), and its init, which it had not yet told to go on, waited for ever.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("init")
        self._end = -1

    @property
    def descriptors(self) -> dict[int, int]:
        """bubblewrap's number for our file."""
        return {INFO_FD: self._file}

    def pid(self) -> int | None:
        """The init's pid; None while bubblewrap has not told it."""
        _, found, number = os.pread(self._file, 4096, 0).partition(b'"child-pid": ')
        digits, more, _ = number.replace(b"\n", b",").partition(b",")
        return int(digits) if found and more else None

    def awaited(self, goes_on: Callable[[], bool]) -> int | None:
        """The pid, as soon as it is told; None if bubblewrap has ended before.

        Args:
            goes_on: Whether bubblewrap still runs.
        """
        while (pid := self.pid()) is None:
            if not goes_on():
                return self.pid()
            time.sleep(_STEP_S)
        return pid

    def end(self) -> int:
        """A descriptor that can be read when the init, and all in its pid namespace, are dead; -1 if that is so.

        To be asked for right after bubblewrap has ended, while nobody else can have the init's pid.
        """
        pid = self.pid()
        if self._end < 0 and pid is not None:
            try:
                self._end = os.pidfd_open(pid)
            except ProcessLookupError:
                return -1
        return self._end

    def wait(self) -> None:
        """bubblewrap has ended: wait until its sandbox has."""
        end = self.end()
        if end >= 0:
            import select

            select.select([end], [], [], _END_S)

    def close(self) -> None:
        for descriptor in (self._file, self._end):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._end = -1
