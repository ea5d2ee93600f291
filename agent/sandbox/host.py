"""This machine, as the data that `plan` takes."""

from __future__ import annotations

import os
import stat
import sys

from agent.sandbox.disk import RealDisk, Route
from agent.sandbox.paths import ancestors, joined, normal
from agent.sandbox.plan import Backend, Host, Options, SandboxUnavailable
from agent.sandbox.policy import Access, Places, Policy
from agent.sandbox.state import state_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def places(cwd: str, environ: Mapping[str, str], roots: tuple[str, ...] = ()) -> Places:
    """The special targets as they are here.

    Args:
        cwd: The policy's directory, absolute.
        roots: The workspace roots; the policy's directory if there are none.
    """
    tmpdir = environ.get("TMPDIR") or None
    if tmpdir is not None:
        tmpdir = os.path.abspath(tmpdir)
    return Places(cwd, roots or (cwd,), tmpdir, os.path.isdir("/tmp"))


def look(
    policy: Policy,
    cwd: str,
    options: Options,
    environ: Mapping[str, str],
    proxy_ports: frozenset[int] = frozenset(),
) -> Host:
    """What the plan of one command depends on; looks only for what the policy needs.

    Makes those of the private directories that are missing: only what is there can be hidden, and a run that starts
    while the command lives would else put its keys where the command sees them.

    Args:
        cwd: The command's working directory, absolute.
        proxy_ports: Loopback ports of the caller's own proxies that stamp.

    Raises:
        SandboxUnavailable: A private directory cannot be made, for want of room or the like.
    """
    disk = RealDisk()
    host = Host(
        platform=sys.platform,
        machine=os.uname().machine if hasattr(os, "uname") else "unknown",
        uid=os.geteuid() if hasattr(os, "geteuid") else -1,
        disk=disk,
        proxy_ports=proxy_ports,
    )
    if sys.platform not in ("linux", "darwin") or not policy.needs_sandbox and options.managed_ports is None:
        return host
    if sys.platform == "darwin":
        # Seatbelt refuses a path whether or not it is there.
        return _with(host, private_paths=private_paths(environ, host.uid))
    if options.legacy_landlock:
        from agent.sandbox.landlock import abi_version

        return _with(host, landlock_abi=abi_version(), private_paths=private_paths(environ, host.uid))
    if policy.has_full_disk_write and options.managed_ports is None:
        return host
    if _is_wsl1():
        return _with(host, wsl1=True)
    from agent.sandbox.discovery import find_bubblewrap

    roots = {Route(path, disk).real for path in policy.writable_roots()}
    if policy.has_full_disk_write:
        roots.add("/")
    private = _reserve(environ, host.uid)
    found = find_bubblewrap(environ, Route(cwd, disk).real, tuple(sorted(roots)))
    return _with(
        host,
        bubblewrap=found.bubblewrap,
        no_bubblewrap=found.missing,
        private_paths=private,
        denied_file=_denied_file(policy) or host.denied_file,
        home=_home(environ, host),
    )


def _home(environ: Mapping[str, str], host: Host) -> str:
    home = normal(environ.get("HOME", "")) if environ.get("HOME", "").startswith("/") else "/"
    real = Route(home, host.disk).real
    return real if all(_may_enter(path, host.uid) for path in ancestors(real)) else "/"


def _may_enter(directory: str, uid: int) -> bool:
    """Whether the mode lets us search a directory, as it counts in a sandbox: for user 0 too."""
    try:
        status = os.stat(directory)
    except OSError:
        return False
    ours = status.st_gid == os.getegid() or status.st_gid in os.getgroups()
    bit = stat.S_IXUSR if status.st_uid == uid else stat.S_IXGRP if ours else stat.S_IXOTH
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & bit)


def _denied_file(policy: Policy) -> str | None:
    """An empty file that nobody may open, made where it is missing; None if nothing is denied, or none can be made."""
    if not policy.globs and all(rule.access is not Access.DENY for rule in policy.rules.values()):
        return None
    try:
        path = f"{state_directory()}/denied"
        if not _is_shut_and_empty(path):
            # Somebody unconfined changed it; those who have it mounted keep theirs.
            if os.path.lexists(path):
                os.unlink(path)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0))
        return path if _is_shut_and_empty(path) else None
    except OSError:
        return None


def _is_shut_and_empty(path: str) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and not stat.S_IMODE(status.st_mode) and not status.st_size


def private_paths(environ: Mapping[str, str], uid: int) -> tuple[str, ...]:
    """Where this user's agents keep sockets and keys; not all of them exist.

    The runs of `certs.run_directory` (which this room does not import), our records, and the original's daemon.
    """
    return tuple(dict.fromkeys([*_fixed(environ, uid), *_runs(_temp_bases(environ), uid)]))


def _fixed(environ: Mapping[str, str], uid: int) -> list[str]:
    runtime = [*_named(environ, "XDG_RUNTIME_DIR"), f"/run/user/{uid}"]
    return [*_runs(runtime, uid), state_directory(make=False), f"/tmp/codex-daemon-{uid}"]


def _temp_bases(environ: Mapping[str, str]) -> list[str]:
    """In the order in which a run that has no runtime directory takes the first that can be had."""
    return ["/tmp", "/var/tmp", *_named(environ, "TMPDIR", "TEMP", "TMP")]


def _named(environ: Mapping[str, str], *names: str) -> list[str]:
    return [normal(base) for base in (environ.get(name, "") for name in names) if base.startswith("/")]


def _runs(bases: list[str], uid: int) -> list[str]:
    return [joined(base, f"countersign-runs-{uid}") for base in bases]


def _reserve(environ: Mapping[str, str], uid: int) -> tuple[str, ...]:
    """Make each private directory that may come to be used; returns those that are to be hidden."""
    hidden = _fixed(environ, uid)
    for path in hidden:
        _reserved(path, uid)
    reserved = False
    for path in _runs(_temp_bases(environ), uid):
        # Behind the one that runs are put into only what is there: it may be of a time when they were not.
        if not reserved or (os.path.isdir(path) and not os.path.islink(path)):
            hidden.append(path)
            reserved = reserved or _reserved(path, uid)
    return tuple(dict.fromkeys(hidden))


def _reserved(path: str, uid: int) -> bool:
    """Make a private directory, unless it is there or cannot be; whether it is one then."""
    try:
        os.mkdir(path, 0o700)
        return True
    except FileExistsError:
        status = os.lstat(path)
        return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o077
    except OSError as exc:
        import errno

        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMLINK, errno.EIO):
            raise SandboxUnavailable(
                Backend.BUBBLEWRAP,
                f"cannot make {path!r}, where agents keep sockets and keys, so that it can be hidden: {exc.strerror}",
            ) from exc
        # It is not there to be made in, or not ours to: no run of ours can be put there.
        return False


def _with(host: Host, **facts: object) -> Host:
    return Host(**{**host.__dict__, **facts})


def _is_wsl1() -> bool:
    from agent.sandbox.discovery import wsl_version

    try:
        with open("/proc/version", "rb") as file:
            return wsl_version(file.read().decode(errors="replace")) == 1
    except OSError:
        return False
