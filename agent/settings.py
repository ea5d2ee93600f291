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
# What its name in the environment begins with.
PREFIX = "COUNTERSIGN_"
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
        rpc: "unix://PATH", absolute, or None for a socket in the directory of the run.
        sources: name -> where its value came from, such as "--rpc" or "COUNTERSIGN_RPC"; only of those that were given.
    """

    scope: Scope
    upstream: UpstreamMap
    port: int
    credentials: Credentials | None
    rpc: str | None
    stamp: StampMode
    on_failure: OnFailure
    sources: Mapping[str, str]

    def blamed(self, name: str, problem: Exception) -> str:
        """What is wrong with the value of a setting, and where the value came from if it was given."""
        return f"{self.sources[name]}: {problem}" if name in self.sources else str(problem)


@dataclass(frozen=True, slots=True)
class Config:
    """config.toml with the overrides of the command line applied, and where each key of it came from.

    Args:
        content: The outcome, as plain data.
        overrides: What was given as `-c KEY=VALUE`.
        path: The file.
    """

    content: Mapping[str, Any]
    overrides: Sequence[str] = ()
    path: str = "config.toml"

    def source(self, *key: str) -> str:
        """Such as "-c countersign.port" or "/home/me/.codex/config.toml: countersign.port"."""
        name = ".".join(key)
        for override in self.overrides:
            given = [part.strip() for part in override.partition("=")[0].split(".")]
            # `-c a={...}` gives a.b, and `-c a.b=...` gives a.
            if all(ours == theirs for ours, theirs in zip(key, given, strict=False)):
                return f"-c {name}"
        return f"{self.path}: {name}"


def proxy_settings(flags: Mapping[str, Any], environ: Mapping[str, str], config: Config) -> ProxySettings:
    """Put the settings together.

    Args:
        flags: From the command line, None or absent where not given; lists as lists.
        environ: COUNTERSIGN_PORT and so on; lists separated by commas.
        config: Whose table `countersign` is ours.

    Raises:
        SettingError: The first that cannot be used.
    """
    table = config.content.get(TABLE, {})
    if not isinstance(table, dict):
        raise SettingError(f"{config.source(TABLE)}: must be a table, found {table!r}")
    unknown = sorted(set(table) - set(_READERS))
    if unknown:
        known = ", ".join(sorted(_READERS))
        source = config.source(TABLE, unknown[0])
        raise SettingError(f"{source}: [{TABLE}] has no setting {unknown[0]!r}; there are {known}")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, read in _READERS.items():
        if flags.get(name) not in (None, []):
            raw, source = flags[name], f"--{_FLAGS.get(name, name).replace('_', '-')}"
        elif environ.get(variable := f"{PREFIX}{name.upper()}"):
            raw, source = environ[variable], variable
        elif name in table:
            raw, source = table[name], config.source(TABLE, name)
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
        sources=sources,
    )


# Read by single commands, and no settings of the proxy.
_ELSEWHERE = ("CAPTURES", "METRICS_TOKEN", "WRAP")


def ignored_settings(environ: Mapping[str, str], config: Config) -> list[str]:
    """What looks like a setting of ours and is read by nobody, a sentence for each. No values: they may be secret."""
    names = sorted(name.upper() for name in _READERS)
    strangers = sorted(
        {name.removeprefix(PREFIX) for name in environ if name.startswith(PREFIX)} - {*names, *_ELSEWHERE}
    )
    tables = [name for name in config.content if name != TABLE]
    if not strangers and not tables:
        return []
    from difflib import get_close_matches  # the app-server seldom needs it

    told = []
    for name in strangers:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"behind {PREFIX} there can be {', '.join(names)}"
        told.append(f"{PREFIX}{name} is ignored, since there is no such setting; {hint}")
    for name in get_close_matches(TABLE, tables, cutoff=0.8):
        told.append(f"{config.source(name)} is ignored, since it is no table of ours; did you mean {TABLE}?")
    return told


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
    # A relative path would be another one for the desktop that is told of it, and in config.toml for each directory.
    if not address.startswith("unix:///") or address == "unix:///":
        raise ValueError(f"an RPC address must be unix://PATH with an absolute path, found {address!r}")
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
