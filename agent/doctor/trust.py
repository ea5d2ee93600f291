"""Which authorities the clients of an environment are told to trust, and whether those files can be used. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.doctor.findings import Finding, Level, Topic

# variable -> who reads it. All are set anew for children.
TRUST_FILES = {
    "CODEX_CA_CERTIFICATE": "codex",
    "SSL_CERT_FILE": "OpenSSL, Python, Go and codex",
    "NODE_EXTRA_CA_CERTS": "Node",
    "REQUESTS_CA_BUNDLE": "Python's requests",
    "CURL_CA_BUNDLE": "curl",
}

# A bundle that replaces a platform's roots has more than a hundred; a company's own authorities are a few.
FEW_CERTIFICATES = 20


@dataclass(frozen=True, slots=True)
class TrustFile:
    """What was found behind a variable that names a file of authorities.

    Args:
        problem: Why it cannot be read, in words; empty if it can.
        is_file: Whether there is a regular file at all.
        certificates: How many PEM certificates it holds.
        broken: How many blocks of it say CERTIFICATE and are none.
        expired: How many of them are over.
        private_key: Whether it also holds a private key.
        others_may_read: By its mode.
    """

    path: str
    problem: str = ""
    is_file: bool = True
    certificates: int = 0
    broken: int = 0
    expired: int = 0
    private_key: bool = False
    others_may_read: bool = False


_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def holds_private_key(content: bytes) -> bool:
    """Whether a PEM text has a private key of any kind in it."""
    return _PRIVATE_KEY.search(content) is not None


def pem_certificates(content: bytes) -> list[bytes]:
    """The certificates of a PEM text, each in its armour; what only looks like one is still to be parsed."""
    return _CERTIFICATE.findall(content)


def trust_findings(files: Mapping[str, TrustFile]) -> list[Finding]:
    """What these files mean.

    Args:
        files: variable -> what it names; only of variables that are set.
    """
    found = [finding for name, file in files.items() for finding in _file_findings(name, file)]
    if not found:
        text = "none is set; children get the platform's roots with the authority of the run"
        found.append(Topic.TRUST.ok(", ".join(TRUST_FILES), text))
    return found


def _file_findings(name: str, file: TrustFile) -> list[Finding]:
    looked_at = f"{name} {file.path!r}"
    found = []
    if file.private_key:
        level = Level.PROBLEM if file.others_may_read else Level.WARNING
        text = "holds a private key, and whoever is told of the file reads it" + (
            "; other users may read it, too" if file.others_may_read else ""
        )
        advice = "move the key into a file of its own, mode 0600; if others could read it, replace it"
        found.append(Finding(Topic.TRUST, level, looked_at, text, advice))
    if file.broken:
        text = f"{file.broken} of its blocks say CERTIFICATE and are none, at which clients may refuse the whole file"
        found.append(Topic.TRUST.warning(looked_at, text, f"take them out, or unset {name}"))
    elif file.problem or not file.certificates:
        found.append(_unusable(name, looked_at, file))
    elif file.expired == file.certificates:
        text = f"holds {_certificates(file.certificates)}, and none that is valid any more"
        found.append(Topic.TRUST.warning(looked_at, text, f"renew the file, or unset {name}"))
    elif name == "SSL_CERT_FILE" and file.certificates < FEW_CERTIFICATES:
        found.append(
            Topic.TRUST.warning(
                looked_at,
                f"holds {_certificates(file.certificates)}, and replaces the roots of the platform, also for children: "
                "they may refuse auth.openai.com and whatever else is not intercepted",
                "put the platform's roots into the file as well, or unset SSL_CERT_FILE",
            )
        )
    else:
        text = f"holds {_certificates(file.certificates)}" + (
            f", {file.expired} of them expired" if file.expired else ""
        )
        found.append(Topic.TRUST.ok(looked_at, text))
    return found


def _unusable(name: str, looked_at: str, file: TrustFile) -> Finding:
    """The proxy makes the bundle of its children from SSL_CERT_FILE, if that is a file; the others it replaces."""
    what = file.problem or "holds no PEM certificate"
    fatal = name == "SSL_CERT_FILE" and file.is_file
    if fatal:
        text = f"{what}, so that the proxy cannot start: it makes the bundle of its children from this file"
    else:
        text = f"{what}; children of countersign get another one, and {TRUST_FILES[name]} without it may trust nobody"
    advice = f"name a PEM file of certificates that can be read, or unset {name}"
    return Finding(Topic.TRUST, Level.PROBLEM if fatal else Level.WARNING, looked_at, text, advice)


def _certificates(number: int) -> str:
    return "one certificate" if number == 1 else f"{number} certificates"
