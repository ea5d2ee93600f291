"""The parameters of `command/exec` and its like. Pure."""

from typing import Any

from agent.rpc.file_methods import absolute_path
from agent.rpc.shapes import (
    anything,
    flag,
    integer,
    list_of,
    one_of,
    optional,
    size,
    struct,
    table,
    tagged,
    text,
    whole,
)


def _environment(value: Any) -> dict[str, str | None]:
    return {name: optional(text)(one) for name, one in table(value).items()}


_CELLS = integer(0, 2**16, "u16")
_SIZE = struct("struct CommandExecTerminalSize", 2, {"rows": _CELLS, "cols": _CELLS}, ("rows", "cols"))
_POLICY = tagged(
    {
        "dangerFullAccess": {},
        "readOnly": {"networkAccess": flag},
        "externalSandbox": {"networkAccess": one_of("restricted", "enabled")},
        "workspaceWrite": {
            "writableRoots": list_of(absolute_path),
            "networkAccess": flag,
            "excludeTmpdirEnvVar": flag,
            "excludeSlashTmp": flag,
        },
    },
    {},
    "SandboxPolicyDeserialize",
)
EXEC = struct(
    "struct CommandExecParams",
    15,
    {
        "command": list_of(text),
        "processId": optional(text),
        "tty": flag,
        "streamStdin": flag,
        "streamStdoutStderr": flag,
        "outputBytesCap": optional(size),
        "disableOutputCap": flag,
        "disableTimeout": flag,
        "timeoutMs": optional(whole),
        "cwd": optional(text),
        "env": optional(_environment),
        "size": optional(_SIZE),
        "sandboxPolicy": optional(_POLICY),
        "permissionProfile": anything,
    },
    ("command",),
)
WRITE = struct(
    "struct CommandExecWriteParams",
    3,
    {"processId": text, "deltaBase64": optional(text), "closeStdin": flag},
    ("processId",),
)
TERMINATE = struct("struct CommandExecTerminateParams", 1, {"processId": text}, ("processId",))
RESIZE = struct("struct CommandExecResizeParams", 2, {"processId": text, "size": _SIZE}, ("processId", "size"))
