"""The first answer of the process, before there is a loop.

A client writes `initialize` as soon as it has started us, so it usually waits on stdin before asyncio is imported.
Then it is answered at once; everything else is left to the server, which is told what was done.
"""

import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.rpc.handshake import Initialize, parse_initialize, refusal_of_name
from agent.rpc.jsonrpc import Request, parse, reply
from agent.rpc.lines import Lines
from agent.rpc.serde_text import InvalidParams

READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Greeting:
    """What was read, and whether the `initialize` that it starts with was answered."""

    lines: Lines
    texts: list[str]
    answered: bool


def greet(describe: Callable[[Initialize], dict[str, Any]], read_fd: int = 0, write_fd: int = 1) -> Greeting | None:
    """Answer a valid `initialize` that waits on `read_fd`; None if nothing waits there.

    An answer that cannot be written at once is left to the server, which knows how to wait and how to give up.

    Args:
        describe: Makes the result; the server must make the same one.
    """
    poll = select.poll()
    poll.register(read_fd, select.POLLIN)
    if not any(event & select.POLLIN for _, event in poll.poll(0)):
        return None
    lines = Lines()
    texts = lines.receive(os.read(read_fd, READ_BYTES))
    request = parse(texts[0]) if texts else None
    if not isinstance(request, Request) or request.method != "initialize":
        return Greeting(lines, texts, False)
    try:
        wanted = parse_initialize(request.params)
    except InvalidParams:
        return Greeting(lines, texts, False)
    if refusal_of_name(wanted.client.name) is not None:
        return Greeting(lines, texts, False)
    answer = (reply(request.id, describe(wanted)) + "\n").encode()
    return Greeting(lines, texts, _write_whole(write_fd, answer))


def _write_whole(fd: int, content: bytes) -> bool:
    """Write all of it without waiting, or nothing: a pipe that polls as writable takes PIPE_BUF bytes (pipe(7))."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if len(content) > select.PIPE_BUF or not any(event & select.POLLOUT for _, event in poll.poll(0)):
        return False
    try:
        return os.write(fd, content) == len(content)
    except OSError:  # closed or full
        return False
