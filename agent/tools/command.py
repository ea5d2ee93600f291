"""What the model's command tools take and say. Pure."""

import os
import re
import secrets
from dataclasses import dataclass
from typing import Any

from agent.model.wire import Item, json_of

EXEC, WRITE = "exec_command", "write_stdin"
DEFAULT_YIELD_MS, MOST_YIELD_MS, LEAST_YIELD_MS = 10_000, 30_000, 250
DEFAULT_OUTPUT_TOKENS, MOST_OUTPUT_TOKENS = 10_000, 50_000
# Linux takes no longer argument (MAX_ARG_STRLEN, with the NUL at its end).
MOST_CMD_BYTES = 128 * 1024 - 1
# Observed: a token is counted as four bytes.
_TOKEN_BYTES = 4
DEFAULT_OUTPUT_BYTES = DEFAULT_OUTPUT_TOKENS * _TOKEN_BYTES

_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
_PATHS = {"type": "array", "items": _TEXT}
PERMISSIONS: dict[str, Any] = {
    "type": "object",
    "description": "What should be allowed besides what the sandbox allows.",
    "properties": {
        "file_system": {
            "type": "object",
            "properties": {"read": _PATHS, "write": _PATHS},
            "additionalProperties": False,
        },
        "network": {"type": "object", "properties": {"enabled": _FLAG}, "additionalProperties": False},
    },
    "additionalProperties": False,
}
_SANDBOX_PERMISSIONS = ("use_default", "require_escalated", "with_additional_permissions")


def _described(kind: dict[str, Any], text: str) -> dict[str, Any]:
    return {**kind, "description": text}


_COMMON = {
    "yield_time_ms": _described(_NUMBER, "How long to wait for output before the call returns, in milliseconds."),
    "max_output_tokens": _described(_NUMBER, "How much output to return at most; the middle is left out."),
}
DECLARED: tuple[Item, ...] = (
    {
        "type": "function",
        "name": EXEC,
        "description": "Run a shell command. Returns its output, or a session id if it still runs.",
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": {
                "cmd": _described(_TEXT, "The command, for the shell."),
                "workdir": _described(_TEXT, "Where to run it; the thread's directory by default."),
                "shell": _described(_TEXT, "The shell to use instead of the user's."),
                "login": _described(_FLAG, "Whether the shell reads the user's profile; true by default."),
                "tty": _described(_FLAG, "Whether to run it on a terminal, to talk with it; false by default."),
                **_COMMON,
                "sandbox_permissions": {
                    "type": "string",
                    "enum": list(_SANDBOX_PERMISSIONS[:2]),
                    "description": "require_escalated asks the user to run it outside of the sandbox.",
                },
                "justification": _described(_TEXT, "The question to the user, with require_escalated."),
                "prefix_rule": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "With require_escalated: the first words of commands like this one, to allow later.",
                },
            },
            "required": ["cmd"],
            "additionalProperties": False,
        },
    },
    {
        "type": "function",
        "name": WRITE,
        "description": "Write to a command that still runs, or only wait for more of its output.",
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": {
                "session_id": _described(_NUMBER, "The id that exec_command returned."),
                "chars": _described(_TEXT, "What to write; nothing to wait only."),
                **_COMMON,
            },
            "required": ["session_id"],
            "additionalProperties": False,
        },
    },
)


def declared(additional: bool) -> tuple[Item, ...]:
    """The tools.

    Args:
        additional: Commands may ask for permissions of their own.
    """
    if not additional:
        return DECLARED
    command, write = DECLARED
    parameters = command["parameters"]
    properties = parameters["properties"] | {
        "sandbox_permissions": {
            "type": "string",
            "enum": list(_SANDBOX_PERMISSIONS),
            "description": "with_additional_permissions asks the user for additional_permissions, require_escalated to "
            "run it outside of the sandbox.",
        },
        "additional_permissions": PERMISSIONS,
    }
    return ({**command, "parameters": {**parameters, "properties": properties}}, write)


class BadArguments(ValueError):
    """The arguments of a call cannot be used; the text is for the model."""


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """The arguments of exec_command. `yield_s` in seconds.

    Args:
        additional: Permissions that it should have for itself, as the model says it; None for none.
    """

    cmd: str
    workdir: str | None
    shell: str | None
    login: bool
    tty: bool
    yield_s: float
    output_bytes: int
    escalated: bool
    additional: Any
    justification: str | None
    prefix: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriteStdin:
    """The arguments of write_stdin."""

    session_id: int
    chars: str
    yield_s: float
    output_bytes: int


def arguments(text: str) -> dict[str, Any]:
    """The object that a function's arguments are.

    Raises:
        BadArguments: They are none.
    """
    try:
        found = json_of(text or "{}")
    except (ValueError, RecursionError) as exc:
        raise BadArguments(f"failed to parse function arguments: {exc}") from exc
    if not isinstance(found, dict):
        raise BadArguments("failed to parse function arguments: an object is needed")
    return found


def parse_exec(text: str) -> ExecCommand:
    """Raises BadArguments."""
    given = arguments(text)
    cmd = _of(given, "cmd", str)
    if cmd is None:
        raise BadArguments("failed to parse function arguments: missing field `cmd`")
    if "\0" in cmd:
        raise BadArguments("cmd must not hold a NUL")
    prefix = given.get("prefix_rule") or []
    if not isinstance(prefix, list) or not all(isinstance(word, str) for word in prefix):
        raise BadArguments("prefix_rule must be a list of words")
    permissions = _of(given, "sandbox_permissions", str) or "use_default"
    if permissions not in _SANDBOX_PERMISSIONS:
        known = ", ".join(f"`{name}`" for name in sorted(_SANDBOX_PERMISSIONS))
        text = f"unknown variant `{permissions}`, expected one of {known}"
        raise BadArguments(f"failed to parse function arguments: {text}")
    additional = given.get("additional_permissions")
    if additional is None and permissions == "with_additional_permissions":
        raise BadArguments(
            "missing `additional_permissions`; provide at least one of `network` or `file_system` when using "
            "`with_additional_permissions`"
        )
    if additional is not None and permissions == "require_escalated":
        raise BadArguments(
            "`additional_permissions` requires `sandbox_permissions` set to `with_additional_permissions`"
        )
    login = _of(given, "login", bool)
    return ExecCommand(
        cmd=cmd,
        workdir=_of(given, "workdir", str),
        shell=_of(given, "shell", str),
        login=True if login is None else login,
        tty=bool(_of(given, "tty", bool)),
        yield_s=_yield_s(given),
        output_bytes=_output_bytes(given),
        escalated=permissions == "require_escalated",
        additional=additional,
        justification=_of(given, "justification", str),
        prefix=tuple(prefix),
    )


def parse_write(text: str) -> WriteStdin:
    """Raises BadArguments."""
    given = arguments(text)
    session_id = given.get("session_id")
    if isinstance(session_id, float) and session_id.is_integer():
        session_id = int(session_id)
    if type(session_id) is not int:
        raise BadArguments("failed to parse function arguments: missing field `session_id`")
    return WriteStdin(session_id, _of(given, "chars", str) or "", _yield_s(given), _output_bytes(given))


def _of[Value](given: dict[str, Any], name: str, kind: type[Value]) -> Value | None:
    value = given.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadArguments(f"failed to parse function arguments: {name} must be a {kind.__name__}")
    return value


def _number(given: dict[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value or value < 0:
        raise BadArguments(f"failed to parse function arguments: {name} must be a number, 0 or more")
    return value


def _yield_s(given: dict[str, Any]) -> float:
    wanted = _number(given, "yield_time_ms", DEFAULT_YIELD_MS)
    return min(max(wanted, LEAST_YIELD_MS), MOST_YIELD_MS) / 1000


def _output_bytes(given: dict[str, Any]) -> int:
    return int(min(_number(given, "max_output_tokens", DEFAULT_OUTPUT_TOKENS), MOST_OUTPUT_TOKENS)) * _TOKEN_BYTES


def shell_words(wanted: ExecCommand, shell: str) -> tuple[str, ...]:
    """The command as argv."""
    return (wanted.shell or shell, "-lc" if wanted.login else "-c", wanted.cmd)


def shown(argv: tuple[str, ...]) -> str:
    """The command as clients are shown it, in the quotes of the original (observed)."""
    if any("\0" in word for word in argv):
        return "<command included NUL byte>"
    return " ".join(_quoted(word) for word in argv)


# What may stand without quotes, in single ones and in double ones; the first is taken that reaches farthest.
_BARE, _SINGLE, _DOUBLE = (re.compile(one) for one in (r"[+./:@\]_0-9A-Za-z-]*", r"\^?[^'\\^]*", r"[^`$!^]*"))


def _quoted(word: str) -> str:
    quoted = "" if word else "''"
    at = 0
    while at < len(word):
        reach = [one.match(word, at).end() for one in (_BARE, _SINGLE, _DOUBLE)]  # type: ignore[union-attr]  # all may be empty
        end = max(reach)
        piece, at = word[at:end], end
        match reach.index(end):
            case 0:
                quoted += piece
            case 1:
                quoted += f"'{piece}'"
            case _:
                escaped = re.sub(r'["\\]', r"\\\g<0>", piece)
                quoted += f'"{escaped}"'
    return quoted


def workdir(wanted: str | None, cwd: str) -> str:
    """Where it runs, absolute."""
    return os.path.normpath(os.path.join(cwd, wanted)) if wanted else cwd


def output_text(
    wall_s: float, output: bytes, limit: int, *, exit_code: int | None, session_id: int, dropped: int = 0
) -> str:
    """What the model is told of a command, in the original's form.

    Args:
        exit_code: None if it still runs.
        dropped: Bytes that were not even kept.
    """
    text, cut = shorten(output, limit)
    tokens = -(-(len(output) + dropped) // _TOKEN_BYTES)
    state = f"Process exited with code {exit_code}"
    if exit_code is None:
        state = f"Process running with session ID {session_id}"
    lines = [
        f"Chunk ID: {secrets.token_hex(3)}",
        f"Wall time: {wall_s:.4f} seconds",
        state,
        f"Original token count: {tokens}",
    ]
    if cut or dropped:
        lines.append(f"Left out of the middle: {cut + dropped} bytes")
    return "\n".join([*lines, "Output:", text])


def shorten(output: bytes, limit: int) -> tuple[str, int]:
    """At most so many bytes as text, the beginning and the end; and how many were left out."""
    if len(output) <= limit:
        return output.decode(errors="replace"), 0
    half = limit // 2
    head, tail = output[:half].decode(errors="ignore"), output[len(output) - half :].decode(errors="ignore")
    left_out = len(output) - 2 * half
    return f"{head}\n[... {left_out} bytes left out ...]\n{tail}", left_out
