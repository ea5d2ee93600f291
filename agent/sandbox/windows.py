"""Windows: what each level of its sandbox could enforce, and the refusal, since there is no Windows backend. Pure.

The table is facts/sandbox.md 14. A policy is asked for its needs one by one; a level that cannot hold one of them
cannot hold the policy. Where the facts leave it open, the answer is no.
"""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.sandbox.paths import ancestors
from agent.sandbox.plan import Backend, Host, SandboxPlan, SandboxUnavailable
from agent.sandbox.policy import PROTECTED_NAMES, Access, Policy, ProfileKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Level(Choice):
    """How strong a sandbox the user has set up."""

    RESTRICTED_TOKEN = "unelevated"  # a token with fewer rights, and access entries on the paths
    ELEVATED = "elevated"  # sandbox users of their own, with firewall rules


@frozen
class Need:
    """Something that a policy may need.

    Args:
        found: In words what of the policy needs it; None if nothing does.
        levels: The levels that can enforce it.
    """

    found: Callable[[Policy, bool], str | None]
    levels: tuple[Level, ...]


def enforceable(policy: Policy, level: Level, managed_network: bool = False) -> str | None:
    """Why a level could not enforce a policy, as the part of the policy that it cannot hold; None if it could.

    Args:
        managed_network: The tool is to reach only the ports of a given proxy.
    """
    for need in NEEDS:
        found = need.found(policy, managed_network)
        if found is not None and level not in need.levels:
            return found
    return None


def windows_plan(policy: Policy, host: Host, managed_network: bool = False) -> SandboxPlan:
    """The plan on Windows: none, for whatever needs a sandbox.

    Raises:
        SandboxUnavailable: Always.
    """
    refusals = [(level, enforceable(policy, level, managed_network)) for level in Level]
    could = [level.value for level, refusal in refusals if refusal is None]
    if could:
        verdict = f"the {' or the '.join(could)} Windows sandbox could enforce this policy"
    else:
        verdict = "no Windows sandbox could enforce this policy"
    verdict += "".join(f"; the {level.value} one could not: {refusal}" for level, refusal in refusals if refusal)
    raise SandboxUnavailable(
        Backend.WINDOWS,
        f"{verdict}. This build has no Windows backend at all, and the command was not started: refusing to run "
        "unsandboxed. Work in WSL 2, where bubblewrap confines commands, or choose danger-full-access yourself",
    )


def _unmanaged(policy: Policy, _: bool) -> str | None:
    if policy.profile.kind is not ProfileKind.MANAGED:
        return f"the permission profile is {policy.profile.kind.value}, and only a managed one is enforced"
    if policy.has_full_disk_write:
        return "the whole disk is writable, so there would be nothing but the network to enforce"
    return None


def _limited_reads(policy: Policy, _: bool) -> str | None:
    if "/" in policy.rules and policy.rules["/"].access is not Access.DENY:
        return None
    limits = ", ".join(map(repr, policy.readable_roots() + policy.writable_roots()))
    return f"reads are limited to {limits or 'the system'}"


def _denied_reads(policy: Policy, _: bool) -> str | None:
    for path in policy.denied_roots():
        return f"'{policy.rules[path].entry}' denies a path"
    return f"'{policy.globs[0].entry}' denies by pattern" if policy.globs else None


def _other_roots(policy: Policy, _: bool) -> str | None:
    """A legacy policy writes nowhere, or in the workspace and elsewhere; its protected names stay protected."""
    writable = policy.writable_roots()
    if not writable:
        return None
    for root in policy.places.project_roots:
        if root not in writable:
            return f"{writable[0]!r} is writable and the workspace {root!r} is not"
    for path in writable:
        if any(_protected_by(policy, above) for above in ancestors(path)):
            return f"'{policy.rules[path].entry}' opens a protected name"
    return None


def _window(policy: Policy, _: bool) -> str | None:
    """Writing inside what is closed: the entry that denies counts before the one that allows."""
    for path in policy.writable_roots():
        for above in ancestors(path):
            if above in (path, "/"):
                continue
            rule = policy.rules.get(above)
            closed = rule is not None and (
                rule.access is Access.DENY
                or (rule.access is Access.READ and any(_writes(policy, outer) for outer in ancestors(above)))
            )
            if closed or (rule is None and _protected_by(policy, above)):
                return f"'{policy.rules[path].entry}' is writable inside {above!r}, which is not"
    return None


def _managed_network(_: Policy, managed_network: bool) -> str | None:
    return "the network is limited to a proxy's ports" if managed_network else None


def _writes(policy: Policy, path: str) -> bool:
    rule = policy.rules.get(path)
    return rule is not None and rule.access is Access.WRITE


def _protected_by(policy: Policy, path: str) -> bool:
    """Whether a path is itself a protected name of a writable root."""
    root, _, name = path.rpartition("/")
    return name in PROTECTED_NAMES and _writes(policy, root or "/")


# Both levels can hold what is not here: all reads, writes in the workspace and elsewhere, read-only parts of a root.
# A need that neither level holds comes first, so that its reason is the one given.
NEEDS = (
    Need(_unmanaged, ()),
    Need(_window, ()),
    Need(_limited_reads, (Level.ELEVATED,)),
    Need(_denied_reads, (Level.ELEVATED,)),
    Need(_other_roots, (Level.ELEVATED,)),
    Need(_managed_network, (Level.ELEVATED,)),
)
