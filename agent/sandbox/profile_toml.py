"""Permission profiles and the legacy sandbox policy as configuration (TOML) says them.

Pure: takes what tomllib parsed. The rules were tried out on codex 0.169, with the profile it hands to its helper; where
it ignores something in silence, here is a warning. Members that neither knows are ignored, so that a newer
configuration can be read.
"""

from __future__ import annotations

from agent.sandbox.frozen import frozen
from agent.sandbox.legacy import READ_ONLY, LegacyPolicy, Mode, to_profile
from agent.sandbox.paths import is_glob, joined, normal
from agent.sandbox.policy import (
    DISABLED,
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    PolicyError,
    Profile,
    ProfileKind,
    SpecialTarget,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agent.sandbox.policy import Target

_MODES = {mode.value: mode for mode in (Mode.READ_ONLY, Mode.WORKSPACE_WRITE, Mode.DANGER_FULL_ACCESS)}
_LEGACY_FLAGS = ("network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp")

_BUILT_IN = {
    ":read-only": READ_ONLY,
    ":workspace": to_profile(LegacyPolicy(Mode.WORKSPACE_WRITE)),
    ":danger-full-access": DISABLED,
}
# As a parent a built-in is a table like any other, so that single keys of it can be overridden. As observed, it has no
# entries for the protected names; `Policy.protection_of` protects them.
_BUILT_IN_PARENTS: dict[str, dict[str, Any]] = {
    ":read-only": {"filesystem": {":root": "read"}},
    ":workspace": {
        "filesystem": {
            ":root": "read",
            ":workspace_roots": {".": "write"},
            ":slash_tmp": "write",
            ":tmpdir": "write",
        }
    },
}
_ACCESS = {"read": Access.READ, "write": Access.WRITE, "deny": Access.DENY, "none": Access.DENY}
# `:project_roots` is the older name, and a key of its own when tables are merged.
_PLACES = {
    ":root": "root",
    ":minimal": "minimal",
    ":workspace_roots": "project_roots",
    ":project_roots": "project_roots",
    ":tmpdir": "tmpdir",
    ":slash_tmp": "slash_tmp",
}
_MEMBERS = ("description", "extends", "workspace_roots", "filesystem", "network")
_DEPTH = "glob_scan_max_depth"


@frozen
class NamedProfile:
    """A profile of configuration.

    Args:
        workspace_roots: For `Places.project_roots`: the policy's directory, then those that the profile adds.
        warnings: What is odd about it, a sentence each.
    """

    profile: Profile
    workspace_roots: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def legacy_policy(config: dict[str, Any], home: str, base: str) -> LegacyPolicy | None:
    """The policy of `sandbox_mode` and `[sandbox_workspace_write]`; None if no mode is given.

    The table counts only in the mode workspace-write, but has to be right in any.

    Args:
        home: For roots that begin with `~`; absolute.
        base: What relative roots belong to; absolute. The directory of config.toml for a list from there, the working
            directory for one given with `-c`, as in the original.

    Raises:
        PolicyError: Names the key, its value and the rule.
    """
    key = "sandbox_workspace_write"
    table = _table(config.get(key, {}), key)
    roots = table.get("writable_roots", [])
    if not isinstance(roots, list):
        raise PolicyError(f"{key}.writable_roots is {roots!r}; it is a list of paths")
    writable = tuple(_path(root, f"{key}.writable_roots[{i}]", home, base) for i, root in enumerate(roots))
    network, no_tmpdir, no_slash_tmp = (_flag(table.get(name, False), f"{key}.{name}") for name in _LEGACY_FLAGS)
    mode = config.get("sandbox_mode")
    if mode is None:
        return None
    if not isinstance(mode, str) or mode not in _MODES:
        raise PolicyError(f"sandbox_mode is {mode!r}; it is one of {', '.join(_MODES)}")
    if mode == Mode.WORKSPACE_WRITE.value:
        return LegacyPolicy(Mode.WORKSPACE_WRITE, writable, network, no_tmpdir, no_slash_tmp)
    return LegacyPolicy(_MODES[mode], network_access=mode == Mode.DANGER_FULL_ACCESS.value)


def default_profile(config: dict[str, Any]) -> str | None:
    """The name in `default_permissions`; None if there is none.

    Raises:
        PolicyError: It is no string; or there are profiles and nothing says whether one of them is meant.
    """
    name = config.get("default_permissions")
    if name is None:
        if _profiles(config) and config.get("sandbox_mode") is None:
            raise PolicyError(
                "default_permissions is missing, and [permissions] defines profiles; name the one to use, "
                "e.g. default_permissions = ':workspace'"
            )
        return None
    if not isinstance(name, str):
        raise PolicyError(f"default_permissions is {name!r}; it is the name of a profile")
    return name


def named_profile(name: str, config: dict[str, Any], home: str, cwd: str) -> NamedProfile:
    """A built-in profile, or `[permissions.NAME]` with what it extends.

    A table is laid over its parent's key by key, tables within it likewise; a key counts as it is spelled, so that `/a`
    and `/a/` are two. `[sandbox_workspace_write]` does not change `:workspace`, as observed.

    Args:
        home: For paths that begin with `~`; absolute.
        cwd: The policy's directory; absolute.

    Raises:
        PolicyError: Names the key, its value and the rule.
    """
    profiles = _profiles(config)
    if name in _BUILT_IN:
        return NamedProfile(_BUILT_IN[name], (normal(cwd),))
    if name.startswith(":"):
        raise PolicyError(f"{name!r} is no built-in permission profile; these are {', '.join(_BUILT_IN)}")
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise PolicyError(f"the permission profile {name!r} is not defined in [permissions] (defined: {known})")
    return _Compiler(_chain(name, profiles), home, normal(cwd)).compile()


def _profiles(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables under `permissions`, their shapes checked: also those of profiles that are not asked for."""
    profiles = _table(config.get("permissions", {}), "permissions")
    for name, profile in profiles.items():
        key = _key("permissions", name)
        if name.startswith(":"):
            raise PolicyError(f"{key} begins with ':', which is kept for built-in profiles; give it another name")
        _check_shape(_table(profile, key), key)
    return profiles


def _check_shape(profile: dict[str, Any], key: str) -> None:
    for member in ("description", "extends"):
        if not isinstance(profile.get(member, ""), str):
            raise PolicyError(f"{key}.{member} is {profile[member]!r}; it is a string")
    for root, enabled in _table(profile.get("workspace_roots", {}), f"{key}.workspace_roots").items():
        _flag(enabled, _key(f"{key}.workspace_roots", root))
    network = _table(profile.get("network", {}), f"{key}.network")
    _flag(network.get("enabled", False), f"{key}.network.enabled")
    for path, value in _table(profile.get("filesystem", {}), f"{key}.filesystem").items():
        where = _key(f"{key}.filesystem", path)
        if path == _DEPTH:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise PolicyError(f"{where} is {value!r}; it is a whole number of levels, at least 1")
        elif isinstance(value, dict):
            for subpath, access in value.items():
                _check_access(access, _key(where, subpath))
        else:
            _check_access(value, where, ", or a table of paths below it")


def _check_access(value: Any, where: str, also: str = "") -> None:
    if not isinstance(value, str) or value not in _ACCESS:
        raise PolicyError(f"{where} is {value!r}; it is read, write or deny{also}")


def _chain(name: str, profiles: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The profile, its parent, and so on, by name."""
    parents = {**_BUILT_IN_PARENTS, **profiles}
    chain = [(name, profiles[name])]
    while (parent := chain[-1][1].get("extends")) is not None:
        where = _key("permissions", chain[-1][0], "extends")
        passed = [known for known, _ in chain]
        if parent in passed:
            raise PolicyError(f"{where} is {parent!r}, which extends it in turn: {' -> '.join([*passed, parent])}")
        if parent not in parents:
            rule = f"of the built-in ones {' and '.join(_BUILT_IN_PARENTS)} can be extended"
            raise PolicyError(f"{where} is {parent!r}; it is a profile defined in [permissions], and {rule}")
        chain.append((parent, parents[parent]))
    return chain


class _Compiler:
    """One profile on its way from tables to entries."""

    def __init__(self, chain: list[tuple[str, dict[str, Any]]], home: str, cwd: str) -> None:
        self._chain = chain
        self._home = home
        self._cwd = cwd
        self._warnings: list[str] = []

    def compile(self) -> NamedProfile:
        table: dict[str, Any] = {}
        for _, ancestor in reversed(self._chain):
            table = _merged(table, ancestor)
        filesystem = dict(table.get("filesystem", {}))
        depth = filesystem.pop(_DEPTH, None)
        if depth == 0:
            raise PolicyError(f"{self._where('filesystem', _DEPTH)} is 0; it is a whole number of levels, at least 1")
        entries = [entry for path in sorted(filesystem) for entry in self._entries(path, filesystem[path], depth)]
        if not filesystem:
            self._warn(self._where("filesystem"), "has no entries: nothing may be read or written")
        self._warn_of_unused_members()
        enabled = table.get("network", {}).get("enabled", False)
        profile = Profile(
            ProfileKind.MANAGED,
            Network.ENABLED if enabled else Network.RESTRICTED,
            entries=tuple(entries),
            glob_scan_max_depth=depth,
        )
        return NamedProfile(profile, self._roots(table.get("workspace_roots", {})), tuple(self._warnings))

    def _roots(self, roots: dict[str, bool]) -> tuple[str, ...]:
        enabled = sorted(root for root in roots if roots[root])
        added = [_path(root, self._where("workspace_roots", root), self._home, self._cwd) for root in enabled]
        return tuple(dict.fromkeys([self._cwd, *added]))

    def _entries(self, path: str, value: str | dict[str, str], depth: int | None) -> list[Entry]:
        if isinstance(value, str):
            self._warn_of_globstar(path, value, depth, "filesystem", path)
            return [Entry(self._target(path, _ACCESS[value]), _ACCESS[value])]
        if is_glob(path):
            self._warn(self._where("filesystem", path), "is a directory of that name: a table's own path is no pattern")
        entries = []
        for subpath in sorted(value):
            self._warn_of_globstar(subpath, value[subpath], depth, "filesystem", path, subpath)
            access = _ACCESS[value[subpath]]
            entries.append(Entry(self._target_below(path, subpath, access), access))
        return entries

    def _target(self, path: str, access: Access) -> Target:
        where = self._where("filesystem", path)
        if access is Access.DENY and is_glob(path):
            return GlobTarget(_path(path, where, self._home))
        return self._plain(_without_wildcards(path, access, where), where)

    def _plain(self, path: str, where: str) -> Target:
        """A place by its name, or an absolute path."""
        if path in _PLACES:
            return SpecialTarget(_PLACES[path])
        if path.startswith(":"):
            self._warn_of_unknown_place(path, where)
            return SpecialTarget("unknown", path=path)
        return PathTarget(_path(path, where, self._home))

    def _target_below(self, base: str, subpath: str, access: Access) -> Target:
        where = self._where("filesystem", base, subpath)
        place = _PLACES.get(base)
        if access is Access.DENY and is_glob(subpath) and (place == "project_roots" or not base.startswith(":")):
            pattern = _descendant(subpath, where)
            # Stays relative, which is: below each project root, whichever these are in the end.
            return GlobTarget(pattern if place else normal(joined(_path(base, where, self._home), pattern)))
        subpath = _without_wildcards(subpath, access, where)
        if subpath == ".":
            return self._plain(base, where)
        if place is not None and place != "project_roots":
            raise PolicyError(f"{where} is a path below {base!r}, which has only itself ('.'); use the absolute path")
        below = _descendant(subpath, where)
        if place is not None:
            return SpecialTarget(place, below)
        if base.startswith(":"):
            self._warn_of_unknown_place(base, where)
            return SpecialTarget("unknown", below, base)
        return PathTarget(normal(joined(_path(base, where, self._home), below)))

    def _where(self, *path: str) -> str:
        """The dotted key, in the profile that its value comes from."""
        for name, table in self._chain:
            if _holds(table, path):
                return _key("permissions", name, *path)
        return _key("permissions", self._chain[0][0], *path)

    def _warn(self, where: str, what: str) -> None:
        self._warnings.append(f"{where} {what}.")

    def _warn_of_unknown_place(self, place: str, where: str) -> None:
        self._warn(where, f"is ignored: {place!r} is not known here; known are {', '.join(_PLACES)}")

    def _warn_of_globstar(self, pattern: str, access: str, depth: int | None, *path: str) -> None:
        if depth is None and "**" in pattern and _ACCESS[access] is Access.DENY:
            advice = f"set filesystem.{_DEPTH} to bound it"
            self._warn(self._where(*path), f"has '**', so that each command waits for a search of all levels; {advice}")

    def _warn_of_unused_members(self) -> None:
        for name, table in self._chain:
            unused = [_key("permissions", name, member) for member in table if member not in _MEMBERS]
            network = table.get("network", {})
            unused += [_key("permissions", name, "network", member) for member in network if member != "enabled"]
            for where in unused:
                self._warn(where, "is not used here")


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _holds(table: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _without_wildcards(path: str, access: Access, where: str) -> str:
    """A path that is granted as a subtree, `/**` at its end taken off."""
    subtree = path.removesuffix("/**") if is_glob(path) else path
    if is_glob(subtree):
        raise PolicyError(
            f"{where} is a pattern, and has {access.word!r}; below an absolute path or :workspace_roots a pattern can "
            "be denied, and anything else takes a path, with '/**' at its end at most"
        )
    return subtree


def _descendant(subpath: str, where: str) -> str:
    """The components of a relative path, one `/` between them."""
    parts = subpath.split("/")
    # A `.` further on is as good as nothing; the original takes it too.
    if not subpath or parts[0] in ("", ".") or ".." in parts or "\0" in subpath:
        raise PolicyError(f"{where} names {subpath!r}; a path in a table is relative to it, without '.', '..' and NUL")
    return "/".join(part for part in parts if part not in ("", "."))


def _path(value: Any, where: str, home: str, base: str | None = None) -> str:
    """An absolute path, normalised, from one that may begin with `~` or belong to `base`."""
    if not isinstance(value, str):
        raise PolicyError(f"{where} is {value!r}; it is a path")
    if "\0" in value:
        raise PolicyError(f"{where} has a NUL character in it; no path can")
    if value == "~" or value.startswith("~/"):
        if not home.startswith("/"):
            raise PolicyError(f"{where} begins with '~', and the home directory is {home!r}; set HOME, or write it out")
        return normal(home + value[1:])
    if value.startswith("/"):
        return normal(value)
    if base is None:
        raise PolicyError(f"{where} names {value!r}; a path is absolute, or begins with '~/' or, for a place, with ':'")
    return normal(joined(base, value))


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{where} is {value!r}; it is a table")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(f"{where} is {value!r}; it is true or false")
    return value


def _key(*parts: str) -> str:
    """A dotted key as TOML writes it; the first part may be one already."""
    return ".".join((parts[0], *(_quoted(part) for part in parts[1:])))


def _quoted(part: str) -> str:
    bare = part.replace("-", "a").replace("_", "a")
    if bare.isascii() and bare.isalnum():
        return part
    escaped = part.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(mark if mark.isprintable() else f"\\u{ord(mark):04X}" for mark in escaped) + '"'
