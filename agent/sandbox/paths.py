"""Paths as text: normalised absolute strings, with `/` as the only separator. Nothing here looks at a disk."""

from __future__ import annotations

import os
import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

METACHARACTERS = "*?[]"
# What else does not stand for itself in a pattern.
_SIGNS = METACHARACTERS + "{}\\"


def is_glob(text: str) -> bool:
    """Whether configuration takes a path for a pattern (`globs` says what one means)."""
    return any(character in text for character in METACHARACTERS)


def flaw(text: str) -> str | None:
    """What in a text no path can have, in words; None if nothing."""
    if "\0" in text:
        return "a NUL character"
    try:
        os.fsencode(text)
    except UnicodeEncodeError as exc:
        return f"{text[exc.start]!r}, which this system's file names cannot hold"
    return None


def normal(path: str) -> str:
    """An absolute path without `.`, `..`, empty components and trailing slash."""
    # POSIX lets two leading slashes mean something else, and normpath keeps them; Linux does not.
    return posixpath.normpath("/" + path.lstrip("/"))


def joined(directory: str, path: str) -> str:
    """`path` as seen from `directory`; an absolute one stays as it is. Nothing is normalised."""
    if path.startswith("/"):
        return path
    return directory + path if directory.endswith("/") else f"{directory}/{path}"


def as_pattern(path: str) -> str:
    """The pattern that means just this path."""
    return "".join(f"\\{mark}" if mark in _SIGNS else mark for mark in path)


def split_pattern(pattern: str) -> tuple[str, str]:
    """The fixed directory that an absolute pattern starts in, as a path, and the rest; no rest if it is no pattern.

    ("/src/**/*.env") -> ("/src", "**/*.env"); a sign with a backslash before it is a letter.
    """
    parts = pattern.split("/")
    fixed: list[str] = []
    for part in parts:
        letters = _letters(part)
        if letters is None:
            break
        fixed.append(letters)
    return "/".join(fixed) or "/", "/".join(parts[len(fixed) :])


def _letters(part: str) -> str | None:
    """A component of a pattern that stands for itself, without its backslashes; None if it does not."""
    letters, at = "", 0
    while at < len(part):
        if part[at] == "\\":
            at += 1
            if at == len(part):
                return None
        elif part[at] in _SIGNS:
            return None
        letters += part[at]
        at += 1
    return letters


def is_under(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or below it."""
    return path == directory or directory == "/" or path.startswith(directory + "/")


def ancestors(path: str) -> Iterator[str]:
    """The path itself, then each directory above it up to `/`."""
    while path != "/":
        yield path
        path = path[: path.rindex("/")] or "/"
    yield "/"


def levels(top: str, bottom: str) -> list[str]:
    """The directories below `top` that lead to `bottom`, `bottom` included: ("/a", "/a/b/c") -> ["/a/b", "/a/b/c"]."""
    return [path for path in ancestors(bottom) if path != top and is_under(path, top)][::-1]
