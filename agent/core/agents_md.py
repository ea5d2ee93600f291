"""AGENTS.md: what the user, and the project that a thread works in, want the model to know.

The user's is `$CODEX_HOME/AGENTS.md`. A project's are those from its root, where one of `project_root_markers` is, down
to the thread's directory, the outermost first; without a root only the directory's own counts. `AGENTS.override.md`
stands for the AGENTS.md beside it, and a name of `project_doc_fallback_filenames` where there is neither. What a
project says is cut off at `project_doc_max_bytes`, all of its files together; a project that the user does not trust
says nothing. All as in the original (observed with 0.169), save that a link out of the project is left out.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.trust import trust_level

MOST_PROJECT_BYTES = 32 * 1024
_MOST_BYTES = 1024 * 1024
_NAMES = ("AGENTS.override.md", "AGENTS.md")
_SEPARATOR = "\n\n--- project-doc ---\n\n"
_ADVICE = (
    "Trim your project instructions to fit the budget. If you need to keep them all, increase `project_doc_max_bytes`."
)


@dataclass(frozen=True, slots=True)
class Instructions:
    """What was found.

    Args:
        user: "" for nothing.
        project: A text for each file.
        sources: The paths of the files.
        warnings: For the client, a sentence or two each.
    """

    user: str
    project: tuple[str, ...]
    sources: tuple[str, ...]
    warnings: tuple[str, ...]

    def told(self, cwd: str) -> str | None:
        """What the model is told; None for nothing."""
        text = _together(self.user, self.project)
        where = f" for {cwd}" if self.project else ""
        return f"# AGENTS.md instructions{where}\n\n<INSTRUCTIONS>\n{text}\n</INSTRUCTIONS>" if text else None


def load(home: Path, cwd: str, config: Mapping[str, Any]) -> Instructions:
    """What counts in a directory; what cannot be read is left out. It reads files.

    Args:
        home: CODEX_HOME.
        cwd: Absolute.
    """
    most = config.get("project_doc_max_bytes", MOST_PROJECT_BYTES)
    most = most if isinstance(most, int) else MOST_PROJECT_BYTES
    user, sources = "", []
    for path in (home / name for name in _NAMES):
        found = _read(path, None, _MOST_BYTES)
        if found is not None and (user := found[0].strip()):
            sources.append(str(path))
            break
    project, warnings = [], []
    left = most
    directories = [] if trust_level(config, cwd) == "untrusted" or most <= 0 else _from_root(Path(cwd), config)
    names = (*_NAMES, *(name for name in _texts(config, "project_doc_fallback_filenames") if "/" not in name))
    for directory in directories:
        path, content, size = _first(directory, directories[0], names, left)
        if left == 0 and size:
            where = f"in environment `local` starting at `{path}`"
            why = f"because the {most}-byte budget was exhausted"
            warnings.append(f"Skipped project instructions {where} {why}. {_ADVICE}")
            break
        if not content.strip():
            continue
        if size > left:
            where = f"from `{path}` in environment `local`"
            budget = f"under the {most}-byte project instruction budget"
            warnings.append(f"Loaded only {left} of {size} bytes {where} {budget}. {_ADVICE}")
        left -= min(size, left)
        project.append(content)
        sources.append(str(path))
    total = len(_together(user, tuple(project)).encode())
    if 0 < most < total:
        limit = f"above the {most}-byte `project_doc_max_bytes` setting"
        why = "The total includes global and thread instructions. The limit applies only to project files."
        warnings.append(f"Combined user instructions use {total} bytes, {limit}. {why}")
    return Instructions(user, tuple(project), tuple(sources), tuple(warnings))


def _together(user: str, project: tuple[str, ...]) -> str:
    return _SEPARATOR.join(text for text in (user, "\n\n".join(project)) if text)


def _texts(config: Mapping[str, Any], name: str) -> list[str]:
    given = config.get(name)
    return [one for one in given if isinstance(one, str) and one.strip()] if isinstance(given, list) else []


def _from_root(cwd: Path, config: Mapping[str, Any]) -> list[Path]:
    """From the root of the project down to the directory."""
    markers = _texts(config, "project_root_markers") if "project_root_markers" in config else [".git"]
    for number, directory in enumerate((cwd, *cwd.parents)):
        if any(os.path.lexists(directory / marker) for marker in markers):
            return [cwd, *cwd.parents][number::-1]
    return [cwd]


def _first(directory: Path, root: Path, names: tuple[str, ...], limit: int) -> tuple[Path, str, int]:
    for path in (directory / name for name in names):
        found = _read(path, root, limit)
        if found is not None:
            return path, *found
    return directory, "", 0


def _read(path: Path, root: Path | None, limit: int) -> tuple[str, int] | None:
    """The beginning of a regular file as text, and the size of the file in bytes; None if there is none.

    Args:
        root: The file must lie below it, symlinks followed: a repository could otherwise have any file of the user be
            sent to the model.
    """
    try:
        real = path.resolve(strict=True)
        if root is not None and not real.is_relative_to(root.resolve()):
            return None
        # Without blocking on a FIFO.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                return None
            return file.read(limit).decode(errors="replace"), about.st_size
    except (OSError, RuntimeError):  # RuntimeError: a loop of symlinks
        return None
