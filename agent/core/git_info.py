"""What a thread says of the git repository it works in.

The files below `.git` are read, and git is not run: a repository can name programs for git to start, and git would have
to be waited for. Includes, `insteadOf` and the reftable format are not followed.
"""

import os
import re
import stat
from pathlib import Path

# A HEAD, a ref or a config is small; packed refs may be many. What lies behind the bound is not seen.
_MOST_BYTES = 1024 * 1024
_MOST_PACKED_BYTES = 64 * 1024 * 1024
# A ref may name another one; git itself follows five.
_MOST_LINKS = 5

_REF = re.compile(r"ref: (refs/[^\x00-\x20~^:?*\[\\]+)")
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SECTION = re.compile(r'\[\s*([\w.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]')
_VALUE = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*(.*)")
# Credentials in a URL; the name of an account without a password is part of the address of an ssh server.
_CREDENTIALS = re.compile(r"^(https?://)[^/@]*@|^([a-z][a-z0-9+.-]*://[^/@:]*):[^/@]*(?=@)")


def git_info(cwd: str) -> dict[str, str | None] | None:
    """The commit, the branch and the origin of the repository that a directory lies in. It reads files.

    Returns:
        `{"sha", "branch", "originUrl"}` as clients see it, null where there is none; None without a repository, without
        a commit, and where its files cannot be read.
    """
    directory = _git_directory(Path(cwd))
    if directory is None:
        return None
    shared = directory
    if (named := _text(directory / "commondir")) is not None:  # of a worktree
        shared = directory / named.strip()
    head = _text(directory / "HEAD") or ""
    sha = _commit(head, directory, shared)
    if sha is None:
        return None
    ref = _REF.match(head)
    branch = ref[1].removeprefix("refs/heads/") if ref is not None else None
    return {"sha": sha, "branch": branch, "originUrl": _origin(_text(shared / "config") or "")}


def _git_directory(cwd: Path) -> Path | None:
    for directory in (cwd, *cwd.parents):
        found = directory / ".git"
        try:
            mode = found.stat().st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            return found
        named = _text(found) or ""  # of a worktree or a submodule
        return directory / named.removeprefix("gitdir:").strip() if named.startswith("gitdir:") else None
    return None


def _commit(head: str, directory: Path, shared: Path) -> str | None:
    """What a HEAD, or a ref, names in the end."""
    for _ in range(_MOST_LINKS):
        ref = _REF.match(head)
        if ref is None:
            sha = _SHA.match(head)
            return sha[0] if sha is not None else None
        name = ref[1]
        if ".." in name:
            return None
        loose = _text(directory / name) or _text(shared / name)
        if loose is None:
            packed = _text(shared / "packed-refs", _MOST_PACKED_BYTES) or ""
            line = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(name)}$", packed, re.MULTILINE)
            return line[1] if line is not None else None
        head = loose
    return None


def _origin(config: str) -> str | None:
    section: tuple[str, str | None] | None = None
    url: str | None = None
    for line in config.splitlines():
        if (opened := _SECTION.match(line.lstrip())) is not None:
            section = opened[1].lower(), opened[2]
        elif (
            section == ("remote", "origin") and (value := _VALUE.match(line)) is not None and value[1].lower() == "url"
        ):
            url = url or _plain(value[2])
    return None if url is None else _CREDENTIALS.sub(r"\1\2", url)


def _plain(value: str) -> str:
    """A value of git's configuration without quotes and comments."""
    if (quoted := re.match(r'"((?:[^"\\]|\\.)*)"', value)) is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1])
    return re.split(r"\s*[#;]", value, maxsplit=1)[0].strip()


def _text(path: Path, most: int = _MOST_BYTES) -> str | None:
    """The beginning of a regular file; None if there is none. Without waiting at a FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read(most).decode(errors="replace")
    except (OSError, ValueError):  # ValueError: a NUL in a path
        return None
