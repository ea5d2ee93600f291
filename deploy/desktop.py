"""The desktop of other agents: a stand-in at a socket, and a new one when the proxy there has ended.

    desktop.py SOCKET [OPTION ...]

The options are those of `countersign standin desktop`, such as --silent.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence

# Seconds that a stand-in waits for its socket; then there is a new one.
PATIENCE = "3600"
# Seconds until a proxy that is ending has let go of its socket.
PAUSE_S = 0.2
WRONG_USAGE = 2


async def attend(socket: str, options: Sequence[str]) -> int:
    """One stand-in after the other, until SIGTERM or wrong options; the exit code."""
    task = asyncio.current_task()
    assert task is not None
    # The first process of a container is not ended by a signal that it does not handle.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    command = ("countersign", "standin", "desktop", "--connect", f"unix://{socket}", "--patience", PATIENCE, *options)
    while True:
        process = await asyncio.create_subprocess_exec(*command)
        try:
            if await process.wait() == WRONG_USAGE:
                return WRONG_USAGE
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        await asyncio.sleep(PAUSE_S)


def main(argv: Sequence[str]) -> int:
    """Read the arguments, and attend."""
    if not argv:
        sys.stderr.write("desktop.py: the path of a socket is needed, found none\n")
        return WRONG_USAGE
    try:
        return asyncio.run(attend(argv[0], argv[1:]))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
