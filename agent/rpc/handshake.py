"""The `initialize` exchange: who the client is, what it can do, and what we answer. Pure.

Hand-made and without pydantic on purpose: the first answer of the process does not wait for its import.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.rpc.shapes import flag, list_of, optional, params, struct, text

# Whose protocol we speak. Clients refuse servers that are older than what they need, and the back end lists models
# by it, so it is the version of the original that we were compared with and not our own.
PROTOCOL_VERSION = "0.169.0"

_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Who connected. `name` is a legal header value: it goes upstream as the originator."""

    name: str
    version: str
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the client said it can do."""

    experimental_api: bool = False
    request_attestation: bool = False
    opted_out: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Initialize:
    """The parameters of `initialize`."""

    client: ClientInfo
    capabilities: Capabilities


_CLIENT_INFO = struct(
    "struct ClientInfo", 3, {"name": text, "title": optional(text), "version": text}, ("name", "version")
)
_CAPABILITIES = struct(
    "struct InitializeCapabilities",
    7,
    {
        "experimentalApi": flag,
        "requestAttestation": flag,
        "optOutNotificationMethods": optional(list_of(text)),
    },
)
_INITIALIZE = struct(
    "struct InitializeParams",
    2,
    {"clientInfo": _CLIENT_INFO, "capabilities": optional(_CAPABILITIES)},
    ("clientInfo",),
)


def parse_initialize(value: Any) -> Initialize:
    """Check the parameters of `initialize`.

    Raises:
        InvalidParams: With the text of the original, without its "Invalid request: ".
    """
    given = params(value, _INITIALIZE)
    info, capabilities = given["clientInfo"], given.get("capabilities") or {}
    return Initialize(
        ClientInfo(info["name"], info["version"], info.get("title")),
        Capabilities(
            experimental_api=capabilities.get("experimentalApi", False),
            request_attestation=capabilities.get("requestAttestation", False),
            opted_out=frozenset(capabilities.get("optOutNotificationMethods") or ()),
        ),
    )


def refusal_of_name(name: str) -> str | None:
    """Why a client cannot have this name; None if it can. It goes upstream in a header.

    RFC 9110 5.5, as the original's http crate reads it.
    """
    if _HEADER_VALUE.fullmatch(name) is not None:
        return None
    return f"Invalid clientInfo.name: '{name}'. Must be a valid HTTP header value."


@dataclass(frozen=True, slots=True)
class Identity:
    """What we say of ourselves, to clients and upstream. The first client of the process names the originator."""

    originator: str
    system: str  # "Debian 12.0.0; x86_64"
    terminal: str

    def user_agent(self, client: ClientInfo) -> str:
        """In the shape of the original: ORIGINATOR/VERSION (OS; ARCH) TERMINAL (CLIENT; VERSION).

        It is a header value, whatever the client calls its version: one that would be none has "_" for all that is
        not printable ASCII (observed).
        """
        suffix = f"{client.name}; {client.version}".strip()
        agent = f"{self.originator}/{PROTOCOL_VERSION} ({self.system}) {self.terminal} ({suffix})"
        return agent if _HEADER_VALUE.fullmatch(agent) is not None else re.sub(r"[^\x20-\x7e]", "_", agent)


def initialize_result(identity: Identity, client: ClientInfo, codex_home: str, platform: str) -> dict[str, str]:
    """The answer to `initialize`; `platform` is sys.platform."""
    return {
        "userAgent": identity.user_agent(client),
        "codexHome": codex_home,
        "platformFamily": "unix",
        "platformOs": {"darwin": "macos", "win32": "windows"}.get(platform, "linux"),
    }


def describe_system(os_release: str, machine: str) -> str:
    """ "Debian 12.0.0; x86_64" from the text of /etc/os-release."""
    entries = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    name = entries.get("NAME", "").strip('"').split(" ")[0] or "Unknown"
    numbers = entries.get("VERSION_ID", "").strip('"').split(".")
    # Numbers, and not the text: "24.04" is 24.4.0 to the original.
    parts = [str(int(number)) if number.isdecimal() else "0" for number in (*numbers, "", "")[:3]]
    return f"{name} {'.'.join(parts)}; {machine}"


def describe_terminal(environ: Mapping[str, str]) -> str:
    """The terminal program, as the original names it; "unknown" where there is none."""
    program, version = environ.get("TERM_PROGRAM", ""), environ.get("TERM_PROGRAM_VERSION", "")
    name = f"{program}/{version}" if program and version else program or environ.get("TERM", "")
    return re.sub(r"[^A-Za-z0-9._/-]", "_", name) or "unknown"
