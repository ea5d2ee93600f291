"""Who may use the proxy's port: whoever knows the secret of this run."""

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a secret; the secret is in no repr and in no error text."""

    user: str
    secret: str = field(repr=False)

    @classmethod
    def random(cls) -> Self:
        """Fresh credentials for one run: 192 bits."""
        return cls("countersign", secrets.token_urlsafe(24))

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "user:secret" -> Credentials.

        Raises:
            ValueError: No colon, an empty part, or characters that do not survive a URL and a Basic header. The
                message does not repeat the text.
        """
        user, colon, secret = text.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9._~-]+", user) or not re.fullmatch(r"[!-~]{8,}", secret):
            raise ValueError(
                "proxy credentials must be USER:SECRET, the user made of letters, digits and ._~-, "
                "the secret of at least 8 visible ASCII characters"
            )
        return cls(user, secret)

    def proxy_url(self, host: str, port: int) -> str:
        """The URL for HTTPS_PROXY. It holds the secret: for a child's environment, not for a log."""
        return f"http://{self.user}:{quote(self.secret, safe='')}@{host}:{port}"

    def accepts(self, authorization: str) -> bool:
        """Whether this is the right `Proxy-Authorization` value; constant time in the secret."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.user}:{self.secret}".encode())
