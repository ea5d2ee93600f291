"""Who trusts the local authority: our own clients by a context, child processes by a bundle file."""

import errno
import os
import re
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path

import certifi

# All public roots together have a quarter of a million.
MAX_BUNDLE_CHARACTERS = 16 * 1024 * 1024


def client_context(*authorities: bytes) -> ssl.SSLContext:
    """A verifying client context that trusts these PEM authorities and nothing else.

    Raises:
        ssl.SSLError: A PEM text that holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for pem in authorities:
        trust_also(context, pem)
    return context


def trust_also(context: ssl.SSLContext, authority: bytes) -> None:
    """Let `context` trust this PEM authority too, from its next connection on.

    Raises:
        ssl.SSLError: A PEM text that holds no certificate.
    """
    context.load_verify_locations(cadata=authority.decode("ascii"))


def platform_roots() -> Path:
    """The bundle that a child would have used without us: $SSL_CERT_FILE, the system's, else certifi's."""
    for candidate in (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return Path(certifi.where())


def write_bundle(path: Path, roots: Path, authorities: Sequence[bytes]) -> None:
    """Write `roots` plus these PEM authorities as one bundle for child processes.

    Only certificates are copied: a key or a comment that sits in the roots file, or beside an authority, does not
    reach the child.

    Raises:
        OSError: `roots` cannot be read, is no regular file or too long for a bundle, or `path` exists already.
        ValueError: `roots` or an authority holds no certificate.
    """
    certificates = _certificates(_text(roots))
    if not certificates:
        raise ValueError(f"{str(roots)!r} should be a bundle of PEM certificates, but holds none; set SSL_CERT_FILE")
    for authority in authorities:
        found = _certificates(authority.decode("utf-8", errors="replace"))
        if not found:
            raise ValueError("an authority for the bundle should be a PEM certificate, and holds none")
        certificates += found
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write("\n".join(certificates) + "\n")


def _text(path: Path) -> str:
    with open(path, encoding="utf-8", errors="replace", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a device may have no end
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        text = file.read(MAX_BUNDLE_CHARACTERS + 1)
    if len(text) > MAX_BUNDLE_CHARACTERS:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return text


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO may have no writer


# Base64 and line ends only between the two: a block that was cut off and ends in another one's END may have swallowed
# a private key.
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)


def _certificates(text: str) -> list[str]:
    return _CERTIFICATE.findall(text)
