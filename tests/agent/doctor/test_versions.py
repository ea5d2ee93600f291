import pytest

from agent.doctor.findings import Level
from agent.doctor.versions import Program, VersionFacts, version_findings, version_key

HERE = Program("/usr/bin/x", "1.0")


def level_of(name, **changes):
    facts = {
        "python": "3.13.1", "executable": "/p", "openssl": "OpenSSL 3.0.1", "libraries": {"mitmproxy": "12.2.3"},
        "codex": HERE, "bubblewrap": HERE,
    }  # fmt: skip
    findings = version_findings(VersionFacts(**{**facts, **changes}))
    return next(finding.level for finding in findings if finding.looked_at.startswith(name))


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("12.2.2", Level.PROBLEM),
        ("12.2", Level.PROBLEM),
        ("9.10.0", Level.PROBLEM),
        ("12.2.3", Level.OK),
        ("12.10.0", Level.OK),
        ("13.0.0", Level.WARNING),
        (None, Level.PROBLEM),
    ],
)
def test_mitmproxy_must_have_its_security_fixes(version, level):
    assert level_of("mitmproxy", libraries={"mitmproxy": version}) is level


@pytest.mark.parametrize(("version", "level"), [("3.12.9", Level.PROBLEM), ("3.13.0", Level.OK), ("3.14.0", Level.OK)])
def test_python_must_not_be_too_old(version, level):
    assert level_of("Python", python=version) is level


@pytest.mark.parametrize("name", ["codex", "bubblewrap"])
@pytest.mark.parametrize(
    ("program", "level"),
    [(HERE, Level.OK), (Program(None), Level.NOTE), (Program("/x", None, "it did not end"), Level.WARNING)],
)
def test_a_program_that_is_not_there_is_a_note_and_one_that_does_not_answer_a_warning(name, program, level):
    assert level_of(name, **{name: program}) is level


def test_versions_are_compared_by_their_numbers():
    assert version_key("12.10.0") > version_key("12.9.9")
    assert version_key("0.164.0-alpha.1") == (0, 164, 0)
    assert version_key("unknown") == ()
