"""What a permission profile says, resolved for one place: which path may be read or written, and by which entry.

Pure. A profile is what configuration or JSON says (`profile_json`, `profile_toml`, `legacy`); `resolve` turns it into a
`Policy` of absolute paths, which answers questions. The rules are those observed in codex 0.169 (facts/sandbox.md 1-3).
"""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.sandbox.paths import ancestors, as_pattern, is_under, joined, normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Names that stay read-only at the top of each writable root, also while they do not exist: what they hold is executed
# or trusted by programs outside the sandbox (hooks, configuration, credentials).
PROTECTED_NAMES = (".git", ".agents", ".codex", ".aws")


class PolicyError(ValueError):
    """A policy that cannot be used; the text names the key, the value and the rule."""


class Access(Choice):
    """In the order in which equally specific entries win."""

    READ = 1
    WRITE = 2
    DENY = 3

    @property
    def word(self) -> str:
        """As configuration spells it."""
        return self.name.lower()


class Network(Choice):
    RESTRICTED = "restricted"
    ENABLED = "enabled"


class ProfileKind(Choice):
    """Who confines: we do (managed), nobody does (disabled), something around us does (external)."""

    MANAGED = "managed"
    DISABLED = "disabled"
    EXTERNAL = "external"


@frozen
class PathTarget:
    """An absolute path, normalised."""

    path: str

    def __str__(self) -> str:
        return self.path


@frozen
class GlobTarget:
    """A pattern; a relative one belongs to each project root. Only `deny` gives it a meaning."""

    pattern: str

    def __str__(self) -> str:
        return self.pattern


@frozen
class SpecialTarget:
    """A place known by its role.

    Args:
        kind: root, minimal, project_roots, tmpdir, slash_tmp or unknown.
        subpath: Below a project root; relative.
        path: Of an unknown kind: what it was called. Kept, and ignored.
    """

    kind: str
    subpath: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        name = self.path if self.kind == "unknown" else f":{self.kind}"
        return f"{name}/{self.subpath}" if self.subpath else str(name)


SPECIAL_KINDS = ("root", "minimal", "project_roots", "tmpdir", "slash_tmp", "unknown")

type Target = PathTarget | GlobTarget | SpecialTarget


@frozen
class Entry:
    """One line of a profile.

    Args:
        skip_missing: The entry is there for a path that may not exist (the protected names of a legacy policy).
    """

    target: Target
    access: Access
    skip_missing: bool = False

    def __str__(self) -> str:
        return f"{self.access.word} {self.target}"


@frozen
class Profile:
    """A permission profile, before its places are known.

    Args:
        unrestricted: The whole file system may be written; `entries` is then empty.
        glob_scan_max_depth: Levels below a pattern's fixed part that are searched for matches; None for all.
    """

    kind: ProfileKind
    network: Network
    unrestricted: bool = False
    entries: tuple[Entry, ...] = ()
    glob_scan_max_depth: int | None = None


DISABLED = Profile(ProfileKind.DISABLED, Network.ENABLED, unrestricted=True)


@frozen
class Places:
    """Where the special targets are.

    Args:
        cwd: The policy's directory. Absolute.
        project_roots: What `project_roots` and relative patterns belong to. Absolute; `(cwd,)` where no workspace roots
            are configured.
        tmpdir: $TMPDIR, absolute; None if unset or empty.
        slash_tmp: Whether /tmp is a directory.
    """

    cwd: str
    project_roots: tuple[str, ...]
    tmpdir: str | None
    slash_tmp: bool


@frozen
class Rule:
    """An entry at its absolute path."""

    path: str
    access: Access
    entry: Entry


@frozen
class DenyGlob:
    """A deny pattern, made absolute."""

    pattern: str
    entry: Entry


class Policy:
    """A profile at its place: answers what may be done with a path, by the text of the path alone.

    An entry applies to its path and to everything below; the longest path wins, and between entries for one path deny
    beats write beats read. Where no entry applies, access is denied.

    Attributes:
        rules: The deciding rule of each path that has one, by path.
        globs: Deny patterns.
        minimal: Reads of the system's own directories are granted by a `minimal` entry.
    """

    def __init__(self, profile: Profile, places: Places) -> None:
        self.profile = profile
        self.places = places
        self.network = profile.network
        self.unrestricted = profile.unrestricted
        self.minimal = False
        self.rules: dict[str, Rule] = {}
        self.globs: list[DenyGlob] = []
        for entry in profile.entries:
            target = entry.target
            if isinstance(target, GlobTarget):
                # As observed: a pattern that grants is ignored at run time; only configuration refuses it.
                if entry.access is Access.DENY:
                    absolute = dict.fromkeys(joined(as_pattern(root), target.pattern) for root in places.project_roots)
                    self.globs += [DenyGlob(pattern, entry) for pattern in absolute]
                continue
            if isinstance(target, SpecialTarget) and target.kind == "minimal":
                self.minimal = self.minimal or entry.access is not Access.DENY
            for path in _paths(target, places):
                known = self.rules.get(path)
                if known is None or known.access.value < entry.access.value:
                    self.rules[path] = Rule(path, entry.access, entry)
        # A literal `/` opens the whole tree, but only the `root` entry lifts the confinement of writes (as observed).
        self._root_entry_writes = any(
            entry.access is Access.WRITE and isinstance(entry.target, SpecialTarget) and entry.target.kind == "root"
            for entry in profile.entries
        )

    def _access_at(self, path: str) -> Access | None:
        rule = self.rules.get(path)
        return rule.access if rule is not None else None

    def rule_for(self, path: str) -> Rule | None:
        """The rule that decides about a normalised absolute path; None where none applies."""
        for candidate in ancestors(path):
            rule = self.rules.get(candidate)
            if rule is not None:
                return rule
        return None

    def can_read(self, path: str) -> bool:
        """By the entries alone; deny patterns are a matter of what exists (`bubblewrap`)."""
        if self.unrestricted:
            return True
        rule = self.rule_for(path)
        return rule is not None and rule.access is not Access.DENY

    def can_write(self, path: str) -> bool:
        """By the entries and the protected names; pointer files of git are a matter of what exists."""
        if self.unrestricted or self.has_full_disk_write:
            return True
        rule = self.rule_for(path)
        if rule is None or rule.access is not Access.WRITE:
            return False
        return self.protection_of(path) is None

    def protection_of(self, path: str) -> str | None:
        """The protected path that keeps a path read-only inside a writable root, e.g. `/src/app/.git`; None if none."""
        for root in ancestors(path):
            if self._access_at(root) is not Access.WRITE:
                continue
            for name in PROTECTED_NAMES:
                protected = joined(root, name)
                if is_under(path, protected) and not self._writes_at_or_below(protected, path):
                    return protected
        return None

    def _writes_at_or_below(self, protected: str, path: str) -> bool:
        return any(
            self._access_at(candidate) is Access.WRITE
            for candidate in ancestors(path)
            if is_under(candidate, protected)
        )

    @property
    def has_full_disk_write(self) -> bool:
        """Everything may be written: nothing to enforce in the file system."""
        if self.unrestricted:
            return True
        return self._root_entry_writes and not any(self._narrows(entry) for entry in self.profile.entries)

    def _narrows(self, entry: Entry) -> bool:
        """Whether an entry takes from a writable `/`: by what it says, as observed, and not by what is there."""
        target = entry.target
        if entry.access is Access.WRITE:
            return False
        if isinstance(target, SpecialTarget) and target.kind in ("root", "minimal", "unknown"):
            return target.kind == "root" and entry.access is Access.DENY
        if isinstance(target, GlobTarget) or entry.access is Access.DENY:
            return True
        return not any(one.access is Access.WRITE and _is_same(one.target, target) for one in self.profile.entries)

    @property
    def has_full_disk_read(self) -> bool:
        """Everything may be read: no deny entry anywhere, and the root readable."""
        if self.unrestricted:
            return True
        denies = any(rule.access is Access.DENY for rule in self.rules.values())
        return "/" in self.rules and not denies and not self.globs

    @property
    def needs_sandbox(self) -> bool:
        """Something is to be enforced: the network, or part of the file system."""
        if self.profile.kind is ProfileKind.DISABLED:
            return False
        return self.network is Network.RESTRICTED or not self.has_full_disk_write

    def writable_roots(self) -> list[str]:
        """The paths whose own rule grants writing, shallow first; as spelled, existing or not."""
        return self._roots(Access.WRITE)

    def readable_roots(self) -> list[str]:
        """The paths whose own rule grants reading, writable ones not among them; sorted."""
        return self._roots(Access.READ)

    def denied_roots(self) -> list[str]:
        """The paths whose own rule denies, `/` excepted; shallow first."""
        return [path for path in self._roots(Access.DENY) if path != "/"]

    def _roots(self, access: Access) -> list[str]:
        return sorted((path for path, rule in self.rules.items() if rule.access is access), key=by_depth)


def by_depth(path: str) -> tuple[int, str]:
    """Sort key: fewer components first, then by name."""
    return (0 if path == "/" else path.count("/"), path)


def resolve(profile: Profile, places: Places) -> Policy:
    """The profile at its place."""
    return Policy(profile, places)


def _is_same(one: Target, other: Target) -> bool:
    return one == other or {one, other} in _SAME


def _paths(target: PathTarget | SpecialTarget, places: Places) -> Iterator[str]:
    if isinstance(target, PathTarget):
        yield target.path
    elif target.kind == "root":
        yield "/"
    elif target.kind == "project_roots":
        for root in places.project_roots:
            yield normal(joined(root, target.subpath)) if target.subpath else root
    elif target.kind == "tmpdir" and places.tmpdir is not None:
        yield places.tmpdir
    elif target.kind == "slash_tmp" and places.slash_tmp:
        yield "/tmp"


_SAME = ({PathTarget("/"), SpecialTarget("root")}, {PathTarget("/tmp"), SpecialTarget("slash_tmp")})
