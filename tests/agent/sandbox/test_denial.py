"""The guess whether the sandbox made a command fail."""

import pytest

from agent.sandbox.denial import likely_denied

SIGNS = [
    "bash: /etc/x: Permission denied",
    "touch: cannot touch '/usr/x': Read-only file system",
    "ping: socket: Operation not permitted",
    "blocked by seccomp",
    "error from Sandbox",
    "landlock: EACCES",
    "error: failed to write file `/x`",
]


@pytest.mark.parametrize("text", SIGNS)
@pytest.mark.parametrize("code", [1, 2, 101, 126, 127, 255])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_failure_that_says_so_is_a_denial_whatever_its_code(text, code, platform):
    for spelled in (text, text.upper(), f"line before\n{text}\nline after"):
        assert likely_denied(code, spelled, platform)


@pytest.mark.parametrize("text", SIGNS)
def test_a_command_that_succeeded_was_not_denied(text):
    assert not likely_denied(0, text, "linux")


@pytest.mark.parametrize("code", [1, 2, 101, 126, 127, 128, 130, 137, 158, 160])
def test_a_failure_that_says_nothing_of_it_is_no_denial(code):
    assert not likely_denied(code, "assertion failed: permission, denied; read only", "linux")
    assert not likely_denied(code, "", "linux")


@pytest.mark.parametrize(("platform", "expected"), [("linux", True), ("darwin", False), ("win32", False)])
def test_death_by_sigsys_is_a_denial_where_there_is_seccomp(platform, expected):
    assert likely_denied(159, "", platform) is expected
