"""How commands of a thread are confined: by its sandbox policy, or by nothing where the user said so."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.thread import Thread
from agent.features import is_on
from agent.sandbox.environment import ShellEnvironmentPolicy, apply, parse_environment_policy
from agent.sandbox.host import look, places
from agent.sandbox.legacy import LegacyPolicy, Mode, to_profile
from agent.sandbox.paths import flaw
from agent.sandbox.plan import Command, Options, SandboxPlan, plan
from agent.sandbox.policy import Access, Entry, Network, PathTarget, Policy, Profile, ProfileKind, resolve
from agent.sandbox.profile_toml import named_profile
from agent.tools.grants import NOTHING, Grant
from agent.tools.reach import Reach

_UNATTENDED = {
    "COLORTERM": "",
    "GH_PAGER": "cat",
    "GIT_PAGER": "cat",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LC_CTYPE": "C.UTF-8",
    "NO_COLOR": "1",
    "PAGER": "cat",
}
_FREE = LegacyPolicy(Mode.DANGER_FULL_ACCESS)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What all threads of a process have in common here.

    Args:
        environment: The policy of config.toml.
        own_proxy: () -> (host:port of our proxy, loopback ports that stamp, directories of our certificates): what no
            tool may have.
        environ: Of this process.
        config: config.toml with the overrides.
    """

    environment: ShellEnvironmentPolicy
    own_proxy: Callable[[], tuple[str | None, frozenset[int], tuple[str, ...]]]
    environ: Mapping[str, str]
    config: dict[str, Any] = field(default_factory=dict)

    def has(self, thread: Thread, feature: str) -> bool:
        """Whether a feature is on for a thread."""
        return is_on(thread.config_over(self.config), feature)

    def policy(self, thread: Thread, *, free: bool = False, grant: Grant = NOTHING) -> Policy:
        """The resolved policy of a thread, with what was granted beyond it.

        Raises:
            PolicyError: It cannot be used.
        """
        if free:
            return resolve(to_profile(_FREE), places(thread.cwd, self.environ))
        if thread.profile is None:
            return widened(resolve(profile_of(thread), places(thread.cwd, self.environ)), grant)
        home = self.environ.get("HOME") or os.path.expanduser("~")
        named = named_profile(thread.profile, thread.config_over(self.config), home, thread.cwd)
        return widened(resolve(named.profile, places(thread.cwd, self.environ, named.workspace_roots)), grant)

    def planner(
        self, thread: Thread, argv: tuple[str, ...], cwd: str, *, free: bool = False, grant: Grant = NOTHING
    ) -> tuple[Callable[[], SandboxPlan], Policy]:
        """What makes the plan of a command, and its policy. No way leads from "it cannot be confined" to `free`."""
        policy = self.policy(thread, free=free, grant=grant)
        _, ports, _ = self.own_proxy()
        options = Options(legacy_landlock=self.has(thread, "use_legacy_landlock"))

        def make_plan() -> SandboxPlan:
            host = look(policy, cwd, options, self.environ, ports)
            return plan(policy, Command(argv, cwd), host, options)

        return make_plan, policy

    def tool_environment(self, thread: Thread) -> dict[str, str]:
        """What a tool's environment is; the keys of the thread's model provider are not in it."""
        address, _, directories = self.own_proxy()
        secrets = thread.provider.variables
        environ = {name: value for name, value in self.environ.items() if name not in secrets}
        return apply(self.environment_policy(thread), environ, address, directories)

    def environment_policy(self, thread: Thread) -> ShellEnvironmentPolicy:
        """Which variables commands of the thread get."""
        return self.environment if thread.config is None else parse_environment_policy(thread.config)

    def model_environment(self, thread: Thread, call_id: str) -> dict[str, str]:
        """The same for a command of the model, which nobody pages through or looks at in colours (observed)."""
        marks = {"CODEX_CI": "1", "CODEX_THREAD_ID": thread.id, "CODEX_TOOL_CALL_ID": call_id}
        return {**self.tool_environment(thread), **_UNATTENDED, **marks}

    def absolute(self, cwd: str) -> Callable[[str], str]:
        """What makes a path of the model one that may be granted: absolute, with symlinks followed.

        A link in the workspace would otherwise have the user grant what he does not see.
        """
        home = self.environ.get("HOME") or os.path.expanduser("~")

        def resolved(path: str) -> str:
            if flaw(path) is not None:
                return path  # and refused where it is looked at
            named = home + path[1:] if path == "~" or path.startswith("~/") else path
            return os.path.realpath(os.path.join(cwd, named))

        return resolved

    def reach(self, thread: Thread, grant: Grant) -> Reach:
        """What a command of the thread could read and write now. It looks at the disk.

        Raises:
            PolicyError: It cannot be said.
        """
        return Reach(self.policy(thread, grant=grant), self.environ)


def widened(policy: Policy, grant: Grant) -> Policy:
    """The policy with what was granted beyond it; what either denies stays denied. It looks at symlinks."""
    if not grant or policy.profile.kind is not ProfileKind.MANAGED:
        return policy
    if policy.unrestricted:
        return _with(policy, (), Network.ENABLED if grant.network else policy.network)
    # In this order, so that neither reopens what is denied, nor closes what may be written.
    for access in (Access.DENY, Access.WRITE, Access.READ):
        entries = policy.profile.entries + tuple(
            entry for entry in grant.entries if entry.access is access and _adds(policy, entry)
        )
        policy = _with(policy, entries, policy.network)
    return _with(policy, policy.profile.entries, Network.ENABLED) if grant.network else policy


def _with(policy: Policy, entries: tuple[Entry, ...], network: Network) -> Policy:
    now = policy.profile
    profile = Profile(now.kind, network, now.unrestricted, entries, now.glob_scan_max_depth)
    return resolve(profile, policy.places)


def _adds(policy: Policy, entry: Entry) -> bool:
    target = entry.target
    if entry.access is Access.DENY or not isinstance(target, PathTarget):
        return True
    rule = policy.rule_for(target.path)
    # A link that has come since it was granted would lead to what nobody was asked about.
    if os.path.realpath(target.path) != target.path or (rule is not None and rule.access is Access.DENY):
        return False
    return entry.access is Access.WRITE or rule is None


def profile_of(thread: Thread) -> Profile:
    """The profile that a thread's legacy policy means."""
    given = thread.sandbox
    match given.get("type"):
        case "dangerFullAccess":
            return to_profile(_FREE)
        case "externalSandbox":
            network = given.get("networkAccess") in (True, "enabled")
            return to_profile(LegacyPolicy(Mode.EXTERNAL, network_access=network))
        case "workspaceWrite":
            return to_profile(
                LegacyPolicy(
                    Mode.WORKSPACE_WRITE,
                    tuple(str(root) for root in given.get("writableRoots") or ()),
                    bool(given.get("networkAccess")),
                    bool(given.get("excludeTmpdirEnvVar")),
                    bool(given.get("excludeSlashTmp")),
                )
            )
        case _:
            return to_profile(LegacyPolicy(Mode.READ_ONLY, network_access=bool(given.get("networkAccess"))))
