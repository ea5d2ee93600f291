import datetime as dt
import os
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority import CA_CERTIFICATE, CA_WITH_KEY, Leaf, LocalAuthority
from certs.trust import client_context
from tests.certs.handshake import HOURS, NOW, server_context, shake_hands


@pytest.fixture
def authority():
    """An authority for chatgpt.com and api.openai.com."""
    return LocalAuthority.create(["chatgpt.com", "api.openai.com"], NOW, HOURS)


def certificate_of(authority):
    return x509.load_pem_x509_certificate(authority.certificate_pem)


def connect(authority, *names, to, issued=NOW):
    """A client that trusts the authority speaks to `to`, and is shown a leaf for `names`: the names it accepted."""
    server = server_context(authority.issue(names, issued))
    return names_of(shake_hands(client_context(authority.certificate_pem), server, to))


def names_of(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def test_the_key_is_on_p256(authority):
    assert isinstance(certificate_of(authority).public_key().curve, ec.SECP256R1)


@pytest.mark.parametrize("name", ["chatgpt.com", "api.openai.com"])
def test_a_leaf_for_a_constrained_name_is_accepted(authority, name):
    assert connect(authority, name, to=name) == [name]


def test_a_subdomain_of_a_constrained_name_is_accepted(authority):
    """RFC 5280 4.2.1.10: a DNS constraint also covers names with more labels on the left."""
    assert connect(authority, "a.chatgpt.com", to="a.chatgpt.com") == ["a.chatgpt.com"]


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "notchatgpt.com",
        "chatgpt.com.evil.example",
        "openai.com",  # only api.openai.com is ours, not what is above it
        "auth.openai.com",
        "com",
        "127.0.0.1",
        "::1",
    ],
)
def test_a_leaf_for_a_foreign_name_is_rejected_by_clients(authority, name):
    with pytest.raises(ssl.SSLCertVerificationError, match="(permitted|excluded) subtree violation"):
        connect(authority, name, to=name)


def test_one_foreign_name_among_good_ones_spoils_the_leaf(authority):
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        connect(authority, "chatgpt.com", "evil.example", to="chatgpt.com")


def test_an_ip_address_beside_a_good_name_spoils_the_leaf(authority):
    """mitmproxy puts the server's address into the SANs unless it is kept from it."""
    with pytest.raises(ssl.SSLCertVerificationError, match="excluded subtree violation"):
        connect(authority, "chatgpt.com", "93.184.216.34", to="chatgpt.com")


def test_an_authority_for_an_ip_address_speaks_for_it_and_for_no_name():
    authority = LocalAuthority.create(["127.0.0.1"], NOW, HOURS)
    assert connect(authority, "127.0.0.1", to="127.0.0.1") == ["127.0.0.1"]
    with pytest.raises(ssl.SSLCertVerificationError, match="excluded subtree violation"):
        connect(authority, "chatgpt.com", to="chatgpt.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        connect(authority, "127.0.0.2", to="127.0.0.2")


def test_without_the_constraints_the_foreign_name_would_have_been_accepted():
    """The negative control of all the rejections above: the same leaf from an authority for that name."""
    foreign = LocalAuthority.create(["evil.example"], NOW, HOURS)
    assert connect(foreign, "evil.example", to="evil.example") == ["evil.example"]


def test_the_constraints_are_critical_so_no_client_may_ignore_them(authority):
    extensions = certificate_of(authority).extensions
    assert extensions.get_extension_for_oid(ExtensionOID.NAME_CONSTRAINTS).critical
    assert extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS).critical
    assert extensions.get_extension_for_oid(ExtensionOID.KEY_USAGE).critical


def test_its_key_may_sign_certificates_and_nothing_of_a_connection(authority):
    usage = certificate_of(authority).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and not usage.digital_signature and not usage.key_encipherment


def issued_through_a_sub_authority(authority, tmp_path, path_length):
    """A leaf for chatgpt.com from a sub-authority that the key of `authority` signed; and that sub-authority."""
    authority.write(tmp_path)
    key = serialization.load_pem_private_key((tmp_path / CA_WITH_KEY).read_bytes(), None)
    parent = certificate_of(authority)
    sub_key = ec.generate_private_key(ec.SECP256R1())
    sub = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string("CN=sub"))
        .issuer_name(parent.subject)
        .public_key(sub_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + HOURS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string("CN=chatgpt.com"))
        .issuer_name(sub.subject)
        .public_key(leaf_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + HOURS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("chatgpt.com")]), critical=False)
        .sign(sub_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    key_pem = leaf_key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Leaf(leaf.public_bytes(encoding), key_pem), sub.public_bytes(encoding)


def test_a_sub_authority_of_ours_is_rejected_by_clients(authority, tmp_path):
    tmp_path.chmod(0o700)
    leaf, sub = issued_through_a_sub_authority(authority, tmp_path, path_length=0)
    with pytest.raises(ssl.SSLCertVerificationError, match="path length constraint exceeded"):
        shake_hands(client_context(authority.certificate_pem), server_context(leaf, sub), "chatgpt.com")


def test_the_same_chain_is_accepted_by_a_client_that_trusts_the_sub_authority_itself(authority, tmp_path):
    """The negative control: it is the path length that was refused, not the leaf."""
    tmp_path.chmod(0o700)
    leaf, sub = issued_through_a_sub_authority(authority, tmp_path, path_length=0)
    client = client_context(sub)
    client.verify_flags = (client.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    shake_hands(client, server_context(leaf, sub), "chatgpt.com")


def test_it_is_valid_for_its_hours_and_for_clocks_that_are_five_minutes_off(authority):
    certificate = certificate_of(authority)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    assert end - start == HOURS + dt.timedelta(minutes=5)
    assert abs(start + dt.timedelta(minutes=5) - NOW) < dt.timedelta(seconds=1)


def test_an_authority_whose_hours_are_over_is_rejected():
    then = NOW - dt.timedelta(hours=2)
    old = LocalAuthority.create(["chatgpt.com"], then, dt.timedelta(hours=1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        connect(old, "chatgpt.com", to="chatgpt.com", issued=then)


def test_a_leaf_does_not_outlive_its_authority(authority):
    leaf = x509.load_pem_x509_certificate(authority.issue(["chatgpt.com"], NOW).certificate_pem)
    assert leaf.not_valid_after_utc <= certificate_of(authority).not_valid_after_utc


def test_key_identifiers_are_there_and_pass_the_strict_check_of_python_3_13(authority):
    """Python 3.13 made VERIFY_X509_STRICT its default; a CA without them broke clients (openai/codex#45202)."""
    extensions = certificate_of(authority).extensions
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own.digest
    strict = client_context(authority.certificate_pem)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    shake_hands(strict, server_context(authority.issue(["chatgpt.com"], NOW)), "chatgpt.com")


def test_two_authorities_have_different_names_and_keys(authority):
    """rustls picks the authority by its name: with two of one name it may try the wrong key."""
    other = LocalAuthority.create(["chatgpt.com"], NOW, HOURS)
    assert certificate_of(authority).subject != certificate_of(other).subject
    assert certificate_of(authority).public_key() != certificate_of(other).public_key()


def test_an_authority_of_the_same_kind_is_not_trusted_in_place_of_ours(authority):
    impostor = LocalAuthority.create(["chatgpt.com"], NOW, HOURS)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(
            client_context(authority.certificate_pem),
            server_context(impostor.issue(["chatgpt.com"], NOW)),
            "chatgpt.com",
        )


@pytest.mark.parametrize("names", [[], [""], ["chatgpt.com", ""]])
def test_an_authority_without_a_name_is_refused(names):
    with pytest.raises(ValueError, match="at least one host name"):
        LocalAuthority.create(names, NOW, HOURS)


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="aware time"):
        LocalAuthority.create(["chatgpt.com"], NOW.replace(tzinfo=None), HOURS)


# Files


def test_key_and_certificate_are_written_for_their_owner_only(authority, tmp_path):
    tmp_path.chmod(0o700)
    previous = os.umask(0)  # the mode must not hang on the umask
    try:
        authority.write(tmp_path)
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {CA_WITH_KEY: 0o600, CA_CERTIFICATE: 0o600}


def test_the_certificate_file_holds_no_key(authority, tmp_path):
    tmp_path.chmod(0o700)
    authority.write(tmp_path)
    assert (tmp_path / CA_CERTIFICATE).read_bytes() == authority.certificate_pem
    assert b"PRIVATE" not in authority.certificate_pem
    assert b"PRIVATE" in (tmp_path / CA_WITH_KEY).read_bytes()  # the control: that is how a key would show


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
def test_a_directory_that_others_may_enter_is_refused(authority, tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match=f"{mode:04o}.*0700"):
        authority.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_key_is_never_overwritten(authority, tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / CA_WITH_KEY).write_text("another run's")
    with pytest.raises(FileExistsError):
        authority.write(tmp_path)
    assert (tmp_path / CA_WITH_KEY).read_text() == "another run's"


def test_a_link_in_the_place_of_the_key_is_not_followed(authority, tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / CA_WITH_KEY).symlink_to(tmp_path / "elsewhere" / "key")
    with pytest.raises(FileExistsError):
        authority.write(tmp_path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


label = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).filter(
    lambda text: not text.startswith("-") and not text.endswith("-") and not text.isdigit()
)
names = st.lists(label, min_size=2, max_size=3).map(".".join)


@settings(max_examples=40)
@given(name=names)
def test_a_client_accepts_a_name_only_if_it_is_constrained_to_or_below_one_that_is(name):
    authority = LocalAuthority.create(["chatgpt.com"], NOW, HOURS)
    permitted = name == "chatgpt.com" or name.endswith(".chatgpt.com")
    try:
        connect(authority, name, to=name)
    except ssl.SSLCertVerificationError:
        assert not permitted
    else:
        assert permitted
