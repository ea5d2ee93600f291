"""Deny patterns: what they mean, and which files they match now.

Pure but for the disk that is asked. `*` and `?` stay within a component, `**` spans components, `[...]` is a class
(`!` or `^` negates), `{a,b}` are alternatives; a `[` without its `]` is a letter. Matches are files, never directories.
"""

from __future__ import annotations

import re

from agent.sandbox.disk import Kind, Route
from agent.sandbox.paths import is_under, joined, normal
from agent.sandbox.policy import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.sandbox.disk import Disk

METACHARACTERS = "*?["
# Above this the mounts would not fit into one launch, and the walk would have cost seconds.
MAX_MATCHES = 8192


def is_glob(text: str) -> bool:
    """Whether configuration takes a path for a pattern."""
    return any(character in text for character in METACHARACTERS)


def search_root(pattern: str) -> str:
    """The fixed directory that an absolute pattern starts in.

    Raises:
        PolicyError: There is none below `/`, or no metacharacter: such a pattern would mean a walk over the whole disk,
            or is a path that was meant as one.
    """
    first = min((pattern.index(mark) for mark in METACHARACTERS if mark in pattern), default=None)
    root = normal(pattern[: pattern.rindex("/", 0, first)]) if first is not None else "/"
    if root == "/":
        raise PolicyError(
            f"unreadable glob `{pattern}` cannot be safely expanded; use a pattern with a non-root directory prefix"
            + ("" if first is not None else ", or a plain path entry: it has no wildcard")
        )
    return root


def expand(pattern: str, max_depth: int | None, disk: Disk) -> list[str]:
    """The files that an absolute pattern matches, sorted.

    Args:
        max_depth: Levels below the fixed directory; 1 is its own files. None for all.

    Raises:
        PolicyError: The pattern has no fixed directory, or matches more than MAX_MATCHES files.
    """
    root = search_root(pattern)
    # Symlinks before the fixed directory's end are followed once; those below are not.
    real = Route(root, disk).real
    matches = re.compile(to_regex(pattern[len(_as_spelled(pattern, root)) :].lstrip("/")), re.DOTALL).fullmatch
    found: list[str] = []
    pending = [("", 1)]
    while pending:
        below, depth = pending.pop()
        for name, kind in disk.entries(joined(real, below) if below else real):
            path = f"{below}/{name}" if below else name
            if kind is Kind.DIRECTORY:
                if max_depth is None or depth < max_depth:
                    pending.append((path, depth + 1))
            elif kind is not Kind.SYMLINK and matches(path):
                found.append(joined(real, path))
                if len(found) > MAX_MATCHES:
                    raise PolicyError(
                        f"deny pattern {pattern!r} matches more than {MAX_MATCHES} files; deny their directory "
                        "instead, or narrow the pattern or glob_scan_max_depth"
                    )
    return sorted(found)


def _as_spelled(pattern: str, root: str) -> str:
    """The part of the pattern that normalises to its search root, with double slashes and dots as they stand."""
    end = len(root)
    while not is_under(normal(pattern[:end] or "/"), root) or (end < len(pattern) and pattern[end] != "/"):
        end += 1
    return pattern[:end]


def to_regex(pattern: str) -> str:
    """A regular expression for the whole of a path relative to where the pattern starts."""
    out, at, depth = [], 0, 0
    while at < len(pattern):
        mark = pattern[at]
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        at += 1
        if mark == "*":
            out.append("[^/]*")
        elif mark == "?":
            out.append("[^/]")
        elif mark == "[" and (end := _class_end(pattern, at)) is not None:
            out.append(_class(pattern[at:end]))
            at = end + 1
        elif mark == "{" and "}" in pattern[at:]:
            out.append("(?:")
            depth += 1
        elif mark == "}" and depth:
            out.append(")")
            depth -= 1
        elif mark == "," and depth:
            out.append("|")
        elif mark == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(mark))
    return "".join(out) + ")" * depth


def _class_end(pattern: str, at: int) -> int | None:
    """The index of the `]` that closes a class whose content starts at `at`; the first character is never it."""
    start = at + 1 if pattern[at : at + 1] in ("!", "^") else at
    end = pattern.find("]", start + 1)
    return end if end > start else None


def _class(content: str) -> str:
    negated = content[0] in "!^"
    # A class never matches the separator, as in a shell.
    body = (content[1:] if negated else content).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    body = body.replace("^", "\\^").replace("&", "\\&").replace("~", "\\~").replace("|", "\\|")
    return f"(?!/)[{'^' if negated else ''}{body}]"
