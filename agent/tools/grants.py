"""Permissions beyond a thread's policy: what the model asks for, what a client grants of it, what is in force. Pure.

The model spells members with underscores, clients in camel case. A grant is never more than what was asked for, and
whatever is denied anywhere in it stays denied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.sandbox.paths import is_under
from agent.sandbox.policy import (
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    PolicyError,
    Profile,
    ProfileKind,
    SpecialTarget,
    Target,
)
from agent.sandbox.profile_json import parse_profile, profile_json
from agent.tools.command import BadArguments

_LEGACY = {"read": Access.READ, "write": Access.WRITE}
_UNPARSED = "failed to parse function arguments"
_SESSION = "session"


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be done besides what the policy says.

    Args:
        entries: As of a permission profile.
        network: None where nothing is said of it; only True grants.
    """

    entries: tuple[Entry, ...] = ()
    network: bool | None = None

    def __bool__(self) -> bool:
        return bool(self.entries) or self.network is not None

    def __add__(self, other: "Grant") -> "Grant":
        network = other.network if self.network is None else self.network or bool(other.network)
        return Grant(tuple(dict.fromkeys((*self.entries, *other.entries))), network)

    def wire(self) -> dict[str, Any]:
        """As clients see it."""
        files: dict[str, Any] | None = None
        if self.entries:
            legacy = _by_access(self.entries) or {}
            paths = {name: legacy.get(name) for name in _LEGACY}
            files = {"entries": _entries_json(self.entries), **paths}
        return {"fileSystem": files, "network": None if self.network is None else {"enabled": self.network}}

    def told(self) -> dict[str, Any]:
        """As the model sees it."""
        files: dict[str, Any] | None = None
        if self.entries:
            files = _by_access(self.entries) or {"entries": _entries_json(self.entries)}
        return {"network": {"enabled": True} if self.network else None, "file_system": files}

    def narrowed_to(self, asked: "Grant") -> "Grant":
        """What of it was asked for; what either of them denies, denied."""
        kept = [one for one in self.entries if one.access is not Access.DENY and _covered(one, asked.entries)]
        denied = [
            one
            for one in (*self.entries, *asked.entries)
            if one.access is Access.DENY
            and (isinstance(one.target, GlobTarget) or any(_within(one.target, other.target) for other in kept))
        ]
        return Grant(tuple(dict.fromkeys((*kept, *denied))) if kept else (), (self.network and asked.network) or None)

    def includes(self, asked: "Grant") -> bool:
        """Whether just this was granted already (observed: also less than what was granted is asked for)."""
        return set(asked.entries) <= set(self.entries) and asked.network in (None, self.network)


NOTHING = Grant()


def wanted(given: Any, absolute: Callable[[str], str]) -> Grant:
    """What the model asks for.

    Args:
        absolute: Makes a path absolute.

    Raises:
        BadArguments: In the original's words.
    """
    if not isinstance(given, dict):
        raise BadArguments(f"{_UNPARSED}: invalid type: {_kind(given)}, expected struct RequestPermissionProfile")
    for name in given:
        if name not in ("network", "file_system"):
            raise BadArguments(f"{_UNPARSED}: unknown field `{name}`, expected `network` or `file_system`")
    try:
        return _grant(given.get("network"), given.get("file_system"), absolute)
    except PolicyError as exc:
        raise BadArguments(f"{_UNPARSED}: {exc}") from exc


def granted(answer: Any) -> Grant:
    """What a client grants, not yet compared with what was asked for.

    Raises:
        PolicyError: It cannot be used.
    """
    given = answer.get("permissions") if isinstance(answer, dict) else None
    if not isinstance(given, dict):
        raise PolicyError("permissions is no object")
    found = _grant(given.get("network"), given.get("fileSystem"), _must_be_absolute)
    return Grant(found.entries, found.network or None)


def in_force(session: dict[str, Any], turn_id: str) -> Grant:
    """All that was granted for a turn and for its session."""
    kept: dict[str, Grant] = session.get("grants", {})
    return kept.get(turn_id, NOTHING) + kept.get(_SESSION, NOTHING)


def keep(session: dict[str, Any], grant: Grant, turn_id: str | None) -> None:
    """Remember it for a turn, or for the session (None). What earlier turns were granted is over."""
    kept: dict[str, Grant] = session.get("grants", {})
    name = turn_id or _SESSION
    session["grants"] = {one: kept[one] for one in (_SESSION, turn_id) if one in kept} | {
        name: kept.get(name, NOTHING) + grant
    }


def _grant(network: Any, files: Any, absolute: Callable[[str], str]) -> Grant:
    enabled: bool | None = None
    if network is not None:
        enabled = network.get("enabled") if isinstance(network, dict) else network
        if enabled is not None and not isinstance(enabled, bool):
            raise PolicyError(f"network.enabled is {enabled!r}; it is true or false")
    if files is None:
        return Grant(network=enabled)
    if not isinstance(files, dict):
        raise PolicyError(f"the file system is {files!r}; it is an object")
    entries = files.get("entries")
    if entries is None:
        entries = [_legacy_entry(name, path) for name in _LEGACY for path in _paths(files.get(name), name)]
    if not isinstance(entries, list):
        raise PolicyError(f"entries is {entries!r}; it is a list")
    profile = parse_profile({"file_system": {"entries": [_resolved(one, absolute) for one in entries]}})
    return Grant(tuple(dict.fromkeys(profile.entries)), enabled)


def _paths(value: Any, name: str) -> list[str]:
    if not isinstance(value, list | None) or not all(isinstance(one, str) for one in value or ()):
        raise PolicyError(f"{name} is {value!r}; it is a list of paths")
    return value or []


def _legacy_entry(access: str, path: str) -> dict[str, Any]:
    return {"path": {"type": "path", "path": path}, "access": access}


def _resolved(entry: Any, absolute: Callable[[str], str]) -> Any:
    """The entry with an absolute path, if it has a path at all; whatever else it is, it is looked at later."""
    target = entry.get("path") if isinstance(entry, dict) else None
    if isinstance(target, dict) and target.get("type") == "path" and isinstance(target.get("path"), str):
        return {**entry, "path": {**target, "path": absolute(target["path"])}}
    return entry


def _must_be_absolute(path: str) -> str:
    if not path.startswith("/"):
        raise PolicyError(f"the path is {path!r}; it is an absolute one")
    return path


def _covered(entry: Entry, asked: Sequence[Entry]) -> bool:
    """Whether an entry that grants is no more than one that was asked for."""
    return any(
        one.access is not Access.DENY and entry.access.value <= one.access.value and _within(entry.target, one.target)
        for one in asked
    )


def _within(target: Target, other: Target) -> bool:
    if isinstance(target, PathTarget):
        if isinstance(other, PathTarget):
            return is_under(target.path, other.path)
        return isinstance(other, SpecialTarget) and other.kind == "root"
    # A pattern grants nothing.
    return isinstance(target, SpecialTarget) and target == other


def _by_access(entries: Sequence[Entry]) -> dict[str, list[str]] | None:
    """Their paths by what may be done, if nothing else is said."""
    found: dict[str, list[str]] = {}
    for name, access in _LEGACY.items():
        paths = [one.target.path for one in entries if one.access is access and isinstance(one.target, PathTarget)]
        if paths:
            found[name] = paths
    return found if sum(map(len, found.values())) == len(entries) else None


def _entries_json(entries: tuple[Entry, ...]) -> list[dict[str, Any]]:
    profile = Profile(ProfileKind.MANAGED, Network.RESTRICTED, entries=entries)
    shown: list[dict[str, Any]] = profile_json(profile)["file_system"]["entries"]
    return shown


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case None:
            return "null"
        case _:
            return "sequence"
