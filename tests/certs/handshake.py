"""A TLS handshake without a network: OpenSSL on both sides, by way of two buffers."""

import datetime as dt
import ssl
import tempfile
from pathlib import Path

from cryptography import x509

from certs.authority import Leaf

NOW = dt.datetime.now(dt.UTC)
HOURS = dt.timedelta(hours=72)


def server_context(leaf: Leaf, *issuers: bytes) -> ssl.SSLContext:
    """A server that presents this leaf, and the certificates of these issuers with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        chain, key = Path(directory) / "chain.pem", Path(directory) / "key.pem"
        chain.write_bytes(leaf.certificate_pem + b"".join(issuers))
        key.write_bytes(leaf.key_pem)
        context.load_cert_chain(chain, key)
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> x509.Certificate:
    """Complete a handshake in which the client wants to speak to `name`.

    Returns:
        The certificate that the client took for the server's.

    Raises:
        ssl.SSLCertVerificationError: The client refused it.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # two flights in each direction are plenty
        finished = 0
        for side in (asking, answering):
            try:
                side.do_handshake()
                finished += 1
            except ssl.SSLWantReadError:
                pass
        if finished == 2:
            return x509.load_der_x509_certificate(asking.getpeercert(binary_form=True))
    raise AssertionError("the handshake did not come to an end")
