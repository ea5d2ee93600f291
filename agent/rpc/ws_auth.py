"""Who may open a WebSocket on a TCP listener: the two kinds of bearer token of the original. Pure.

Observed of codex-cli 0.169.0: `Authorization: Bearer ...` on the upgrade, the scheme in any case, and two texts for
what is refused. Of a token and of a secret nothing shows, in no text and in no repr.
"""

import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MISSING = "missing websocket bearer token"
INVALID = "invalid websocket bearer token"

# A key shorter than the hash weakens it (RFC 7518, 3.2).
MIN_SECRET_BYTES = 32
# Seconds that the clocks may differ, unless told otherwise.
CLOCK_SKEW_S = 30
_SHA256_DIGITS = 64


class Unusable(ValueError):
    """A token or secret that cannot protect anything; the text says why, and nothing of it."""


class BearerCheck(Protocol):
    """Decides about the token of one upgrade."""

    def accepts(self, token: bytes, now_s: float) -> bool:
        """Whether it is good at this Unix time, in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class CapabilityToken:
    """One secret that whoever knows it may show; only its SHA-256 is kept."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, token: bytes) -> "CapabilityToken":
        """From the content of a file; blanks around it do not count.

        Raises:
            Unusable: It is empty, or no header could carry it.
        """
        token = token.strip()
        if not token:
            raise Unusable("it is empty")
        if not all(0x21 <= byte <= 0x7E for byte in token):
            raise Unusable("it has characters that a header cannot carry; a token is one word of ASCII")
        return cls(hashlib.sha256(token).digest())

    @classmethod
    def of_sha256(cls, digits: str) -> "CapabilityToken":
        """From the SHA-256 of the token, in hex.

        Raises:
            Unusable: It is none.
        """
        if len(digits) != _SHA256_DIGITS or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise Unusable(f"a SHA-256 has {_SHA256_DIGITS} hexadecimal digits")
        return cls(bytes.fromhex(digits))

    def accepts(self, token: bytes, now_s: float) -> bool:
        """See `BearerCheck`."""
        # Of the hashes, so that neither the time nor the length says how much of it was right.
        return hmac.compare_digest(hashlib.sha256(token).digest(), self.digest)


@dataclass(frozen=True, slots=True)
class SignedBearerToken:
    """A JWT that somebody who knows the shared secret has signed (HS256), and that ends at a time.

    Args:
        issuer, audience: What `iss` must be, and what `aud` must be or hold; None for anything.
        skew_s: Seconds that the clock of its maker may be off.
    """

    secret: bytes = field(repr=False)
    issuer: str | None = None
    audience: str | None = None
    skew_s: float = CLOCK_SKEW_S

    @classmethod
    def of(
        cls, secret: bytes, issuer: str | None = None, audience: str | None = None, skew_s: float = CLOCK_SKEW_S
    ) -> "SignedBearerToken":
        """From the content of a file; blanks around it do not count.

        Raises:
            Unusable: It is too short.
        """
        secret = secret.strip()
        if len(secret) < MIN_SECRET_BYTES:
            raise Unusable(f"it has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed")
        return cls(secret, issuer, audience, skew_s)

    def accepts(self, token: bytes, now_s: float) -> bool:
        """See `BearerCheck`."""
        import jwt  # only where such tokens are used: it takes 20 ms

        # The time is ours to check: pyjwt would read its own clock.
        unchecked = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
        try:
            claims = jwt.decode(token, self.secret, algorithms=["HS256"], options=unchecked)  # type: ignore[arg-type]
        except (jwt.PyJWTError, ValueError, RecursionError):
            return False
        return self._is_now(claims, now_s) and self._is_for_us(claims)

    def _is_now(self, claims: dict[str, Any], now_s: float) -> bool:
        ends, begins = _time(claims.get("exp")), _time(claims.get("nbf", 0))
        if ends is None or begins is None:
            return False
        return ends + self.skew_s >= now_s >= begins - self.skew_s

    def _is_for_us(self, claims: dict[str, Any]) -> bool:
        if self.issuer is not None and claims.get("iss") != self.issuer:
            return False
        audience = claims.get("aud")
        return self.audience is None or self.audience in (audience if isinstance(audience, list) else [audience])


def refusal(check: BearerCheck, authorization: Sequence[str], now_s: float) -> str | None:
    """Why an upgrade with these `Authorization` headers is refused, None if it is not."""
    if not authorization:
        return MISSING
    scheme, _, token = authorization[0].strip().partition(" ")
    if len(authorization) > 1 or scheme.lower() != "bearer":
        return INVALID
    # A header that is not ASCII was decoded somehow; whatever comes of it is not a token.
    return None if check.accepts(token.strip().encode("utf-8", "surrogateescape"), now_s) else INVALID


def _time(value: object) -> float | None:
    """A Unix time in seconds, None if it is none."""
    try:
        seconds = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None
