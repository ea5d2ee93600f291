"""Which variables a tool sees: what configuration says, and what of ours it must never see whatever that says. Pure."""

from __future__ import annotations

from agent.sandbox.choice import Choice
from agent.sandbox.frozen import frozen
from agent.sandbox.paths import is_under, normal
from agent.sandbox.policy import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Inherit(Choice):
    """What a tool gets of our own environment, as configuration spells it."""

    ALL = "all"
    CORE = "core"
    NONE = "none"


@frozen
class ShellEnvironmentPolicy:
    """The table `shell_environment_policy`. Patterns know `*` and `?` and nothing else, and ignore case.

    Args:
        ignore_default_excludes: Do not drop `*KEY*`, `*SECRET*` and `*TOKEN*`. True unless configured, as observed.
        exclude: Patterns of names to drop.
        assigned: Pairs of the member `set`, which win over what is inherited and over `exclude`.
        include_only: Patterns; if there are any, only names that match one are left, assigned ones included.
        use_profile: Accepted as `experimental_use_profile`; the shell tool, not the environment, would heed it.
    """

    inherit: Inherit = Inherit.ALL
    ignore_default_excludes: bool = True
    exclude: tuple[str, ...] = ()
    assigned: tuple[tuple[str, str], ...] = ()
    include_only: tuple[str, ...] = ()
    use_profile: bool = False


_TABLE = "shell_environment_policy"
_INHERIT = {inherit.value: inherit for inherit in Inherit}
_CORE = frozenset("PATH SHELL TMPDIR TEMP TMP HOME LANG LC_ALL LC_CTYPE LOGNAME USER".split())
_DEFAULT_EXCLUDES = ("*KEY*", "*SECRET*", "*TOKEN*")

# Compared in upper case. The first six the original never passes, also not if configuration sets them (tried with 1711
# names against codex 0.169); the last two are credentials of the agent itself, which the original does pass.
_NEVER = frozenset(
    (
        "OPENAI_FEDERATION_RULE_ID",
        "OPENAI_IDENTITY_TOKEN_FILE",
        "OPENAI_WORKLOAD_IDENTITY_CONTEXT",
        "CODEX_GUARDIAN_DECISIONS_API_KEY",
        "CODEX_INTERNAL_APP_SERVER_REMOTE_CONTROL_DISABLED",
        "NODE_REPL_AUTH_TOKEN",
        "CODEX_ACCESS_TOKEN",
        "CODEX_API_KEY",
    )
)
_OURS = "COUNTERSIGN_"
# What `countersign proxy` and `countersign run` export beside the proxy's URL.
_CA_FILES = frozenset(
    "CODEX_CA_CERTIFICATE SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS".split()
)
# The user of the credentials that our proxy makes up for a run.
_PROXY_USER = "countersign"


def parse_environment_policy(config: dict[str, Any]) -> ShellEnvironmentPolicy:
    """The policy of a parsed configuration; the default one where there is none. Unknown members are ignored.

    Raises:
        PolicyError: Names the key, its value and what it may be.
    """
    table = config.get(_TABLE, {})
    if not isinstance(table, dict):
        raise PolicyError(f"{_TABLE} is {table!r}; it is a table")
    inherit = table.get("inherit", "all")
    if not isinstance(inherit, str) or inherit not in _INHERIT:
        raise PolicyError(f"{_TABLE}.inherit is {inherit!r}; it is 'all', 'core' or 'none'")
    return ShellEnvironmentPolicy(
        inherit=_INHERIT[inherit],
        ignore_default_excludes=_flag(table, "ignore_default_excludes", True),
        exclude=_patterns(table, "exclude"),
        assigned=_assigned(table),
        include_only=_patterns(table, "include_only"),
        use_profile=_flag(table, "experimental_use_profile", False),
    )


def apply(
    policy: ShellEnvironmentPolicy,
    environ: Mapping[str, str],
    own_proxy: str | None = None,
    own_directories: tuple[str, ...] = (),
) -> dict[str, str]:
    """The environment of a tool.

    The policy first, in the original's order: inherit, default excludes, `exclude`, `set`, `include_only`. Then,
    whatever the policy says, these are dropped:

    * every `COUNTERSIGN_*`, which hold the proxy's credentials and the way to its socket;
    * a `*PROXY` variable whose value leads to a proxy of ours, at `own_proxy` or, from a `countersign run` around us,
      on loopback with our user name: whoever has its credentials can have requests attested. Another proxy is the
      user's, and stays;
    * the variables that name a file of certificates to trust, if they name one in our directories or came with such a
      proxy: a tool that lost the proxy has no use for its CA. A company's bundle stays;
    * names that carry the agent's own identity or credentials. `OPENAI_API_KEY` is not among them: it belongs to the
      programs that the user works on.

    Args:
        environ: Ours.
        own_proxy: host:port of our proxy; None if none runs.
        own_directories: Where our certificates are, absolute.
    """
    held = _configured(policy, environ)
    proxied = any(_is_own_proxy(name, value, own_proxy) for name, value in environ.items())

    def ours(name: str, value: str) -> bool:
        upper = name.upper()
        if upper.startswith(_OURS) or upper in _NEVER or _is_own_proxy(name, value, own_proxy):
            return True
        if upper not in _CA_FILES:
            return False
        came_with_proxy = proxied and environ.get(name) == value
        return came_with_proxy or any(
            value.startswith("/") and is_under(normal(value), normal(directory)) for directory in own_directories
        )

    return {name: value for name, value in held.items() if not ours(name, value)}


def _configured(policy: ShellEnvironmentPolicy, environ: Mapping[str, str]) -> dict[str, str]:
    match policy.inherit:
        case Inherit.ALL:
            held = dict(environ)
        case Inherit.CORE:
            held = {name: value for name, value in environ.items() if name.upper() in _CORE}
        case Inherit.NONE:
            held = {}
    dropped = policy.exclude if policy.ignore_default_excludes else (*_DEFAULT_EXCLUDES, *policy.exclude)
    held = {name: value for name, value in held.items() if not _matches_any(name, dropped)}
    held.update(policy.assigned)
    if policy.include_only:
        held = {name: value for name, value in held.items() if _matches_any(name, policy.include_only)}
    return held


def _matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(name.lower(), pattern.lower()) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    """By hand, since fnmatch also gives `[` a meaning: `*` takes as little as it can, one more after each failure."""
    at = position = retry = 0
    star = -1
    while at < len(name):
        if pattern[position : position + 1] == "*":
            star, retry, position = position, at, position + 1
        elif position < len(pattern) and pattern[position] in ("?", name[at]):
            at, position = at + 1, position + 1
        elif star >= 0:
            retry += 1
            at, position = retry, star + 1
        else:
            return False
    return not pattern[position:].strip("*")


def _is_own_proxy(name: str, value: str, own_proxy: str | None) -> bool:
    if not name.upper().endswith("PROXY"):
        return False
    credentials, _, address = value.rpartition("://")[2].partition("/")[0].rpartition("@")
    if credentials.partition(":")[0] == _PROXY_USER and _address(address)[0] == _LOOPBACK:
        return True
    return own_proxy is not None and _address(address) == _address(own_proxy)


_LOOPBACK = "loopback"


def _address(text: str) -> tuple[str, str]:
    """(host, port); all names of this machine are one."""
    host, _, port = text.strip().lower().rpartition(":")
    host = host.strip("[]")
    return _LOOPBACK if host in ("localhost", "::1") or host.startswith("127.") else host, port


def _flag(table: dict[str, Any], name: str, default: bool) -> bool:
    value = table.get(name, default)
    if not isinstance(value, bool):
        raise PolicyError(f"{_TABLE}.{name} is {value!r}; it is true or false")
    return value


def _patterns(table: dict[str, Any], name: str) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise PolicyError(f"{_TABLE}.{name} is {value!r}; it is a list of patterns such as 'AWS_*'")
    return tuple(value)


def _assigned(table: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The values may be secrets, so that no error repeats one."""
    value = table.get("set", {})
    if not isinstance(value, dict):
        raise PolicyError(f"{_TABLE}.set is of the type {type(value).__name__}; it is a table of strings")
    for name, assigned in value.items():
        # execve(2) takes NAME=VALUE: such a name would set another variable than it says.
        if not name or "=" in name or "\0" in name:
            raise PolicyError(f"{_TABLE}.set has the name {name!r}; a name is not empty and has no '=' or NUL in it")
        if not isinstance(assigned, str) or "\0" in assigned:
            found = "a string with NUL" if isinstance(assigned, str) else f"of the type {type(assigned).__name__}"
            raise PolicyError(f"{_TABLE}.set.{name} is {found}; it is a string without NUL")
    return tuple(value.items())
