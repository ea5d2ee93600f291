"""The bubblewrap command line of a policy. Pure but for the disk that is asked.

One bubblewrap for each command, started by whoever wants the command run: the seccomp program goes in by descriptor,
bubblewrap drops the capabilities and sets no_new_privs itself, so nothing of ours has to run inside.
"""

from __future__ import annotations

from agent.sandbox.disk import Kind, Route
from agent.sandbox.ground import Ground, Mask, MaskKind
from agent.sandbox.paths import is_under
from agent.sandbox.plan import (
    BLOCK_FD,
    INFO_FD,
    SECCOMP_FD,
    SYNC_FD,
    Backend,
    Bubblewrap,
    Command,
    Host,
    Options,
    Placeholder,
    SandboxPlan,
    SandboxUnavailable,
)
from agent.sandbox.policy import Access, Network, Policy, by_depth
from agent.sandbox.seccomp import NetworkFilter, program
from agent.sandbox.view import View

# bubblewrap 0.8 and later refuse longer command lines (MAX_ARGS in bubblewrap.c).
_MAX_WORDS = 9000


def bubblewrap_plan(
    policy: Policy,
    command: Command,
    host: Host,
    options: Options,
    bubblewrap: Bubblewrap,
    environment: tuple[tuple[str, str], ...],
) -> SandboxPlan:
    """The plan of one confined command.

    Raises:
        SandboxUnavailable: The command line would be too long, or cwd does not exist.
        PolicyError: See `Ground`.
    """
    own_proc = has_own_proc(bubblewrap, options)
    ground = Ground(policy, host.disk, own_proc)
    view = View(policy, ground, host.disk)
    cwd = Route(command.cwd, host.disk)
    if cwd.kind is not Kind.DIRECTORY:
        raise SandboxUnavailable(Backend.BUBBLEWRAP, f"the working directory {command.cwd!r} is not a directory")
    read_only, denied = ground.read_only(), ground.denied(host.private_paths)
    held = ground.held_in_place([*read_only, *denied])
    masks = {mask.path: mask for mask in (*read_only, *denied)}
    # Only where something writable is around it can be another launch's placeholder, or be taken away.
    masked = tuple(path for path in masks if ground.in_writable(path))
    isolated = policy.network is Network.RESTRICTED or options.managed_ports is not None
    words = [bubblewrap.path, "--new-session", "--die-with-parent"]
    words += view.words
    # A fresh /proc comes last but for what is denied in it: its mount hides what was mounted there before.
    in_proc = [mask for mask in denied if own_proc and is_under(mask.path, "/proc")]
    elsewhere = [mask for mask in denied if mask not in in_proc]
    words += _mounts(ground, view, host, [*held, *ground.writable], read_only, elsewhere)
    words += ["--unshare-user", "--unshare-ipc"]
    # Root in a user namespace of its own could mount cgroup trees, and what they are made of is root's to write.
    words += ["--disable-userns"] if host.uid == 0 else []
    words += [] if options.keep_pid_namespace else ["--unshare-pid"]
    words += ["--unshare-net"] if isolated else []
    words += [*_proc(host), *_mounts(ground, view, host, [], [], in_proc)] if own_proc else []
    words += ["--chdir", _start(ground, view, cwd, Route(host.home, host.disk))]
    words += ["--cap-drop", "ALL", "--seccomp", str(SECCOMP_FD)]
    # What is masked must not be taken away while the sandbox lives: bubblewrap's init holds this open until it dies.
    words += ["--sync-fd", str(SYNC_FD)] if masked else []
    words += ["--info-fd", str(INFO_FD)] if masked or options.managed_ports is not None else []
    words += ["--block-fd", str(BLOCK_FD)] if options.managed_ports is not None else []
    words += ["--", *command.argv]
    if len(words) - len(command.argv) > _MAX_WORDS:
        mounts = len(ground.writable) + len(read_only) + len(denied) + len(held)
        raise SandboxUnavailable(
            Backend.BUBBLEWRAP,
            f"the policy needs {mounts} mounts, and bubblewrap takes a "
            f"command line of {_MAX_WORDS} words at most; deny or grant whole directories instead of single files",
        )
    return SandboxPlan(
        Backend.BUBBLEWRAP,
        tuple(words),
        command.cwd,
        environment,
        seccomp=program(_filter(policy, options), host.machine),
        placeholders=tuple(
            Placeholder(mask.path, mask.placeholder) for mask in masks.values() if mask.placeholder is not None
        ),
        masked=masked,
        bridge_ports=options.managed_ports or (),
        notes=tuple(_notes(policy, ground, read_only, denied, held, isolated, own_proc)),
    )


def has_own_proc(bubblewrap: Bubblewrap | None, options: Options) -> bool:
    """Whether a command gets a fresh /proc; else it sees the host's."""
    can = bubblewrap is None or bubblewrap.mounts_proc
    return can and not options.no_proc and not options.keep_pid_namespace


def _filter(policy: Policy, options: Options) -> NetworkFilter:
    if options.managed_ports is not None:
        return NetworkFilter.PROXY_ROUTED
    return NetworkFilter.RESTRICTED if policy.network is Network.RESTRICTED else NetworkFilter.NETWORK_ON


def _proc(host: Host) -> list[str]:
    """A fresh /proc. The kernel's settings in it are the host's, and would stay writable for user 0."""
    return ["--proc", "/proc", *(["--ro-bind", "/proc/sys", "/proc/sys"] if host.uid == 0 else [])]


def _mounts(
    ground: Ground, view: View, host: Host, writable: list[str], read_only: list[Mask], denied: list[Mask]
) -> list[str]:
    """Writable places and masks, outer before inner, since a mount hides what was mounted below its place before."""
    steps: dict[str, tuple[str, ...]] = {path: ("--bind", path) for path in writable if path != "/"}
    steps |= {mask.path: ("--ro-bind", mask.path) for mask in read_only}
    reopened = set()
    for mask in denied:
        if mask.kind is MaskKind.DENIED_FILE:
            # One file for all: bubblewrap's own --ro-bind-data would take a descriptor for each.
            steps[mask.path] = ("--ro-bind", host.denied_file)
        elif ground.reopened(mask.path):
            # What is writable inside gets its mount point made there, so it is closed only after that.
            steps[mask.path] = ("--perms", "0111", "--tmpfs")
            reopened.add(mask.path)
        else:
            steps[mask.path] = ("--perms", "0000", "--tmpfs")
    placed = [(place, path) for path in steps for place in view.places(path)]
    words: list[str] = []
    sealed_last: list[str] = []
    for place, path in sorted(placed, key=lambda one: by_depth(one[0])):
        words += [*steps[path], place]
        if steps[path][-1] == "--tmpfs":
            seal = sealed_last if path in reopened else words
            seal += ["--remount-ro", place]
    return words + sealed_last


def _start(ground: Ground, view: View, *wanted: Route) -> str:
    """The first directory that can be entered in the view; `/` always can."""
    for directory in wanted:
        if directory.kind is Kind.DIRECTORY:
            if _is_reachable(ground, directory.real):
                return view.seen_at(directory.real)
            if view.leads_through(directory.real):
                return directory.real
    return "/"


def _is_reachable(ground: Ground, cwd: str) -> bool:
    rule = ground.rule_for(cwd)
    if rule is None or rule.access is Access.WRITE:
        return ground.is_shown(cwd)
    # Below a denied directory only writing is reopened.
    return rule.access is Access.READ and ground.is_shown(cwd) and not ground.is_shut(cwd)


def _notes(
    policy: Policy,
    ground: Ground,
    read_only: list[Mask],
    denied: list[Mask],
    held: list[str],
    isolated: bool,
    own_proc: bool,
) -> list[str]:
    whole = policy.unrestricted or ground.is_visible("/")
    notes = ["Everything may be read." if whole else "Only the readable roots are there; the rest of the disk is not."]
    notes += [f"May be written: {path}" for path in ground.writable]
    notes += [f"Left out, since it does not exist: {rule.entry}; create it first" for rule in ground.left_out()]
    notes += [f"Stays read-only: {mask.path} ({mask.because})" for mask in read_only]
    notes += [f"Cannot be read: {mask.path} ({mask.because})" for mask in denied]
    notes += [f"Cannot be moved, since it leads there: {path}" for path in held]
    notes.append("No network but its own loopback." if isolated else "The host's network.")
    notes.append("Processes outside are not seen." if own_proc else "The host's /proc is seen.")
    return notes
