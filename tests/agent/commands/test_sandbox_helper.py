"""The helper `codex-linux-sandbox`: its arguments, its exit codes, its texts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.commands.sandbox_helper import main
from tests.agent.sandbox.policies import ENABLED, as_json

READ_ONLY = as_json("read /")
NEEDED = ["--sandbox-policy-cwd", "/", "--permission-profile", READ_ONLY]


@pytest.fixture
def helper(tmp_path):
    """The executable under the helper's name, in a directory of its own."""
    name = tmp_path / "bin" / "codex-linux-sandbox"
    name.parent.mkdir()
    name.symlink_to(os.path.join(os.path.dirname(sys.executable), "countersign"))
    (tmp_path / "project").mkdir()

    def run(*arguments, **options):
        return subprocess.run(
            [name, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path / "project", **options
        )

    return run


@pytest.fixture
def project(tmp_path, helper):
    """The directory that the helper runs in."""
    return tmp_path / "project"


def policy(*lines, network=None):
    return ["--permission-profile", as_json(*lines, **({"network": network} if network else {}))]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "--sandbox-policy-cwd DIR is needed"),
        (["--sandbox-policy-cwd"], 2, "--sandbox-policy-cwd needs a value"),
        (["--sandbox-policy-cwd", "/", "--", "true"], 101, "missing permission profile configuration"),
        (NEEDED, 101, "no command specified to execute"),
        ([*NEEDED, "--"], 101, "no command specified to execute"),
        ([*NEEDED, "--bogus", "true"], 2, "unexpected argument '--bogus'"),
        ([*NEEDED, "--allow-network-for-proxy", "true"], 2, "unexpected argument '--allow-network-for-proxy'"),
        ([*NEEDED, "--apply-seccomp-then-exec", "true"], 2, "belongs to the original's inner stage"),
        ([*NEEDED, "--proxy-route-spec=x", "true"], 2, "belongs to the original's inner stage"),
        (["--sandbox-policy-cwd=/", "--permission-profile={", "true"], 2, "invalid value for '--permission-profile'"),
        (["--sandbox-policy-cwd=/", "--permission-profile=[]", "true"], 2, "the permission profile is []"),
        (["--sandbox-policy-cwd=/", '--permission-profile={"type":"managed"}', "true"], 2, "a managed profile lacks"),
        ([*NEEDED, "--managed-network", "{", "true"], 2, "invalid value for '--managed-network': not JSON"),
        ([*NEEDED, "--managed-network", "{}", "true"], 101, "managed proxy mode requires proxy environment variables"),
        ([*NEEDED, "--command-cwd", "/gone", "true"], 101, "'/gone' is not a directory; the command was not run"),
        (["--sandbox-policy-cwd=/", *policy("read /", "deny /*"), "true"], 1, "error building bubblewrap command: "),
        ([*NEEDED, "--sandbox-policy-cwd", "/", "--", "true"], 2, "--sandbox-policy-cwd is given twice"),
        ([*NEEDED, "--permission-profile", READ_ONLY, "--", "true"], 2, "--permission-profile is given twice"),
        ([*NEEDED, "--no-proc", "--no-proc", "--", "true"], 2, "--no-proc is given twice"),
        (["--sandbox-policy-cwd", "", "--permission-profile", READ_ONLY, "--", "true"], 2, "and it is empty"),
        (["--sandbox-policy-cwd=", "--permission-profile", READ_ONLY, "--", "true"], 2, "and it is empty"),
        ([*NEEDED, "--command-cwd", "", "--", "true"], 2, "--command-cwd needs a value, and it is empty"),
        ([*NEEDED, "--command-cwd", "--", "true"], 2, "--command-cwd needs a value"),
        (["--sandbox-policy-cwd", "--", "--permission-profile", READ_ONLY, "true"], 2, "policy-cwd needs a value"),
        (["--sandbox-policy-cwd", "/", "--permission-profile", "--no-proc", "--", "true"], 2, "needs a value"),
    ],
)
def test_wrong_use_ends_with_its_code_and_says_what_is_wrong(capfd, arguments, code, text):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code
    out, error = capfd.readouterr()
    assert out == "" and error.startswith("codex-linux-sandbox: error: ") and text in error


def test_help_names_each_option(capfd):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capfd.readouterr().out
    assert ended.value.code == 0
    for option in ("--sandbox-policy-cwd", "--command-cwd", "--permission-profile", "--no-proc", "--managed-network"):
        assert option in out


def test_the_command_runs_under_the_profile_and_its_code_is_the_code(helper, project):
    writable = ["--sandbox-policy-cwd", str(project), *policy("read /", "write :project_roots")]
    done = helper(*writable, "--", "sh", "-c", "echo x > inside; echo x > ../outside; exit 7")
    assert (done.returncode, done.stdout) == (7, "") and "Read-only file system" in done.stderr
    assert os.listdir(project) == ["inside"] and sorted(os.listdir(project.parent)) == ["bin", "project"]


def test_a_command_needs_no_dashes_before_it_and_keeps_its_own(helper):
    assert helper(*NEEDED, "printf", "%s|", "--", "--no-proc").stdout == "--|--no-proc|"
    assert helper(*NEEDED, "--", "--weird").returncode != 0


def test_the_policys_directory_and_the_commands_are_two(helper, project):
    (project / "policy").mkdir()
    (project / "command").mkdir()
    script = "pwd; echo x > ../policy/x; echo x > x"
    where = ["--sandbox-policy-cwd", str(project / "policy"), "--command-cwd", str(project / "command")]
    done = helper(*where, *policy("read /", "write :project_roots"), "--", "sh", "-c", script)
    assert done.stdout == f"{project}/command\n" and done.returncode != 0
    assert os.listdir(project / "policy") == ["x"] and os.listdir(project / "command") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_command_that_died_of_a_signal_is_128_and_its_number(helper, number):
    assert helper(*NEEDED, "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$").returncode == 128 + number


def test_landlock_is_used_by_name_and_refuses_what_it_cannot_hold(helper, project):
    landlock = ["--use-legacy-landlock", "--sandbox-policy-cwd", str(project)]
    done = helper(*landlock, *policy("read /"), "sh", "-c", "echo x > x")
    assert done.returncode != 0 and "Permission denied" in done.stderr and os.listdir(project) == []
    (project / "docs").mkdir()
    refused = helper(*landlock, *policy("read /", "write :project_roots", f"read {project}/docs"), "touch", "x")
    assert (
        refused.returncode == 101
        and "requires bubblewrap" in refused.stderr
        and f"read {project}/docs" in refused.stderr
    )
    assert os.listdir(project) == ["docs"]


def test_the_hosts_proc_is_kept_on_request(helper):
    ours = ["cat", f"/proc/{os.getpid()}/cmdline"]
    mine = Path("/proc/self/cmdline").read_text()
    assert helper("--no-proc", *NEEDED, *ours).stdout == mine
    assert helper("--inherit-pid-namespace", *NEEDED, *ours).stdout == mine
    assert helper(*NEEDED, *ours).stdout != mine


def test_the_helper_adds_no_variable_of_its_own(helper, project):
    environ = {"PATH": "/usr/bin:/bin", "ONE": "1"}
    done = helper(*NEEDED, "env", env=environ)
    assert dict(line.split("=", 1) for line in done.stdout.splitlines()) == {**environ, "PWD": str(project)}


def test_with_full_write_and_the_network_it_becomes_the_command(helper):
    everything = ["--sandbox-policy-cwd", "/", *policy("write :root", network=ENABLED)]
    done = helper(*everything, "sh", "-c", "grep Seccomp: /proc/self/status; kill -TERM $$")
    assert (done.returncode, done.stdout.split()) == (-signal.SIGTERM, ["Seccomp:", "0"])
    filtered = helper("--sandbox-policy-cwd", "/", *policy("write :root"), "grep", "Seccomp:", "/proc/self/status")
    assert filtered.stdout.split() == ["Seccomp:", "2"]


def test_the_older_shape_of_a_profile_is_read_too(helper, project):
    entries = json.loads(READ_ONLY)["file_system"]["entries"]
    older = json.dumps({"network": {"enabled": False}, "file_system": {"entries": entries}})
    done = helper("--sandbox-policy-cwd", "/", "--permission-profile", older, "touch", "x")
    assert done.returncode != 0 and os.listdir(project) == []


def test_a_working_directory_that_is_gone_is_no_matter_where_others_are_named(helper, project):
    """It was asked for in any case, and a traceback was all that came of it."""
    (project / "other").mkdir()
    in_a_gone_one = f"mkdir gone; cd gone; rmdir ../gone; exec {project.parent}/bin/codex-linux-sandbox"

    def told(*arguments):
        command = ["sh", "-c", f'{in_a_gone_one} "$@"', "sh", *arguments, *policy("read /"), "--", "pwd"]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)

    where = ["--sandbox-policy-cwd", str(project), "--command-cwd", str(project / "other")]
    done = told(*where)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{project}/other\n", "")
    for relative in (where[:2], ["--sandbox-policy-cwd", ".", *where[2:]]):
        done = told(*relative)
        assert (done.returncode, done.stdout) == (101, "")
        assert done.stderr.startswith("codex-linux-sandbox: error: the working directory is gone"), done.stderr


def test_a_single_dash_is_a_word_like_any_other(helper):
    done = helper(*NEEDED, "-", "x")
    assert done.returncode == 101 and "execvp -: " in done.stderr
    assert helper("--sandbox-policy-cwd", "-", *policy("read /"), "--", "true").returncode == 0


def test_what_cannot_be_executed_is_101_under_each_policy(helper, project):
    (project / "plain").write_text("echo ran")
    for lines, network in ((("read /",), None), (("write :root",), None), (("write :root",), ENABLED)):
        for name in ("no-such-command-xyz", "./plain", ""):
            done = helper("--sandbox-policy-cwd", str(project), *policy(*lines, network=network), "--", name)
            assert (done.returncode, done.stdout) == (101, ""), (lines, name)
            assert f"execvp {name}: " in done.stderr and "Traceback" not in done.stderr


def test_a_refusal_says_once_that_nothing_was_run(project, helper):
    """Two layers said it."""
    writable = ["--sandbox-policy-cwd", str(project), *policy("read /", "write :project_roots"), "--", "true"]
    name = str(project.parent / "bin" / "codex-linux-sandbox")
    full = [
        "sh",
        "-c",
        'mount -t tmpfs -o nr_inodes=2,mode=777 none . && cd "$PWD" && exec "$@"',
        "sh",
        name,
        *writable,
    ]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *full], capture_output=True, text=True, check=False, cwd=project
    )
    assert done.returncode == 101 and "No space left on device" in done.stderr, done.stderr
    assert done.stderr.count("the command was not run") == 1
