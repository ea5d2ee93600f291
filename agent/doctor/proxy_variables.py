"""What the proxy variables of an environment mean for scoped traffic. Pure.

How clients read them was measured with codex-cli 0.163 (`.env` files against a stand-in), and is otherwise as their
documentation has it; no two clients agree on all of NO_PROXY.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.doctor.findings import Finding, Topic

# Read by some client each, in upper and in lower case.
PROXY_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "WSS_PROXY", "WS_PROXY", "SOCKS_PROXY")
# Those that a client may prefer to HTTPS_PROXY for a WebSocket (the Python library `websockets` does).
BEFORE_HTTPS = ("WSS_PROXY", "SOCKS_PROXY")

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """A proxy URL, taken apart.

    Args:
        scheme: "http" where none is written, as clients take it.
        port: None where none is written.
        userinfo: The credentials as they stand there, percent-encoded; None without any.
    """

    scheme: str
    host: str
    port: int | None
    userinfo: str | None = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK_NAMES or self.host.startswith("127.")

    @property
    def shown(self) -> str:
        """It without its credentials, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}" + ("" if self.userinfo is None else " (credentials not shown)")


# The last "@" ends the credentials: whoever forgot to encode one in his password should not see the rest of it here.
_PROXY_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:(?P<userinfo>.*)@)?"
    r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<host>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE | re.DOTALL,
)


def proxy_address(value: str) -> ProxyAddress | None:
    """The value of a proxy variable; None if no client could make sense of it, or it might be something else.

    A lone word is not taken for a host: it may as well be a password that was pasted into the wrong place.
    """
    found = _PROXY_URL.fullmatch(value.strip())
    if found is None or not (found["scheme"] or found["port"] or found["userinfo"]):
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port < 65536:
        return None
    host = (found["address"] or found["host"]).lower()
    return ProxyAddress((found["scheme"] or "http").lower(), host, port, found["userinfo"])


class Bypass(enum.Enum):
    """Who reads an entry of NO_PROXY as a host."""

    NOBODY = enum.auto()
    SOME = enum.auto()
    MOST = enum.auto()  # codex among them


def bypass(entry: str, host: str) -> Bypass:
    """Whether an entry of NO_PROXY lets `host` (lower case) go around the proxy.

    Most clients take "*", the host, and each suffix of it that begins at a dot, with the dot or without. With ":443"
    codex lets its WebSockets go around, and no POST. Some clients read "*.host", a URL or a trailing dot as the host.
    """
    name = entry.lower()
    certain = Bypass.MOST
    if name.startswith("*.") or "@" in name or name.startswith("https://"):
        certain = Bypass.SOME
        name = name.rsplit("@", 1)[-1].removeprefix("https://")
    if name.count(":") == 1:
        name, _, port = name.partition(":")
        certain = certain if port == "443" else Bypass.SOME
    bare = name.strip("*.")
    if bare != name.removeprefix(".") and name != "*":
        certain = Bypass.SOME
    return certain if not bare or host == bare or host.endswith("." + bare) else Bypass.NOBODY


def no_proxy_entries(value: str) -> Iterator[tuple[str, Bypass]]:
    """Each entry of a NO_PROXY list, and who reads it as an entry at all: blanks part entries for some clients only."""
    for part in value.split(","):
        words = part.split()
        for word in words:
            yield word, Bypass.MOST if len(words) == 1 else Bypass.SOME


def bypassing(value: str, hosts: Iterable[str]) -> list[tuple[str, Bypass]]:
    """The entries of a NO_PROXY list that let one of `hosts` go around the proxy, and who reads them so.

    Without what stands before an "@" in them.
    """
    hosts = tuple(hosts)
    found = []
    for entry, readers in no_proxy_entries(value):
        worst = max((bypass(entry, host) for host in hosts), key=lambda one: one.value, default=Bypass.NOBODY)
        if worst is not Bypass.NOBODY:
            found.append((entry.rpartition("@")[2], min(worst, readers, key=lambda one: one.value)))
    return found


def environment_findings(environ: Mapping[str, str], hosts: Sequence[str]) -> list[Finding]:
    """What the variables of a shell mean for an agent that is started from it.

    Args:
        hosts: Those whose traffic is to be stamped.
    """
    found = [finding for name in PROXY_NAMES for finding in _proxy_findings(name, environ)]
    if not found:
        names = f"{', '.join(PROXY_NAMES)}, in upper and lower case"
        found.append(Topic.ENVIRONMENT.ok(names, "none is set"))
    found += _no_proxy_findings(environ, hosts)
    found += _careless_findings(environ)
    return found


def _proxy_findings(name: str, environ: Mapping[str, str]) -> list[Finding]:
    given = [(one, environ[one]) for one in (name, name.lower()) if environ.get(one)]
    found = []
    for variable, value in given:
        address = proxy_address(value)
        if address is None:
            found.append(
                Topic.ENVIRONMENT.warning(
                    variable,
                    "is set to something that is no proxy URL (not shown)",
                    f"set it to http://HOST:PORT, or unset {variable}; what clients make of it differs",
                )
            )
        else:
            found.append(_proxy_finding(name, variable, address))
    if len(given) == 2 and given[0][1] != given[1][1]:
        found.append(
            Topic.ENVIRONMENT.warning(
                f"{name} and {name.lower()}",
                "are set to different values, and which of them counts depends on the client",
                f"set both to the same, or unset {name.lower()}",
            )
        )
    return found


def _proxy_finding(name: str, variable: str, address: ProxyAddress) -> Finding:
    if name in BEFORE_HTTPS:
        return Topic.ENVIRONMENT.warning(
            variable,
            f"is {address.shown}, and some clients prefer it to HTTPS_PROXY for a WebSocket, also as our children",
            f"unset {variable} where the agent is started",
        )
    if name != "HTTPS_PROXY":
        text = "HTTPS_PROXY comes before it for what is stamped, and is set for children"
        return Topic.ENVIRONMENT.note(variable, f"is {address.shown}; {text}")
    if address.is_loopback:  # whether somebody listens there, and who, is another check
        return Topic.ENVIRONMENT.ok(variable, f"is {address.shown}")
    return Topic.ENVIRONMENT.warning(
        variable,
        f"is {address.shown}; children of countersign get its own proxy instead, which connects upstream directly",
        "if this machine reaches the internet only by that proxy, let it reach chatgpt.com directly; countersign does "
        "not go through another proxy",
    )


def _no_proxy_findings(environ: Mapping[str, str], hosts: Sequence[str]) -> list[Finding]:
    found = []
    for variable in ("NO_PROXY", "no_proxy"):
        value = environ.get(variable)
        if not value:
            continue
        around = bypassing(value, hosts)
        if not around:
            found.append(Topic.ENVIRONMENT.ok(variable, "excepts no host that is stamped"))
            continue
        entries = ", ".join(repr(entry) for entry, _ in around)
        who = "most clients" if any(readers is Bypass.MOST for _, readers in around) else "some clients"
        found.append(
            Topic.ENVIRONMENT.warning(
                variable,
                f"{entries} lets {who} go around the proxy to {' or '.join(hosts)}",
                f"take {entries} out of {variable}; countersign leaves it out for the commands that it starts, and an "
                "agent that you start yourself goes around",
            )
        )
    if environ.get("NO_PROXY") and environ.get("no_proxy") and environ["NO_PROXY"] != environ["no_proxy"]:
        text = "are set to different lists, and which of them counts depends on the client"
        advice = "set both to the same, or unset no_proxy"
        found.append(Topic.ENVIRONMENT.warning("NO_PROXY and no_proxy", text, advice))
    return found


# variable -> (the values that mean it, what it means, what to do)
_CARELESS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "SSLKEYLOGFILE": (
        (),
        "is set: clients write the keys of their TLS sessions to a file",
        "unset it, unless you are reading TLS traffic yourself; whoever has the file can read the traffic",
    ),
    "NODE_TLS_REJECT_UNAUTHORIZED": (
        ("0",),
        "is 0: Node clients accept any certificate",
        "unset it; NODE_EXTRA_CA_CERTS, which countersign sets for children, is how Node trusts the proxy",
    ),
    "GIT_SSL_NO_VERIFY": (("1", "true"), "is set: git accepts any certificate", "unset it"),
}


def _careless_findings(environ: Mapping[str, str]) -> list[Finding]:
    return [
        Topic.ENVIRONMENT.warning(name, text, advice)
        for name, (meant, text, advice) in _CARELESS.items()
        if environ.get(name) and (not meant or environ[name].lower() in meant)
    ]
