"""Facts about this machine, and of files that are not what they should be."""

import contextlib
import datetime as dt
import os
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from agent.doctor import machine
from agent.doctor.sandbox import sandbox_findings
from certs.authority import LocalAuthority

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)


def authority(now=NOW):
    return LocalAuthority.create(["example.com"], now, HOUR)


# Files of authorities


@pytest.fixture
def pem(tmp_path):
    """Writes a file of authorities, and looks at it."""

    def look(content, mode=0o600):
        path = tmp_path / "ca.pem"
        path.write_bytes(content)
        path.chmod(mode)
        return machine.trust_file(str(path))

    return look


def test_certificates_are_counted_and_so_are_those_that_are_over(pem):
    old = authority(NOW - dt.timedelta(days=30)).certificate_pem
    file = pem(b"# mine\n" + authority().certificate_pem + old)
    assert (file.certificates, file.expired, file.broken, file.problem) == (2, 1, 0, "")


def test_a_certificate_that_is_for_a_server_counts_as_one(pem):
    leaf = authority().issue(["example.com"], NOW)
    assert pem(leaf.certificate_pem).certificates == 1


def test_a_private_key_is_seen_and_who_may_read_it(pem):
    leaf = authority().issue(["example.com"], NOW)
    private = pem(leaf.certificate_pem + leaf.key_pem)
    assert (private.private_key, private.others_may_read) == (True, False)
    assert pem(leaf.key_pem, 0o644).others_may_read is True
    assert pem(leaf.certificate_pem).private_key is False


@pytest.mark.parametrize("content", [b"", b"not PEM", b"\x30\x82\x01\x0a\xff", b"-----BEGIN CERTIFICATE-----\ncut off"])
def test_what_is_no_pem_holds_no_certificate(pem, content):
    file = pem(content)
    assert (file.certificates, file.broken, file.problem) == (0, 0, "")


def test_a_block_that_is_no_certificate_is_counted_as_broken(pem):
    file = pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + authority().certificate_pem)
    assert (file.certificates, file.broken) == (1, 1)


@pytest.mark.parametrize(
    ("make", "problem", "is_file"),
    [
        (lambda path: None, "does not exist", False),
        (lambda path: path.mkdir(), "is a directory", False),
        (os.mkfifo, "is a FIFO", False),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, make, problem, is_file):
    make(tmp_path / "x")
    file = machine.trust_file(str(tmp_path / "x"))
    assert (file.problem, file.is_file) == (problem, is_file)


def test_a_file_that_is_far_too_long_is_not_read(pem):
    assert "longer than" in pem(b"x" * (machine.MAX_FILE_BYTES + 1)).problem


@contextlib.contextmanager
def a_user():
    """A directory of a user, who we are meanwhile: root, who may read and write everything, is nobody for a while."""
    mine = os.geteuid()
    user = mine or 65534
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, user, -1)
        os.seteuid(user)
        try:
            yield Path(directory)
        finally:
            os.seteuid(mine)
            Path(directory).chmod(0o700)


def test_a_file_that_may_not_be_read_says_so():
    with a_user() as directory:
        path = directory / "ca.pem"
        path.write_bytes(authority().certificate_pem)
        assert machine.trust_file(str(path)).problem == ""
        path.chmod(0o000)
        assert "Permission denied" in machine.trust_file(str(path)).problem


def test_only_variables_that_are_set_are_looked_at(tmp_path):
    files = machine.trust_files({"SSL_CERT_FILE": str(tmp_path / "x"), "CURL_CA_BUNDLE": "", "PATH": "/bin"})
    assert list(files) == ["SSL_CERT_FILE"]


# CODEX_HOME


def test_a_home_is_looked_at_and_not_made(tmp_path):
    facts = machine.home_facts({"HOME": str(tmp_path)})
    assert (facts.path, facts.exists, facts.problem) == (str(tmp_path / ".codex"), False, "")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_there_has_its_mode(tmp_path):
    tmp_path.chmod(0o775)
    facts = machine.home_facts({"CODEX_HOME": str(tmp_path)})
    assert (facts.problem, facts.mode, facts.is_ours) == ("", 0o775, True)


def test_a_home_that_may_not_be_written_says_so():
    with a_user() as directory:
        assert machine.home_facts({"CODEX_HOME": str(directory)}).may_write is True
        directory.chmod(0o555)
        facts = machine.home_facts({"CODEX_HOME": str(directory)})
        assert facts.may_write is False and facts.problem == ""


@pytest.mark.parametrize(("name", "problem"), [("missing", "does not exist"), ("file", "is no directory")])
def test_a_named_home_that_is_no_directory_is_a_problem(tmp_path, name, problem):
    (tmp_path / "file").touch()
    facts = machine.home_facts({"CODEX_HOME": str(tmp_path / name)})
    assert (facts.problem, facts.exists) == (problem, False)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(lambda path: path.mkdir(), "a directory"), (os.mkfifo, "a FIFO")],
)
def test_an_env_file_that_is_none_is_named_by_what_it_is(tmp_path, make, kind):
    make(tmp_path / ".env")
    assert machine.dotenv_facts(str(tmp_path), {}).kind == kind


def test_an_env_file_is_parsed_and_its_values_are_in_no_repr(tmp_path):
    (tmp_path / ".env").write_bytes(b"\x00\xff\nHTTPS_PROXY=http://me:s3cret@p:1\n")
    facts = machine.dotenv_facts(str(tmp_path), {})
    assert facts.content.last()["HTTPS_PROXY"].line == 2
    assert "s3cret" not in repr(facts)


def test_without_an_env_file_nothing_is_there(tmp_path):
    assert machine.dotenv_facts(str(tmp_path), {}).exists is False


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (None, None, ""),
        ('{"OPENAI_API_KEY": "sk-s3cret"}', "apikey", ""),
        ("s3cret {", None, "is not JSON; sign in again"),
        ('{"auth_mode": "chatgpt", "tokens": "s3cret"}', None, "holds neither tokens nor an API key; sign in again"),
    ],
)
def test_how_somebody_is_signed_in_is_told_without_the_credentials(tmp_path, text, mode, problem):
    if text is not None:
        (tmp_path / "auth.json").write_text(text)
        (tmp_path / "auth.json").chmod(0o644)
    facts = machine.sign_in_facts(str(tmp_path))
    assert (facts.mode, facts.problem, facts.others_may_read) == (mode, problem, text is not None)
    assert "s3cret" not in repr(facts)


# config.toml


def test_a_broken_config_has_a_position_and_a_good_one_its_settings(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("model = 'x'\nport = \n")
    facts = machine.config_facts(str(tmp_path), {}, [])
    assert facts.position is not None and facts.position[0] == 2
    assert facts.problem.startswith("is not TOML") and facts.settings is None
    path.write_text("[countersign]\nport = 1\n")
    facts = machine.config_facts(str(tmp_path), {}, [])
    assert facts.problem == "" and facts.settings.port == 1


def test_a_config_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.toml")
    assert machine.config_facts(str(tmp_path), {}, []).problem == "is a FIFO, and should be a file"


def test_settings_are_looked_at_also_without_a_home():
    facts = machine.config_facts(None, {"COUNTERSIGN_STAMPP": "x", "COUNTERSIGN_PORT": "no port"}, [])
    assert "COUNTERSIGN_PORT" in facts.setting_problem and facts.settings is None
    assert "COUNTERSIGN_STAMPP is ignored" in facts.ignored[0]


def test_a_key_that_no_thread_starts_with_is_named_by_its_line(tmp_path):
    (tmp_path / "config.toml").write_text("# mine\nsandbox_mode = 'nonsense'\n")
    assert machine.config_facts(str(tmp_path), {}, []).thread_problem.startswith("line 2: sandbox_mode is 'nonsense'")


def test_a_port_that_somebody_has_is_seen(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert machine.config_facts(None, {"COUNTERSIGN_PORT": str(port)}, []).port_taken is True
    assert machine.config_facts(None, {"COUNTERSIGN_PORT": str(port)}, []).port_taken is False


# The sandbox and the versions, as they are here


@pytest.mark.skipif(sys.platform != "linux", reason="the facts of Linux")
def test_the_sandbox_of_this_machine_is_tried_where_there_is_one(run, tmp_path):
    facts = run(machine.sandbox_facts(os.environ, tmp_path))
    assert facts.platform == "linux"
    assert (facts.launch is None) is (facts.bubblewrap is None)
    assert facts.bubblewrap is not None or facts.missing
    if facts.launch is not None:
        assert facts.launch.held, facts.launch.problem
        assert (tmp_path / "sandboxed.txt").stat().st_size > 0
    assert all(finding.found for finding in sandbox_findings(facts))


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap")
def test_a_bubblewrap_that_cannot_do_it_is_told_with_the_reason(run, tmp_path):
    broken = tmp_path / "bin" / "bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    environ = {**os.environ, "PATH": f"{broken.parent}:{os.environ['PATH']}"}
    facts = run(machine.sandbox_facts(environ, tmp_path))
    assert facts.on_path is False
    assert any(str(broken) in reason for reason in facts.passed_over)


@pytest.fixture
def program(tmp_path):
    """Puts a `codex` on a PATH of its own; the environment with that PATH."""

    def put(script):
        path = tmp_path / "codex"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(stat.S_IRWXU)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return put


@pytest.mark.parametrize(
    ("script", "version", "problem"),
    [
        ("echo codex-cli 0.169.0", "0.169.0", ""),
        ("echo codex-cli 0.170.0-alpha.2", "0.170.0-alpha.2", ""),
        ("echo s3cret; exit 1", None, "it ended with 1"),
        ("echo s3cret", None, "it ended with 0"),
    ],
)
def test_codex_is_asked_for_its_version_and_nothing_else_of_what_it_says_is_kept(
    run, program, script, version, problem
):
    facts = run(machine.version_facts(program(script), None))
    assert (facts.codex.version, facts.codex.problem) == (version, problem)
    assert "s3cret" not in repr(facts)


def test_a_codex_that_hangs_is_given_up(run, program):
    facts = run(machine.version_facts(program("sleep 600"), None, 0.3))
    assert facts.codex.version is None and facts.codex.problem == "it did not end within 0.3 s"


def test_what_is_installed_here_is_told(run):
    facts = run(machine.version_facts({"PATH": "/nowhere"}, None))
    assert facts.codex.path is None and facts.bubblewrap.path is None
    assert facts.libraries["mitmproxy"] and facts.libraries["countersign"]
    assert "SSL" in facts.openssl
