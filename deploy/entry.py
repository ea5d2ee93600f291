"""What a container starts: it makes ready what a command needs there, and becomes that command.

    entry.py [OPTION ...] -- CMD [ARG ...]

An argument such as @VERIFY_OPTIONS stands for the words in that environment variable: that is how options come from
`docker compose`, whose own substitution makes one word of them, also of none.

Secrets are made here, at each start, in volumes that only live in memory: none is in the image or in the compose file.
"""

import argparse
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Seconds for the containers that start at the same time.
PATIENCE_S = 60.0
POLL_S = 0.1
LEFT_BY_THE_STANDIN = ("auth.json", "ca.pem")
_OPTIONS = re.compile(r"@[A-Z]+_OPTIONS")


class NotReady(Exception):
    """The command cannot be started; the text says why and what to do."""


def main(argv: list[str]) -> int:
    """Does not return if all is well."""
    parser = argparse.ArgumentParser(prog="entry.py", allow_abbrev=False)
    parser.add_argument("--fresh", type=Path, metavar="DIR", help="remove what the stand-in of ChatGPT left there")
    parser.add_argument("--wait-for-port", type=int, metavar="PORT", help="of 127.0.0.1, until somebody listens")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, metavar="SECONDS", help="how long for the port")
    parser.add_argument("--sign-in", type=Path, metavar="FILE", help="an auth.json for a new $CODEX_HOME")
    parser.add_argument("--metrics-token", type=Path, metavar="FILE", help="where to leave a new token for Prometheus")
    parser.add_argument("command", nargs="+", metavar="CMD")
    arguments = parser.parse_args(argv)
    try:
        if arguments.fresh is not None:
            remove_leftovers(arguments.fresh)
        if arguments.wait_for_port is not None:
            wait_for(arguments.wait_for_port, arguments.patience)
        if arguments.sign_in is not None:
            sign_in(arguments.sign_in, os.environ.get("CODEX_HOME", ""))
        if arguments.metrics_token is not None:
            os.environ["COUNTERSIGN_METRICS_TOKEN"] = new_token(arguments.metrics_token)
        command = spelled_out(arguments.command, os.environ)
        os.execvp(command[0], command)
    except NotReady as exc:
        sys.stderr.write(f"entry.py: {exc}\n")
    except OSError as exc:
        what = exc.filename or arguments.command[0]
        sys.stderr.write(f"entry.py: {what!r}: {exc.strerror}; see docs/containers.md\n")
    return 1


def spelled_out(command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The command with the words that its @NAME_OPTIONS stand for.

    Raises:
        NotReady: A quote in them is not closed.
    """
    words: list[str] = []
    for word in command:
        if _OPTIONS.fullmatch(word) is None:
            words.append(word)
            continue
        try:
            words += shlex.split(environ.get(word[1:], ""))
        except ValueError as exc:
            raise NotReady(f"{word[1:]} cannot be split into words: {exc}; quote as in a shell") from exc
    return words


def remove_leftovers(directory: Path) -> None:
    """The stand-in overwrites nothing, and a container that was killed has left its files in the volume."""
    for name in LEFT_BY_THE_STANDIN:
        (directory / name).unlink(missing_ok=True)


def wait_for(port: int, patience_s: float) -> None:
    """Wait until somebody listens on 127.0.0.1.

    Raises:
        NotReady: Nobody did within `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise NotReady(
                f"nobody listens on 127.0.0.1:{port} after {patience_s:g} s; see the logs of the service that should, "
                "and whether both share the network of the service 'loopback'"
            )
        time.sleep(POLL_S)


def sign_in(source: Path, home: str) -> None:
    """Make CODEX_HOME with a copy of `source`, both only for ourselves.

    Raises:
        NotReady: No home is named.
        OSError: One of them cannot be read or written.
    """
    if not home:
        raise NotReady("--sign-in needs CODEX_HOME, and it is not set; name a directory on a tmpfs")
    os.makedirs(home, mode=0o700, exist_ok=True)
    put_private(Path(home) / "auth.json", source.read_bytes())


def new_token(path: Path) -> str:
    """A token that only whoever may read `path` knows.

    Raises:
        OSError: It cannot be written there.
    """
    token = secrets.token_urlsafe(32)
    put_private(path, token.encode())
    return token


def put_private(path: Path, content: bytes) -> None:
    """Replace a file at once, by one that only its owner may read."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    fresh.rename(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
