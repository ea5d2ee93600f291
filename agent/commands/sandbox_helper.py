"""The helper: this executable under the name `codex-linux-sandbox`. One permission profile, one command.

Its arguments and exit codes are those of the original's helper, so that what starts that one can start this one.
"""

from __future__ import annotations

import os
import sys

# Without `typing`: it costs 5 ms, with each command.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from agent.sandbox.policy import Profile

NAME = "codex-linux-sandbox"
BAD_ARGUMENT, CANNOT_BUILD, CANNOT_RUN = 2, 1, 101

_DIRECTORIES = ("--sandbox-policy-cwd", "--command-cwd")
_WITH_VALUE = (*_DIRECTORIES, "--permission-profile", "--managed-network")
_FLAGS = ("--no-proc", "--use-legacy-landlock", "--inherit-pid-namespace")
# Of the original's own second start inside the sandbox, which we do not make.
_INTERNAL = ("--apply-seccomp-then-exec", "--proxy-route-spec", "--verify-fd-mount")

_USAGE = f"""usage: {NAME} --sandbox-policy-cwd DIR --permission-profile JSON [options] -- COMMAND ...

  --sandbox-policy-cwd DIR     where the profile's special and relative paths belong
  --command-cwd DIR            where the command runs; by default where this does
  --permission-profile JSON    what the command may do
  --no-proc                    keep the host's /proc
  --use-legacy-landlock        hold the command by Landlock instead of bubblewrap
  --managed-network JSON       the command reaches only the loopback proxies that its proxy variables name
  --inherit-pid-namespace      stay in the caller's pid namespace
"""


def main(argv: Sequence[str]) -> int:
    """Confine and run; returns the command's exit code, or does not return."""
    given, flags, command = _parse(list(argv))
    if "--sandbox-policy-cwd" not in given:
        _stop(BAD_ARGUMENT, "--sandbox-policy-cwd DIR is needed")
    if "--permission-profile" not in given:
        _stop(CANNOT_RUN, "missing permission profile configuration: --permission-profile JSON is needed")
    if not command:
        _stop(CANNOT_RUN, "no command specified to execute")

    from agent.sandbox.environment import ShellEnvironmentPolicy, apply
    from agent.sandbox.launch import inherited_environment, run_here
    from agent.sandbox.plan import Command, Options, SandboxPlan, SandboxUnavailable, plan
    from agent.sandbox.policy import PolicyError, resolve

    profile = _profile(given["--permission-profile"])
    cwd, policy_cwd = _absolute(given.get("--command-cwd", ".")), _absolute(given["--sandbox-policy-cwd"])
    try:
        options = Options(
            legacy_landlock="--use-legacy-landlock" in flags,
            no_proc="--no-proc" in flags,
            keep_pid_namespace="--inherit-pid-namespace" in flags,
            managed_ports=_managed_ports(given.get("--managed-network")),
        )
    except PolicyError as exc:
        _stop(BAD_ARGUMENT, f"invalid value for '--managed-network': {exc}")
    except SandboxUnavailable as exc:
        _stop(CANNOT_RUN, exc.reason)

    def make_plan() -> SandboxPlan:
        from agent.sandbox.host import look, places

        policy = resolve(profile, places(policy_cwd, os.environ))
        return plan(policy, Command(tuple(command), cwd), look(policy, cwd, options, os.environ), options)

    try:
        from agent.sandbox.host import private_paths

        # What starts us has rules of its own for a tool's environment. None of them may give away the stamp.
        own = private_paths(os.environ, os.geteuid())
        environ = apply(ShellEnvironmentPolicy(), inherited_environment(), own_directories=own)
        return run_here(make_plan, environ, in_place=True)
    except PolicyError as exc:
        _stop(CANNOT_BUILD, f"error building bubblewrap command: {exc}")
    except SandboxUnavailable as exc:
        _stop(CANNOT_RUN, f"{exc.reason}; the command was not run")


def _absolute(directory: str) -> str:
    try:
        return os.path.abspath(directory)
    except FileNotFoundError:
        _stop(CANNOT_RUN, f"the working directory is gone, and {directory!r} is relative to it; name another directory")


def _profile(text: str) -> Profile:
    from agent.sandbox.json_text import parse_json
    from agent.sandbox.policy import PolicyError
    from agent.sandbox.profile_json import parse_profile

    try:
        return parse_profile(parse_json(text))
    except PolicyError as exc:
        _stop(BAD_ARGUMENT, f"invalid value for '--permission-profile': invalid permission profile: {exc}")
    except ValueError as exc:
        _stop(BAD_ARGUMENT, f"invalid value for '--permission-profile': not JSON: {exc}")


def _managed_ports(context: str | None) -> tuple[int, ...] | None:
    if context is None:
        return None
    from agent.sandbox.managed import managed_ports

    return managed_ports(context, os.environ)


def _parse(arguments: list[str]) -> tuple[dict[str, str], set[str], list[str]]:
    """Options up to the first other word or `--`; the rest is the command."""
    given: dict[str, str] = {}
    flags: set[str] = set()
    while arguments:
        word = arguments.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in given or word in flags:
            _stop(BAD_ARGUMENT, f"{name} is given twice")
        if name in _WITH_VALUE:
            # `-` alone is a value; another word with a dash is taken for an option that somebody forgot a value before.
            if not equals and (not arguments or arguments[0].startswith("-") and arguments[0] != "-"):
                _stop(BAD_ARGUMENT, f"{name} needs a value")
            given[name] = value if equals else arguments.pop(0)
            if name in _DIRECTORIES and not given[name]:
                _stop(BAD_ARGUMENT, f"{name} needs a value, and it is empty")
        elif word in _FLAGS:
            flags.add(word)
        elif word in ("-h", "--help"):
            sys.stdout.write(_USAGE)
            raise SystemExit(0)
        elif name in _INTERNAL:
            _stop(BAD_ARGUMENT, f"{name} belongs to the original's inner stage; there is none here")
        elif word.startswith("-") and word != "-":
            _stop(BAD_ARGUMENT, f"unexpected argument {word!r}; see {NAME} --help")
        else:
            arguments.insert(0, word)
            break
    return given, flags, arguments


def _stop(code: int, text: str) -> NoReturn:
    sys.stderr.write(f"{NAME}: error: {text}\n")
    raise SystemExit(code)
