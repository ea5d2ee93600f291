"""A model provider: where the requests of a thread go, with which credentials, and how patiently. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from agent.model.failures import Unavailable


@dataclass(frozen=True, slots=True)
class Provider:
    """One table of `model_providers`; the defaults are those of the service itself.

    Args:
        id: What configuration and threads call it.
        name: "OpenAI" makes it the service itself: with a ChatGPT account its requests go to the ChatGPT origin,
            whatever `base_url` says (observed).
        base_url: Without a slash at its end; None for where the credentials belong.
        env_key: The environment variable with its API key.
        bearer_token: The same, written down.
        needs_openai_auth: It is sent what the user is signed in with, unless it has a key of its own.
        websockets: WebSocket first, POST when that is refused or given up; else POST alone.
        http_headers: Sent with each request.
        env_http_headers: Header -> the environment variable with its value; left out where that is not set.
        request_retries: Of a POST that was answered with 5xx, before the stream.
        stream_retries: Of a stream that broke, on each transport.
        idle_timeout_s: The longest silence inside a stream.
        connect_timeout_s: For a WebSocket and its handshake.
    """

    id: str = "openai"
    name: str = "OpenAI"
    base_url: str | None = None
    env_key: str | None = None
    env_key_instructions: str | None = None
    bearer_token: str | None = field(default=None, repr=False)
    needs_openai_auth: bool = True
    websockets: bool = True
    query_params: Mapping[str, str] = field(default_factory=dict, repr=False)
    http_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    env_http_headers: Mapping[str, str] = field(default_factory=dict)
    request_retries: int = 4
    stream_retries: int = 5
    idle_timeout_s: float = 300.0
    connect_timeout_s: float = 15.0

    @property
    def is_openai(self) -> bool:
        """Whether it speaks for the service itself."""
        return self.name == "OpenAI"

    @property
    def compacts(self) -> bool:
        """Whether it knows what a compaction trigger is; others are asked for a summary in words (observed)."""
        return self.is_openai or self.name.lower() == "azure"

    @property
    def variables(self) -> frozenset[str]:
        """The environment variables that hold its secrets."""
        return frozenset((*((self.env_key,) if self.env_key else ()), *self.env_http_headers.values()))

    def key(self, environ: Mapping[str, str]) -> str | None:
        """Its own API key; None where it has none.

        Raises:
            Unavailable: The variable that should hold it is not set, or holds no key.
        """
        if self.env_key is None:
            return self.bearer_token
        key = environ.get(self.env_key, "")
        if not key.strip():
            more = f" {self.env_key_instructions}" if self.env_key_instructions else ""
            raise Unavailable(f"Missing environment variable: `{self.env_key}`.{more}", "other")
        return _header_value(self.env_key, key)

    def headers(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The headers of its own. Raises Unavailable where a variable holds what no header can."""
        found = {header: environ.get(variable, "") for header, variable in self.env_http_headers.items()}
        wanted = {header: _header_value(header, value) for header, value in found.items() if value.strip()}
        return laid_over(self.http_headers, wanted)

    def url(self, base: str, path: str) -> str:
        """Of a request."""
        query = urlencode(self.query_params, quote_via=quote)
        return f"{base}/{path}{'?' if query else ''}{query}"


# Which of their organizations and projects pays is told by the environment, to each endpoint of the service (observed).
OPENAI = Provider(env_http_headers={"OpenAI-Organization": "OPENAI_ORGANIZATION", "OpenAI-Project": "OPENAI_PROJECT"})


def laid_over(below: Mapping[str, str], above: Mapping[str, str]) -> dict[str, str]:
    """Both sets of headers; those above win, in whatever case they are written."""
    names = {name.lower() for name in above}
    return {**{name: value for name, value in below.items() if name.lower() not in names}, **above}


def is_header_value(text: str) -> bool:
    """Whether a header can hold it: printable ASCII."""
    return text.isascii() and text.isprintable()


def _header_value(name: str, value: str) -> str:
    if not is_header_value(value):
        raise Unavailable(f"`{name}` of the model provider is no value for a header (not shown)", "other")
    return value
