"""What the plan needs to know of the file system, looked up as it asks. Tests put an imagined disk in its place."""

from __future__ import annotations

import os
import stat

from agent.sandbox.choice import Choice
from agent.sandbox.paths import joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Disk(Protocol):
        """Facts about paths. Each answer is about the moment it is given."""

        def kind(self, path: str) -> Kind | None:
            """What is at a path, its last component not followed; None if nothing is."""

        def link(self, path: str) -> str:
            """Where a symlink points, as it is written."""

        def head(self, path: str) -> str:
            """The first 4 KiB of a file as text; empty if it cannot be read."""

        def entries(self, directory: str) -> Iterator[tuple[str, Kind]]:
            """Names and kinds in a directory; nothing where it cannot be listed."""

        def is_sealed(self, directory: str) -> bool:
            """Whether neither we nor a tool with our user id could make a name in a directory."""


class Kind(Choice):
    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    OTHER = "other"


class RealDisk:
    """This machine's file system. Remembers kinds, for one plan."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind | None] = {}

    def kind(self, path: str) -> Kind | None:
        if path not in self._kinds:
            self._kinds[path] = self._look(path)
        return self._kinds[path]

    def _look(self, path: str) -> Kind | None:
        try:
            return _kind_of(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # A directory that we may not search hides its names from the tool too: it has our user id.
            return None
        except OSError as exc:
            import errno

            if exc.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                return None
            raise

    def link(self, path: str) -> str:
        return os.readlink(path)

    def head(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return file.read(4096)
        except OSError:
            return ""

    def entries(self, directory: str) -> Iterator[tuple[str, Kind]]:
        try:
            with os.scandir(directory) as found:
                for entry in found:
                    if entry.is_symlink():
                        yield entry.name, Kind.SYMLINK
                    elif entry.is_dir(follow_symlinks=False):
                        yield entry.name, Kind.DIRECTORY
                    else:
                        yield entry.name, Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.OTHER
        except OSError:
            return

    def is_sealed(self, directory: str) -> bool:
        try:
            status = os.stat(directory)
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                return True
            # The owner of a directory can make it writable again, so only somebody else's counts.
            return status.st_uid != os.geteuid() and not os.access(directory, os.W_OK | os.X_OK, effective_ids=True)
        except OSError:
            return False


def _kind_of(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    if stat.S_ISLNK(mode):
        return Kind.SYMLINK
    return Kind.FILE if stat.S_ISREG(mode) else Kind.OTHER


class Route:
    """Where a path leads on a disk, component by component.

    Attributes:
        spelled: The path as it was given.
        real: The path without symlinks; of what is missing, the rest as spelled.
        kind: What is there; None if something on the way is missing.
        missing: The first component that does not exist, as a path; None if all exist.
        links: The symlinks followed, each as the real path of the link itself.
    """

    def __init__(self, path: str, disk: Disk) -> None:
        self.spelled = path
        self.missing: str | None = None
        self.links: list[str] = []
        self.kind: Kind | None = Kind.DIRECTORY
        here, rest = "/", [part for part in path.split("/") if part][::-1]
        while rest:
            part = rest.pop()
            if part == ".":
                continue
            if part == "..":
                if self.kind is not Kind.DIRECTORY:
                    # Not even that is there: a file has no "..".
                    self.kind, self.missing = None, self.missing or joined(here, part)
                here = here[: here.rindex("/")] or "/"
                continue
            step = joined(here, part)
            kind = disk.kind(step) if self.kind is Kind.DIRECTORY else None
            if kind is Kind.SYMLINK and len(self.links) < _MAX_LINKS:
                self.links.append(step)
                target = disk.link(step)
                if target.startswith("/"):
                    here = "/"
                rest += [piece for piece in target.split("/") if piece][::-1]
                continue
            if kind is None and self.missing is None:
                self.missing = step
            self.kind = kind
            here = step
        self.real = here


# As many as Linux follows in one path before it calls it a loop.
_MAX_LINKS = 40
