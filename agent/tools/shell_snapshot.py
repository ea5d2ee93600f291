"""What the user's profile makes of bash, learnt once for a thread so that not each command reads the profile again.

A profile that starts pyenv or nvm takes longer than most commands. The original runs it once for each thread, outside
of any sandbox, writes what came of it to a file that all users may read, and lets commands under every policy have it
(observed). Here it runs where the thread's commands run, and what came of it stays in memory: a command that may write
the profile must not have it run outside of its sandbox, and one that may not read a file must not be told what it says.
"""

import asyncio
import logging
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.thread import Thread
from agent.sandbox.environment import ShellEnvironmentPolicy, apply
from agent.sandbox.plan import SandboxUnavailable
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Runner
from agent.tools.confinement import Confinement

logger = logging.getLogger(__name__)

# Then the profile is killed, as in the original (observed). Nobody waits: until then commands read it themselves.
_MOST_S = 10.0
# Of what the shells say in all, the profile included.
_MOST_BYTES = 512 * 1024
# The kernel takes a variable of 128 KiB; nvm alone has functions of about as much.
_CHUNK = 96 * 1024
_VARIABLE = "_shell_snapshot_"
# The shell's own, which each shell sets anew.
_SHELLS_OWN = {"_", "PWD", "OLDPWD", "SHLVL"}
# A shell with these cannot be made one by code that it runs, or would tell of that code.
_UNWANTED_OPTIONS = {f"set -o {name}" for name in ("noexec", "privileged", "verbose", "xtrace")}
_FIXED_OPTIONS = ("login_shell", "restricted_shell")

# Before each of its two parts, and after the second, the mark is said: a profile may say anything.
_TELL = (
    "builtin printf '\\0%s\\0' {mark}; builtin command -p env -0; builtin printf '\\0%s\\0' {mark}; "
    "builtin shopt -p; builtin set +o; builtin umask -p; builtin printf '\\0%s\\0' {mark}; "
    "builtin declare -f; builtin trap -p; builtin alias -p; builtin printf '\\0%s\\0' {mark}"
)


@dataclass(frozen=True, slots=True)
class ShellSnapshot:
    """What a login shell has that the same shell without a profile has not.

    Args:
        exported: Variables that are other, or new.
        removed: Names of variables that are not there any more.
        code: Makes options, functions, traps and aliases.
    """

    exported: dict[str, str] = field(repr=False)
    removed: frozenset[str]
    code: str = field(repr=False)

    def command(self, shell: str, cmd: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """(what runs the command as a login shell would, variables that it needs for that)."""
        if not self.code:
            return (shell, "-c", cmd), {}
        code = os.fsencode(self.code)
        chunks = [os.fsdecode(code[at : at + _CHUNK]) for at in range(0, len(code), _CHUNK)]
        variables = {f"{_VARIABLE}{number}": chunk for number, chunk in enumerate(chunks)}
        whole = "".join(f"${name}" for name in variables)
        # Lines of their own: what is parsed with them does not know of an alias or an option yet.
        return (shell, "-c", f'eval "{whole}"; unset {" ".join(variables)}\n{cmd}'), variables


def parse(said: bytes, mark: str) -> ShellSnapshot | None:
    """The snapshot, of what the two shells said; None if they did not come to their ends, or none can be used."""
    parts = said.split(f"\0{mark}\0".encode())
    if len(parts) != 9:
        return None
    environ, options, code = (os.fsdecode(part) for part in parts[1:4])
    environ_after, options_after, code_after = (os.fsdecode(part) for part in parts[5:8])
    before, after = _variables(environ), _variables(environ_after)
    lines = [line for line in options_after.splitlines() if line not in options.splitlines()]
    if not _UNWANTED_OPTIONS.isdisjoint(lines):
        return None
    wanted = [line for line in lines if not line.endswith(_FIXED_OPTIONS)]
    made = [code_after] if code_after != code else []
    return ShellSnapshot(
        exported={name: value for name, value in after.items() if before.get(name) != value},
        removed=frozenset(before.keys() - after.keys()),
        code="\n".join([*wanted, *made]),
    )


def _variables(listed: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in listed.split("\0"))
    return {name: value for name, equals, value in pairs if equals and name not in _SHELLS_OWN}


class ShellSnapshots:
    """Those of all threads; what a thread has of it is in its session.

    Args:
        shell: The user's.
    """

    def __init__(self, runner: Runner, confinement: Confinement, shell: str) -> None:
        self._runner = runner
        self._confinement = confinement
        self._shell = shell
        # Other shells do not tell what they have in words that they would read again.
        self._is_bash = os.path.basename(shell) == "bash"

    def begin(self, thread: Thread, kept: dict[str, Any]) -> None:
        """Have it made in the background, unless that was done under the thread's policy."""
        made: _Made | None = kept.get(_KEPT)
        wanted = self._is_bash and self._confinement.has(thread, "shell_snapshot")
        if not wanted or (made is not None and made.under == _under(thread)):
            return
        if made is not None:
            made.task.cancel()
        task = asyncio.create_task(self._make(thread, None if made is None else made.task))
        kept[_KEPT] = _Made(_under(thread), task)

    def ready(self, thread: Thread, kept: dict[str, Any]) -> ShellSnapshot | None:
        """That of the thread under its policy; None if there is none, and commands have to read the profile."""
        made: _Made | None = kept.get(_KEPT)
        if made is None or made.under != _under(thread) or not made.task.done():
            return None
        return made.task.result()

    async def forget(self, kept: dict[str, Any]) -> None:
        """The thread is over."""
        made: _Made | None = kept.pop(_KEPT, None)
        if made is not None:
            made.task.cancel()
            await asyncio.wait((made.task,))

    def environment(self, thread: Thread, snapshot: ShellSnapshot, environ: Mapping[str, str]) -> dict[str, str]:
        """A command's environment, with what the profile exports as far as the user's policy lets it (observed).

        Args:
            environ: That of the command before a profile.
        """
        policy = self._confinement.environment_policy(thread)
        names = ShellEnvironmentPolicy(
            ignore_default_excludes=policy.ignore_default_excludes,
            exclude=policy.exclude,
            include_only=policy.include_only,
        )
        address, _, directories = self._confinement.own_proxy()
        exported = apply(names, snapshot.exported, address, directories)
        fixed = dict(policy.assigned).keys() | {name for name in environ if name.startswith("CODEX_")}
        kept = {name: value for name, value in environ.items() if name not in snapshot.removed - fixed}
        return {**kept, **{name: value for name, value in exported.items() if name not in fixed}}

    async def _make(self, thread: Thread, before: asyncio.Task[Any] | None) -> ShellSnapshot | None:
        if before is not None:
            await asyncio.wait((before,))
        mark = secrets.token_hex(16)
        tell = _TELL.format(mark=mark)
        # One after the other in one process: both begin with the same.
        both = f'{tell}; exec {shlex.quote(self._shell)} -lc "$1"'
        argv = (self._shell, "--norc", "--noprofile", "-c", both, self._shell, tell)
        try:
            outcome = await self._runner.run(
                self._confinement.planner(thread, argv, thread.cwd)[0],
                self._confinement.model_environment(thread, ""),
                timeout_s=_MOST_S,
                max_output_bytes=_MOST_BYTES,
            )
        except (SandboxUnavailable, PolicyError, OSError, ValueError) as exc:
            logger.info("no shell snapshot, each command reads the profile: %s", type(exc).__name__)
            return None
        except Exception:  # no command is to fail for it
            logger.exception("no shell snapshot, each command reads the profile")
            return None
        snapshot = None if outcome.timed_out or outcome.dropped_stdout else parse(outcome.stdout, mark)
        if snapshot is None:
            logger.info("no shell snapshot, each command reads the profile: it does not come to its end, or says much")
        return snapshot


_KEPT = "shell_snapshot"


@dataclass(frozen=True, slots=True)
class _Made:
    under: tuple[Any, ...]
    task: asyncio.Task[ShellSnapshot | None]


def _under(thread: Thread) -> tuple[Any, ...]:
    """What confines the thread. What was granted beyond it does not count: it adds nothing to read from a profile."""
    return thread.cwd, thread.profile, dict(thread.sandbox)
