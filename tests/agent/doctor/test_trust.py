import pytest

from agent.doctor.findings import Level
from agent.doctor.trust import TrustFile, holds_private_key, pem_certificates, trust_findings

MANY = 150


def levels(name, file):
    return [finding.level for finding in trust_findings({name: file})]


def test_without_any_file_there_is_nothing_to_say():
    assert [finding.level for finding in trust_findings({})] == [Level.OK]


@pytest.mark.parametrize(
    ("name", "file", "level"),
    [
        ("SSL_CERT_FILE", TrustFile("/f", certificates=MANY), Level.OK),
        ("SSL_CERT_FILE", TrustFile("/f", certificates=MANY, expired=3), Level.OK),
        ("SSL_CERT_FILE", TrustFile("/f", certificates=2), Level.WARNING),  # it replaces the platform's roots
        ("NODE_EXTRA_CA_CERTS", TrustFile("/f", certificates=2), Level.OK),  # this one adds to them
        ("SSL_CERT_FILE", TrustFile("/f"), Level.PROBLEM),  # the proxy makes its bundle of it
        ("CODEX_CA_CERTIFICATE", TrustFile("/f"), Level.WARNING),  # it is replaced for children
        ("SSL_CERT_FILE", TrustFile("/f", "cannot be read (Permission denied)"), Level.PROBLEM),
        ("SSL_CERT_FILE", TrustFile("/f", "does not exist", is_file=False), Level.WARNING),
        ("CURL_CA_BUNDLE", TrustFile("/f", "does not exist", is_file=False), Level.WARNING),
        ("REQUESTS_CA_BUNDLE", TrustFile("/f", certificates=3, expired=3), Level.WARNING),
        ("SSL_CERT_FILE", TrustFile("/f", certificates=MANY, broken=1), Level.WARNING),
    ],
)
def test_what_a_file_means_depends_on_who_reads_it(name, file, level):
    assert levels(name, file) == [level]


@pytest.mark.parametrize(("others", "level"), [(False, Level.WARNING), (True, Level.PROBLEM)])
def test_a_private_key_beside_the_certificates_is_told_and_worse_if_others_can_read_it(others, level):
    file = TrustFile("/f", certificates=MANY, private_key=True, others_may_read=others)
    assert levels("SSL_CERT_FILE", file) == [level, Level.OK]


@pytest.mark.parametrize("kind", ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"])
def test_every_kind_of_private_key_is_one(kind):
    assert holds_private_key(f"x\n-----BEGIN {kind}-----\nAA==\n".encode())


@pytest.mark.parametrize("text", ["-----BEGIN CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----", "PRIVATE KEY"])
def test_and_nothing_else_is(text):
    assert not holds_private_key(text.encode())


def test_certificates_are_found_between_comments():
    block = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert pem_certificates(b"# one\n" + block + b"\njunk\n" + block) == [block, block]
