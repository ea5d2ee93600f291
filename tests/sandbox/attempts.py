"""Attempts: plain functions of a test file, carried out by a process that a tool could be, and what came of them.

The function's source is sent, with that of the functions and constants it uses, to the system's own Python. So it can
be read beside its test, needs nothing of ours where it runs, and must be plain Python 3.11.
"""

import dis
import enum
import inspect
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
DEADLINE_S = 30.0

_TELL = """
def _tell(function, arguments):
    import errno, json, os, sys
    try:
        told = ("OK", function(*arguments))
    except OSError as exc:
        told = (errno.errorcode.get(exc.errno, str(exc)), None)
    sys.stdout.flush()
    os.write(1, (json.dumps(told) + "\\n").encode())
"""


@dataclass(frozen=True)
class Told:
    """What came of an attempt.

    Attributes:
        outcome: "OK", the name of the errno it ended with, the name of the signal it died of, or NOT_RUN.
        value: What the function returned.
    """

    outcome: str
    value: Any
    code: int
    stdout: str
    stderr: str


NOT_RUN = "not run"


def attempt(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """The command that makes an attempt. Arguments may be paths and functions, too."""
    modules: dict[str, None] = {}
    sources: dict[str, str] = {}
    for sent in (function, *(argument for argument in arguments if isinstance(argument, types.FunctionType))):
        _collect(sent, modules, sources)
    imports = [f"import {name}" for name in modules]
    call = f"_tell({function.__name__}, ({''.join(f'{_written(argument)}, ' for argument in arguments)}))"
    program = "\n".join([*imports, *sources.values(), _TELL, call])
    return [PYTHON, "-I", "-S", "-E", "-c", program]


def _written(argument: Any) -> str:
    if isinstance(argument, types.FunctionType):
        return argument.__name__
    if isinstance(argument, enum.IntEnum):
        return repr(int(argument))
    return repr(str(argument) if isinstance(argument, Path) else argument)


def _collect(function: Callable[..., Any], modules: dict[str, None], sources: dict[str, str]) -> None:
    if function.__name__ in sources:
        return
    sources[function.__name__] = inspect.getsource(function)
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for name in (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"):
            used = function.__globals__.get(name)
            if isinstance(used, types.ModuleType):
                modules[used.__name__] = None
            elif isinstance(used, types.FunctionType):
                _collect(used, modules, sources)
            elif isinstance(used, int | str | bytes | tuple | dict) and name not in sources:
                sources[name] = f"{name} = {used!r}"


def carry_out(command: Sequence[str], *, timeout_s: float = DEADLINE_S, **how: Any) -> Told:
    """Run a command that makes an attempt, and hear what came of it."""
    finished = subprocess.run(command, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL, **how)
    return heard(finished.returncode, finished.stdout, finished.stderr)


def heard(code: int, stdout: bytes, stderr: bytes) -> Told:
    """What an attempt's process said at its end.

    Raises:
        AssertionError: The attempt failed with something else than an OSError: the test is wrong.
    """
    said, complained = stdout.decode(errors="replace"), stderr.decode(errors="replace")
    assert "Traceback (most recent call last)" not in complained, complained
    last = said.splitlines()[-1] if said else ""
    if code == 0 and last.startswith("["):
        outcome, value = json.loads(last)
        return Told(outcome, value, code, said, complained)
    killed_by = -code if code < 0 else code - 128
    outcome = signal.Signals(killed_by).name if killed_by in set(signal.Signals) else NOT_RUN
    return Told(outcome, None, code, said, complained)


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This environment with changes; None takes a variable away."""
    held = dict(os.environ)
    for name, value in (changes or {}).items():
        held.pop(name, None)
        if value is not None:
            held[name] = value
    return held
