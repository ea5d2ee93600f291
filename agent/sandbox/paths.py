"""Paths as text: normalised absolute strings, with `/` as the only separator. Nothing here looks at a disk."""

from __future__ import annotations

import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

METACHARACTERS = "*?[]"


def is_glob(text: str) -> bool:
    """Whether configuration takes a path for a pattern (`globs` says what one means)."""
    return any(character in text for character in METACHARACTERS)


def normal(path: str) -> str:
    """An absolute path without `.`, `..`, empty components and trailing slash."""
    # POSIX lets two leading slashes mean something else, and normpath keeps them; Linux does not.
    return posixpath.normpath("/" + path.lstrip("/"))


def joined(directory: str, path: str) -> str:
    """`path` as seen from `directory`; an absolute one stays as it is. Nothing is normalised."""
    if path.startswith("/"):
        return path
    return directory + path if directory.endswith("/") else f"{directory}/{path}"


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
