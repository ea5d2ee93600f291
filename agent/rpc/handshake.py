"""The `initialize` exchange: who the client is, what it can do, and what we answer. Pure.

Hand-made and without pydantic on purpose: the first answer of the process does not wait for its import.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams, invalid_type, missing_field

# Whose protocol we speak. Clients refuse servers that are older than what they need, and the back end lists models
# by it, so it is the version of the original that we were compared with and not our own.
PROTOCOL_VERSION = "0.169.0"


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


def parse_initialize(params: Any) -> Initialize:
    """Check the parameters of `initialize`.

    Raises:
        InvalidParams: With the text of the original, without its "Invalid request: ".
    """
    if params is MISSING:
        raise InvalidParams(missing_field("params"))
    members = _map(params, "struct InitializeParams")
    info = _map(_required(members, "clientInfo"), "struct ClientInfo")
    client = ClientInfo(
        name=_string(_required(info, "name")),
        version=_string(_required(info, "version")),
        title=_optional_string(info.get("title")),
    )
    given = members.get("capabilities")
    if given is None:
        return Initialize(client, Capabilities())
    capabilities = _map(given, "struct InitializeCapabilities")
    methods = capabilities.get("optOutNotificationMethods")
    if methods is not None and not isinstance(methods, list):
        raise InvalidParams(invalid_type(methods, "a sequence"))
    return Initialize(
        client,
        Capabilities(
            experimental_api=_flag(capabilities, "experimentalApi"),
            request_attestation=_flag(capabilities, "requestAttestation"),
            opted_out=frozenset(_string(method) for method in methods or ()),
        ),
    )


def refusal_of_name(name: str) -> str | None:
    """Why a client cannot have this name; None if it can. It goes upstream in a header.

    RFC 9110 5.5, as the original's http crate reads it.
    """
    if re.fullmatch(r"[\t\x20-\x7e\x80-\U0010ffff]*", name) is not None:
        return None
    return f"Invalid clientInfo.name: '{name}'. Must be a valid HTTP header value."


@dataclass(frozen=True, slots=True)
class Identity:
    """What we say of ourselves, to clients and upstream. The first client of the process names the originator."""

    originator: str
    system: str  # "Debian 12.0.0; x86_64"
    terminal: str

    def user_agent(self, client: ClientInfo) -> str:
        """In the shape of the original: ORIGINATOR/VERSION (OS; ARCH) TERMINAL (CLIENT; VERSION)."""
        suffix = f" ({client.name}; {client.version})"
        return f"{self.originator}/{PROTOCOL_VERSION} ({self.system}) {self.terminal}{suffix}"


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
    version = entries.get("VERSION_ID", "").strip('"') or "0"
    parts = (version.split(".") + ["0", "0"])[:3]
    return f"{name} {'.'.join(parts)}; {machine}"


def describe_terminal(environ: Mapping[str, str]) -> str:
    """The terminal program, as the original names it; "unknown" where there is none."""
    program, version = environ.get("TERM_PROGRAM", ""), environ.get("TERM_PROGRAM_VERSION", "")
    name = f"{program}/{version}" if program and version else program or environ.get("TERM", "")
    return re.sub(r"[^A-Za-z0-9._/-]", "_", name) or "unknown"


def _required(members: dict[str, Any], name: str) -> Any:
    if name not in members:
        raise InvalidParams(missing_field(name))
    return members[name]


def _map(value: Any, expected: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParams(invalid_type(value, expected))
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidParams(invalid_type(value, "a string"))
    return value


def _optional_string(value: Any) -> str | None:
    return None if value is None else _string(value)


def _flag(members: dict[str, Any], name: str) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise InvalidParams(invalid_type(value, "a boolean"))
    return value
