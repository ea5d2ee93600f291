import os
import re
import ssl
import stat
from pathlib import Path

import certifi
import pytest

from certs.authority import LocalAuthority
from certs.trust import MAX_BUNDLE_CHARACTERS, client_context, platform_roots, trust_also, write_bundle
from tests.certs.handshake import HOURS, NOW, server_context, shake_hands

KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@pytest.fixture
def ours():
    return LocalAuthority.create(["chatgpt.com"], NOW, HOURS)


@pytest.fixture
def roots(tmp_path):
    """A file with two roots that are not ours, as a platform has it."""
    path = tmp_path / "roots.pem"
    others = [LocalAuthority.create([name], NOW, HOURS) for name in ("one.example", "two.example")]
    path.write_bytes(b"".join(other.certificate_pem for other in others))
    return path


def certificates_in(path):
    """What OpenSSL finds in a bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return {ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(binary_form=True)}


def normal(pem):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem.decode()))


def test_the_bundle_is_the_roots_and_our_authority_and_nothing_else(tmp_path, roots, ours):
    write_bundle(tmp_path / "bundle.pem", roots, [ours.certificate_pem])
    assert certificates_in(tmp_path / "bundle.pem") == certificates_in(roots) | {normal(ours.certificate_pem)}


def test_a_client_with_the_bundle_trusts_what_we_issue_and_one_with_the_roots_does_not(tmp_path, roots, ours):
    write_bundle(tmp_path / "bundle.pem", roots, [ours.certificate_pem])
    server = server_context(ours.issue(["chatgpt.com"], NOW))
    shake_hands(ssl.create_default_context(cafile=tmp_path / "bundle.pem"), server, "chatgpt.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ssl.create_default_context(cafile=roots), server, "chatgpt.com")


def test_a_context_that_is_in_use_can_be_told_of_another_authority(ours):
    """The one of a run ends after hours, and the app-server may live for days."""
    context = client_context(LocalAuthority.create(["chatgpt.com"], NOW, HOURS).certificate_pem)
    server = server_context(ours.issue(["chatgpt.com"], NOW))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, server, "chatgpt.com")
    trust_also(context, ours.certificate_pem)
    shake_hands(context, server, "chatgpt.com")


def only_certificates(path):
    """Whether a bundle holds base64 between certificate markers and not one other line."""
    inside = False
    for line in path.read_text("ascii").splitlines():
        if line in (BEGIN, END):
            if inside == (line == BEGIN):
                return False
            inside = not inside
        elif not inside or not line.replace("+", "a").replace("/", "a").rstrip("=").isalnum():
            return False
    return not inside


@pytest.mark.parametrize(
    "junk",
    [
        KEY,
        KEY.replace("PRIVATE", "EC PRIVATE"),
        "# a comment with a secret=hunter2\n",
        "Zertifikat für zwei\n",
        f"{BEGIN}\n{KEY}{END}\n",  # a key that sits between the markers
        f"{BEGIN}\nMIIB\n{KEY}",  # a certificate that was cut off, and a key behind it
        f"{BEGIN}\nMIIB\n{KEY}{END}\n",
        f"{BEGIN}\nProc-Type: 4,ENCRYPTED\n\nMIIB\n{END}\n",
    ],
)
def test_nothing_but_certificates_gets_from_the_roots_into_the_bundle(tmp_path, roots, ours, junk):
    good = roots.read_text()
    roots.write_text(junk + good + junk, encoding="utf-8")
    write_bundle(tmp_path / "bundle.pem", roots, [ours.certificate_pem])
    assert only_certificates(tmp_path / "bundle.pem")
    assert good.split(END)[1].strip() in (tmp_path / "bundle.pem").read_text()


def test_a_key_beside_an_additional_authority_does_not_get_into_the_bundle(tmp_path, roots, ours):
    """A stand-in's CA file may well be the one that has its key in it; it was once copied as it stood."""
    with_key = f"# of the stand-in, größer\n{KEY}".encode() + ours.certificate_pem + KEY.encode()
    write_bundle(tmp_path / "bundle.pem", roots, [with_key])
    assert only_certificates(tmp_path / "bundle.pem")
    assert normal(ours.certificate_pem) in certificates_in(tmp_path / "bundle.pem")


def test_the_check_for_foreign_content_would_see_a_key(tmp_path, roots):
    """The negative control of `only_certificates`."""
    assert only_certificates(roots)
    roots.write_text(roots.read_text() + KEY)
    assert not only_certificates(roots)


def test_roots_without_a_certificate_are_refused_and_no_bundle_is_left(tmp_path, ours):
    (tmp_path / "empty.pem").write_text("nothing here\n")
    with pytest.raises(ValueError, match="holds none; set SSL_CERT_FILE"):
        write_bundle(tmp_path / "bundle.pem", tmp_path / "empty.pem", [ours.certificate_pem])
    assert not (tmp_path / "bundle.pem").exists()


@pytest.mark.parametrize("kind", ["a FIFO", "a device without an end", "a directory", "too long"])
def test_roots_that_are_no_bundle_at_all_are_refused_at_once(tmp_path, ours, kind):
    """A NODE_EXTRA_CA_CERTS of /dev/zero once took all memory there was, and a FIFO was waited for."""
    odd = tmp_path / "odd"
    if kind == "a FIFO":
        os.mkfifo(odd)
    elif kind == "a directory":
        odd.mkdir()
    elif kind == "too long":
        with odd.open("wb") as file:
            file.truncate(MAX_BUNDLE_CHARACTERS + 1)
    else:
        odd = Path("/dev/zero")
    with pytest.raises(OSError, match=re.escape(repr(str(odd)))):
        write_bundle(tmp_path / "bundle.pem", odd, [ours.certificate_pem])
    assert not (tmp_path / "bundle.pem").exists()


def test_an_authority_without_a_certificate_is_refused_and_no_bundle_is_left(tmp_path, roots):
    with pytest.raises(ValueError, match="an authority for the bundle"):
        write_bundle(tmp_path / "bundle.pem", roots, [KEY.encode()])
    assert not (tmp_path / "bundle.pem").exists()


def test_a_bundle_is_for_its_owner_only_and_never_overwrites(tmp_path, roots, ours):
    bundle = tmp_path / "bundle.pem"
    write_bundle(bundle, roots, [ours.certificate_pem])
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    before = bundle.read_bytes()
    with pytest.raises(FileExistsError):
        write_bundle(bundle, roots, [])
    assert bundle.read_bytes() == before


def test_our_own_clients_trust_our_authority_and_no_root_of_the_platform(ours):
    context = client_context(ours.certificate_pem)
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


def test_a_text_without_a_certificate_is_no_authority():
    with pytest.raises(ssl.SSLError):
        client_context(KEY.encode())


def test_the_roots_are_those_the_child_would_have_used(roots, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    assert platform_roots() == roots
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    assert platform_roots() != tmp_path / "missing.pem"
    assert certificates_in(platform_roots())


def test_certifi_is_what_remains_where_the_platform_has_none(monkeypatch):
    class NoPaths:
        cafile = None

    monkeypatch.setattr(ssl, "get_default_verify_paths", NoPaths)
    assert str(platform_roots()) == certifi.where()
