"""A policy on a disk: what has to be mounted over what, once symlinks, missing paths and pointer files are known.

Pure but for the disk that is asked. `policy` knows paths as they are spelled; here they are real paths, and the entries
that narrow a writable place become masks. What cannot be held in place (a symlink that a tool could turn) is refused.
"""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.disk import Kind, Route
from agent.sandbox.frozen import frozen
from agent.sandbox.paths import ancestors, is_under, joined
from agent.sandbox.policy import PROTECTED_NAMES, Access, Policy, PolicyError, Rule, by_depth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.sandbox.disk import Disk


class MaskKind(Choice):
    READ_ONLY = "read-only"  # bound on itself, read-only
    DENIED_DIRECTORY = "denied directory"  # an empty directory that nobody may list
    DENIED_FILE = "denied file"  # something that cannot be opened


@frozen
class Mask:
    """One place that is narrowed.

    Args:
        path: Real, and existing once a placeholder is made.
        because: What wants it, for people.
        placeholder: None if something is there; else what is to be made first, a directory (True) or an empty file.
    """

    path: str
    kind: MaskKind
    because: str
    placeholder: bool | None = None


class Ground:
    """Where a policy's entries really are.

    Attributes:
        rules: The deciding rule of each real path that has one.
        writable: Real, existing paths that are writable, shallow first.
    """

    def __init__(self, policy: Policy, disk: Disk) -> None:
        self.policy = policy
        self._disk = disk
        self.rules: dict[str, Rule] = {}
        self._routes: dict[str, Route] = {}
        for rule in policy.rules.values():
            route = Route(rule.path, disk)
            known = self.rules.get(route.real)
            if known is None or known.access.value < rule.access.value:
                self.rules[route.real] = Rule(route.real, rule.access, rule.entry)
                self._routes[route.real] = route
        self.writable = [path for path in self._ruled(Access.WRITE) if self._routes[path].kind is not None]
        self._writable = frozenset(self.writable)

    def _ruled(self, access: Access) -> list[str]:
        return sorted((path for path, rule in self.rules.items() if rule.access is access), key=by_depth)

    def in_writable(self, path: str) -> bool:
        """Whether a real path is a writable root or below one, masks aside."""
        return any(above in self._writable for above in ancestors(path))

    @property
    def has_writable_root_directory(self) -> bool:
        """Whether the view is the host's whole tree, writable: then /dev is fresh, but /dev/shm in it is the host's."""
        rule = self.rules.get("/")
        return self.policy.unrestricted or (rule is not None and rule.access is Access.WRITE)

    def rule_for(self, path: str) -> Rule | None:
        """The rule that decides about a real path."""
        return next((self.rules[above] for above in ancestors(path) if above in self.rules), None)

    def is_shut(self, path: str) -> bool:
        """Whether a denied directory hides a path: one is nearer above than any writable one."""
        for above in ancestors(path):
            rule = self.rules.get(above)
            if above != path and rule is not None and rule.access is not Access.READ:
                return rule.access is Access.DENY and above != "/"
        return False

    def read_only(self) -> list[Mask]:
        """What stays read-only inside writable roots: read entries, protected names, what a pointer file names.

        Raises:
            PolicyError: One of them is reached by a symlink that a tool could turn elsewhere.
        """
        masks: dict[str, Mask] = {}
        for path in self._ruled(Access.READ):
            if path == "/" or self.is_shut(path):
                continue
            # Also where it leads out of the writable place: it is the link that a tool could turn.
            self._hold(self._routes[path], self._routes[path].spelled, "read-only path")
            if self.in_writable(path):
                mask = self._read_only(self._routes[path], str(self.rules[path].entry))
                if mask is not None:
                    masks.setdefault(mask.path, mask)
        for root in self.writable:
            if self._routes[root].kind is not Kind.DIRECTORY:
                continue
            for name in PROTECTED_NAMES:
                path = joined(root, name)
                if path not in self.rules or self.rules[path].access is Access.READ:
                    if self.is_shut(path):
                        continue
                    mask = self._read_only(Route(path, self._disk), f"{name} is protected in {root!r}", path)
                    if mask is not None:
                        masks[mask.path] = mask
            target = self._git_directory(root)
            if target is not None:
                masks.setdefault(target.path, target)
        return [masks[path] for path in sorted(masks, key=by_depth)]

    def _read_only(self, route: Route, because: str, spelled: str = "") -> Mask | None:
        self._hold(route, spelled or route.real, "read-only path")
        if route.missing is None:
            return Mask(route.real, MaskKind.READ_ONLY, because)
        if self._cannot_be_made(route.missing):
            return None
        parent, _, name = route.missing.rpartition("/")
        return Mask(
            route.missing, MaskKind.READ_ONLY, because, name in PROTECTED_NAMES and (parent or "/") in self._writable
        )

    def _cannot_be_made(self, missing: str) -> bool:
        """Whether no tool could make a path that is not there, so that nothing has to stand in its place."""
        return self._is_fixed(missing[: missing.rindex("/")] or "/")

    def _is_fixed(self, directory: str) -> bool:
        """Whether no tool could make or turn a name in a directory of a writable root.

        Not only it is sealed, but all up to the root, which is a mount point: else it could be moved away as a whole.
        """
        for above in ancestors(directory):
            if not self._disk.is_sealed(above):
                return False
            if above in self._writable:
                return True
        return False

    def _git_directory(self, root: str) -> Mask | None:
        """The directory that a `.git` file points to (worktrees, submodules), if it is in a writable place."""
        pointer = joined(root, ".git")
        rule = self.rules.get(pointer)
        if self._disk.kind(pointer) is not Kind.FILE or (rule is not None and rule.access is not Access.READ):
            return None
        first, _, _ = self._disk.head(pointer).partition("\n")
        key, colon, value = first.strip().partition(":")
        if key != "gitdir" or not colon or not value.strip() or "\0" in value:
            return None
        route = Route(joined(root, value.strip()), self._disk)
        if route.kind is None or not self.in_writable(route.real) or self.is_shut(route.real):
            return None
        explicit = self.rules.get(route.real)
        if explicit is not None and explicit.access is not Access.READ:
            return None
        return self._read_only(route, f"{pointer} points there")

    def denied(self, private_paths: tuple[str, ...] = ()) -> list[Mask]:
        """What may not be read, where anything would show it.

        Args:
            private_paths: Directories that are denied beside what the policy says.

        Raises:
            PolicyError: A symlink that a tool could turn leads there, or a pattern cannot be carried out.
        """
        masks: dict[str, Mask] = {}
        for path in self._ruled(Access.DENY):
            if path == "/" or self.is_shut(path):
                continue
            route, because = self._routes[path], str(self.rules[path].entry)
            self._hold(route, route.spelled, "denied path")
            if route.kind is not None:
                if self.is_visible(path):
                    masks[path] = Mask(path, _denied(route.kind), because)
            elif route.missing is not None and self.in_writable(route.missing):
                if self._cannot_be_made(route.missing):
                    continue
                masks.setdefault(route.missing, Mask(route.missing, MaskKind.DENIED_FILE, because, False))
        for path, because in self._matches():
            if path not in masks and not self._is_hidden(path):
                masks[path] = Mask(path, MaskKind.DENIED_FILE, because)
        for private in private_paths:
            route = Route(private, self._disk)
            if route.kind is not None and not self._is_hidden(route.real):
                masks[route.real] = Mask(route.real, _denied(route.kind), "sockets and keys of the agent are there")
        return [masks[path] for path in sorted(masks, key=by_depth)]

    def _matches(self) -> Iterator[tuple[str, str]]:
        if self.policy.globs:
            # Only then: the module needs `re`.
            from agent.sandbox.globs import expand, search_root

            for glob in self.policy.globs:
                self._hold(Route(search_root(glob.pattern), self._disk), glob.pattern, "deny pattern")
                for path in expand(glob.pattern, self.policy.profile.glob_scan_max_depth, self._disk):
                    yield path, str(glob.entry)

    def _is_hidden(self, path: str) -> bool:
        rule = self.rules.get(path)
        return (rule is not None and rule.access is Access.DENY) or self.is_shut(path) or not self.is_visible(path)

    def is_visible(self, path: str) -> bool:
        """Whether something of the host is seen at a real path, masks aside."""
        if self.policy.unrestricted:
            return True
        fresh = next((mount for mount in ("/dev", "/proc") if is_under(path, mount)), None)
        if self.has_writable_root_directory and is_under(path, "/dev/shm"):
            fresh = None
        for above in ancestors(path):
            if fresh is not None and not is_under(above, fresh):
                return False
            rule = self.rules.get(above)
            if rule is not None and (rule.access is not Access.DENY or above == "/"):
                return rule.access is not Access.DENY
        if not self.policy.minimal:
            return False
        return any(is_under(path, root) for root in MINIMAL_ROOTS)

    def reopened(self, directory: str) -> bool:
        """Whether something writable lies below a denied directory."""
        return any(root != directory and is_under(root, directory) for root in self.writable)

    def _hold(self, route: Route, spelled: str, what: str) -> None:
        """Refuse a path that depends on a symlink in a place where a tool can replace it."""
        for link in route.links:
            directory = link[: link.rindex("/")] or "/"
            if self.in_writable(directory) and not self._is_fixed(directory):
                raise PolicyError(f"cannot enforce sandbox {what} {spelled} because it crosses writable symlink {link}")


def _denied(kind: Kind) -> MaskKind:
    return MaskKind.DENIED_DIRECTORY if kind is Kind.DIRECTORY else MaskKind.DENIED_FILE


# What a `minimal` entry opens for reading, so that ordinary programs start.
MINIMAL_ROOTS = ("/bin", "/sbin", "/usr", "/etc", "/lib", "/lib64", "/nix/store", "/run/current-system/sw")
