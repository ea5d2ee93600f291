"""Where each setting of the proxy comes from: a flag beats the environment, the environment beats the file. Pure.

Plain dataclasses and not pydantic: the app-server reads these before its first answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.credentials import Credentials
from proxy.modes import OnFailure, StampMode
from proxy.scope import DEFAULT_ALLOWED_HOSTS, DEFAULT_ORIGIN, Scope
from proxy.upstream import UpstreamMap

# The table of config.toml that is ours.
TABLE = "countersign"
# As the first entry of allow_hosts: without the built-in list.
NO_DEFAULTS = "none"


class SettingError(ValueError):
    """A setting that cannot be used: the text names its source, the value and the rule."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The proxy's settings, checked.

    Args:
        port: 0 for any free port.
        credentials: None for fresh ones.
        rpc: "unix://PATH", or None for a socket in the directory of the run.
    """

    scope: Scope
    upstream: UpstreamMap
    port: int
    credentials: Credentials | None
    rpc: str | None
    stamp: StampMode
    on_failure: OnFailure


def proxy_settings(flags: Mapping[str, Any], environ: Mapping[str, str], table: Mapping[str, Any]) -> ProxySettings:
    """Put the settings together.

    Args:
        flags: From the command line, None or absent where not given; lists as lists.
        environ: COUNTERSIGN_PORT and so on; lists separated by commas.
        table: The `countersign` table of config.toml, with `-c` overrides applied.

    Raises:
        SettingError: The first that cannot be used.
    """
    unknown = set(table) - set(_READERS)
    if unknown:
        raise SettingError(
            f"config.toml: [{TABLE}] has no setting {sorted(unknown)[0]!r}; there are {', '.join(sorted(_READERS))}"
        )
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, read in _READERS.items():
        if flags.get(name) not in (None, []):
            raw, source = flags[name], f"--{_FLAGS.get(name, name).replace('_', '-')}"
        elif environ.get(variable := f"COUNTERSIGN_{name.upper()}"):
            raw, source = environ[variable], variable
        elif name in table:
            raw, source = table[name], f"config.toml: {TABLE}.{name}"
        else:
            values[name] = None
            continue
        sources[name] = source
        values[name] = _checked(source, read, raw)

    def build[T](name: str, make: Callable[[], T]) -> T:
        return _checked(sources.get(name, name), lambda _: make(), None)

    allowed = values["allow_hosts"] or []
    if allowed[:1] == [NO_DEFAULTS]:
        allowed = allowed[1:]
    else:
        allowed = [*DEFAULT_ALLOWED_HOSTS, *allowed]
    build("allow_hosts", lambda: Scope.of(allowed_hosts=allowed))
    return ProxySettings(
        scope=build("origins", lambda: Scope.of(values["origins"] or [DEFAULT_ORIGIN], allowed)),
        upstream=build("upstream_map", lambda: UpstreamMap.parse(values["upstream_map"] or [], values["upstream_ca"])),
        port=values["port"] or 0,
        credentials=values["credentials"],
        rpc=values["rpc"],
        stamp=values["stamp"] or StampMode.ALWAYS,
        on_failure=values["on_failure"] or OnFailure.SEND,
    )


def _checked[T](source: str, read: Callable[[Any], T], raw: Any) -> T:
    try:
        return read(raw)
    except OSError as exc:
        raise SettingError(f"{source}: {exc.filename!r} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingError(f"{source}: {exc}") from exc


def _list(raw: Any) -> list[str]:
    if isinstance(raw, str):
        raw = raw.split(",")
    if not isinstance(raw, Sequence) or not all(isinstance(one, str) for one in raw):
        raise ValueError(f"a list of strings is needed, found {raw!r}")
    return [part.strip() for one in raw for part in one.split(",") if part.strip()]


def _port(raw: Any) -> int:
    text = str(raw).strip()
    if isinstance(raw, bool) or not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise ValueError(f"a port must be 0 to 65535 (0: any free one), found {text!r}")
    return int(text)


def _authorities(raw: Any) -> Path:
    try:
        path = Path(_text(raw)).expanduser()
    except RuntimeError as exc:  # "~nobody/..."
        raise ValueError(f"{raw!r} names a home directory that does not exist") from exc
    UpstreamMap.parse([], path)  # can it be read, and is it PEM?
    return path


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"a text is needed, found {raw!r}")
    return raw


def _rpc(raw: Any) -> str:
    address = _text(raw)
    if not address.startswith("unix://") or address == "unix://":
        raise ValueError(f"an RPC address must be unix://PATH, found {address!r}")
    return address


def _credentials(raw: Any) -> Credentials:
    if not isinstance(raw, str):
        raise ValueError("proxy credentials must be a text USER:SECRET")
    return Credentials.parse(raw)


def _stamp(raw: Any) -> StampMode:
    if raw not in list(StampMode):
        raise ValueError(f"must be one of {', '.join(StampMode)}, found {raw!r}")
    return StampMode(raw)


def _on_failure(raw: Any) -> OnFailure:
    if raw not in list(OnFailure):
        raise ValueError(f"must be one of {', '.join(OnFailure)}, found {raw!r}")
    return OnFailure(raw)


_READERS: dict[str, Callable[[Any], Any]] = {
    "origins": _list,
    "allow_hosts": _list,
    "upstream_map": _list,
    "upstream_ca": _authorities,
    "port": _port,
    "credentials": _credentials,
    "rpc": _rpc,
    "stamp": _stamp,
    "on_failure": _on_failure,
}
# Flags that are repeated have their name in the singular. There is none for credentials: argv is public.
_FLAGS = {"origins": "origin", "allow_hosts": "allow_host"}
