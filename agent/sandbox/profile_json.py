"""Permission profiles as JSON, in and out: the tagged shape, the older untagged one, and the legacy sandbox policy.

Pure: works on what `json` parsed. Unknown members are errors where the original refuses them, in the untagged shape and
in the legacy policy; elsewhere they are passed over as by the original, whose later versions may send more.
"""

from __future__ import annotations

from agent.sandbox.paths import flaw, normal
from agent.sandbox.policy import (
    DISABLED,
    SPECIAL_KINDS,
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

    from agent.sandbox.legacy import LegacyPolicy
    from agent.sandbox.policy import Target

_ACCESS = {"read": Access.READ, "write": Access.WRITE, "deny": Access.DENY, "none": Access.DENY}
_NETWORKS = {network.value: network for network in Network}
# The original keeps it in 64 bits.
_MAX_DEPTH = 2**64 - 1
_KIND_ALIASES = {"current_working_directory": "project_roots"}


def parse_profile(value: Any) -> Profile:
    """A permission profile from parsed JSON, in either shape.

    Raises:
        PolicyError: Names the member, its value and what it may be.
    """
    given = _object(value, "the permission profile")
    if "type" not in given:
        return _untagged(given)
    match given["type"]:
        case "managed":
            network = _network(_member(given, "network", "a managed profile"))
            return _file_system(_member(given, "file_system", "a managed profile"), network)
        case "disabled":
            return DISABLED
        case "external":
            return Profile(ProfileKind.EXTERNAL, _network(_member(given, "network", "an external profile")), True)
        case other:
            raise PolicyError(f"type is {other!r}; a permission profile is managed, disabled or external")


def profile_json(profile: Profile) -> dict[str, Any]:
    """The tagged shape; parse_profile gives an equal profile back."""
    if profile.kind is ProfileKind.DISABLED:
        return {"type": "disabled"}
    network = profile.network.value
    if profile.kind is ProfileKind.EXTERNAL:
        return {"type": "external", "network": network}
    file_system: dict[str, Any] = {"type": "unrestricted"}
    if not profile.unrestricted:
        file_system = {"type": "restricted", "entries": [_entry_json(entry) for entry in profile.entries]}
        if profile.glob_scan_max_depth is not None:
            file_system["glob_scan_max_depth"] = profile.glob_scan_max_depth
    return {"type": "managed", "file_system": file_system, "network": network}


def parse_legacy(value: Any) -> LegacyPolicy:
    """A legacy sandbox policy from parsed JSON; see `legacy`.

    Raises:
        PolicyError: Names the member, its value and what it may be.
    """
    from agent.sandbox.legacy import LegacyPolicy, Mode

    given = _object(value, "the sandbox policy")
    match given.get("type"):
        case "danger-full-access":
            _only(given, "the sandbox policy", ("type",))
            return LegacyPolicy(Mode.DANGER_FULL_ACCESS, network_access=True)
        case "read-only":
            _only(given, "the sandbox policy", ("type", "network_access"))
            return LegacyPolicy(Mode.READ_ONLY, network_access=_flag(given, "network_access"))
        case "external-sandbox":
            _only(given, "the sandbox policy", ("type", "network_access"))
            network = _network(given.get("network_access", "restricted"), "network_access")
            return LegacyPolicy(Mode.EXTERNAL, network_access=network is Network.ENABLED)
        case "workspace-write":
            flags = ("network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp")
            _only(given, "the sandbox policy", ("type", "writable_roots", *flags))
            roots = _list(given.get("writable_roots", []), "writable_roots")
            return LegacyPolicy(
                Mode.WORKSPACE_WRITE,
                writable_roots=tuple(_absolute(root, f"writable_roots[{i}]") for i, root in enumerate(roots)),
                network_access=_flag(given, "network_access"),
                exclude_tmpdir_env_var=_flag(given, "exclude_tmpdir_env_var"),
                exclude_slash_tmp=_flag(given, "exclude_slash_tmp"),
            )
        case other:
            raise PolicyError(
                f"type is {other!r}; a sandbox policy is read-only, workspace-write, danger-full-access "
                "or external-sandbox"
            )


def _untagged(given: dict[str, Any]) -> Profile:
    _only(given, "a profile without type", ("network", "file_system"))
    network = Network.RESTRICTED
    if given.get("network") is not None:
        switch = _object(given["network"], "network")
        if switch.get("enabled") is not None and _flag(switch, "enabled"):
            network = Network.ENABLED
    if given.get("file_system") is None:
        return Profile(ProfileKind.MANAGED, network)
    held = _object(given["file_system"], "file_system")
    _only(held, "file_system", ("entries", "glob_scan_max_depth"))
    return _restricted(held, network)


def _file_system(value: Any, network: Network) -> Profile:
    given = _object(value, "file_system")
    match given.get("type"):
        case "unrestricted":
            return Profile(ProfileKind.MANAGED, network, unrestricted=True)
        case "restricted":
            return _restricted(given, network)
        case other:
            raise PolicyError(f"file_system.type is {other!r}; it is restricted or unrestricted")


def _restricted(given: dict[str, Any], network: Network) -> Profile:
    entries = _list(_member(given, "entries", "file_system"), "file_system.entries")
    depth = given.get("glob_scan_max_depth")
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or not 0 < depth <= _MAX_DEPTH):
        raise PolicyError(
            f"glob_scan_max_depth is {depth!r}; it is a whole number of levels, at least 1 and below 2 to the power 64"
        )
    parsed = tuple(_entry(entry, f"entries[{i}]") for i, entry in enumerate(entries))
    return Profile(ProfileKind.MANAGED, network, entries=parsed, glob_scan_max_depth=depth)


def _entry(value: Any, where: str) -> Entry:
    given = _object(value, where)
    access = given.get("access")
    if not isinstance(access, str) or access not in _ACCESS:
        raise PolicyError(f"{where}.access is {access!r}; it is read, write or deny")
    missing = given.get("missing_path_behavior")
    if missing not in (None, "skip"):
        raise PolicyError(f"{where}.missing_path_behavior is {missing!r}; it is 'skip' or left out")
    return Entry(_target(_member(given, "path", where), f"{where}.path"), _ACCESS[access], missing == "skip")


def _target(value: Any, where: str) -> Target:
    given = _object(value, where)
    match given.get("type"):
        case "path":
            return PathTarget(_absolute(_member(given, "path", where), f"{where}.path"))
        case "glob_pattern":
            pattern = _text(_member(given, "pattern", where), f"{where}.pattern")
            if not pattern:
                raise PolicyError(f"{where}.pattern is empty; it is a glob, e.g. '/src/**/*.env'")
            # How codex writes a pattern below each workspace root; as a path it would match nothing.
            return GlobTarget(pattern.removeprefix("codex-project-roots://"))
        case "special":
            return _special(_object(_member(given, "value", where), f"{where}.value"), f"{where}.value")
        case other:
            raise PolicyError(f"{where}.type is {other!r}; it is path, glob_pattern or special")


def _special(given: dict[str, Any], where: str) -> SpecialTarget:
    kind = given.get("kind")
    kind = _KIND_ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    if kind not in SPECIAL_KINDS:
        raise PolicyError(f"{where}.kind is {kind!r}; it is one of {', '.join(SPECIAL_KINDS)}")
    subpath = given.get("subpath") if kind in ("project_roots", "unknown") else None
    # An empty one is the place itself.
    if subpath is not None and subpath != "":
        subpath = relative_subpath(_text(subpath, f"{where}.subpath"), f"{where}.subpath")
    if kind != "unknown":
        return SpecialTarget(kind, subpath)
    return SpecialTarget(kind, subpath, _text(_member(given, "path", where), f"{where}.path"))


def relative_subpath(text: str, where: str) -> str:
    """A path below a base, checked: relative, and without a way out of it.

    Raises:
        PolicyError: Absolute, empty or with `..`.
    """
    if not text or text.startswith("/") or ".." in text.split("/") or flaw(text):
        raise PolicyError(f"{where} is {text!r}; it is a relative path without '..'")
    return text


def _entry_json(entry: Entry) -> dict[str, Any]:
    target = entry.target
    if isinstance(target, PathTarget):
        path: dict[str, Any] = {"type": "path", "path": target.path}
    elif isinstance(target, GlobTarget):
        path = {"type": "glob_pattern", "pattern": target.pattern}
    else:
        value = {"kind": target.kind, "subpath": target.subpath, "path": target.path}
        path = {"type": "special", "value": {name: member for name, member in value.items() if member is not None}}
    skip = {"missing_path_behavior": "skip"} if entry.skip_missing else {}
    return {"path": path, "access": entry.access.word, **skip}


def _network(value: Any, where: str = "network") -> Network:
    if not isinstance(value, str) or value not in _NETWORKS:
        raise PolicyError(f"{where} is {value!r}; it is 'restricted' or 'enabled'")
    return _NETWORKS[value]


def _absolute(value: Any, where: str) -> str:
    text = _text(value, where)
    if not text.startswith("/"):
        raise PolicyError(f"{where} is {text!r}; it is an absolute path")
    return normal(text)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{where} is {value!r}; it is an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise PolicyError(f"{where} is {value!r}; it is a list")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(f"{where} is {value!r}; it is a string")
    if (found := flaw(value)) is not None:
        raise PolicyError(f"{where} is {value!r} and holds {found}; no path does")
    return value


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise PolicyError(f"{name} is {value!r}; it is true or false")
    return value


def _member(given: dict[str, Any], name: str, where: str) -> Any:
    if name not in given:
        raise PolicyError(f"{where} lacks {name!r}")
    return given[name]


def _only(given: dict[str, Any], where: str, allowed: tuple[str, ...]) -> None:
    for name in given:
        if name not in allowed:
            raise PolicyError(f"{where} has the member {name!r}, which is not known; it may have {', '.join(allowed)}")
