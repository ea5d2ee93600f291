"""What is there before any entry narrows or opens it: the whole tree, or an empty one with the readable roots. Pure.

In an empty tree a root that is spelled through symlinks is there under its spelling. So one file of the host may be
seen under several names, and whatever is masked or writable under one must be so under all: `View.places`.
"""

from __future__ import annotations

from agent.sandbox.disk import Route
from agent.sandbox.ground import MINIMAL_ROOTS, Ground
from agent.sandbox.paths import ancestors, is_under
from agent.sandbox.policy import Access, Policy, by_depth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.sandbox.disk import Disk


class View:
    """The base of one sandbox's file system.

    Attributes:
        words: The bubblewrap options that make it.
    """

    def __init__(self, policy: Policy, ground: Ground, disk: Disk) -> None:
        # (the name, what it shows), where these differ.
        self._aliases: list[tuple[str, str]] = []
        # Shown under their own names.
        self._own: set[str] = set(ground.writable)
        # Symlinks of our own making.
        self._links: set[str] = set()
        root = ground.rules.get("/")
        if ground.has_writable_root_directory:
            self.words = ["--bind", "/", "/", "--dev", "/dev", "--bind-try", "/dev/shm", "/dev/shm"]
            self._own.add("/")
        elif root is not None and root.access is not Access.DENY:
            self.words = ["--ro-bind", "/", "/", "--dev", "/dev"]
            self._own.add("/")
        else:
            self.words = ["--tmpfs", "/", "--dev", "/dev"]
            self._show(_roots(policy, ground, disk))

    def _show(self, roots: dict[str, str]) -> None:
        """Bind each root where its name says; a name that is a symlink is one here too, if what it leads to is shown.

        Args:
            roots: The real path of each.
        """
        for path in sorted(path for path, real in roots.items() if path == real):
            self.words += ["--ro-bind", path, path]
            self._own.add(path)
        named = {path: path for path in self._own}
        for path in sorted(roots.keys() - self._own, key=by_depth):
            real = roots[path]
            # Below something that is shown the symlink is there already, and leads to the own name.
            inside = any(above in named for above in ancestors(path))
            if self._shows(real):
                if not inside:
                    self.words += ["--symlink", real, path]
                    named[path] = real
                    self._links.add(path)
            elif inside:
                self.words += ["--ro-bind", real, real]
                self._own.add(real)
                named[real] = real
            else:
                self.words += ["--ro-bind", real, path]
                self._aliases.append((path, real))
                named[path] = real

    def _shows(self, real: str) -> bool:
        return any(above in self._own for above in ancestors(real))

    def places(self, path: str) -> list[str]:
        """Under which names a real path is to be mounted over: its own, and those under which it is seen as well."""
        return [path, *(name + path[len(real) :] for name, real in self._aliases if is_under(path, real))]

    @property
    def names(self) -> set[str]:
        """What is shown, each as it is spelled."""
        return self._own | self._links | {name for name, _ in self._aliases}

    def leads_through(self, path: str) -> bool:
        """Whether a path lies above something that is shown: then a directory is made there, if there is none."""
        return any(is_under(name, path) for name in self.names)

    def seen_at(self, path: str) -> str:
        """A name under which a real path is seen, if it is."""
        return path if self._shows(path) else self.places(path)[-1]


def _roots(policy: Policy, ground: Ground, disk: Disk) -> dict[str, str]:
    """The readable roots that exist, as they are spelled: the real path of each."""
    roots: dict[str, str] = {}
    for path in (*policy.readable_roots(), *(MINIMAL_ROOTS if policy.minimal else ())):
        route = Route(path, disk)
        rule = ground.rules.get(route.real)
        # In a writable place the own name is there with that.
        is_there = route.real == path and ground.in_writable(path)
        if route.kind is not None and not is_there and (rule is None or rule.access is not Access.DENY):
            # Below a denied directory only writing is reopened, and a symlink in one is hidden, too.
            if not any(ground.is_shut(hidden) for hidden in (route.real, *route.links)):
                roots[path] = route.real
    return roots
