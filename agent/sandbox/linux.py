"""Which of Linux's means confines a command: nothing but seccomp, bubblewrap, or (asked for by name) Landlock. Pure."""

from __future__ import annotations

from agent.sandbox.bubblewrap import bubblewrap_plan
from agent.sandbox.disk import Kind
from agent.sandbox.plan import (
    Backend,
    Command,
    Host,
    LandlockRules,
    Options,
    SandboxPlan,
    SandboxUnavailable,
)
from agent.sandbox.policy import Network, Policy
from agent.sandbox.seccomp import NetworkFilter, UnsupportedArchitecture, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.sandbox.disk import Route

_NO_NAMESPACES = (
    "where a container or AppArmor forbids user namespaces, allow them, or choose Landlock by name "
    "(features.use_legacy_landlock, --use-legacy-landlock), which can hold fewer policies"
)


def linux_plan(
    policy: Policy, command: Command, host: Host, options: Options, environment: tuple[tuple[str, str], ...]
) -> SandboxPlan:
    """The plan on Linux; see `plan.plan`.

    Raises:
        SandboxUnavailable: Nothing here can hold the policy.
        PolicyError: See `Ground`.
    """
    forbidden = sorted(set(options.managed_ports or ()) & host.proxy_ports)
    if forbidden:
        raise SandboxUnavailable(
            Backend.BUBBLEWRAP,
            f"port {forbidden[0]} is this agent's own attesting proxy, which no tool may reach; "
            "name another proxy in the tool's proxy variables",
        )
    try:
        if policy.has_full_disk_write and options.managed_ports is None:
            # As observed: no namespaces. Only the network is cut off, in the process itself.
            filtered = program(NetworkFilter.RESTRICTED, host.machine)
            note = "The whole disk is writable; system calls for the network are refused. Other processes are in reach."
            return SandboxPlan(Backend.SECCOMP, command.argv, command.cwd, environment, filtered, notes=(note,))
        if options.legacy_landlock:
            return _landlock(policy, command, host, options, environment)
        if host.wsl1:
            raise SandboxUnavailable(
                Backend.BUBBLEWRAP,
                "Windows Subsystem for Linux 1 has no namespaces, which bubblewrap needs; use WSL 2",
            )
        if host.bubblewrap is None:
            raise SandboxUnavailable(Backend.BUBBLEWRAP, f"{host.no_bubblewrap}; {_NO_NAMESPACES}")
        return bubblewrap_plan(policy, command, host, options, host.bubblewrap, environment)
    except UnsupportedArchitecture as exc:
        raise SandboxUnavailable(Backend.SECCOMP, str(exc)) from exc


def _holds_something(host: Host, directory: Route) -> bool:
    """Whether keys may be in a private directory: it is not empty, or what is in it cannot be known."""
    try:
        return directory.kind is not Kind.DIRECTORY or any(True for _ in host.disk.entries(directory.real))
    except OSError:
        return True


def _landlock(
    policy: Policy, command: Command, host: Host, options: Options, environment: tuple[tuple[str, str], ...]
) -> SandboxPlan:
    from agent.sandbox.ground import Ground
    from agent.sandbox.landlock import unavailable
    from agent.sandbox.legacy import beyond_legacy

    if options.managed_ports is not None:
        raise SandboxUnavailable(
            Backend.LANDLOCK, "the managed network needs a network namespace, and Landlock has none; use bubblewrap"
        )
    beyond = beyond_legacy(policy)
    if beyond is not None:
        raise SandboxUnavailable(
            Backend.LANDLOCK,
            f"Landlock holds only what a legacy sandbox policy can say, and {beyond}; this policy requires bubblewrap",
        )
    if host.landlock_abi == 0:
        raise SandboxUnavailable(Backend.LANDLOCK, "this kernel has no Landlock (it is built in or booted without it)")
    restricted = policy.network is Network.RESTRICTED
    mode = NetworkFilter.RESTRICTED if restricted else NetworkFilter.NETWORK_ON
    ground = Ground(policy, host.disk)
    for private in ground.private(host.private_paths):
        if private.kind is not None and ground.in_writable(private.real) and _holds_something(host, private):
            raise SandboxUnavailable(
                Backend.LANDLOCK,
                f"{private.spelled!r} holds sockets and keys of an agent in a writable root, and Landlock cannot take "
                "back a part of one: let agents keep them elsewhere (XDG_RUNTIME_DIR, or another TMPDIR), make less "
                "writable, or use bubblewrap",
            )
    writable = tuple(ground.writable)
    notes = ["Everything may be read.", *(f"May be written: {path}" for path in writable)]
    if writable:
        notes.append("Landlock cannot take back a part of a writable root: .git and the other names are NOT protected.")
    notes.append("System calls for the network are refused." if restricted else "The host's network.")
    notes.append("Processes outside are seen, and those of the same user are in reach.")
    if host.private_paths:
        notes.append(
            "Sockets and keys of this user's agents are NOT hidden: Landlock cannot hide a part of what is read."
        )
    notes += [f"On this kernel {lack}." for lack in unavailable(host.landlock_abi, restricted)]
    return SandboxPlan(
        Backend.LANDLOCK,
        command.argv,
        command.cwd,
        environment,
        seccomp=program(mode, host.machine),
        landlock=LandlockRules(writable, restricted),
        notes=tuple(notes),
    )
