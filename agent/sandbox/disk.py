"""What the plan needs to know of the file system, looked up as it asks. Tests put an imagined disk in its place."""

from __future__ import annotations

import os
import stat

from agent.sandbox.choice import Choice
from agent.sandbox.paths import ancestors, joined
from agent.sandbox.policy import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Disk(Protocol):
        """Facts about paths. Each answer is about the moment it is given."""

        def kind(self, path: str) -> Kind | None:
            """What is at a path, its last component not followed; None if nothing is."""

        def link(self, path: str) -> str | None:
            """Where a symlink points, as it is written; None if nobody of ours may follow it (in /proc)."""

        def head(self, path: str) -> str:
            """The first 8 KiB of a file as text, line ends as they are; empty if it cannot be read."""

        def entries(self, directory: str) -> Iterator[tuple[str, Kind]]:
            """Names and kinds in a directory; nothing where it is none, or shut to a tool as to us.

            Raises:
                OSError: It cannot be listed, but what is in it could be opened.
            """

        def is_barred(self, directory: str) -> bool:
            """Whether we may not look into a directory, or one above it, that is ours: a tool could open it again."""

        def is_sealed(self, directory: str) -> bool:
            """Whether neither we nor a tool with our user id could make a name in a directory."""


class Kind(Choice):
    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    OTHER = "other"


class RealDisk:
    """This machine's file system. Remembers kinds, links and bars, for one plan."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind | None] = {}
        self._links: dict[str, str | None] = {}
        self._barred: dict[str, bool] = {}

    def kind(self, path: str) -> Kind | None:
        if path not in self._kinds:
            self._kinds[path] = self._look(path)
        return self._kinds[path]

    def _look(self, path: str) -> Kind | None:
        try:
            return _kind_of(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # A directory that we may not search hides its names from the tool too, unless it is ours (`is_barred`).
            return None
        except OSError as exc:
            import errno

            if exc.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                return None
            raise PolicyError(f"cannot look at {path!r}, which the policy depends on: {exc.strerror}") from exc

    def link(self, path: str) -> str | None:
        if path not in self._links:
            try:
                self._links[path] = os.readlink(path)
            except PermissionError:
                # The links in /proc of other users' processes. Elsewhere who finds a link may read it.
                self._links[path] = None
            except OSError as exc:
                raise PolicyError(f"the symlink {path!r} changed while we looked: {exc.strerror}; try again") from exc
        return self._links[path]

    def head(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                return file.read(8192)
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
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError:
            if _could_be_opened(directory):
                raise

    def is_barred(self, directory: str) -> bool:
        if directory not in self._barred:
            found = _nearest_seen(directory)
            # A file on the way is no bar: no mode makes it a directory.
            shut = found is not None and os.path.isdir(found[0]) and not _may_pass(found[0])
            self._barred[directory] = shut and found is not None and found[1]
        return self._barred[directory]

    def is_sealed(self, directory: str) -> bool:
        try:
            status = os.stat(directory)
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                return True
            # The owner of a directory can make it writable again, so only somebody else's counts.
            return status.st_uid != os.geteuid() and not os.access(directory, os.W_OK | os.X_OK, effective_ids=True)
        except OSError:
            return False


def _nearest_seen(directory: str) -> tuple[str, bool] | None:
    """The nearest directory, from the given one upwards, that can be asked about, and whether it is ours."""
    for above in ancestors(directory):
        try:
            return above, os.stat(above).st_uid == os.geteuid()
        except PermissionError:
            continue
        except OSError:
            return None
    return None


def _could_be_opened(directory: str) -> bool:
    """Whether a tool could get at what is in a directory that cannot be listed: by its mode, or by a chmod of ours."""
    found = _nearest_seen(directory)
    return found is None or found[1] or _may_pass(found[0])


def _may_pass(directory: str) -> bool:
    return os.access(directory, os.X_OK, effective_ids=True)


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
            if kind is Kind.SYMLINK:
                self.links.append(step)
                # A loop leads nowhere.
                target = disk.link(step) if len(self.links) <= _MAX_LINKS else None
                if target is not None:
                    if target.startswith("/"):
                        here = "/"
                    rest += [piece for piece in target.split("/") if piece][::-1]
                    continue
                kind = None
            if kind is None and self.missing is None:
                self.missing = step
            self.kind = kind
            here = step
        self.real = here


# As many as Linux follows in one path before it calls it a loop.
_MAX_LINKS = 40
