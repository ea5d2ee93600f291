"""(policy, command, host) -> how to start the command, or why it cannot be started. Pure; the host is data.

`plan` is the only maker of a `SandboxPlan`, and no failure of a backend leads to an unconfined one: that takes a policy
in which there is nothing to enforce.
"""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.sandbox.policy import Network, Policy, ProfileKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.sandbox.disk import Disk


class Backend(Choice):
    NONE = "none"
    SECCOMP = "seccomp"
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    SEATBELT = "seatbelt"
    WINDOWS = "windows"


class SandboxUnavailable(Exception):
    """The policy cannot be enforced here, and the command was not started.

    Args:
        backend: What was to enforce it.
        reason: What was wanted, what was found, what the user can do.
    """

    def __init__(self, backend: Backend, reason: str) -> None:
        super().__init__(reason)
        self.backend = backend
        self.reason = reason


@frozen
class Command:
    """What to run.

    Args:
        argv: At least one word; the first is looked up on PATH inside the sandbox.
        cwd: Absolute.
    """

    argv: tuple[str, ...]
    cwd: str


@frozen
class Bubblewrap:
    """A bwrap binary that can be used.

    Args:
        path: Absolute.
        mounts_proc: A fresh /proc can be mounted; some containers forbid it.
    """

    path: str
    mounts_proc: bool = True


@frozen
class Host:
    """The machine, as far as a plan depends on it.

    Args:
        platform: As sys.platform.
        machine: As os.uname().machine.
        uid: The effective user id.
        disk: Answers about paths.
        bubblewrap: The binary to use; None with `no_bubblewrap` saying why.
        landlock_abi: The kernel's Landlock ABI; 0 if it has none.
        wsl1: Windows Subsystem for Linux 1, which has no namespaces.
        private_paths: Directories of ours that no tool may look into (sockets, keys).
        proxy_ports: Loopback ports of proxies of ours that stamp; never reachable from a sandbox.
        denied_file: What is seen in the place of a denied file. Bound without devices, a device cannot be opened.
        home: Where a command starts whose own directory is not in its view; `/` if that cannot be entered.
    """

    platform: str
    machine: str
    uid: int
    disk: Disk
    bubblewrap: Bubblewrap | None = None
    no_bubblewrap: str = ""
    landlock_abi: int = 0
    wsl1: bool = False
    private_paths: tuple[str, ...] = ()
    proxy_ports: frozenset[int] = frozenset()
    denied_file: str = "/dev/null"
    home: str = "/"


@frozen
class Options:
    """How to confine, beside the policy.

    Args:
        legacy_landlock: Use Landlock instead of bubblewrap; the user asked for it by name.
        no_proc: Keep the host's /proc.
        keep_pid_namespace: Stay in the caller's pid namespace.
        managed_ports: The tool may reach these loopback ports, by a bridge, and nothing else; None for no bridge.
    """

    legacy_landlock: bool = False
    no_proc: bool = False
    keep_pid_namespace: bool = False
    managed_ports: tuple[int, ...] | None = None


@frozen
class Placeholder:
    """Something to be made on the disk before the launch so that it can be masked, and removed after the last one.

    Args:
        directory: A directory; else an empty file.
    """

    path: str
    directory: bool


@frozen
class LandlockRules:
    """Where a process under Landlock may write; it may read everything.

    Args:
        writable: Existing paths.
        restrict_tcp: Also refuse TCP bind and connect, where the kernel can.
    """

    writable: tuple[str, ...]
    restrict_tcp: bool


@frozen
class SandboxPlan:
    """How to start a command.

    Args:
        argv: For the backends bubblewrap and seatbelt the whole command line, its first word an absolute path; for the
            others the command itself.
        cwd: Where to start it.
        environment: Variables that tell the command about its confinement.
        seccomp: A program for the process. bubblewrap reads it from descriptor `SECCOMP_FD`, the others install it.
        placeholders: Made before, removed after.
        masked: All paths that are masked; those among them that another launch's placeholders hold are shared with it.
        landlock: Rules for the process itself.
        bridge_ports: Loopback ports to be bridged into the network namespace.
        notes: What the plan does, a sentence each.
    """

    backend: Backend
    argv: tuple[str, ...]
    cwd: str
    environment: tuple[tuple[str, str], ...] = ()
    seccomp: bytes | None = None
    placeholders: tuple[Placeholder, ...] = ()
    masked: tuple[str, ...] = ()
    landlock: LandlockRules | None = None
    bridge_ports: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


# Descriptors that a bubblewrap command line names. What performs the plan opens them at these numbers.
SECCOMP_FD = 3
SYNC_FD = 4
INFO_FD = 5
BLOCK_FD = 6

NETWORK_DISABLED = ("CODEX_SANDBOX_NETWORK_DISABLED", "1")


def plan(policy: Policy, command: Command, host: Host, options: Options | None = None) -> SandboxPlan:
    """How to run a command under a policy on a host.

    Raises:
        SandboxUnavailable: The policy cannot be enforced. Nothing may then be run.
        PolicyError: The policy cannot be carried out on this disk, e.g. a pattern without a fixed directory.
    """
    options = options or Options()
    environment = (NETWORK_DISABLED,) if policy.network is Network.RESTRICTED else ()
    if not policy.needs_sandbox and options.managed_ports is None:
        reason = _WHY_UNCONFINED[policy.profile.kind]
        return SandboxPlan(Backend.NONE, command.argv, command.cwd, environment, notes=(reason,))
    if host.platform == "win32":
        from agent.sandbox.windows import windows_plan

        return windows_plan(policy, host, options.managed_ports is not None)
    if host.platform == "darwin":
        from agent.sandbox.seatbelt import seatbelt_plan

        return seatbelt_plan(policy, command, host, options)
    if host.platform != "linux":
        raise SandboxUnavailable(Backend.NONE, f"no sandbox is known for the platform {host.platform!r}")
    from agent.sandbox.linux import linux_plan

    return linux_plan(policy, command, host, options, environment)


_WHY_UNCONFINED = {
    ProfileKind.MANAGED: "The whole disk is writable and the network is on: there is nothing to enforce.",
    ProfileKind.DISABLED: "The policy is danger-full-access: nothing is enforced.",
    ProfileKind.EXTERNAL: "The policy says that something outside confines this process: nothing is enforced here.",
}
