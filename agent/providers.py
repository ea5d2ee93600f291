"""The model providers of config.toml, `-c` and a request's `config`. No error repeats a value that may be secret."""

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from agent.model.provider import OPENAI, Provider, is_header_value
from proxy.scope import normal_host

# Those of the original that cannot be overridden.
_RESERVED = ("openai", "ollama", "lmstudio", "amazon-bedrock")
# Keys of the original without which a provider would be reached in another way than its owner wants.
_NOT_SUPPORTED = ("auth", "aws", "gateway_oauth", "credential_file")
# As in the original, whatever is configured.
_MOST_RETRIES = 100
# What is waited longer for is waited for for good.
_LONGEST_S = 366 * 86_400.0
_CHAT = """\
`wire_api = "chat"` is no longer supported.
How to fix: set `wire_api = "responses"` in your provider config.
More info: https://github.com/openai/codex/discussions/7782"""


class ProviderError(ValueError):
    """A provider that cannot be used; the text says which key is wrong.

    Args:
        key: The top-level key.
    """

    def __init__(self, text: str, key: str = "model_providers") -> None:
        super().__init__(text)
        self.key = key


class ProviderNotFound(ProviderError):
    """Nobody has defined it."""


def providers_of(config: Mapping[str, Any]) -> dict[str, Provider]:
    """All providers of a configuration by their names, in order: the user's own, and `openai`.

    Raises:
        ProviderError: One of them cannot be used, also if no thread wants it (observed).
    """
    tables = config.get("model_providers", {})
    if not isinstance(tables, dict):
        raise ProviderError(f"model_providers is of the type {type(tables).__name__}; it is a table of tables")
    reserved = [name for name in _RESERVED if name in tables]
    if reserved:
        named = ", ".join(f"`{name}`" for name in reserved)
        raise ProviderError(
            f"model_providers contains reserved built-in provider IDs: {named}. Built-in providers cannot be "
            "overridden. Rename your custom provider (for example, `openai-custom`)."
        )
    own = {name: _provider(name, table) for name, table in tables.items()}
    return dict(sorted((own | {OPENAI.id: _openai(config)}).items()))


def provider_of(config: Mapping[str, Any], name: str | None = None) -> Provider:
    """The provider of this name, or the one that the configuration chooses.

    Raises:
        ProviderError: It cannot be used; ProviderNotFound where there is none.
    """
    wanted = config.get("model_provider", OPENAI.id) if name is None else name
    if not isinstance(wanted, str):
        raise ProviderError(f"model_provider is {wanted!r}; it is the name of a provider", "model_provider")
    found = providers_of(config).get(wanted)
    if found is not None:
        return found
    if wanted in _RESERVED:
        text = f"Model provider `{wanted}` is not supported by countersign; define one by another name, with base_url"
        raise ProviderError(text, "model_provider")
    raise ProviderNotFound(f"Model provider `{wanted}` not found", "model_provider")


def needs_sign_in(config: Mapping[str, Any]) -> bool:
    """Whether threads that say nothing else are at a provider which takes what the user is signed in with."""
    try:
        return provider_of(config).needs_openai_auth
    except ProviderError:
        return OPENAI.needs_openai_auth


def without_secrets(environ: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """The environment without the keys of providers, also of such as cannot be used: what a tool may be shown."""
    tables = config.get("model_providers")
    secret: set[str] = set()
    for table in tables.values() if isinstance(tables, dict) else ():
        if isinstance(table, dict):
            headers = table.get("env_http_headers")
            named = [table.get("env_key"), *(headers.values() if isinstance(headers, dict) else ())]
            secret |= {name for name in named if isinstance(name, str)}
    return {name: value for name, value in environ.items() if name not in secret}


def _openai(config: Mapping[str, Any]) -> Provider:
    url = config.get("openai_base_url") or None
    if url is None:
        return OPENAI
    return dataclasses.replace(OPENAI, base_url=_base_url("openai_base_url", url, needs_openai_auth=True))


def _provider(name: str, table: Any) -> Provider:
    at = f"model_providers.{name}"
    if not isinstance(table, dict):
        raise ProviderError(f"{at} is of the type {type(table).__name__}; it is a table")
    for key in _NOT_SUPPORTED:
        if table.get(key) is not None:
            raise ProviderError(f"{at}.{key} is not supported by countersign; use env_key for its credentials")
    wire = table.get("wire_api", "responses")
    if wire != "responses":
        raise ProviderError(_CHAT if wire == "chat" else f"{at}.wire_api must be `responses`")

    def read[T](key: str, reader: Callable[[str, Any], T], default: T) -> T:
        return default if table.get(key) is None else reader(f"{at}.{key}", table[key])

    if not read("name", _text, "").strip():
        raise ProviderError(f"{at}: provider name must not be empty")
    needs_openai_auth = read("requires_openai_auth", _flag, False)
    return Provider(
        id=name,
        name=table["name"],
        base_url=read("base_url", lambda key, value: _base_url(key, value, needs_openai_auth), None),
        env_key=read("env_key", _text, None),
        env_key_instructions=read("env_key_instructions", _text, None),
        bearer_token=read("experimental_bearer_token", _secret, None),
        needs_openai_auth=needs_openai_auth,
        websockets=read("supports_websockets", _flag, False),
        query_params=read("query_params", _texts, {}),
        http_headers=read("http_headers", _headers, {}),
        env_http_headers=read("env_http_headers", _headers, {}),
        request_retries=min(read("request_max_retries", _count, OPENAI.request_retries), _MOST_RETRIES),
        stream_retries=min(read("stream_max_retries", _count, OPENAI.stream_retries), _MOST_RETRIES),
        idle_timeout_s=read("stream_idle_timeout_ms", _seconds, OPENAI.idle_timeout_s),
        connect_timeout_s=read("websocket_connect_timeout_ms", _seconds, OPENAI.connect_timeout_s),
    )


def _base_url(key: str, value: Any, needs_openai_auth: bool) -> str:
    url = _text(key, value)
    wanted = f"{key} must be http(s)://HOST[:PORT][/PATH] without credentials, query and fragment"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ProviderError(f"{wanted} (not shown)") from exc
    has_more = "@" in parts.netloc or "?" in url or "#" in url or port == 0 or not is_header_value(url) or " " in url
    if parts.scheme not in ("http", "https") or has_more or (host := normal_host(parts.hostname or "")) is None:
        raise ProviderError(f"{wanted} (not shown)")
    if needs_openai_auth and parts.scheme == "http" and not _is_loopback(host):
        raise ProviderError(
            f"{key} is plain http to {host!r}, where what you are signed in with could be read on the way; "
            "use https, or a host of this machine"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ProviderError(f"{key} is of the type {type(value).__name__}; it is a text")
    return value


def _secret(key: str, value: Any) -> str:
    if not is_header_value(text := _text(key, value)):
        raise ProviderError(f"{key} is no value for a header (not shown)")
    return text


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ProviderError(f"{key} is of the type {type(value).__name__}; it is true or false")
    return value


def _count(key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ProviderError(f"{key} must be a whole number from 0")
    return value


def _seconds(key: str, value: Any) -> float:
    return min(_count(key, value) / 1000, _LONGEST_S)


def _texts(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ProviderError(f"{key} is of the type {type(value).__name__}; it is a table of texts")
    return {name: _text(f"{key}.{name}", one) for name, one in value.items()}


def _headers(key: str, value: Any) -> dict[str, str]:
    headers = _texts(key, value)
    for name, text in headers.items():
        if re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) is None:
            raise ProviderError(f"{key} has {name!r}, which is no name of a header")
        _secret(f"{key}.{name}", text)
    return headers
