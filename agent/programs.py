"""Why a program that the user named could not be started."""

import os


def why_not_started(program: str, exc: OSError) -> str:
    """What to tell of it: the text of execve does not say whether it or its interpreter is missing."""
    if not isinstance(exc, FileNotFoundError):
        return exc.strerror or type(exc).__name__
    if "/" not in program:
        return "not found on PATH"
    return "the interpreter that it names is not there" if os.path.lexists(program) else "not found"
