"""How commands of a thread are confined: by its sandbox policy, or by nothing where the user said so."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.thread import Thread
from agent.sandbox.environment import ShellEnvironmentPolicy, apply
from agent.sandbox.host import look, places
from agent.sandbox.legacy import LegacyPolicy, Mode, to_profile
from agent.sandbox.plan import Command, Options, SandboxPlan, plan
from agent.sandbox.policy import Policy, Profile, resolve
from agent.sandbox.profile_toml import named_profile

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
        options: Of the sandbox, such as Landlock by name.
        own_proxy: () -> (host:port of our proxy, loopback ports that stamp, directories of our certificates): what no
            tool may have.
        environ: Of this process.
        config: config.toml with the overrides, for the permission profiles that it defines.
    """

    environment: ShellEnvironmentPolicy
    options: Options
    own_proxy: Callable[[], tuple[str | None, frozenset[int], tuple[str, ...]]]
    environ: Mapping[str, str]
    config: dict[str, Any] = field(default_factory=dict)

    def policy(self, thread: Thread, *, free: bool = False) -> Policy:
        """The resolved policy of a thread.

        Raises:
            PolicyError: It cannot be used.
        """
        if free:
            return resolve(to_profile(_FREE), places(thread.cwd, self.environ))
        if thread.profile is None:
            return resolve(profile_of(thread), places(thread.cwd, self.environ))
        home = self.environ.get("HOME") or os.path.expanduser("~")
        named = named_profile(thread.profile, self.config, home, thread.cwd)
        return resolve(named.profile, places(thread.cwd, self.environ, named.workspace_roots))

    def planner(
        self, thread: Thread, argv: tuple[str, ...], cwd: str, *, free: bool = False
    ) -> tuple[Callable[[], SandboxPlan], Policy]:
        """What makes the plan of a command, and its policy. No way leads from "it cannot be confined" to `free`."""
        policy = self.policy(thread, free=free)
        _, ports, _ = self.own_proxy()

        def make_plan() -> SandboxPlan:
            host = look(policy, cwd, self.options, self.environ, ports)
            return plan(policy, Command(argv, cwd), host, self.options)

        return make_plan, policy

    def tool_environment(self) -> dict[str, str]:
        """What a tool's environment is."""
        address, _, directories = self.own_proxy()
        return apply(self.environment, self.environ, address, directories)

    def model_environment(self, thread: Thread, call_id: str) -> dict[str, str]:
        """The same for a command of the model, which nobody pages through or looks at in colours (observed)."""
        marks = {"CODEX_CI": "1", "CODEX_THREAD_ID": thread.id, "CODEX_TOOL_CALL_ID": call_id}
        return {**self.tool_environment(), **_UNATTENDED, **marks}

    def may_write(self, thread: Thread, path: str) -> bool:
        """Whether the policy grants it, symlinks followed; what is protected is not granted."""
        policy = self.policy(thread)
        return policy.unrestricted or policy.can_write(os.path.realpath(path))

    def may_read(self, thread: Thread, path: str) -> bool:
        """The same for reading."""
        policy = self.policy(thread)
        return policy.unrestricted or policy.can_read(os.path.realpath(path))


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
