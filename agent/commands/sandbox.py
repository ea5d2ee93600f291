"""`countersign sandbox`: run a command under a sandbox policy, or tell what the policy allows without running it.

Takes the inputs of the original's `codex sandbox`. Parsed by hand: argparse would cost more than the launch itself.
"""

from __future__ import annotations

import os
import sys

# Without `typing`: it costs 5 ms, with each command.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from agent.sandbox.policy import Policy, Profile

_PLATFORMS = {"linux": "linux", "macos": "darwin", "windows": "win32"}
_WITH_VALUE = {
    "-c": "config",
    "--config": "config",
    "-P": "profile",
    "--permission-profile": "profile",
    "-C": "cd",
    "--cd": "cd",
    "--enable": "enable",
    "--disable": "disable",
    "--sandbox-state-json": "state",
    "--sandbox-state-readable-root": "readable",
}
_FLAGS = {
    "--sandbox-state-disable-network": "disable-network",
    "--use-legacy-landlock": "landlock",
    "--managed-network": "managed",
    "--explain": "explain",
    "--no-proc": "no-proc",
}
# The original's, and why not here.
_UNSUPPORTED = {
    "-p": "profiles of the whole configuration are not supported; use -c or -P",
    "--profile": "profiles of the whole configuration are not supported; use -c or -P",
    "--include-managed-config": "managed configuration is not supported",
}

_HELP = """usage: countersign sandbox [linux|macos|windows] [options] [--] COMMAND ...
       countersign sandbox [options] --explain [-- COMMAND ...]
       countersign sandbox [options] --check PATH...

Run COMMAND under a sandbox policy. Without a policy it may read everything and write nothing, without network.

the policy, one of:
  -c sandbox_mode=MODE             read-only, workspace-write or danger-full-access, with
                                   -c sandbox_workspace_write.KEY=VALUE for its details
  -P, --permission-profile NAME    :read-only, :workspace, :danger-full-access or one of [permissions.NAME]
  --sandbox-state-json JSON        a permission profile with its directory, as a client of the agent is told
                                   (--sandbox-state-readable-root DIR adds a root, --sandbox-state-disable-network
                                   takes the network)
  default_permissions              of config.toml, if none of these is given

options:
  -c, --config KEY=VALUE           override config.toml (repeatable)
  -C, --cd DIR                     with -P: run there, and let the policy's directory be that one
  --enable, --disable FEATURE      the same as -c features.FEATURE=true or =false
  --use-legacy-landlock            hold the command by Landlock instead of bubblewrap
  --managed-network                no network but the loopback proxies that the proxy variables name
  --no-proc                        keep the host's /proc

without running anything:
  --explain                        print the policy and the plan, in words and as a command line
  --check PATH...                  print for each path whether it may be read or written, and by which entry;
                                   private is a directory of the sandbox's own
"""


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    """Run the command, or explain; returns the exit code."""
    arguments = _Arguments(argv, overrides)
    from agent.sandbox.plan import SandboxUnavailable
    from agent.sandbox.policy import PolicyError

    try:
        if arguments.checked is not None or "explain" in arguments.flags:
            return _tell(arguments)
        if not arguments.command:
            _fail("sandbox command must not be empty: say what to run, e.g. countersign sandbox -- ls", 1)
        if arguments.platform != sys.platform:
            _fail(f"this is {sys.platform}: a plan for {arguments.platform} can be explained (--explain), not run", 1)
        return _run(arguments)
    except PolicyError as exc:
        _fail(str(exc), 1)
    except SandboxUnavailable as exc:
        _fail(f"{exc.reason}; the command was not run", 1)


class _Arguments:
    """The command line, taken apart."""

    def __init__(self, argv: Sequence[str], overrides: Sequence[str]) -> None:
        words = list(argv)
        self.platform = sys.platform
        if words and words[0] in _PLATFORMS:
            self.platform = _PLATFORMS[words.pop(0)]
        self.overrides = list(overrides)
        self.values: dict[str, str] = {}
        self.readable: list[str] = []
        self.flags: set[str] = set()
        self.checked: list[str] | None = None
        while words:
            word = words.pop(0)
            if word == "--":
                break
            name, equals, value = word.partition("=")
            if word in ("-h", "--help"):
                sys.stdout.write(_HELP)
                raise SystemExit(0)
            if word == "--check":
                self.checked = []
            elif name in _UNSUPPORTED:
                _fail(f"{name}: {_UNSUPPORTED[name]}", 2)
            elif name in _WITH_VALUE and (not equals or name.startswith("--")):
                if not equals and not words:
                    _fail(f"{name} needs a value", 2)
                self._take(_WITH_VALUE[name], value if equals else words.pop(0))
            elif word in _FLAGS:
                self.flags.add(_FLAGS[word])
            elif word.startswith("-") and word != "-":
                _fail(f"unknown option {word!r}; put -- before a command that begins with a dash", 2)
            elif self.checked is not None:
                self.checked.append(word)
            else:
                words.insert(0, word)
                break
        self.command = words
        self._judge()

    def _take(self, name: str, value: str) -> None:
        if name == "config":
            self.overrides.append(value)
        elif name in ("enable", "disable"):
            self.overrides.append(f"features.{value}={'true' if name == 'enable' else 'false'}")
        elif name == "readable":
            self.readable.append(value)
        elif name in self.values:
            _fail(f"{name} is given twice", 2)
        else:
            self.values[name] = value

    def _judge(self) -> None:
        if "state" in self.values and "profile" in self.values:
            _fail("--sandbox-state-json and -P each give a policy; give one of them", 2)
        if "cd" in self.values and "profile" not in self.values:
            _fail("-C is the directory of a named profile; give -P too", 2)
        if (self.readable or "disable-network" in self.flags) and "state" not in self.values:
            _fail("--sandbox-state-readable-root and --sandbox-state-disable-network change --sandbox-state-json", 2)
        if self.checked == []:
            _fail("--check needs at least one path", 2)
        if self.checked is not None and (self.command or "explain" in self.flags):
            _fail("--check runs nothing: leave out the command and --explain", 2)
        if self.checked is not None and "" in self.checked:
            _fail("--check: one of the paths is empty", 2)
        if self.checked is not None and self.platform != sys.platform:
            _fail(f"--check answers for this machine, {sys.platform}; --explain tells of {self.platform}", 2)


class _Case:
    """One command with its policy: what the arguments and the configuration come to."""

    def __init__(self, arguments: _Arguments) -> None:
        from agent.sandbox.plan import Options

        self.warnings: list[str] = []
        self.name = ""
        self.cwd = _here()
        self.roots: tuple[str, ...] = ()
        self._config: dict[str, Any] | None = None
        self._arguments = arguments
        self.landlock = "landlock" in arguments.flags
        self.profile = self._profile()
        self.options = Options(
            legacy_landlock=self.landlock or self._feature("use_legacy_landlock"),
            no_proc="no-proc" in arguments.flags,
            managed_ports=_managed_ports() if "managed" in arguments.flags else None,
        )

    def policy(self) -> Policy:
        from agent.sandbox.host import places
        from agent.sandbox.policy import resolve

        return resolve(self.profile, places(self.cwd, os.environ, self.roots))

    def config(self) -> dict[str, Any]:
        """config.toml with the overrides; read once, and not at all where no file and no override is."""
        if self._config is None:
            home = _home()
            if not self._arguments.overrides and os.path.isdir(home) and not os.path.exists(f"{home}/config.toml"):
                self._config = {}
                return self._config
            from agent.home import HomeError, codex_home, load_config

            try:
                home = codex_home(os.environ) if os.environ.get("CODEX_HOME") else home
                self._config = load_config(home, self._arguments.overrides)
            except HomeError as exc:
                _fail(str(exc), 1)
        return self._config

    def _is_overridden(self, *keys: str) -> bool:
        return any(override.partition("=")[0].strip() in keys for override in self._arguments.overrides)

    def _feature(self, name: str) -> bool:
        features = self.config().get("features")
        return isinstance(features, dict) and features.get(name) is True

    def _profile(self) -> Profile:
        arguments = self._arguments
        if "state" in arguments.values:
            return self._state(arguments.values["state"])
        named = arguments.values.get("profile")
        if "cd" in arguments.values:
            self.cwd = os.path.abspath(arguments.values["cd"])
        chosen = named is not None or self._is_overridden("default_permissions")
        if not chosen and self._is_overridden("sandbox_mode"):
            from agent.sandbox.legacy import to_profile
            from agent.sandbox.profile_toml import legacy_policy

            # Relative roots belong to where they are written down.
            given_here = self._is_overridden("sandbox_workspace_write", "sandbox_workspace_write.writable_roots")
            base = self.cwd if given_here else os.path.abspath(_home())
            legacy = legacy_policy(self.config(), os.path.expanduser("~"), base)
            if legacy is not None:
                self.name = f"sandbox_mode = {legacy.mode.value}"
                return to_profile(legacy)
        config = self.config()
        if named is None and ("default_permissions" in config or "permissions" in config):
            from agent.sandbox.profile_toml import default_profile

            named = default_profile(config)
        if named is not None:
            from agent.sandbox.profile_toml import named_profile

            found = named_profile(named, config, os.path.expanduser("~"), self.cwd)
            self.name, self.roots, self.warnings = named, found.workspace_roots, list(found.warnings)
            return found.profile
        from agent.sandbox.legacy import READ_ONLY

        self.name = ":read-only, since no policy is given"
        return READ_ONLY

    def _state(self, text: str) -> Profile:
        from urllib.parse import unquote, urlsplit

        from agent.sandbox.frozen import replaced
        from agent.sandbox.host import places
        from agent.sandbox.json_text import parse_json
        from agent.sandbox.legacy import READ_ONLY
        from agent.sandbox.paths import flaw, normal
        from agent.sandbox.policy import Access, Entry, Network, PathTarget, PolicyError, ProfileKind, resolve
        from agent.sandbox.profile_json import parse_profile

        try:
            state = parse_json(text)
        except ValueError as exc:
            _fail(f"invalid --sandbox-state-json value: {exc}", 1)
        if not isinstance(state, dict) or "permissionProfile" not in state or "sandboxCwd" not in state:
            _fail(
                "invalid --sandbox-state-json value: an object with permissionProfile and sandboxCwd is needed, and "
                "maybe useLegacyLandlock",
                1,
            )
        try:
            address = urlsplit(state["sandboxCwd"]) if isinstance(state["sandboxCwd"], str) else None
        except ValueError:
            address = None  # a host in brackets that is none
        local = address is not None and address.scheme == "file" and address.netloc in ("", "localhost")
        if address is None or not local or not address.path.startswith("/"):
            raise PolicyError(f"sandboxCwd is {state['sandboxCwd']!r}; it is a file:// URL of an absolute path")
        if (found := flaw(directory := unquote(address.path, errors="surrogateescape"))) is not None:
            raise PolicyError(f"sandboxCwd is {state['sandboxCwd']!r} and holds {found}; no path does")
        if not isinstance(state.get("useLegacyLandlock", False), bool):
            raise PolicyError(f"useLegacyLandlock is {state['useLegacyLandlock']!r}; it is true or false")
        self.cwd = normal(directory)
        self.landlock = self.landlock or state.get("useLegacyLandlock", False)
        self.name = "from --sandbox-state-json"
        profile = parse_profile(state["permissionProfile"])
        off = "disable-network" in self._arguments.flags
        if profile.kind is ProfileKind.DISABLED:
            if off:
                raise PolicyError("--sandbox-state-disable-network cannot be applied to a disabled permission profile")
            return profile
        if profile.kind is ProfileKind.EXTERNAL:
            # As observed: nothing confines from outside what we start here.
            self.name += ", read-only instead of external"
            profile = READ_ONLY
        if self._arguments.readable and not profile.unrestricted:
            policy = resolve(profile, places(self.cwd, os.environ))
            paths = [os.path.abspath(root) for root in self._arguments.readable]
            # An entry for what can be read already could only take away that it can be written.
            added = [Entry(PathTarget(path), Access.READ) for path in paths if not policy.can_read(path)]
            profile = replaced(profile, entries=(*profile.entries, *added))
        return replaced(profile, network=Network.RESTRICTED) if off else profile


def _here() -> str:
    try:
        return os.getcwd()
    except OSError as exc:
        _fail(f"the current directory cannot be named: {exc.strerror}; change to one that is there", 1)


def _managed_ports() -> tuple[int, ...] | None:
    from agent.sandbox.managed import managed_ports

    return managed_ports("{}", os.environ)


def _home() -> str:
    """CODEX_HOME, which is only read: the default one is not made for it."""
    return os.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")


def _run(arguments: _Arguments) -> int:
    case = _Case(arguments)
    from agent.sandbox.environment import apply, parse_environment_policy
    from agent.sandbox.host import look
    from agent.sandbox.launch import EXEC_FAILED, inherited_environment, run_here
    from agent.sandbox.plan import Command, SandboxPlan, plan
    from agent.sandbox.policy import ProfileKind

    for warning in case.warnings:
        sys.stderr.write(f"countersign sandbox: warning: {warning}\n")
    environment = apply(parse_environment_policy(case.config()), inherited_environment())

    def make_plan() -> SandboxPlan:
        policy = case.policy()
        made = plan(
            policy,
            Command(tuple(arguments.command), case.cwd),
            look(policy, case.cwd, case.options, os.environ),
            case.options,
        )
        environment.update(made.environment)
        return made

    # What no policy holds the original starts without its helper, whose code for this is 101.
    return run_here(make_plan, environment, failed=1 if case.profile.kind is ProfileKind.DISABLED else EXEC_FAILED)


def _tell(arguments: _Arguments) -> int:
    from agent.commands.sandbox_report import check, explain

    case = _Case(arguments)
    if arguments.checked is not None:
        paths = [os.path.join(case.cwd, path) for path in arguments.checked]
        return check(case.policy(), paths, case.cwd, case.options)
    return explain(
        case.policy(), case.name, case.warnings, arguments.command, case.cwd, case.options, arguments.platform
    )


def _fail(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"countersign sandbox: error: {text}\n")
    raise SystemExit(code)
