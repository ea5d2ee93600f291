"""Whether the user trusts a directory (`[projects."PATH"] trust_level`). It looks for the repository's root."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def trust_level(config: Mapping[str, Any], cwd: str) -> str | None:
    """What the user says of the directory, or of the repository that it is in: "trusted", "untrusted" or None."""
    projects = config.get("projects")
    if not isinstance(projects, dict):
        return None
    directory = Path(cwd)
    root = next((one for one in (directory, *directory.parents) if os.path.lexists(one / ".git")), directory)
    for one in (str(directory), str(root)):
        told = projects.get(one)
        level = told.get("trust_level") if isinstance(told, dict) else None
        if level in ("trusted", "untrusted"):
            return str(level)
    return None
