"""What CODEX_HOME means. Levels of `.env` lines as they were measured behind `countersign run` with codex-cli 0.163."""

import pytest

from agent.doctor.dotenv import parse_dotenv
from agent.doctor.findings import Level
from agent.doctor.home import DotenvFacts, HomeFacts, SignInFacts, dotenv_findings, home_findings, sign_in_findings

HOSTS = ("chatgpt.com", "api.openai.com")


def of_lines(*lines, own_port=0):
    content = parse_dotenv("\n".join(lines).encode(), {})
    return dotenv_findings(DotenvFacts("/h/.env", True, content=content), HOSTS, own_port)


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (HomeFacts("/h"), Level.OK),
        (HomeFacts("/h", mode=0o755), Level.OK),
        (HomeFacts("/h", mode=0o775), Level.WARNING),
        (HomeFacts("/h", mode=0o777), Level.PROBLEM),
        (HomeFacts("/h", is_ours=False), Level.WARNING),
        (HomeFacts("/h", may_write=False), Level.PROBLEM),
        (HomeFacts("/h", is_ours=False, may_write=False), Level.PROBLEM),
        (HomeFacts("/h", exists=False), Level.NOTE),
        (HomeFacts("/h", "is no directory", exists=False), Level.PROBLEM),
    ],
)
def test_a_home_is_fine_if_only_its_owner_writes_there(facts, level):
    assert [finding.level for finding in home_findings(facts)] == [level]


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (SignInFacts("/a", "chatgpt"), Level.OK),
        (SignInFacts("/a"), Level.NOTE),
        (SignInFacts("/a", "apikey"), Level.WARNING),
        (SignInFacts("/a", problem="is not JSON; sign in again"), Level.PROBLEM),
    ],
)
def test_only_a_sign_in_with_chatgpt_is_ever_stamped(facts, level):
    assert [finding.level for finding in sign_in_findings(facts)] == [level]


def test_credentials_that_others_may_read_are_a_warning_beside_the_rest():
    findings = sign_in_findings(SignInFacts("/a", "chatgpt", others_may_read=True))
    assert [finding.level for finding in findings] == [Level.WARNING, Level.OK]
    assert findings[0].advice == "chmod 600 '/a'"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("HTTPS_PROXY=http://p:1", Level.PROBLEM),
        ("HTTPS_PROXY=", Level.PROBLEM),
        ("HTTPS_PROXY=nonsense", Level.PROBLEM),
        ("https_proxy=http://p:1", Level.WARNING),
        ("ALL_PROXY=http://p:1", Level.NOTE),
        ("NO_PROXY=chatgpt.com", Level.PROBLEM),
        ("NO_PROXY=.openai.com,localhost,127.0.0.1,::1", Level.PROBLEM),
        ("NO_PROXY=chatgpt.com:443", Level.PROBLEM),  # its WebSockets alone go around
        ("NO_PROXY=*", Level.PROBLEM),
        ("NO_PROXY=*.chatgpt.com", Level.WARNING),
        ("no_proxy=chatgpt.com", Level.WARNING),
        ("NO_PROXY=corp.example", Level.WARNING),  # without loopback
        ("NO_PROXY=localhost,127.0.0.1,::1,corp.example", Level.NOTE),
        ("SSL_CERT_FILE=/x.pem", Level.WARNING),
        ("NODE_EXTRA_CA_CERTS=/x.pem", Level.WARNING),
        ("CODEX_CA_CERTIFICATE=/x.pem", Level.NOTE),
        ("COUNTERSIGN_STAMP=never", Level.WARNING),
        ("EDITOR=vi", Level.OK),
        ("# nothing", Level.OK),
        ("EDITOR=vi\0", Level.PROBLEM),
        ("nonsense", Level.WARNING),
        ("EDITOR='vi", Level.WARNING),
    ],
)
def test_what_a_line_of_the_file_does_to_the_route(line, level):
    assert [finding.level for finding in of_lines(line)] == [level]


def test_a_line_is_named_with_its_key_and_its_number_and_without_its_secret():
    (finding,) = of_lines("# mine", "", "export HTTPS_PROXY='http://me:s3cret@proxy.corp:3128'")
    assert finding.looked_at == "'/h/.env' line 3: HTTPS_PROXY"
    assert "http://proxy.corp:3128 (credentials not shown)" in finding.found
    assert "s3cret" not in str(finding)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "ALL_PROXY", "COUNTERSIGN_X", "OTHER"])
def test_no_value_is_ever_shown(name):
    assert "s3cret" not in str(of_lines(f"{name}=s3cret", f"bad s3cret line, {name}"))


def test_of_two_lines_for_one_variable_the_last_counts():
    (finding,) = of_lines("NO_PROXY=chatgpt.com", "NO_PROXY=localhost,127.0.0.1,::1")
    assert (finding.level, finding.looked_at) == (Level.NOTE, "'/h/.env' line 2: NO_PROXY")


def test_the_port_that_is_set_for_our_own_proxy_is_no_problem():
    line = "HTTPS_PROXY=http://me:s3cret@127.0.0.1:8080"
    assert [finding.level for finding in of_lines(line, own_port=8080)] == [Level.NOTE]
    assert [finding.level for finding in of_lines(line, own_port=8081)] == [Level.PROBLEM]


@pytest.mark.parametrize(
    ("facts", "level", "word"),
    [
        (DotenvFacts("/h/.env"), Level.OK, "not there"),
        (DotenvFacts("/h/.env", True, "a directory", "x"), Level.PROBLEM, "a directory"),  # codex hangs
        (DotenvFacts("/h/.env", True, "a FIFO", "x"), Level.PROBLEM, "a FIFO"),
        (DotenvFacts("/h/.env", True, problem="Permission denied"), Level.WARNING, "Permission denied"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(facts, level, word):
    (finding,) = dotenv_findings(facts, HOSTS, 0)
    assert finding.level is level and word in finding.found


def test_a_file_that_every_user_may_write_is_a_problem():
    content = parse_dotenv(b"", {})
    (finding,) = dotenv_findings(DotenvFacts("/h/.env", True, mode=0o666, content=content), HOSTS, 0)
    assert finding.level is Level.PROBLEM


def test_lines_that_are_no_text_are_told_by_their_numbers():
    content = parse_dotenv(b"\xff\xfe\n\x00\xff\nA=1\n", {})
    findings = dotenv_findings(DotenvFacts("/h/.env", True, content=content), HOSTS, 0)
    assert [(one.level, one.looked_at) for one in findings] == [(Level.WARNING, "'/h/.env' lines 1, 2")]
