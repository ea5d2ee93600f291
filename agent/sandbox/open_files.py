"""How many files a process may have open: more for us, as many as ever for what we start.

A thread takes four (its rollout, its socket to our proxy, and that proxy's two), and the usual limit is 1024.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any

# Two for each of two thousand connections, or a thousand threads.
MANY = 4096

_before: tuple[int, int] | None = None


def allow_more() -> None:
    """Raise the soft limit of this process, as far as the hard one lets us."""
    global _before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY if hard == resource.RLIM_INFINITY else min(MANY, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            _before = soft, hard


def posix_spawn(*given: Any, **named: Any) -> int:
    """`os.posix_spawn` under the limit that we had: select(2) breaks above 1024.

    Whatever another thread opens meanwhile fails if more than that is open; nothing else in here opens anything.
    """
    if _before is None:
        return os.posix_spawn(*given, **named)
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, _before)
    try:
        return os.posix_spawn(*given, **named)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, ours)


def limit(pid: int) -> None:
    """Give a process the limit that we had; what it has started before that keeps ours, and so it is on macOS."""
    if _before is not None and hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _before)
