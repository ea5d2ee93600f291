"""One executable with several names: what it is under each."""

import os
import subprocess
import sys

import pytest

from tests.agent.sandbox.policies import as_json

COUNTERSIGN = os.path.join(os.path.dirname(sys.executable), "countersign")
PATCH = "*** Begin Patch\n*** Add File: new\n+text\n*** End Patch"


@pytest.fixture
def started(tmp_path):
    """Starts the executable by a name, in an empty directory."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "empty").mkdir()

    def start(name, *arguments, **options):
        path = tmp_path / "bin" / name
        if not path.exists():
            path.symlink_to(COUNTERSIGN)
        words = [path, *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path / "empty", **options)

    return start


@pytest.fixture
def empty(tmp_path, started):
    return tmp_path / "empty"


@pytest.mark.parametrize("name", ["apply_patch", "applypatch"])
def test_under_the_names_of_the_patch_tool_it_applies_a_patch(started, empty, name):
    done = started(name, PATCH)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Success. Updated the following files:\nA new\n", "")
    assert (empty / "new").read_text() == "text\n"


@pytest.mark.parametrize("name", ["apply_patch", "applypatch"])
def test_the_patch_may_come_on_stdin(started, empty, name):
    assert started(name, input=PATCH).returncode == 0
    assert (empty / "new").read_text() == "text\n"
    assert started(name, input="").returncode == 2
    assert started(name, PATCH, PATCH).returncode == 2


@pytest.mark.parametrize("name", ["countersign", "anything", "codex-linux"])
def test_behind_the_patch_flag_it_is_the_patch_tool_under_any_other_name(started, empty, name):
    done = started(name, "--codex-run-as-apply-patch", PATCH)
    assert done.returncode == 0 and (empty / "new").exists()
    missing = started(name, "--codex-run-as-apply-patch")
    assert missing.returncode == 1 and "requires a UTF-8 PATCH argument" in missing.stderr


def test_the_patch_flag_counts_only_as_the_first_argument(started, empty):
    done = started("countersign", "sandbox", "--codex-run-as-apply-patch", PATCH)
    assert done.returncode == 2 and "unknown option" in done.stderr
    assert os.listdir(empty) == []


def test_a_failed_patch_is_told_on_stderr_and_by_the_code(started):
    done = started("apply_patch", "no patch")
    assert (done.returncode, done.stdout) == (1, "") and "Invalid patch" in done.stderr


def test_under_the_name_of_the_helper_it_confines(started, empty):
    profile = ["--sandbox-policy-cwd", "/", "--permission-profile", as_json("read /")]
    done = started("codex-linux-sandbox", *profile, "--", "touch", "x")
    assert done.returncode != 0 and "Read-only file system" in done.stderr and os.listdir(empty) == []
    # Its own words, not those of the command line around it.
    assert started("codex-linux-sandbox", "--help").stdout.startswith("usage: codex-linux-sandbox ")


@pytest.mark.parametrize("name", ["countersign", "codex-linux-sandbox-2", "xapply_patch"])
def test_under_any_other_name_it_is_countersign(started, name):
    done = started(name, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: countersign ")


def test_debug_landlock_is_the_sandbox(started, empty):
    for words in (("debug", "landlock"), ("sandbox",)):
        done = started("countersign", *words, "touch", "x")
        assert done.returncode != 0 and "Read-only file system" in done.stderr
    assert started("countersign", "debug", "seatbelt").returncode == 2
    assert os.listdir(empty) == []
