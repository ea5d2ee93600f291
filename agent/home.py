"""CODEX_HOME: where it is, and what we read there at start. Paths are texts: pathlib is a twelfth of the start."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any


class HomeError(Exception):
    """CODEX_HOME or its config.toml cannot be used; the text says why and what to do."""


class ConfigBroken(HomeError):
    """config.toml cannot be read, or is not TOML.

    Args:
        position: (line, column) of what is wrong, from 1; None where there is none.
        may_be_ours: The settings of the proxy may be in it, so that it cannot be done without.
    """

    def __init__(self, text: str, path: str, position: tuple[int, int] | None, may_be_ours: bool) -> None:
        super().__init__(text)
        self.path = path
        self.position = position
        self.may_be_ours = may_be_ours


def codex_home(environ: Mapping[str, str]) -> str:
    """$CODEX_HOME, which must exist; else ~/.codex, which is made.

    Raises:
        HomeError: It does not exist, or is no directory.
    """
    named = environ.get("CODEX_HOME", "")
    if named:
        if not os.path.isdir(named):
            raise HomeError(f"CODEX_HOME is {named!r}, which is no directory; create it, or unset CODEX_HOME")
        return os.path.realpath(named)
    path = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".codex")
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise HomeError(f"cannot make {path!r}: {exc.strerror}; set CODEX_HOME to a directory of yours") from exc
    return path


def load_config(home: str, overrides: Sequence[str]) -> dict[str, Any]:
    """config.toml with the `-c key=value` overrides applied, as plain data.

    Raises:
        ConfigBroken: The file cannot be read, or is not TOML.
        HomeError: An override without "=".
    """
    path = config_path(home)
    config: dict[str, Any] = {}
    if os.path.exists(path):
        import tomllib

        content = b""
        try:
            with open(path, "rb") as file:
                content = file.read()
            config = tomllib.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as exc:
            text = f"{path!r} is not TOML: {exc}"
            raise ConfigBroken(text, path, _position(str(exc)), b"countersign" in content) from exc
        except OSError as exc:
            raise ConfigBroken(f"{path!r} cannot be read: {exc.strerror}", path, None, False) from exc
    return override_config(config, overrides)


def override_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The same with the `-c key=value` overrides applied. Raises HomeError for one without "="."""
    for override in overrides:
        _apply(config, override)
    return _by_the_newest(config, [override.partition("=")[0].strip() for override in overrides])


def laid_over(config: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the `config` of a request over it, whose keys may be dotted, and whose tables are merged.

    Both are left as they are.
    """
    import copy

    merged = copy.deepcopy(dict(config))
    for key, value in request.items():
        parts = key.split(".")
        if isinstance(value, dict):
            for name, inner in value.items():
                _set(merged, [*parts, name], inner)
        else:
            _set(merged, parts, value)
    return _by_the_newest(merged, request)


def _by_the_newest(config: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Of two ways to say what a thread may do, the one that was given last; of both at once, the profile (observed)."""
    if "sandbox_mode" in given and "default_permissions" not in given:
        config.pop("default_permissions", None)
    return config


def config_path(home: str) -> str:
    return os.path.join(home, "config.toml")


def position_of_key(home: str, key: str) -> tuple[int, int] | None:
    """(line, column) of the value of a top-level key in config.toml, from 1; None if it is not found there."""
    import re

    try:
        with open(config_path(home), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return None
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("["):
            return None
        if (found := re.match(rf"\s*(['\"]?){re.escape(key)}\1\s*=\s*", line)) is not None:
            return number, found.end() + 1
    return None


def _position(reason: str) -> tuple[int, int] | None:
    """From the text of tomllib's error; only CPython 3.14 has it as attributes."""
    import re

    found = re.search(r"\(at line (\d+), column (\d+)\)$", reason)
    return None if found is None else (int(found[1]), int(found[2]))


def installation_id(home: str) -> str:
    """The id of this installation, made on first use and kept in CODEX_HOME as the original keeps it."""
    import uuid

    path = os.path.join(home, "installation_id")
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return str(uuid.UUID(file.read().strip()))
    except (OSError, ValueError):
        fresh = str(uuid.uuid4())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(fresh)
    except OSError:
        pass  # a read-only home: the id lasts for this process
    return fresh


def _apply(config: dict[str, Any], override: str) -> None:
    """Set a dotted key to a TOML value; what is no TOML value is a string, as in the original."""
    import tomllib

    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise HomeError(f"a config override must be KEY=VALUE, found {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # a number of thousands of digits is no TOMLDecodeError
        value = text.strip().strip("'\"")
    _set(config, parts, value)


def _set(config: dict[str, Any], parts: list[str], value: Any) -> None:
    table = config
    for part in parts[:-1]:
        inner = table.get(part)
        if not isinstance(inner, dict):
            inner = table[part] = {}
        table = inner
    table[parts[-1]] = value
