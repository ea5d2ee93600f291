"""Where the model client connects to: the proxy, and nothing around it. Pure."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class ProxyEndpoint:
    """The address of our proxy, the credentials of the run, and whom to trust behind it.

    Args:
        context: Trusts only the proxy's own authority: for the hosts whose TLS ends there.
        roots_file: A PEM bundle for the other hosts, which the proxy passes on untouched.
        admit: Makes the proxy let a host and port of our configuration pass, and tells whether their TLS ends there.
    """

    host: str
    port: int
    user: str
    secret: str = field(repr=False)
    context: ssl.SSLContext = field(repr=False)
    roots_file: str
    admit: Callable[[str, int], bool] = field(repr=False)

    @property
    def url(self) -> str:
        """Without credentials."""
        return f"http://{self.host}:{self.port}"

    @property
    def url_with_credentials(self) -> str:
        """For a library that takes them in no other way; never for a log or an error text."""
        return f"http://{quote(self.user, safe='')}:{quote(self.secret, safe='')}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """What we say of ourselves upstream."""

    user_agent: str
    originator: str
    version: str
