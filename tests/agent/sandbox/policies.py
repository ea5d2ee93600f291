"""Policies and hosts for tests, each said in a line."""

import json
import os
from typing import Any

from agent.sandbox.frozen import replaced
from agent.sandbox.paths import is_glob, normal
from agent.sandbox.plan import Bubblewrap, Host
from agent.sandbox.policy import (
    Access,
    Entry,
    GlobTarget,
    Network,
    PathTarget,
    Places,
    Policy,
    Profile,
    ProfileKind,
    SpecialTarget,
    resolve,
)
from agent.sandbox.profile_json import profile_json

RESTRICTED, ENABLED = Network.RESTRICTED, Network.ENABLED
BWRAP = "/usr/bin/bwrap"


def entry(line: str) -> Entry:
    """`deny /w/x`, `read :root`, `write :project_roots/sub`, `deny /w/*.env` as an entry."""
    access, _, target = line.partition(" ")
    return Entry(_target(target), next(one for one in Access if one.word == access))


def _target(text: str) -> Any:
    if text.startswith(":"):
        kind, _, subpath = text[1:].partition("/")
        return SpecialTarget(kind, subpath or None)
    return GlobTarget(text) if is_glob(text) else PathTarget(normal(text))


def profile(*lines: str, network: Network = RESTRICTED, depth: int | None = None) -> Profile:
    return Profile(
        ProfileKind.MANAGED, network, entries=tuple(entry(line) for line in lines), glob_scan_max_depth=depth
    )


def policy(
    *lines: str, cwd: str = "/w", tmpdir: str | None = None, network: Network = RESTRICTED, depth: int | None = None
) -> Policy:
    """A managed policy of these entries; `/tmp` is there, and $TMPDIR is unset unless given."""
    return resolve(profile(*lines, network=network, depth=depth), Places(cwd, (cwd,), tmpdir, True))


def as_json(*lines: str, network: Network = RESTRICTED) -> str:
    """The same entries as the JSON of a permission profile."""
    return json.dumps(profile_json(profile(*lines, network=network)))


def linux(disk: Any, **facts: Any) -> Host:
    """A Linux machine with a usable bubblewrap and Landlock, unless said otherwise."""
    usual = Host("linux", "x86_64", 1000, disk, bubblewrap=Bubblewrap(BWRAP), landlock_abi=6)
    return replaced(usual, **facts)


def open_descriptors() -> set[str]:
    """What our descriptors are open on: `number -> what`."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue  # the listing's own
    return found
