"""`countersign`: finds the command, and imports only that one.

The quick paths (app-server up to its first answer, the sandbox) must not pay for what the others need. So this module
imports next to nothing, and does without `typing` and `collections`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

# name -> (module, what it does)
COMMANDS = {
    "app-server": ("agent.commands.app_server", "serve a desktop client over JSON-RPC and run its turns"),
    "exec": ("agent.commands.exec", "run one turn without a client, for scripts and SDKs"),
    "proxy": ("agent.commands.proxy", "run the stamping proxy for an agent of your own"),
    "run": ("agent.commands.run", "run one command behind the proxy and report what was stamped"),
    "verify": (
        "agent.commands.verify",
        "run one command behind the proxy and prove that every scoped request was stamped",
    ),
    "wrap": ("agent.commands.wrap", "stand between a desktop and any app-server, and attest what it sends"),
    "capture": ("agent.commands.capture", "list, show, follow, compare and export what the proxy recorded"),
    "live": ("agent.commands.live", "show the requests of running proxies on a local page"),
    "doctor": ("agent.commands.doctor", "check the route, the trust and the sandbox of this machine"),
    "decode": ("agent.commands.decode", "show what an attestation header is made of"),
    "verify-token": ("agent.commands.verify_token", "ask Apple's DeviceCheck server whether a token is genuine"),
    "standin": ("agent.commands.standin", "run a stand-in of ChatGPT, of a desktop or of Apple's DeviceCheck"),
    "sandbox": ("agent.commands.sandbox", "run a command under a sandbox policy, or explain what one allows"),
    "demo": ("agent.commands.demo", "one attested turn by WebSocket and one by POST, on stand-ins"),
}


# Other names of the same executable, and what it is under each: sandbox helpers are started anew for each command.
PERSONAS = {
    "codex-linux-sandbox": "agent.commands.sandbox_helper",
    "apply_patch": "agent.tools.apply_patch",
    "applypatch": "agent.tools.apply_patch",
}
# The same of one that lives long and needs everything.
LASTING = {"countersign-wrap": "agent.commands.wrap_persona"}
PATCH_FLAG = "--codex-run-as-apply-patch"
# Commands that need nothing but the standard library and us.
BARE = ("sandbox",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is the return value.

    Without `argv` this is the process: under another name it is another program (`PERSONAS`), and a sandboxed command's
    end is its end.
    """
    if argv is not None:
        return _command(list(argv))
    _hold_standard_descriptors()
    try:
        return _flushed(_process(sys.argv[0].rpartition("/")[2], sys.argv[1:]))
    except BrokenPipeError:  # whoever reads what is printed had enough
        return _flushed(141)
    except SystemExit as exc:  # of argparse
        return _flushed(exc.code if isinstance(exc.code, int) else 1)
    except KeyboardInterrupt:
        # Before a command has its own way of stopping: no traceback of what was being imported.
        return 130


def _flushed(code: int) -> int:
    """The exit code, once all that was printed is out; Python itself would end with 120, or lose it without a word."""
    try:
        print(end="", flush=True)
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in its buffer is written again at the very end
        if isinstance(exc, BrokenPipeError):
            return code or 141  # as of a shell whose command SIGPIPE ended
        print(f"countersign: cannot write to stdout: {exc.strerror}", file=sys.stderr)
        return code or 1
    return code


def _process(name: str, arguments: list[str]) -> int:
    persona = PERSONAS.get(name)
    if name in LASTING:
        _find_packages()
        return int(_module(LASTING[name]).main(arguments))
    if persona is not None or arguments[:1] == ["sandbox"]:
        # These make little garbage, and are over before collecting it would pay.
        import gc

        gc.disable()
    if persona is not None:
        _end(_module(persona).main(arguments))
    if arguments[:1] == [PATCH_FLAG]:
        _end(_module("agent.tools.apply_patch").run_as(arguments[1:]))
    if arguments[:2] == ["debug", "landlock"]:
        arguments[:2] = ["sandbox"]
    if arguments[:1] and arguments[0] in BARE:
        _end(_command(arguments))
    return _command(arguments)


def _module(name: str) -> Any:
    """As importlib.import_module, which is one more module."""
    __import__(name)
    return sys.modules[name]


def _hold_standard_descriptors() -> None:
    """Open those that were closed: else the next file would be taken for stdout, and uvloop aborts.

    Python has no stream then, and print() takes None for stdout: what is meant for stderr would go to a desktop.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))


def _end(code: int) -> NoReturn:
    """Exit without taking the interpreter down piece by piece: nothing of these programs is left, and it takes 2 ms."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it is None if it was closed at the start
                stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def _find_packages() -> None:
    """Our launcher leaves out what finds installed packages (4 ms)."""
    if sys.flags.no_site:
        import site

        site.main()


def _command(arguments: list[str]) -> int:
    if arguments[:1] and arguments[0] not in BARE:
        _find_packages()
    overrides: list[str] = []
    # `-c key=value` is accepted before the command too: the official SDK puts it there.
    while arguments and arguments[0].startswith("-"):
        flag = arguments.pop(0)
        name, equals, value = flag.partition("=")
        if flag in ("-c", "--config"):
            if not arguments:
                return _usage(f"{flag} needs KEY=VALUE")
            overrides.append(arguments.pop(0))
        elif name == "--config" and equals:
            overrides.append(value)
        elif flag in ("--enable", "--disable"):
            if not arguments:
                return _usage(f"{flag} needs the name of a feature")
            overrides.append(f"features.{arguments.pop(0)}={'true' if flag == '--enable' else 'false'}")
        elif flag == "--strict-config":
            pass  # the original's; ours is always strict about its own table
        elif flag in ("-h", "--help"):
            print(_help())
            return 0
        elif flag in ("-V", "--version"):
            import importlib.metadata

            print(f"countersign {importlib.metadata.version('countersign')}")
            return 0
        else:
            return _usage(f"unknown option {flag!r}")
    if not arguments:
        return _usage("a command is needed")
    command = arguments.pop(0)
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        return _usage(f"unknown command {command!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    module = _module(COMMANDS[command][0])
    code: int = module.main(arguments, overrides)
    return code


def _usage(problem: str) -> int:
    print(f"countersign: {problem}\n\n{_help()}", file=sys.stderr)
    return 2


def _help() -> str:
    lines = [f"  {name:<14}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: countersign [-c KEY=VALUE]... COMMAND ...",
            "",
            *lines,
            "",
            "  countersign COMMAND --help tells more; --version prints the version",
        ]
    )
