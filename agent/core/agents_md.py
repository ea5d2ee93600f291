"""AGENTS.md: what the user, and the project that a thread works in, want the model to know.

The user's is `$CODEX_HOME/AGENTS.md`. A project's are those from the root of its repository down to the thread's
directory, the outermost first; without a repository only the directory's own counts. `AGENTS.override.md` stands for
the AGENTS.md beside it. What a project says is cut off at 32 KiB, all of its files together, as in the original.
"""

import os
import stat
from pathlib import Path

MOST_PROJECT_BYTES = 32 * 1024
_MOST_BYTES = 1024 * 1024
_NAMES = ("AGENTS.override.md", "AGENTS.md")


def load(home: Path, cwd: str) -> list[str]:
    """The texts, in the order in which the model reads them; what cannot be read is left out. It reads files.

    Args:
        home: CODEX_HOME.
        cwd: Absolute.
    """
    return [text for _, text in _found(home, cwd)]


def sources(home: Path, cwd: str) -> list[str]:
    """The paths of the files that `load` would take the texts from."""
    return [str(path) for path, _ in _found(home, cwd)]


def _found(home: Path, cwd: str) -> list[tuple[Path, str]]:
    files = [_first(home, None, _MOST_BYTES)]
    left = MOST_PROJECT_BYTES
    directories = _from_root(Path(cwd))
    for directory in directories:
        path, text = _first(directory, directories[0], left)
        left -= len(text.encode())
        files.append((path, text))
    return [(path, text) for path, text in files if text.strip()]


def _from_root(cwd: Path) -> list[Path]:
    """From the root of the repository down to the directory."""
    for number, directory in enumerate((cwd, *cwd.parents)):
        if os.path.lexists(directory / ".git"):
            return [cwd, *cwd.parents][number::-1]
    return [cwd]


def _first(directory: Path, root: Path | None, limit: int) -> tuple[Path, str]:
    for path in (directory / name for name in _NAMES):
        content = _read(path, root, limit)
        if content is not None:
            return path, content
    return directory, ""


def _read(path: Path, root: Path | None, limit: int) -> str | None:
    """The beginning of a regular file as text; None if there is none.

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
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read(max(limit, 0)).decode(errors="ignore")
    except (OSError, RuntimeError):  # RuntimeError: a loop of symlinks
        return None
