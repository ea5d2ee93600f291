"""The legacy sandbox policy (read-only, workspace-write, danger-full-access, external) and its place among profiles.

Pure. A legacy policy becomes a profile by `to_profile`. The other way round is a question: Landlock and the lesser
Windows levels can hold a process only to what a legacy policy can say, so `beyond_legacy` tells what cannot be said.
"""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.sandbox.paths import ancestors, is_under, joined
from agent.sandbox.policy import (
    DISABLED,
    PROTECTED_NAMES,
    Access,
    Entry,
    Network,
    PathTarget,
    Policy,
    Profile,
    ProfileKind,
    SpecialTarget,
)


class Mode(Choice):
    """As configuration spells them."""

    READ_ONLY = "read-only"
    WORKSPACE_WRITE = "workspace-write"
    DANGER_FULL_ACCESS = "danger-full-access"
    EXTERNAL = "external-sandbox"


@frozen
class LegacyPolicy:
    """A sandbox policy of the older kind.

    Args:
        writable_roots: Absolute paths beside the workspace. This and the next two belong to workspace-write.
        exclude_tmpdir_env_var: $TMPDIR is not writable.
        exclude_slash_tmp: /tmp is not writable.
    """

    mode: Mode
    writable_roots: tuple[str, ...] = ()
    network_access: bool = False
    exclude_tmpdir_env_var: bool = False
    exclude_slash_tmp: bool = False


_ROOT_READ = Entry(SpecialTarget("root"), Access.READ)
READ_ONLY = Profile(ProfileKind.MANAGED, Network.RESTRICTED, entries=(_ROOT_READ,))


def to_profile(policy: LegacyPolicy) -> Profile:
    """The profile that grants the same."""
    network = Network.ENABLED if policy.network_access else Network.RESTRICTED
    match policy.mode:
        case Mode.DANGER_FULL_ACCESS:
            return DISABLED
        case Mode.EXTERNAL:
            return Profile(ProfileKind.EXTERNAL, network, unrestricted=True)
        case Mode.READ_ONLY:
            return Profile(ProfileKind.MANAGED, network, entries=(_ROOT_READ,))
        case Mode.WORKSPACE_WRITE:
            entries = [_ROOT_READ, Entry(SpecialTarget("project_roots"), Access.WRITE)]
            if not policy.exclude_slash_tmp:
                entries.append(Entry(SpecialTarget("slash_tmp"), Access.WRITE))
            if not policy.exclude_tmpdir_env_var:
                entries.append(Entry(SpecialTarget("tmpdir"), Access.WRITE))
            entries += [Entry(PathTarget(root), Access.WRITE) for root in policy.writable_roots]
            # The protected names of the other roots follow from the policy (`Policy.protection_of`).
            entries += [
                Entry(SpecialTarget("project_roots", name), Access.READ, skip_missing=True) for name in PROTECTED_NAMES
            ]
            return Profile(ProfileKind.MANAGED, network, entries=tuple(entries))


def beyond_legacy(policy: Policy) -> str | None:
    """What keeps a resolved policy from being equal to a legacy one, in words that name the entry; None if nothing.

    Equal means: once the places are known, the same paths may be read and written, and the same names are protected.
    """
    if policy.has_full_disk_write and policy.has_full_disk_read:
        return None
    if policy.globs:
        return f"{policy.globs[0].entry} denies by pattern"
    for path in policy.denied_roots():
        return f"{policy.rules[path].entry} denies a path"
    if not policy.has_full_disk_read:
        granted = "'minimal'" if policy.minimal else "single paths"
        return f"reads are limited to {granted}, and a legacy policy reads everything"
    writable = set(policy.writable_roots())
    for path in policy.readable_roots():
        outer = next((above for above in ancestors(path) if above in writable), None)
        if outer is not None and policy.protection_of(path) != path:
            return f"{policy.rules[path].entry} is read-only inside the writable {outer!r}"
    for inner in sorted(writable):
        for outer in ancestors(inner):
            if outer in writable and any(is_under(inner, joined(outer, name)) for name in PROTECTED_NAMES):
                return f"{policy.rules[inner].entry} opens a name that is protected in the writable {outer!r}"
    for root in policy.places.project_roots if writable else ():
        if not policy.can_write(root):
            return f"the workspace {root!r} is not writable, as it is in any legacy policy that opens anything"
    return None
