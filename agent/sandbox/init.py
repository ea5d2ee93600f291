"""bubblewrap's init: the first process of a sandbox, with which all others in it end.

bubblewrap itself ends as soon as its init has told it the command's code, while the init, and what the command left in
the background, still run for a moment. The kernel reports the init's end only when all in its pid namespace are dead,
so that is what has to be awaited before anything that was masked may be touched.
"""

from __future__ import annotations

import os

from agent.sandbox.plan import INFO_FD

# Once bubblewrap has ended nothing keeps its init; this is for a machine that is stuck.
_END_S = 10.0


class Init:
    """Made before bubblewrap is started, which is given `descriptors`.

    Attributes:
        pid: The init's, once it is known; None before, and if bubblewrap ended without having one.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self._told, self._tells = os.pipe()
        self._end = -1

    @property
    def descriptors(self) -> dict[int, int]:
        """bubblewrap's number for our end of the pipe."""
        return {INFO_FD: self._tells}

    def told(self) -> int:
        """A descriptor that can be read when `learn` need not wait."""
        return self._told

    def started(self) -> None:
        """bubblewrap has its end of the pipe; or could not be started."""
        if self._tells >= 0:
            os.close(self._tells)
            self._tells = -1

    def learn(self) -> None:
        """Wait until bubblewrap has told who its init is, or has ended without one."""
        self.started()
        if self._end < 0 and self._told >= 0:
            os.set_blocking(self._told, True)  # uvloop sets what it watches to not block
        text = b""
        while self._end < 0 and b"," not in text and (piece := os.read(self._told, 4096)):
            text += piece
        _, found, number = text.partition(b'"child-pid": ')
        if found and self._end < 0:
            pid = int(number.partition(b",")[0])
            try:
                self._end = os.pidfd_open(pid)
                self.pid = pid
            except ProcessLookupError:
                pass  # it is over already

    def end(self) -> int:
        """A descriptor that can be read when the init, and all in its pid namespace, are dead; -1 if there is none."""
        return self._end

    def wait(self) -> None:
        """Wait for that."""
        self.learn()
        if self._end >= 0:
            import select

            select.select([self._end], [], [], _END_S)

    def close(self) -> None:
        self.started()
        for descriptor in (self._told, self._end):
            if descriptor >= 0:
                os.close(descriptor)
        self._told = self._end = -1
