"""`countersign-wrap`: the name to give a desktop as its codex, where it can be told a program and no arguments.

All arguments are codex's. What serves a desktop on stdin and stdout runs under `countersign wrap`; everything else,
such as `--version` and `login`, is codex itself, and nothing of us is left.
"""

import enum
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

NAME = "countersign-wrap"
# The program to wrap: a path, or a name on PATH. No setting of the proxy, and not for the child.
VARIABLE = "COUNTERSIGN_WRAP"

# Options of codex that take the next argument, before and behind its command (codex-cli 0.163 and 0.169).
_WITH_VALUE = frozenset(
    {
        *("-c", "--config", "--enable", "--disable", "--remote", "--remote-auth-token-env", "-i", "--image"),
        *("-m", "--model", "--local-provider", "-p", "--profile", "-s", "--sandbox", "-C", "--cd", "--add-dir"),
        *("-a", "--ask-for-approval", "--code-mode-host", "--listen"),
        *("--ws-auth", "--ws-token-file", "--ws-token-sha256", "--ws-shared-secret-file", "--ws-issuer"),
        *("--ws-audience", "--ws-max-clock-skew-seconds"),
    }
)
# What `codex app-server` does besides serving.
_TOOLS = frozenset({"daemon", "proxy", "generate-ts", "generate-json-schema", "generate-internal-json-schema", "help"})
_ANSWERS_AND_ENDS = frozenset({"-h", "--help", "-V", "--version"})
_STDIO = "stdio://"


class Invocation(enum.Enum):
    """What a codex with certain arguments does."""

    SERVES_STDIO = enum.auto()
    SERVES_ELSEWHERE = enum.auto()  # on a socket, where no desktop can be heard between the two
    OTHER = enum.auto()


def invocation(arguments: Sequence[str]) -> Invocation:
    """What `codex ARGUMENTS` does. What is not known of them is taken for a part of an app-server on stdio."""
    words: list[str] = []
    listen = _STDIO
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--":
            words += rest
        elif argument in _ANSWERS_AND_ENDS:
            return Invocation.OTHER
        elif name == "--listen":
            listen = value if equals else next(rest, _STDIO)
        elif argument == "--stdio":
            listen = _STDIO
        elif argument in _WITH_VALUE:
            next(rest, None)
        elif not argument.startswith("-"):
            words.append(argument)
    if words[:1] != ["app-server"] or _TOOLS.intersection(words[1:2]):
        return Invocation.OTHER
    return Invocation.SERVES_STDIO if listen == _STDIO else Invocation.SERVES_ELSEWHERE


def main(argv: Sequence[str]) -> int:
    """Be the wrapped program, or wrap it; the exit code is its."""
    program = os.environ.pop(VARIABLE, "")
    if not program:
        return _fail(f"{VARIABLE} is not set; set it to the codex to wrap, such as /usr/local/bin/codex", 2)
    if os.path.basename(program) == NAME:
        return _fail(f"{VARIABLE} is {program!r}, which is this program; set it to the codex to wrap", 2)
    kind = invocation(argv)
    if kind is not Invocation.SERVES_STDIO:
        if kind is Invocation.SERVES_ELSEWHERE:
            _tell("this app-server listens on a socket, where its desktop cannot be asked: it runs unattested")
        return _become(program, argv)
    if sys.flags.no_site:
        # Our launcher leaves out what finds installed packages, which the other personas do without.
        import site

        site.main()
    import gc

    from agent.commands import wrap

    gc.enable()  # off where this is started as a persona; a desktop's session is long
    return wrap.main(["--", program, *argv], [])


def _become(program: str, arguments: Sequence[str]) -> int:
    """Put the program into the place of this process; returns only if it cannot be run."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and an exec would hand on
    try:
        _execute(program, arguments)
    except FileNotFoundError:
        return _fail(f"{VARIABLE}: cannot run {program!r}: not found; set it to the path of codex", 127)
    except OSError as exc:
        return _fail(f"{VARIABLE}: cannot run {program!r}: {exc.strerror}; set it to the path of codex", 126)


def _execute(program: str, arguments: Sequence[str]) -> NoReturn:
    os.execvp(program, [program, *arguments])


def _fail(text: str, code: int) -> int:
    _tell(text)
    return code


def _tell(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr)
