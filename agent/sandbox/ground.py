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
    from collections.abc import Iterable, Iterator

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
        matched: A pattern found it, below a directory that is held instead of the way to each match.
    """

    path: str
    kind: MaskKind
    because: str
    placeholder: bool | None = None
    matched: bool = False


class Ground:
    """Where a policy's entries really are.

    Args:
        own_proc: The command's /proc is a fresh one.

    Attributes:
        rules: The deciding rule of each real path that has one.
        writable: Real, existing paths that are writable, shallow first.

    Raises:
        PolicyError: A tool could turn a symlink on the way to a writable root, and so choose what it may write next.
    """

    def __init__(self, policy: Policy, disk: Disk, own_proc: bool = True) -> None:
        self.policy = policy
        self._disk = disk
        self._fresh = ("/dev", "/proc") if own_proc else ("/dev",)
        self._minimal = [Route(root, disk).real for root in MINIMAL_ROOTS] if policy.minimal else []
        # The fixed directories of the patterns that match something.
        self._searched: set[str] = set()
        self.rules: dict[str, Rule] = {}
        self._routes: dict[str, Route] = {}
        granted: list[Route] = []
        for rule in policy.rules.values():
            route = Route(rule.path, disk)
            if rule.access is Access.WRITE:
                granted.append(route)
            known = self.rules.get(route.real)
            if known is None or known.access.value < rule.access.value:
                self.rules[route.real] = Rule(route.real, rule.access, rule.entry)
                self._routes[route.real] = route
        self.writable = [path for path in self._ruled(Access.WRITE) if self._routes[path].kind is not None]
        for path in self.writable:
            if path == "/sys" or ("/proc" in self._fresh and is_under(path, "/proc")):
                raise PolicyError(f"'{self.rules[path].entry}' cannot be granted: {path} is the kernel's; take it out")
        self._writable = frozenset(self.writable)
        for route in granted if not policy.has_full_disk_write else ():
            self._hold(route, route.spelled, "writable root")
            if route.missing is not None and self.in_writable(route.missing):
                self._refuse_barred(route.missing, route.spelled, "writable root")

    def _ruled(self, access: Access) -> list[str]:
        return sorted((path for path, rule in self.rules.items() if rule.access is access), key=by_depth)

    def left_out(self) -> list[Rule]:
        """What would be writable if it were there."""
        return [self.rules[path] for path in self._ruled(Access.WRITE) if path not in self._writable]

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
            PolicyError: One of them is reached by a symlink that a tool could turn elsewhere, or cannot be looked at.
        """
        masks: dict[str, Mask] = {}
        if self.policy.has_full_disk_write:
            # As observed: not even the protected names in `/`.
            return []
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
            for target in self._git_directories(root):
                masks.setdefault(target.path, target)
        return [masks[path] for path in sorted(masks, key=by_depth)]

    def _read_only(self, route: Route, because: str, spelled: str = "") -> Mask | None:
        self._hold(route, spelled or route.real, "read-only path")
        if route.missing is None:
            return Mask(route.real, MaskKind.READ_ONLY, because)
        if self._cannot_be_made(route.missing):
            return None
        self._refuse_barred(route.missing, spelled or route.real, "read-only path")
        self._refuse_below_file(route.missing, because)
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

    def _git_directories(self, root: str) -> Iterator[Mask]:
        """What a `.git` file points to (worktrees, submodules), if it is in a writable place.

        Also where an entry opens the file itself: as observed, only one for the directory lifts its protection.
        """
        pointer = joined(root, ".git")
        if self._disk.kind(pointer) is not Kind.FILE:
            return
        for target in _pointed_to(self._disk.head(pointer)):
            route = Route(joined(root, target), self._disk)
            # Also where it leads out of the writable place, or nowhere: git follows what a tool makes of it.
            self._hold(route, route.spelled, "read-only path")
            if route.missing is not None and self.in_writable(route.missing):
                self._refuse_barred(route.missing, route.spelled, "read-only path")
            if route.kind is None or not self.in_writable(route.real) or self.is_shut(route.real):
                continue
            explicit = self.rules.get(route.real)
            if explicit is None or explicit.access is Access.READ:
                mask = self._read_only(route, f"{pointer} points there")
                if mask is not None:
                    yield mask

    def denied(self, private_paths: tuple[str, ...] = ()) -> list[Mask]:
        """What may not be read, where anything would show it.

        Args:
            private_paths: Directories that are denied beside what the policy says.

        Raises:
            PolicyError: A symlink that a tool could turn leads there, a pattern cannot be carried out, what is denied
                cannot be looked at, or the policy opens something private.
        """
        masks: dict[str, Mask] = {}
        for path in self._ruled(Access.DENY):
            if path == "/" or self.is_shut(path):
                continue
            route, because = self._routes[path], str(self.rules[path].entry)
            self._refuse_process(route, because)
            self._hold(route, route.spelled, "denied path")
            if route.kind is not None:
                for name in {route.spelled} & _DEVICES:
                    # Where the host has a symlink, the fresh /dev may have the thing itself.
                    masks[name] = Mask(name, _denied(route.kind), because)
                if self.is_shown(path):
                    masks[path] = Mask(path, _denied(route.kind), because)
            elif route.missing is not None and self.in_writable(route.missing):
                if self._cannot_be_made(route.missing):
                    continue
                self._refuse_barred(route.missing, route.spelled, "denied path")
                self._refuse_below_file(route.missing, because)
                masks.setdefault(route.missing, Mask(route.missing, MaskKind.DENIED_FILE, because, False))
        for path, because in self._matches():
            if path not in masks and not self._is_hidden(path):
                masks[path] = Mask(path, MaskKind.DENIED_FILE, because, matched=True)
        for route in self.private(private_paths):
            if route.kind is not None and not self._is_hidden(route.real):
                masks[route.real] = Mask(route.real, _denied(route.kind), "sockets and keys of the agent are there")
        return [masks[path] for path in sorted(masks, key=by_depth)]

    def private(self, paths: Iterable[str]) -> list[Route]:
        """The ways to directories of ours, which no policy opens.

        Raises:
            PolicyError: One is a symlink, or is reached by one that a tool could turn; or an entry opens one.
        """
        routes = [Route(path, self._disk) for path in paths]
        for route in routes:
            if route.links:
                above, _, name = route.spelled.rpartition("/")
                if joined(Route(above or "/", self._disk).real, name) in route.links:
                    raise PolicyError(
                        f"{route.spelled} is kept for sockets and keys of the agent, and somebody made it a symlink; "
                        "remove it"
                    )
                self._hold(route, route.spelled, "private path")
            if route.missing is not None and self.in_writable(route.missing):
                self._refuse_barred(route.missing, route.spelled, "private path")
        kept = {route.real for route in routes}
        for path, rule in self.rules.items():
            for above in ancestors(path) if rule.access is not Access.DENY else ():
                if above in kept:
                    raise PolicyError(
                        f"'{rule.entry}' opens {path}, and in {above} are sockets and keys of the agent, which no tool "
                        "may reach; take the entry out"
                    )
        return routes

    def _matches(self) -> Iterator[tuple[str, str]]:
        if self.policy.globs:
            # Only then: the module needs `re`.
            from agent.sandbox.globs import expand, search_root

            for glob in self.policy.globs:
                start = Route(search_root(glob.pattern), self._disk)
                if any(is_under(start.real, mount) for mount in self._fresh if mount == "/proc"):
                    raise PolicyError(
                        f"deny pattern {glob.pattern!r} is about /proc, and the command has its own, with other "
                        "processes; deny paths in it, or the whole"
                    )
                self._hold(start, glob.pattern, "deny pattern")
                for path in expand(glob.pattern, self.policy.profile.glob_scan_max_depth, self._disk):
                    self._searched.add(start.real)
                    yield path, str(glob.entry)

    def held_in_place(self, masks: Iterable[Mask]) -> list[str]:
        """The directories inside writable roots that lead to what is masked, or writable by an entry of its own.

        A mount holds its own place only: a tool could move the directory above, and make another in its stead. A mount
        point cannot be moved. Of what patterns match only the fixed directory is held: matches can be thousands.

        Args:
            masks: All of them, as `read_only` and `denied` said.
        """
        masks = list(masks)
        narrowed = {*(set(self._fresh) - self._writable), *(mask.path for mask in masks)}
        shared_memory = ("/dev/shm",) if self.has_writable_root_directory else ()
        mounted = {*self._writable, *shared_memory, *narrowed}
        # What is searched is itself held, and so what would be below it stands for it.
        ways = [*self.writable, *(mask.path for mask in masks if not mask.matched)]
        ways += [joined(directory, "*") for directory in self._searched]
        held: set[str] = set()
        for path in ways:
            way: list[str] = []
            for above in ancestors(path):
                if above == path:
                    continue
                if above in mounted:
                    held.update(way if above not in narrowed else ())
                    break
                way.append(above)
        return sorted(held, key=by_depth)

    def _is_hidden(self, path: str) -> bool:
        rule = self.rules.get(path)
        return (rule is not None and rule.access is Access.DENY) or self.is_shut(path) or not self.is_shown(path)

    def is_shown(self, path: str) -> bool:
        """Whether something is seen at a real path that exists here: of the host, or a fresh one of the same name."""
        own_proc = "/proc" in self._fresh and is_under(path, "/proc") and not _is_of_process(path)
        return own_proc or path in _DEVICES or self.is_visible(path)

    def _refuse_process(self, route: Route, because: str) -> None:
        """Refuse what is denied of one process: in a /proc of its own the command finds itself under other numbers."""
        if "/proc" in self._fresh and _is_of_process(route.real):
            raise PolicyError(
                f"'{because}' is about {route.real}, a process, and the command has its own /proc, with others; deny "
                "/proc as a whole, or take the entry out"
            )

    def is_visible(self, path: str) -> bool:
        """Whether something of the host is seen at a real path, masks aside."""
        if self.policy.unrestricted:
            return True
        fresh = next((mount for mount in self._fresh if is_under(path, mount)), None)
        if self.has_writable_root_directory and is_under(path, "/dev/shm"):
            fresh = None
        for above in ancestors(path):
            if fresh is not None and not is_under(above, fresh):
                return False
            rule = self.rules.get(above)
            if rule is not None and rule.access is not Access.DENY:
                return True
        return any(is_under(path, root) for root in self._minimal)

    def reopened(self, directory: str) -> bool:
        """Whether something writable lies below a denied directory."""
        return any(root != directory and is_under(root, directory) for root in self.writable)

    def _hold(self, route: Route, spelled: str, what: str) -> None:
        """Refuse a path that depends on a symlink in a place where a tool can replace it."""
        for link in route.links:
            directory = link[: link.rindex("/")] or "/"
            if self.in_writable(directory) and not self._is_fixed(directory):
                raise PolicyError(f"cannot enforce sandbox {what} {spelled} because it crosses writable symlink {link}")

    def _refuse_barred(self, missing: str, spelled: str, what: str) -> None:
        """Refuse what seems to be missing where we cannot look: a tool could have shut it, and open it again."""
        directory = missing[: missing.rindex("/")] or "/"
        if self._disk.is_barred(directory):
            raise PolicyError(
                f"cannot enforce sandbox {what} {spelled} because {directory} cannot be looked into; it is yours: "
                "make it searchable again (chmod u+x)"
            )

    def _refuse_below_file(self, missing: str, because: str) -> None:
        directory = missing[: missing.rindex("/")] or "/"
        if self._disk.kind(directory) is not Kind.DIRECTORY:
            raise PolicyError(f"'{because}' cannot be held: {directory} is a file; name that, or take the entry out")


def _pointed_to(text: str) -> list[str]:
    """What a `.git` file names: as the original reads it, without blanks around, by its first line; and as git does."""
    targets = []
    key, colon, value = text.strip().partition("\n")[0].partition(":")
    if key.strip() == "gitdir" and colon and "\0" not in value:
        targets.append(value.strip())
    if text.startswith("gitdir: "):
        # read_gitfile_gently: the whole file, less the line ends after it, as a C string.
        targets.append(text.removeprefix("gitdir: ").rstrip("\r\n").partition("\0")[0])
    return list(filter(None, dict.fromkeys(targets)))


def _is_of_process(path: str) -> bool:
    return path.startswith("/proc/") and path.split("/")[2].isdecimal()


def _denied(kind: Kind) -> MaskKind:
    return MaskKind.DENIED_DIRECTORY if kind is Kind.DIRECTORY else MaskKind.DENIED_FILE


# What a `minimal` entry opens for reading, so that ordinary programs start.
MINIMAL_ROOTS = ("/bin", "/sbin", "/usr", "/etc", "/lib", "/lib64", "/nix/store", "/run/current-system/sw")

# What bubblewrap puts into a fresh /dev (setup_newroot in bubblewrap.c), less its links into /proc.
_DEVICES = frozenset(
    ["/dev", "/dev/pts/ptmx"]
    + [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "pts", "ptmx", "shm")]
)
