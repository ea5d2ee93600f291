"""A certificate authority that is worth little to a thief: few names, few hours, no sub-authorities.

The agent's proxy terminates TLS for the scoped hosts, so whoever trusts its authority trusts whoever holds the key.
The damage is bounded by critical name constraints (RFC 5280 4.2.1.10), a validity of hours, and a key that exists
only in a 0700 directory of the run.
"""

import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Names that mitmproxy looks for in its `confdir` (mitmproxy.certs.CertStore.from_store, CONF_BASENAME).
CA_WITH_KEY = "mitmproxy-ca.pem"
CA_CERTIFICATE = "mitmproxy-ca-cert.pem"

# A clock that is a little off must not refuse us.
CLOCK_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate and its private key, both as PEM bytes."""

    certificate_pem: bytes
    key_pem: bytes


class LocalAuthority:
    """An EC P-256 authority that can speak for `names` only, with path length 0.

    Made with `create`, in memory. `write` puts it where mitmproxy finds it.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, names: tuple[str, ...]) -> None:
        self._key = key
        self._certificate = certificate
        self.names = names

    @classmethod
    def create(cls, names: Iterable[str], now: dt.datetime, lifetime: dt.timedelta) -> Self:
        """A new authority for exactly these DNS names and IP addresses.

        A DNS constraint also covers sub-domains (RFC 5280): "chatgpt.com" permits "a.chatgpt.com", not
        "notchatgpt.com". Whatever kind of name is not asked for is excluded whole.

        Args:
            names: DNS names (A-labels) or IP literals; at least one.
            now: An aware time, the start of validity (less five minutes for clocks that are off).
            lifetime: Hours, not years.

        Raises:
            ValueError: No name, an empty one, or a naive `now`.
        """
        names = tuple(dict.fromkeys(names))
        if not names or not all(names):
            raise ValueError(f"an authority needs at least one host name to be constrained to, got {names!r}")
        if now.tzinfo is None:
            raise ValueError("an authority needs an aware time: datetime.now(UTC)")
        key = ec.generate_private_key(ec.SECP256R1())
        # Unique: a client that trusts two authorities of one name may try the wrong one and give up (rustls does,
        # with "decrypt error").
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Countersign"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"Countersign local CA {secrets.token_hex(8)}"),
            ]
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,  # mitmproxy signs an empty CRL with it at start
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(_constraints(names), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            # Python 3.13's VERIFY_X509_STRICT wants both identifiers.
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate, names)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone: what clients are given to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, names: Iterable[str], now: dt.datetime) -> Leaf:
        """A server certificate for `names`, valid as long as the authority, with a key of its own.

        The authority does not check its own constraints here: clients do, and the tests show it by asking for a
        foreign name.
        """
        names = tuple(names)
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_identifier = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            # No host name: clients match the SANs, and OpenSSL holds a CN that looks like a name (also an IP address)
            # against the constraints.
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Countersign leaf")]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(self._certificate.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))

    def write(self, directory: Path) -> None:
        """Write key and certificate into `directory`, under mitmproxy's file names, readable by the owner only.

        Raises:
            FileExistsError: The files are there already; they are never overwritten or followed.
            PermissionError: Others may enter `directory`.
        """
        mode = directory.stat().st_mode & 0o777
        if mode & 0o077:
            raise PermissionError(
                f"the CA key needs a directory that only its owner may enter, and {str(directory)!r} has mode "
                f"{mode:04o}; use one with mode 0700"
            )
        _write_private(directory / CA_WITH_KEY, _private_pem(self._key) + self.certificate_pem)
        _write_private(directory / CA_CERTIFICATE, self.certificate_pem)


def _constraints(names: tuple[str, ...]) -> x509.NameConstraints:
    permitted: list[x509.GeneralName] = []
    for name in names:
        general = _general_name(name)
        if isinstance(general, x509.IPAddress):
            permitted.append(x509.IPAddress(ipaddress.ip_network(general.value)))
        else:
            permitted.append(general)
    # A constraint binds only names of its own kind (RFC 5280 4.2.1.10): a kind that is not permitted at all has to
    # be excluded, or an authority for one host name could speak for any IP address.
    excluded: list[x509.GeneralName] = []
    if not any(isinstance(name, x509.IPAddress) for name in permitted):
        excluded += [x509.IPAddress(ipaddress.ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    if not any(isinstance(name, x509.DNSName) for name in permitted):
        excluded.append(x509.DNSName(""))
    return x509.NameConstraints(permitted, excluded or None)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
