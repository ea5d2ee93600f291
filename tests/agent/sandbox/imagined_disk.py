"""A disk that exists only in a test: what a planner asks of the file system, answered from a table."""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.sandbox.disk import Kind
from agent.sandbox.paths import is_under


@dataclass(frozen=True)
class Link:
    """A symlink, as it is written."""

    target: str


@dataclass(frozen=True)
class File:
    text: str = ""


DIRECTORY = Kind.DIRECTORY


class ImaginedDisk:
    """What is at each path: DIRECTORY, a File or a Link. The directories above are there by themselves.

    Args:
        sealed: Directories in which nobody of ours can make a name.
        barred: Directories of ours that we may not look into.
        ignores_case: Names are found in any letter case, as on most Macs.
    """

    def __init__(
        self,
        contents: Mapping[str, Kind | File | Link],
        *,
        sealed: frozenset[str] = frozenset({"/"}),
        barred: frozenset[str] = frozenset(),
        ignores_case: bool = False,
    ) -> None:
        self._sealed = sealed
        self._barred = barred
        self._key = str.casefold if ignores_case else str
        self._at: dict[str, tuple[str, Kind | File | Link]] = {}
        for path, what in {"/": DIRECTORY, **contents}.items():
            self._at[self._key(path)] = (path, what)
            while path != "/":
                path = path[: path.rindex("/")] or "/"
                self._at.setdefault(self._key(path), (path, DIRECTORY))

    def kind(self, path: str) -> Kind | None:
        if any(is_under(path, directory) and path != directory for directory in self._barred):
            return None
        _, what = self._at.get(self._key(path), ("", None))
        if isinstance(what, Link):
            return Kind.SYMLINK
        return Kind.FILE if isinstance(what, File) else what

    def link(self, path: str) -> str:
        _, what = self._at[self._key(path)]
        assert isinstance(what, Link), path
        return what.target

    def head(self, path: str) -> str:
        _, what = self._at.get(self._key(path), ("", None))
        return what.text[:8192] if isinstance(what, File) else ""

    def entries(self, directory: str) -> Iterator[tuple[str, Kind]]:
        if self.is_barred(directory):
            raise PermissionError(errno.EACCES, "Permission denied", directory)
        for path, _ in self._at.values():
            above, _, name = path.rpartition("/")
            if name and self._key(above or "/") == self._key(directory):
                kind = self.kind(path)
                assert kind is not None
                yield name, kind

    def is_barred(self, directory: str) -> bool:
        return any(is_under(directory, barred) for barred in self._barred)

    def is_sealed(self, directory: str) -> bool:
        return directory in self._sealed
