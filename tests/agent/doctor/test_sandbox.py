import pytest

from agent.doctor.findings import Level
from agent.doctor.sandbox import (
    APPARMOR_SWITCH,
    CLONE_SWITCH,
    NAMESPACE_LIMIT,
    SEATBELT,
    Launch,
    SandboxFacts,
    sandbox_findings,
)

FINE = {"bubblewrap": "/usr/bin/bwrap", "switches": ((NAMESPACE_LIMIT, 1000),), "landlock_abi": 7}
NONE = {"missing": "no 'bwrap' is on PATH", "landlock_abi": 7}


def levels(platform="linux", **facts):
    return {finding.looked_at: finding.level for finding in sandbox_findings(SandboxFacts(platform, **facts))}


def test_a_machine_on_which_everything_works_has_no_worse_than_ok():
    assert set(levels(**FINE, launch=Launch(True)).values()) == {Level.OK}


def test_without_bubblewrap_there_is_a_problem_and_landlock_is_offered_where_it_is_there():
    with_landlock, without = (
        next(one for one in sandbox_findings(SandboxFacts("linux", **facts)) if one.looked_at == "bubblewrap")
        for facts in (NONE, {**NONE, "landlock_abi": 0})
    )
    assert with_landlock.level is without.level is Level.PROBLEM
    assert "use_legacy_landlock" in with_landlock.advice and "use_legacy_landlock" not in without.advice


@pytest.mark.parametrize(
    ("path", "shut", "advice"),
    [(NAMESPACE_LIMIT, 0, "max_user_namespaces"), (CLONE_SWITCH, 0, "userns_clone"), (APPARMOR_SWITCH, 1, "AppArmor")],
)
def test_a_switch_that_shuts_namespaces_is_advice_where_nothing_works_and_a_note_where_it_does(path, shut, advice):
    switches = ((path, shut),)
    findings = sandbox_findings(SandboxFacts("linux", **NONE, switches=switches))
    (finding,) = [one for one in findings if one.looked_at == path]
    assert finding.level is Level.WARNING and advice in finding.found + finding.advice
    assert levels(**{**FINE, "switches": switches})[path] is Level.NOTE
    assert levels(**{**NONE, "switches": ((path, 1 - shut),)})[path] is Level.OK


def test_the_bundled_one_is_told_with_the_reason():
    facts = SandboxFacts("linux", **FINE, on_path=False, passed_over=("'/w/bwrap' lies in '/w'",))
    finding = sandbox_findings(facts)[0]
    assert finding.level is Level.NOTE and "'/w/bwrap' lies in '/w'" in finding.found


@pytest.mark.parametrize(("wsl", "level"), [(1, Level.PROBLEM), (2, Level.OK)])
def test_of_the_subsystems_for_linux_only_the_second_has_namespaces(wsl, level):
    assert levels(**FINE, wsl=wsl)["kernel"] is level


@pytest.mark.parametrize(("abi", "level"), [(None, Level.NOTE), (0, Level.NOTE), (7, Level.OK)])
def test_landlock_is_not_needed(abi, level):
    assert levels(**{**FINE, "landlock_abi": abi})["Landlock"] is level


def test_what_an_older_landlock_leaves_open_is_told():
    findings = sandbox_findings(SandboxFacts("linux", **{**FINE, "landlock_abi": 3}, landlock_lacks=("TCP is open",)))
    assert any(one.looked_at == "Landlock" and "TCP is open" in one.found for one in findings)


def test_a_launch_that_did_not_hold_is_a_problem_whatever_was_found_before():
    findings = sandbox_findings(SandboxFacts("linux", **FINE, launch=Launch(False, "could write a file")))
    assert (findings[-1].level, findings[-1].found) == (Level.PROBLEM, "could write a file")


@pytest.mark.parametrize(("there", "level"), [(True, Level.OK), (False, Level.PROBLEM)])
def test_macos_needs_its_own_program(there, level):
    assert levels("darwin", seatbelt=there) == {SEATBELT: level}


def test_windows_has_no_backend():
    assert levels("win32") == {"backend": Level.PROBLEM}
