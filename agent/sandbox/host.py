"""This machine, as the data that `plan` takes."""

from __future__ import annotations

import os
import sys

from agent.sandbox.disk import RealDisk, Route
from agent.sandbox.plan import Host, Options
from agent.sandbox.policy import Places, Policy
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


def look(policy: Policy, cwd: str, options: Options, environ: Mapping[str, str]) -> Host:
    """What the plan of one command depends on; looks only for what the policy needs.

    Args:
        cwd: The command's working directory, absolute.
    """
    disk = RealDisk()
    host = Host(
        platform=sys.platform,
        machine=os.uname().machine if hasattr(os, "uname") else "unknown",
        uid=os.geteuid() if hasattr(os, "geteuid") else -1,
        disk=disk,
    )
    if sys.platform != "linux" or not policy.needs_sandbox and options.managed_ports is None:
        return host
    if options.legacy_landlock:
        from agent.sandbox.landlock import abi_version

        return _with(host, landlock_abi=abi_version())
    if policy.has_full_disk_write and options.managed_ports is None:
        return host
    if _is_wsl1():
        return _with(host, wsl1=True)
    from agent.sandbox.discovery import find_bubblewrap

    roots = {Route(path, disk).real for path in policy.writable_roots()}
    found = find_bubblewrap(environ, Route(cwd, disk).real, tuple(sorted(roots)))
    return _with(
        host,
        bubblewrap=found.bubblewrap,
        no_bubblewrap=found.missing,
        private_paths=private_paths(environ, host.uid),
    )


def private_paths(environ: Mapping[str, str], uid: int) -> tuple[str, ...]:
    """Where this user's agents keep sockets and keys; not all of them exist.

    The runs of `certs.run_directory` (which this room does not import), our records, and the original's daemon.
    """
    bases = (environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}", environ.get("TMPDIR"), "/tmp", "/var/tmp")
    runs = [f"{base}/countersign-runs-{uid}" for base in bases if base and base.startswith("/")]
    return tuple(dict.fromkeys([*runs, state_directory(make=False), f"/tmp/codex-daemon-{uid}"]))


def _with(host: Host, **facts: object) -> Host:
    return Host(**{**host.__dict__, **facts})


def _is_wsl1() -> bool:
    from agent.sandbox.discovery import wsl_version

    try:
        with open("/proc/version", "rb") as file:
            return wsl_version(file.read().decode(errors="replace")) == 1
    except OSError:
        return False
