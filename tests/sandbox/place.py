"""A project with things around it that must stay as they are, and ways to run commands there as one of two users."""

import functools
import json
import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.processes import COUNTERSIGN
from tests.sandbox.attempts import Told, attempt, carry_out, environment
from tests.sandbox.profiles import FULL_ACCESS, Profile, workspace

NOBODY = 65534
# Who runs the tests runs the tools; root, who is a different story for a sandbox, also runs them as somebody else.
USERS = (0, NOBODY) if os.geteuid() == 0 else (os.geteuid(),)

KEPT = "kept as it is\n"
SECRET = "the-secret-nobody-may-read\n"
HOOK = "#!/bin/sh\n"


@dataclass(frozen=True)
class Place:
    """A directory of its own, not below /tmp: that is a writable root in many policies.

    Attributes:
        project: The workspace, with a `.git`.
        outside: Beside it, with `keep.txt` and `secret.txt`; belongs to the same user.
        uid: Who runs things here.
    """

    root: Path
    uid: int

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def secret(self) -> Path:
        return self.outside / "secret.txt"

    def give(self) -> None:
        """Let everything here belong to the user."""
        if os.geteuid() == 0:
            for directory, _, names in os.walk(self.root):
                for path in (directory, *(os.path.join(directory, name) for name in names)):
                    os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def line(self, profile: Profile, *command: str, cwd: Path | None = None) -> list[str]:
        """The command line that runs a command under a profile, for who is the user already."""
        state = {"permissionProfile": profile, "sandboxCwd": f"file://{quote(os.fsencode(cwd or self.project))}"}
        return [COUNTERSIGN, "sandbox", "--sandbox-state-json", json.dumps(state), "--", *command]

    def sandbox(self, profile: Profile, *command: str, cwd: Path | None = None) -> list[str]:
        """The command line that, as the user, runs a command under a profile."""
        return as_user(self.uid, *self.line(profile, *command, cwd=cwd))

    def confined(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        profile: Profile | None = None,
        environ: Mapping[str, str | None] | None = None,
        **how: Any,
    ) -> Told:
        """What comes of an attempt under a profile; by default one that may write the project."""
        command = self.sandbox(workspace() if profile is None else profile, *attempt(function, *arguments))
        return carry_out(command, cwd=self.project, env=environment(environ), **how)

    def with_full_access(self, function: Callable[..., Any], *arguments: Any, **how: Any) -> Told:
        """What comes of the same attempt if the policy is danger-full-access: the control."""
        return self.confined(function, *arguments, profile=FULL_ACCESS, **how)

    def run(
        self,
        *options: str,
        environ: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        command: Sequence[str],
        **how: Any,
    ) -> Told:
        """`countersign sandbox` with these options, as the user."""
        line = as_user(self.uid, COUNTERSIGN, "sandbox", *options, "--", *command)
        return carry_out(line, cwd=cwd or self.project, env=environment(environ), **how)

    def state_outside(self) -> dict[str, object]:
        """All that a change outside the project would change, times of change included."""
        return dict(_states(self.outside))


def _states(directory: Path) -> Iterator[tuple[str, object]]:
    for path in (directory, *sorted(directory.rglob("*"))):
        found = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(found.st_mode) else None
        facts = (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns)
        yield str(path), (*facts, content)


@contextmanager
def place_for(uid: int) -> Iterator[Place]:
    """A place of one user, removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="countersign-", dir="/var/tmp"))
    try:
        root.chmod(0o755)
        place = Place(root, uid)
        (place.project / ".git" / "hooks").mkdir(parents=True)
        (place.project / ".git" / "hooks" / "pre-commit").write_text(HOOK)
        (place.project / "notes.txt").write_text("notes\n")
        place.outside.mkdir()
        (place.outside / "keep.txt").write_text(KEPT)
        place.secret.write_text(SECRET)
        place.give()
        yield place
    finally:
        shutil.rmtree(root)


def as_user(uid: int, *command: str) -> list[str]:
    """A command line that runs a command as a user, to whom our interpreter and this checkout are opened."""
    if uid == os.geteuid():
        return list(command)
    drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--", *command]
    return ["unshare", "--mount", "sh", "-euc", _opening(), "sh", *drop]


def with_mounts(script: str, *command: str) -> list[str]:
    """A command line that runs a shell script, which has the command as "$@", where mounts are its own.

    A checkout that lies where the script mounts something is put back there before the command.
    """
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    root = Path(__file__).parents[2]
    if any(root.is_relative_to(place) for place in ("/tmp", "/var/tmp", "/mnt")):
        here = shlex.quote(str(root))
        back = f"mkdir -p {here} && mount --no-canonicalize --rbind /proc/self/fd/9 {here} && cd {here} && exec"
        script = f"exec 9<{here}\n" + script.replace("exec", back).replace(
            "nr_inodes=1 ", f"nr_inodes={len(root.parts) - 1} "
        )
    return ["unshare", "--mount", *rights, "sh", "-uc", script, "sh", *command]


@functools.cache
def _opening() -> str:
    """A shell script that opens, in a mount namespace of its own, the private directories above what is needed."""
    needed = {os.path.realpath(path) for path in (sys.base_prefix, Path(__file__).parents[2], sys.prefix)}
    closed: dict[str, list[str]] = {}
    for path in sorted(needed):
        above = next((str(one) for one in reversed(Path(path).parents) if not one.stat().st_mode & stat.S_IXOTH), None)
        if above is not None:
            closed.setdefault(above, []).append(path)
    # In this namespace nobody else sees what is mounted over /mnt, and nothing is left of it.
    lines = ["keep=/mnt", "mount -t tmpfs -o mode=755 none $keep"]
    for index, (above, paths) in enumerate(closed.items()):
        for number, path in enumerate(paths):
            lines += [f"mkdir -p $keep/{index}.{number}", f"mount --rbind '{path}' $keep/{index}.{number}"]
        lines.append(f"mount -t tmpfs -o mode=755 none '{above}'")
        for number, path in enumerate(paths):
            lines += [f"mkdir -p '{path}'", f"mount --rbind $keep/{index}.{number} '{path}'"]
    lines += ["umount --recursive $keep", 'exec "$@"']
    return "\n".join(lines) if closed else 'exec "$@"'
