"""Decides what a Seatbelt profile allows, as the kernel would: a small evaluator of SBPL for the tests.

It knows what our profiles use and nothing more: an operation, a filter or a mark in a regular expression that it does
not know is an error, since on a Mac it could be one too. It reads the profile by its text and shares nothing with what
wrote it. The last rule that matches decides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class ProfileError(ValueError):
    """sandbox-exec would not take this profile, or we cannot tell."""


class Symbol(str):
    """A bare word."""


class Regex(str):
    """The text of a `#"…"` literal."""


type Form = Symbol | Regex | str | int | list[Form]

FILE_OPERATIONS = {
    *("file-read-data", "file-read-metadata", "file-map-executable", "file-ioctl"),
    *("file-write-data", "file-write-create", "file-write-unlink", "file-write-mode"),
}
NETWORK_OPERATIONS = {"network-outbound", "network-inbound", "network-bind"}
OTHER_OPERATIONS = {
    *("default", "process-exec", "process-fork", "process-info*", "signal", "sysctl-read", "sysctl-write"),
    *("mach-lookup", "iokit-open", "ipc-posix-sem", "ipc-posix-shm-read*", "ipc-posix-shm-read-data", "pseudo-tty"),
    *("ipc-posix-shm-write-create", "ipc-posix-shm-write-unlink", "system-socket", "user-preference-read"),
}
GROUPS = {"file-read*": "file-read-", "file-write*": "file-write-"}
OPERATIONS = FILE_OPERATIONS | NETWORK_OPERATIONS | OTHER_OPERATIONS | set(GROUPS)

OTHER_FILTERS = {
    *("target", "sysctl-name", "sysctl-name-prefix", "sysctl-name-regex", "iokit-registry-entry-class"),
    *("global-name", "local-name", "ipc-posix-name-regex", "ipc-posix-name-prefix", "socket-domain"),
    "socket-protocol",
}
CHARACTER_DEVICES = {"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}


@dataclass(frozen=True)
class Rule:
    allows: bool
    operations: tuple[str, ...]
    filters: tuple[Form, ...]


@dataclass(frozen=True)
class Asked:
    """What a process is about to do: with a path, or with a peer in the network (a path too if it is a UNIX socket)."""

    operation: str
    path: str | None = None
    host: str = ""
    port: int = 0


class SeatbeltProfile:
    """A profile with the parameters of its command line.

    Raises:
        ProfileError: See the module.
    """

    def __init__(self, text: str, params: Mapping[str, str]) -> None:
        self._params = params
        self.used: set[str] = set()
        forms = read(text)
        if forms[:1] != [[Symbol("version"), 1]]:
            raise ProfileError("a profile begins with (version 1)")
        self.rules = [self._rule(form) for form in forms[1:]]
        if self.rules[:1] != [Rule(False, ("default",), ())]:
            raise ProfileError("this profile does not begin with what it denies")

    def may(self, operation: str, path: str) -> bool:
        """Whether an operation on a file passes. The path is real, as the kernel sees it."""
        if operation not in FILE_OPERATIONS:
            raise ProfileError(f"{operation} is no operation on files that is known here")
        return self._decide(Asked(operation, path))

    def may_read(self, path: str) -> bool:
        return self.may("file-read-data", path)

    def may_write(self, path: str) -> bool:
        """Whether a path can be changed, and made where it is missing; both, or the profile contradicts itself."""
        changed, made = self.may("file-write-data", path), self.may("file-write-create", path)
        assert changed == made, path
        return changed

    def may_connect(self, host: str, port: int) -> bool:
        return self._decide(Asked("network-outbound", None, host, port))

    def may_connect_to_socket(self, path: str) -> bool:
        return self._decide(Asked("network-outbound", path))

    def _decide(self, asked: Asked) -> bool:
        verdict = False
        for rule in self.rules:
            if any(_covers(operation, asked.operation) for operation in rule.operations):
                if not rule.filters or any(self._holds(one, asked) for one in rule.filters):
                    verdict = rule.allows
        return verdict

    def _rule(self, form: Form) -> Rule:
        if not isinstance(form, list) or len(form) < 2 or form[0] not in ("allow", "deny"):
            raise ProfileError(f"no rule: {form!r}")
        operations = tuple(part for part in form[1:] if isinstance(part, Symbol))
        filters = tuple(part for part in form[1:] if not isinstance(part, Symbol))
        for operation in operations:
            if operation not in OPERATIONS:
                raise ProfileError(f"unknown operation {operation!r}")
        if not operations:
            raise ProfileError(f"a rule without an operation: {form!r}")
        for one in filters:
            self._check(one)
        return Rule(form[0] == "allow", operations, filters)

    def _check(self, one: Form) -> None:
        """Walks a filter once when it is read, so that a bad one is found even if no question reaches it."""
        match one:
            case [Symbol("require-all" | "require-any" | "require-not"), *parts] if parts:
                for part in parts:
                    self._check(part)
            case [Symbol("literal" | "subpath" | "path"), value]:
                self._text(value)
            case [Symbol("regex" | "sysctl-name-regex" | "ipc-posix-name-regex"), Regex() as regex]:
                compiled(regex)
            case [Symbol("remote"), Symbol("ip"), str() as end] if re.fullmatch(r"(localhost|\*):(\d+|\*)", end):
                pass
            case [Symbol("remote"), Symbol("unix-socket"), where]:
                self._check(where)
            case [Symbol("vnode-type"), Symbol("CHARACTER-DEVICE")] | [Symbol("extension"), str()]:
                pass
            case [Symbol() as name, Symbol() | str() | int()] if name in OTHER_FILTERS:
                pass
            case _:
                raise ProfileError(f"unknown filter {one!r}")

    def _text(self, value: Form) -> str:
        match value:
            case [Symbol("param"), str() as name]:
                self.used.add(name)
                if name not in self._params:
                    raise ProfileError(f"no -D{name}")
                return self._params[name]
            case str() if not isinstance(value, Symbol | Regex):
                return value
        raise ProfileError(f"no text: {value!r}")

    def _holds(self, one: Form, asked: Asked) -> bool:
        match one:
            case [Symbol("require-all"), *parts]:
                return all(self._holds(part, asked) for part in parts)
            case [Symbol("require-any"), *parts]:
                return any(self._holds(part, asked) for part in parts)
            case [Symbol("require-not"), part]:
                return not self._holds(part, asked)
            case [Symbol("literal" | "path"), value]:
                return asked.path == self._text(value)
            case [Symbol("subpath"), value]:
                above = self._text(value)
                return asked.path is not None and f"{asked.path}/".startswith(f"{above.rstrip('/')}/")
            case [Symbol("regex"), Regex() as regex]:
                return asked.path is not None and compiled(regex).search(asked.path) is not None
            case [Symbol("remote"), Symbol("ip"), str() as end]:
                host, _, port = end.rpartition(":")
                local = asked.host in ("localhost", "127.0.0.1", "::1")
                return asked.path is None and (host == "*" or local) and port in ("*", str(asked.port))
            case [Symbol("remote"), Symbol("unix-socket"), where]:
                return self._holds(where, asked)
            case [Symbol("vnode-type"), _]:
                return asked.path in CHARACTER_DEVICES
            case [Symbol("extension"), _]:
                return False  # a token that the kernel hands out for a terminal of the command's own
        raise ProfileError(f"{one!r} is no filter for {asked.operation}")


def _covers(rule: str, operation: str) -> bool:
    return rule in (operation, "default") or operation.startswith(GROUPS.get(rule, "\0"))


def definitions(argv: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """The profile, its parameters and the command of a sandbox-exec command line."""
    assert argv[:2] == ("/usr/bin/sandbox-exec", "-p"), argv[:2]
    end = argv.index("--")
    params: dict[str, str] = {}
    for word in argv[3:end]:
        key, equals, value = word.removeprefix("-D").partition("=")
        assert word.startswith("-D") and equals and key not in params, word
        params[key] = value
    return argv[2], params, list(argv[end + 1 :])


_TOKEN = re.compile(
    r"""(?P<blank>\s+|;[^\n]*)
      | \#"(?P<regex>[^"]*)"
      | "(?P<string>[^"\\]*)"
      | (?P<mark>[()])
      | (?P<word>[^\s()"';\#\\]+)""",
    re.VERBOSE,
)


def read(text: str) -> list[Form]:
    """The forms of a profile. A quote ends a regular expression whatever stands before it: the strictest reading."""
    stack: list[list[Form]] = [[]]
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ProfileError(f"cannot read {text[at : at + 40]!r}")
        at = token.end()
        if token["mark"] == "(":
            stack.append([])
        elif token["mark"] == ")":
            if len(stack) == 1:
                raise ProfileError(f"one ) too many before {text[at : at + 40]!r}")
            done = stack.pop()
            stack[-1].append(done)
        elif token["regex"] is not None:
            stack[-1].append(Regex(token["regex"]))
        elif token["string"] is not None:
            stack[-1].append(token["string"])
        elif token["word"] is not None:
            stack[-1].append(int(token["word"]) if token["word"].isdigit() else Symbol(token["word"]))
    if len(stack) != 1:
        raise ProfileError("a ( without its )")
    return stack[0]


# What Apple's matcher is known to have; anything else in a regular expression is refused.
_REGEX_TOKEN = re.compile(
    r"""\\[][.^$|?*+(){}\\]        # an escaped mark
      | \[\^?[^][\\^]+\]           # a class of plain characters and ranges
      | [.^$|*+?)]
      | \((?!\?)
      | [^][.^$|?*+(){}\\"]        # itself
    """,
    re.VERBOSE | re.DOTALL,
)


def compiled(regex: Regex) -> re.Pattern[str]:
    at = 0
    out = []
    while at < len(regex):
        token = _REGEX_TOKEN.match(regex, at)
        if token is None:
            raise ProfileError(f"{regex!r} has what is not known of Apple's matcher at {regex[at:]!r}")
        at = token.end()
        out.append(r"\Z" if token[0] == "$" else token[0])
    return re.compile("".join(out), re.DOTALL)
