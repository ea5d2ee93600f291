"""Permission profiles for tests, as JSON has them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

type Entry = dict[str, Any]
type Profile = dict[str, Any]

FULL_ACCESS: Profile = {"type": "disabled"}


def special(kind: str, access: str, subpath: str | None = None) -> Entry:
    value = {"kind": kind} if subpath is None else {"kind": kind, "subpath": subpath}
    return {"path": {"type": "special", "value": value}, "access": access}


def entry(path: str | Path, access: str) -> Entry:
    return {"path": {"type": "path", "path": str(path)}, "access": access}


def read(path: str | Path) -> Entry:
    return entry(path, "read")


def write(path: str | Path) -> Entry:
    return entry(path, "write")


def deny(path: str | Path) -> Entry:
    return entry(path, "deny")


def deny_matching(pattern: str) -> Entry:
    return {"path": {"type": "glob_pattern", "pattern": pattern}, "access": "deny"}


READ_ALL = special("root", "read")
MINIMAL = special("minimal", "read")
WRITE_PROJECT = special("project_roots", "write")
WRITE_TMP = special("slash_tmp", "write")
WRITE_TMPDIR = special("tmpdir", "write")


def restricted(entries: Iterable[Entry], network: bool = False, depth: int | None = None) -> Profile:
    """A managed profile with these entries."""
    files: dict[str, Any] = {"type": "restricted", "entries": list(entries)}
    if depth is not None:
        files["glob_scan_max_depth"] = depth
    return {"type": "managed", "file_system": files, "network": "enabled" if network else "restricted"}


def unrestricted(network: bool = False) -> Profile:
    """A managed profile that holds back nothing but, unless granted, the network."""
    network_word = "enabled" if network else "restricted"
    return {"type": "managed", "file_system": {"type": "unrestricted"}, "network": network_word}


def workspace(*more: Entry, network: bool = False) -> Profile:
    """Read everything, write the project, and what `more` adds or takes away."""
    return restricted((READ_ALL, WRITE_PROJECT, *more), network)
