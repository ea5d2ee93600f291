"""What `countersign sandbox --explain` and `--check` print: a policy for people."""

import io
import os
import shlex
import sys
from collections.abc import Sequence

from agent.sandbox.bubblewrap import has_own_proc
from agent.sandbox.disk import Kind, RealDisk, Route
from agent.sandbox.frozen import replaced
from agent.sandbox.ground import Ground, Mask, MaskKind
from agent.sandbox.host import look
from agent.sandbox.paths import ancestors, is_under, normal
from agent.sandbox.plan import Command, Host, Options, SandboxUnavailable, plan
from agent.sandbox.policy import Access, Policy, PolicyError
from agent.sandbox.profile_json import profile_json
from agent.sandbox.view import View


def explain(
    policy: Policy,
    name: str,
    warnings: Sequence[str],
    command: Sequence[str],
    cwd: str,
    options: Options,
    platform: str,
) -> int:
    """Print the policy, what it comes to here, and the plan. Returns 0, or 1 if nothing could hold it."""
    import json

    _print_any_name()
    print(f"policy   {name}")
    print(f"cwd      {cwd}")
    for entry in policy.profile.entries:
        print(f"entry    {entry}{' (if it exists)' if entry.skip_missing else ''}")
    if policy.profile.unrestricted:
        print("entry    write everything")
    print(f"network  {policy.network.value}")
    print(f"json     {json.dumps(profile_json(policy.profile))}")
    for warning in warnings:
        print(f"warning  {warning}")
    print()
    shown = tuple(command) or ("COMMAND",)
    try:
        host = look(policy, cwd, options, os.environ)
        if platform != sys.platform:
            host = replaced(host, platform=platform)
        made = plan(policy, Command(shown, cwd), host, options)
    except (SandboxUnavailable, PolicyError) as exc:
        print(f"cannot be run: {exc}")
        return 1
    print(f"backend  {made.backend.value}")
    for note in made.notes:
        print(f"         {note}")
    for held in made.placeholders:
        print(f"         Made for the run and removed after it: {held.path}")
    for variable, value in made.environment:
        print(f"env      {variable}={value}")
    print(f"argv     {shlex.join(made.argv)}")
    return 0


def check(policy: Policy, paths: Sequence[str], cwd: str, options: Options) -> int:
    """Print for each path what `judge` says, and what decides. Returns 1 if the policy cannot be held."""
    _print_any_name()
    try:
        host = look(policy, cwd, options, os.environ)
        if options.legacy_landlock and not policy.has_full_disk_write:
            verdicts = [_under_landlock(policy, host, options, cwd, path) for path in paths]
        else:
            verdicts = _in_view(policy, host, options, paths)
    except (SandboxUnavailable, PolicyError) as exc:
        print(f"cannot be run: {exc}")
        return 1
    width = max(len(path) for path in paths)
    for path, (verdict, because) in zip(paths, verdicts, strict=True):
        print(f"{verdict:<7} {path:<{width}}  {because}")
    return 0


def _in_view(policy: Policy, host: Host, options: Options, paths: Sequence[str]) -> list[tuple[str, str]]:
    disk = RealDisk()
    ground = Ground(policy, disk, has_own_proc(host.bubblewrap, options))
    in_process = policy.has_full_disk_write and options.managed_ports is None
    masks = [] if in_process else [*ground.read_only(), *ground.denied(host.private_paths)]
    view = View(policy, ground, disk)
    verdicts = []
    for path in paths:
        route = Route(normal(path), disk)
        real = route.real
        verdict, because = judge(policy, ground, masks, real)
        if not in_process and verdict != "denied":
            unseen = (link for link in route.links if not _is_seen(policy, ground, masks, view, link))
            if (link := next(unseen, None)) is not None:
                verdict, because = "denied", f"the symlink {link} on the way is not seen"
        if route.missing is not None and disk.kind(route.missing) is Kind.SYMLINK:
            verdict, because = "denied", f"the symlink {route.missing} cannot be followed to its end"
        names = view.places(real)[1:]
        if verdict == "read" and names and normal(path) == real and view.seen_at(real) != real:
            verdict, because = "denied", f"it is there only as {names[0]}: {because}"
        verdicts.append((verdict, because))
    return verdicts


def _is_seen(policy: Policy, ground: Ground, masks: Sequence[Mask], view: View, link: str) -> bool:
    """Whether a symlink is in the view, by any name, and its directory not masked."""
    if link in view.names:
        return True
    shown = {*view.names, "/dev", "/proc"}
    is_there = any(above in shown for place in view.places(link) for above in ancestors(place))
    above = link[: link.rindex("/")] or "/"
    return is_there and (above == "/" or judge(policy, ground, masks, above)[0] != "denied")


def _under_landlock(policy: Policy, host: Host, options: Options, cwd: str, path: str) -> tuple[str, str]:
    rules = plan(policy, Command(("true",), cwd), host, options).landlock
    real = Route(normal(path), host.disk).real
    root = next((root for root in rules.writable if is_under(real, root)), None) if rules is not None else None
    if root is None:
        return "read", "Landlock lets everything be read"
    return "write", f"{root} may be written, and Landlock cannot take back a part of it"


def _print_any_name() -> None:
    """Names of files may be no text, and are printed as the bytes that they are."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


_FRESH = dict.fromkeys(
    (f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")), "write"
)
_FRESH |= {"/dev": "private", "/dev/shm": "private", "/dev/pts": "read"}


def judge(policy: Policy, ground: Ground, masks: Sequence[Mask], path: str) -> tuple[str, str]:
    """What may be done with a real path, and why: ("read", "write", "denied" or "private", the entry or the rule)."""
    over = next((mask for above in ancestors(path) for mask in masks if mask.path == above), None)
    if policy.has_full_disk_write:
        return ("denied", over.because) if over is not None else ("write", "everything may be written")
    rule = ground.rule_for(path)
    opened = rule.path if rule is not None and rule.access is Access.WRITE else None
    if opened is not None and opened not in ground.writable:
        # A writable root that does not exist is left out, and cannot be made where its parent cannot be written.
        return judge(policy, ground, masks, opened[: opened.rindex("/")] or "/")
    # A writable root below a mask counts more than the mask.
    if over is not None and not (opened is not None and opened != over.path and is_under(opened, over.path)):
        verdict = "read" if over.kind is MaskKind.READ_ONLY else "denied"
        return verdict, over.because
    fresh = next((mount for mount in ("/dev", "/proc") if is_under(path, mount)), None)
    if fresh is not None and not ground.is_visible(path):
        below = {"/dev": "private" if is_under(path, "/dev/shm") else "denied", "/proc": "read"}[fresh]
        return _FRESH.get(path, below), f"the sandbox has its own {fresh}"
    if rule is None or (rule.path == "/" and rule.access is Access.DENY):
        if ground.is_visible(path):
            return "read", "minimal opens the system's directories"
        return "denied", "no entry opens it" if rule is None else str(rule.entry)
    if rule.access is Access.READ and ground.is_shut(path):
        return "denied", "a denied directory above it is reopened only for writing"
    return {Access.READ: "read", Access.WRITE: "write", Access.DENY: "denied"}[rule.access], str(rule.entry)
