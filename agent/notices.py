"""What clients are told without having asked."""

import os
import socket
from pathlib import Path
from typing import Any


def no_remote_control(installation_id: str) -> dict[str, Any]:
    """The params of `remoteControl/status/changed`, which the original tells each client first."""
    return {
        "status": "disabled",
        "serverName": socket.gethostname(),
        "installationId": installation_id,
        "environmentId": None,
    }


def sandbox_warnings() -> tuple[str, ...]:
    """What will keep commands from being sandboxed; it may start bubblewrap to see."""
    from agent.sandbox.discovery import startup_warnings

    try:
        version = Path("/proc/version").read_text(errors="replace")
        return startup_warnings(os.environ, os.getcwd(), version)
    except OSError as exc:
        return (f"Whether commands can be sandboxed is not known: {exc}",)


def config_warning(details: str, path: str | None, position: tuple[int, int] | None) -> dict[str, Any]:
    """The params of the original's notification; lines and columns count from 1."""
    warning: dict[str, Any] = {"summary": "Invalid configuration; using defaults.", "details": details}
    if path is not None:
        warning["path"] = path
    if position is not None:
        place = {"line": position[0], "column": position[1]}
        warning["range"] = {"start": place, "end": place}
    return warning
