"""The start of a command that is confined without bubblewrap, from a process that must not confine itself.

Run by file name (`python -I -S stage.py FD`), in a process of its own: reads what to do from a descriptor, confines
itself, and becomes the command. The agent has threads and other commands, so it cannot do this between fork and exec.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sandbox.plan import SandboxPlan


def describe(plan: SandboxPlan, environ: Mapping[str, str]) -> bytes:
    """A plan of the backends seccomp or landlock, for the descriptor.

    Args:
        environ: The command's. Not that of the stage: Python puts LC_CTYPE into its own where there is none (PEP 538).
    """
    import json

    rules = plan.landlock
    return json.dumps(
        {
            "backend": plan.backend.value,
            "argv": plan.argv,
            "cwd": plan.cwd,
            "environ": dict(environ),
            "seccomp": plan.seccomp.hex() if plan.seccomp is not None else None,
            "landlock": None if rules is None else {"writable": rules.writable, "restrict_tcp": rules.restrict_tcp},
        }
    ).encode()


def main(descriptor: int) -> None:
    """Become the command. Exits with 101 if it cannot be confined or executed; it is not run unconfined."""
    import json

    from agent.sandbox.launch import EXEC_FAILED, confine, execute
    from agent.sandbox.plan import Backend, LandlockRules, SandboxPlan, SandboxUnavailable

    with open(descriptor, "rb") as file:
        told = json.load(file)
    rules = told["landlock"]
    plan = SandboxPlan(
        Backend(told["backend"]),
        tuple(told["argv"]),
        told["cwd"],
        seccomp=None if told["seccomp"] is None else bytes.fromhex(told["seccomp"]),
        landlock=None if rules is None else LandlockRules(tuple(rules["writable"]), rules["restrict_tcp"]),
    )
    try:
        confine(plan)
    except SandboxUnavailable as exc:
        sys.stderr.write(f"the sandbox is not available: {exc.reason}\n")
        os._exit(EXEC_FAILED)
    execute(plan.argv, told["environ"])


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    main(int(sys.argv[1]))
