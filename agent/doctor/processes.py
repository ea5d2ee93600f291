"""Child processes with a deadline, whose output is ours or nobody's. They end with everything that they started."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from agent.programs import why_not_started

# Seconds between SIGTERM and SIGKILL.
GRACE_S = 2.0
# Of each stream so many bytes are kept.
MAX_OUTPUT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Args:
        code: Its exit code, or 128 + the signal that ended it; None if it was killed at its deadline or never ran.
        not_started: Why it never ran.
        stdout, stderr: What it said, where that was kept; not for a log.
    """

    code: int | None
    not_started: str = ""
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)


class NotStarted(Exception):
    """The program could not be started; the text says why, without its arguments."""


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str], environ: Mapping[str, str], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in a session of its own, without input; when the block ends, it is ended with its whole group.

    Raises:
        NotStarted: It is not there, or cannot be executed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as exc:
        raise NotStarted(why_not_started(command[0], exc)) from exc
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL for what is left; also if the first of the group has gone already."""
    _signal(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def run_quietly(command: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> Ended:
    """Run a program to its end, or to its deadline, and keep what it said. Never raises for what it does."""
    pipe = asyncio.subprocess.PIPE
    kept: list[asyncio.Task[str]] = []
    code: int | None = None
    try:
        async with child(command, environ, pipe, pipe) as process:
            kept += [asyncio.create_task(_kept(stream)) for stream in (process.stdout, process.stderr) if stream]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    code = shell_code(await process.wait())
        # Only now that its whole group is gone: what it has left behind may have held the pipes open.
        done, _ = await asyncio.wait(kept, timeout=GRACE_S)
        stdout, stderr = (task.result() if task in done else "" for task in kept)
    except NotStarted as exc:
        return Ended(None, str(exc))
    finally:
        for task in kept:
            task.cancel()
    return Ended(code, "", stdout, stderr)


async def _kept(stream: asyncio.StreamReader) -> str:
    """The beginning of a stream; the rest is read and dropped, so that nobody waits for us."""
    kept = bytearray()
    while piece := await stream.read(MAX_OUTPUT_BYTES):
        kept += piece[: MAX_OUTPUT_BYTES - len(kept)]
    return kept.decode("utf-8", "replace")


def shell_code(code: int) -> int:
    """A return code of asyncio as shells give it."""
    return code if code >= 0 else 128 - code
