"""macOS: the Seatbelt profile of a policy, and the sandbox-exec command line that applies it.

Pure but for the disk that is asked. Order, parameters and rules are those of facts/sandbox.md 13; where this one is
tighter, a comment says so. The kernel judges real paths, so all that is granted or refused here is a real path. Paths
travel as parameters (-D), not as text of the profile; only regular expressions (`seatbelt_regex`) hold some, escaped.
"""

from __future__ import annotations

from agent.sandbox.disk import Kind, Route
from agent.sandbox.globs import expand
from agent.sandbox.ground import Ground
from agent.sandbox.paths import ancestors, is_under, normal, split_pattern
from agent.sandbox.plan import NETWORK_DISABLED, Backend, Command, Host, Options, SandboxPlan, SandboxUnavailable
from agent.sandbox.policy import PROTECTED_NAMES, Access, Network, Policy, PolicyError, by_depth
from agent.sandbox.seatbelt_policies import BASE, NETWORK, SYSTEM
from agent.sandbox.seatbelt_regex import glob_regex, name_regex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.sandbox.disk import Disk
    from agent.sandbox.policy import Entry

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
IN_SEATBELT = ("CODEX_SANDBOX", "seatbelt")

# macOS gives arguments and environment 1 MiB together (ARG_MAX); a quarter of it is left to the environment.
MAX_COMMAND_BYTES = 768 * 1024


def seatbelt_plan(policy: Policy, command: Command, host: Host, options: Options) -> SandboxPlan:
    """The command under sandbox-exec, with the policy as its profile.

    Raises:
        SandboxUnavailable: The host has no sandbox-exec, the options ask for what macOS or a tool cannot have, or the
            policy is longer than a command line.
        PolicyError: A symlink that a tool could turn leads to a path that is to be kept from it, or a deny pattern
            cannot be searched for its matches.
    """
    if options.legacy_landlock:
        raise _unavailable(
            "Landlock was asked for, and Landlock is Linux only; on macOS leave out features.use_legacy_landlock "
            "and --use-legacy-landlock, and Seatbelt confines the command"
        )
    if host.disk.kind(SANDBOX_EXEC) is None:
        raise _unavailable(
            f"the policy needs Seatbelt, and {SANDBOX_EXEC!r} is not on this Mac; "
            "update macOS, or choose danger-full-access yourself"
        )
    for port in sorted(set(options.managed_ports or ()) & host.proxy_ports):
        raise _unavailable(
            f"the managed network names port {port}, which is this agent's own attesting proxy, and no tool may reach "
            "that; name another proxy in the tool's proxy variables"
        )
    profile = _Profile(policy, host, options)
    argv = (SANDBOX_EXEC, "-p", profile.text, *profile.definitions, "--", *command.argv)
    size = sum(len(word.encode(errors="surrogateescape")) + 1 for word in argv)
    if size > MAX_COMMAND_BYTES:
        raise _unavailable(
            f"the profile travels on the command line of sandbox-exec, and this policy makes it {size} bytes long, of "
            f"{MAX_COMMAND_BYTES} that macOS has room for; use fewer entries, e.g. one for the directory above"
        )
    disabled = (NETWORK_DISABLED,) if policy.network is Network.RESTRICTED else ()
    return SandboxPlan(Backend.SEATBELT, argv, command.cwd, (*disabled, IN_SEATBELT), notes=tuple(profile.notes))


def _unavailable(reason: str) -> SandboxUnavailable:
    return SandboxUnavailable(Backend.SEATBELT, reason)


class _Profile:
    """A policy in SBPL.

    Attributes:
        text: The profile.
        definitions: The -D arguments that it names.
        notes: What it does, a sentence each.
    """

    def __init__(self, policy: Policy, host: Host, options: Options) -> None:
        self.definitions: list[str] = []
        self.notes: list[str] = []
        self._keys: dict[str, str] = {}
        self._policy = policy
        self._disk = TrueNames(host.disk)
        self._ground = Ground(policy, self._disk)
        self._private = sorted({route.real for route in self._ground.private(host.private_paths)})
        rules = self._ground.rules
        self._denied = {path for path, rule in rules.items() if rule.access is Access.DENY and path != "/"}
        self._readable = {path for path, rule in rules.items() if rule.access is not Access.DENY}
        globs = self._globs()
        sections = [BASE, self._reads(), self._writes(), globs, self._network(options)]
        if policy.minimal and not policy.unrestricted and "/" not in self._readable:
            self.notes.append("The system's own libraries, commands and settings may be read.")
            # The denials once more after it, since the last rule decides.
            sections += [SYSTEM, self._stays_denied() + globs]
        sections += self._ours(host, options)
        self.text = "\n".join(sections)

    def _real(self, path: str) -> str:
        return Route(path, self._disk).real

    def _param(self, key: str, path: str) -> str:
        self.definitions.append(f"-D{key}={path}")
        self._keys[path] = key
        return f'(param "{key}")'

    def _literal(self, key: str, path: str) -> str:
        """By the parameter that the path has already, if there is one."""
        known = self._keys.get(path)
        return f"(literal {self._param(key, path)})" if known is None else f'(literal (param "{known}"))'

    def _subpath(self, key: str, path: str) -> str:
        return f"(subpath {self._param(key, path)})"

    def _but(self, key: str, path: str) -> list[str]:
        """Both, since a subpath alone would let the command make the path itself where it does not exist yet."""
        param = self._param(key, path)
        return [f"(require-not (literal {param}))", f"(require-not (subpath {param}))"]

    def _reads(self) -> str:
        self.notes += [f"Cannot be read: {path}" for path in sorted(self._denied)]
        if self._policy.unrestricted or ("/" in self._readable and not self._denied):
            self.notes.append("Everything else may be read." if self._policy.globs else "Everything may be read.")
            return "; reads: everything\n(allow file-read*)\n"
        self.notes += [f"May be read: {path}" for path in sorted(self._readable)]
        if not self._readable:
            return ""
        shut = _within(self._readable, self._denied)
        components = []
        for i, root in enumerate(sorted(self._readable)):
            key = f"READABLE_ROOT_{i}"
            whole = self._subpath(key, root)
            parts = [self._but(f"{key}_EXCLUDED_{j}", path) for j, path in enumerate(shut.get(root, ()))]
            components.append(_all_of(whole, *parts))
        reads = f"; reads\n{_rule('allow file-read*', components)}"
        # Programs ask for the attributes of each directory above the one they are in (getcwd, realpath).
        above = sorted({path for root in self._readable for path in ancestors(root) if path != root})
        way = [self._literal(f"DIRECTORY_ABOVE_{i}", path) for i, path in enumerate(above)]
        return reads + (_rule("allow file-read-metadata", way) if way else "")

    def _writes(self) -> str:
        if self._policy.has_full_disk_write:
            self.notes.append("Everything may be written.")
            return '; writes: everything\n(allow file-write* (regex #"^/"))\n' + self._pins(["/"], self._private)
        roots = self._ground.writable
        self.notes += [f"May be written: {path}" for path in roots]
        # The command could make a missing one a symlink, and the next launch would take what it leads to for the root.
        missing = {path for path, rule in self._ground.rules.items() if rule.access is Access.WRITE} - set(roots)
        self.notes += [f"Not writable, since it does not exist: {path}" for path in sorted(missing)]
        if not roots:
            return ""
        masks = self._ground.read_only()
        self.notes += [f"Stays read-only: {mask.path} ({mask.because})" for mask in masks]
        kept = {mask.path for mask in masks} | set(self._denied_places())
        named = {mask.path for mask in masks if mask.path.rpartition("/")[2] in PROTECTED_NAMES}
        shut = _within(roots, kept)
        components = []
        for i, root in enumerate(roots):
            key = f"WRITABLE_ROOT_{i}"
            whole = self._subpath(key, root)
            inside = shut.get(root, [])
            parts = [
                self._but(f"{key}_EXCLUDED_{j}", path)
                for j, path in enumerate(path for path in inside if path not in named)
            ]
            by_name = [path for path in inside if path in named or self._disk.kind(path) is None]
            parts += [[f'(require-not (regex #"{name_regex(path)}"))'] for path in by_name]
            components.append(_all_of(whole, *parts))
        pins = self._pins(roots, [*kept, *self._private, *self._matches(roots)])
        return f"; writes\n{_rule('allow file-write*', components)}{pins}"

    def _denied_places(self) -> Iterator[str]:
        """Where denied paths are, or where the first directory that leads to one would be made."""
        for path in self._policy.denied_roots():
            route = self._held(path, self._policy.rules[path].entry)
            yield route.missing or route.real

    def _held(self, path: str, entry: Entry) -> Route:
        """The way to a path that an entry denies; refused if a tool can turn it for the next launch."""
        route = Route(path, self._disk)
        for link in route.links:
            if self._ground.in_writable(link[: link.rindex("/")] or "/"):
                raise PolicyError(
                    f"'{entry}' leads through the symlink {link!r} in a writable place, where a tool could turn it; "
                    f"deny {route.real!r} itself, or make {link!r} read-only"
                )
        return route

    def _matches(self, roots: list[str]) -> Iterator[str]:
        """The files in writable places that deny patterns match now."""
        for glob in self._policy.globs:
            directory, rest = split_pattern(normal(glob.pattern))
            start = self._held(directory, glob.entry).real
            if not rest:
                yield start
            elif any(is_under(start, root) or is_under(root, start) for root in roots):
                yield from expand(glob.pattern, self._policy.profile.glob_scan_max_depth, self._disk)

    def _pins(self, roots: Iterable[str], kept: Iterable[str]) -> str:
        """Keeps in place the writable roots, and the directories from there to what is kept from writes.

        The kernel asks about the path that is renamed and not about what is below: once /w/a is /w/b, a rule about
        /w/a/secret holds nothing. The original leaves that way open; bubblewrap's mounts cannot be renamed (EBUSY).
        """
        roots = frozenset(roots)
        pinned = set(roots)
        for path in kept:
            way = []
            for above in ancestors(path):
                if above != path:
                    way.append(above)
                if above in roots:
                    pinned.update(way)
        pins = sorted(pinned - {"/"}, key=by_depth)
        literals = [self._literal(f"PINNED_PATH_{i}", path) for i, path in enumerate(pins)]
        return _rule("deny file-write-unlink", literals) if literals else ""

    def _globs(self) -> str:
        regexes: set[str] = set()
        for glob in self._policy.globs:
            self.notes.append(f"Cannot be read: {glob.pattern}")
            start, rest = split_pattern(normal(glob.pattern))
            regexes |= {glob_regex(start, rest), glob_regex(self._real(start), rest)}
        # The original refuses reading and removing, and lets the command overwrite what it must not read. Denied is all
        # of it, as on Linux.
        return "".join(
            f'(deny file-read* (regex #"{regex}"))\n(deny file-write* (regex #"{regex}"))\n'
            for regex in sorted(regexes)
        )

    def _stays_denied(self) -> str:
        opened = _within(self._denied, self._readable)
        components = []
        for i, path in enumerate(sorted(self._denied)):
            key = f"DENIED_ROOT_{i}"
            whole = self._subpath(key, path)
            parts = [
                [f"(require-not {self._subpath(f'{key}_EXCLUDED_{j}', inner)})"]
                for j, inner in enumerate(opened.get(path, ()))
            ]
            components.append(_all_of(whole, *parts))
        return f"; denied, also where it is the system's\n{_rule('deny file-read*', components)}" if components else ""

    def _network(self, options: Options) -> str:
        if options.managed_ports is not None:
            ports = sorted(set(options.managed_ports))
            self.notes.append(
                f"Of the network only these ports of this machine: {', '.join(map(str, ports)) or 'none'}."
            )
            rules = [f'(allow network-outbound (remote ip "localhost:{port:d}"))\n' for port in ports]
            return "".join([*rules, NETWORK]) if rules else ""
        if self._policy.network is Network.RESTRICTED:
            self.notes.append("No network.")
            return ""
        self.notes.append("The host's network.")
        return f"(allow network-outbound)\n(allow network-inbound)\n{NETWORK}"

    def _ours(self, host: Host, options: Options) -> Iterator[str]:
        """The agent's own sockets, keys and attesting proxies, last, so that no other rule opens them."""
        rules = []
        networked = self._policy.network is Network.ENABLED and options.managed_ports is None
        if self._private:
            places = [self._subpath(f"PRIVATE_PATH_{i}", path) for i, path in enumerate(self._private)]
            rules.append(_rule("deny file-read* file-write*", places))
            if networked:
                rules.append(_rule("deny network-outbound", [f"(remote unix-socket {place})" for place in places]))
        if networked and host.proxy_ports:
            ends = [f'(remote ip "localhost:{port:d}")' for port in sorted(host.proxy_ports)]
            rules.append(_rule("deny network-outbound", ends))
        if rules:
            yield "; the agent's own sockets, keys and proxies\n" + "".join(rules)


def _rule(head: str, filters: list[str]) -> str:
    return f"({head}\n" + "\n".join(filters) + "\n)\n"


def _all_of(whole: str, *parts: list[str]) -> str:
    """A component of a rule: a place, less its parts, one to a line."""
    lines = [f"  {line}" for part in parts for line in part]
    return "\n".join([f"(require-all {whole}", *lines, ")"]) if lines else whole


def _within(outer: Iterable[str], inner: Iterable[str]) -> dict[str, list[str]]:
    """For each outer path the inner ones strictly below it, sorted; not those that lie below another of these."""
    outer, inner = frozenset(outer), frozenset(inner)
    found: dict[str, list[str]] = {}
    for path in sorted(inner):
        for above in ancestors(path):
            if above == path:
                continue
            if above in outer:
                found.setdefault(above, []).append(path)
            if above in inner:
                break
    return found


class TrueNames:
    """A disk on which names may be asked for in other letter case, as on most Macs; the kernel judges the true name.

    Another spelling is shown as a symlink to the true one, so that whatever follows a path arrives at the true names.
    On a disk that tells cases apart nothing changes.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._names: dict[str, frozenset[str]] = {}
        self._true: dict[str, str] = {}
        self.head = disk.head
        self.entries = disk.entries
        self.is_barred = disk.is_barred
        self.is_sealed = disk.is_sealed

    def kind(self, path: str) -> Kind | None:
        kind = self._disk.kind(path)
        directory, _, name = path.rpartition("/")
        directory = directory or "/"
        if kind is None or not name:
            return kind
        if directory not in self._names:
            self._names[directory] = self._listed(directory)
        if name in self._names[directory]:
            return kind
        for known in self._names[directory]:
            if _folded(known) == _folded(name):
                self._true[path] = known
                return Kind.SYMLINK
        return kind

    def _listed(self, directory: str) -> frozenset[str]:
        try:
            return frozenset(name for name, _ in self._disk.entries(directory))
        except OSError:
            # To be passed, and not to be listed: names in it can only be taken as they are spelled.
            return frozenset()

    def link(self, path: str) -> str | None:
        return self._true.get(path) or self._disk.link(path)


def _folded(name: str) -> str:
    if name.isascii():
        return name.lower()
    # Only here: a megabyte of tables.
    from unicodedata import normalize

    return normalize("NFD", normalize("NFD", name).casefold())
