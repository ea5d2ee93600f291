"""`countersign sandbox`: its options, the choice of the policy, and what it tells without running anything."""

import json
import os
import shlex
import subprocess

import pytest

from agent.commands.sandbox import main
from tests.agent.sandbox.policies import ENABLED, as_json
from tests.processes import COUNTERSIGN


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory, and a home without configuration."""
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def configured(here):
    """Writes config.toml."""
    return lambda text: (here.parent / "home" / "config.toml").write_text(text)


@pytest.fixture
def told(here, capfd):
    """Calls the command in this process: (code, stdout, stderr). For what runs nothing."""

    def call(*arguments, overrides=()):
        try:
            code = main(arguments, overrides)
        except SystemExit as exc:
            code = exc.code
        return code, *capfd.readouterr()

    return call


def ran(here, *arguments, **options):
    words = [COUNTERSIGN, "sandbox", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=here, **options)


def state(*lines, cwd="/", **members):
    profile = {"permissionProfile": json.loads(as_json(*lines)), "sandboxCwd": f"file://{cwd}"}
    return json.dumps({**profile, **members})


STATE = state("read /")
# Without /tmp, which pytest's directories are below.
WORKSPACE = ("-c", "sandbox_mode=workspace-write", "-c", "sandbox_workspace_write.exclude_slash_tmp=true")


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 1, "sandbox command must not be empty"),
        (["--"], 1, "sandbox command must not be empty"),
        (["--colour", "true"], 2, "unknown option '--colour'; put -- before a command that begins with a dash"),
        (["-c"], 2, "-c needs a value"),
        (["--sandbox-state-json"], 2, "--sandbox-state-json needs a value"),
        (["-P", ":workspace", "-P", ":workspace", "true"], 2, "profile is given twice"),
        (["-P", ":workspace", "--sandbox-state-json", STATE, "true"], 2, "each give a policy; give one of them"),
        (["-C", "/", "true"], 2, "-C is the directory of a named profile; give -P too"),
        (["--sandbox-state-readable-root", "/", "true"], 2, "change --sandbox-state-json"),
        (["--sandbox-state-disable-network", "true"], 2, "change --sandbox-state-json"),
        (["--check"], 2, "--check needs at least one path"),
        (["--check", "/", "--explain"], 2, "--check runs nothing"),
        (["--check", "/", "--", "true"], 2, "--check runs nothing"),
        (["-p", "x", "true"], 2, "profiles of the whole configuration are not supported; use -c or -P"),
        (["--include-managed-config", "true"], 2, "managed configuration is not supported"),
        (["macos", "true"], 1, "a plan for darwin can be explained (--explain), not run"),
        (["-P", ":nothing", "true"], 1, ":nothing"),
        (["-P", "mine", "true"], 1, "mine"),
        (["-c", "sandbox_mode=free", "true"], 1, "free"),
        (["--managed-network", "true"], 1, "proxy environment variables"),
    ],
)
def test_wrong_use_ends_with_its_code_and_says_what_is_wrong(told, arguments, code, text):
    given_code, out, error = told(*arguments)
    assert (given_code, out) == (code, "")
    assert error.startswith("countersign sandbox: error: ") and text in error


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("{", "invalid --sandbox-state-json value"),
        ("[]", "an object with permissionProfile and sandboxCwd is needed, and maybe useLegacyLandlock"),
        ("{}", "an object with permissionProfile"),
        (state("read /", sandboxCwd="/plain"), "sandboxCwd is '/plain'; it is a file:// URL of an absolute path"),
        (state("read /", sandboxCwd=7), "sandboxCwd is 7"),
        (state("read /", sandboxCwd="file://[::1/tmp"), "it is a file:// URL of an absolute path"),
        (state("read /", sandboxCwd="file://elsewhere/tmp"), "it is a file:// URL of an absolute path"),
        (state("read /", sandboxCwd="file:///tmp/%00"), "holds a NUL character; no path does"),
        (state("read /", sandboxCwd="file:///tmp/\ud800"), "which this system's file names cannot hold"),
        (state("read /")[:-1] + ', "sandboxCwd": "file:///tmp"}', "has the member 'sandboxCwd' more than once"),
        (state("read /", useLegacyLandlock="yes"), "useLegacyLandlock is 'yes'; it is true or false"),
        (state("read /", permissionProfile={"type": "free"}), "type is 'free'"),
    ],
)
def test_a_state_that_cannot_be_used_is_refused_by_its_member(told, given, text):
    code, out, error = told("--sandbox-state-json", given, "true")
    assert (code, out) == (1, "") and text in error


def test_a_directory_that_is_gone_is_an_error_and_not_a_traceback(here):
    gone = here / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", COUNTERSIGN, "sandbox", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=gone, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "countersign sandbox: error: the current directory cannot be named: No such file or directory; "
        "change to one that is there\n"
    )


def test_a_disabled_profile_has_no_network_to_take_and_an_external_one_becomes_read_only(told):
    disabled = state(permissionProfile={"type": "disabled"})
    code, _, error = told("--sandbox-state-json", disabled, "--sandbox-state-disable-network", "true")
    assert code == 1 and "cannot be applied to a disabled permission profile" in error
    external = state(permissionProfile={"type": "external", "network": "enabled"})
    assert verdicts(told("--sandbox-state-json", external, "--check", "/x")) == {"/x": "read"}


# The choice of the policy


def explained(told, *arguments, overrides=()):
    """What `--explain` says, by its first words; a word that comes more than once has a list."""
    code, out, error = told("--explain", *arguments, overrides=overrides)
    assert (code, error) == (0, "")
    facts = {}
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        facts.setdefault(word, []).append(rest.strip())
    return facts


@pytest.mark.parametrize(
    ("config", "arguments", "policy"),
    [
        ("", [], ":read-only, since no policy is given"),
        # As the original: only an override chooses a mode, the user's configuration does not.
        ("sandbox_mode = 'danger-full-access'", [], ":read-only, since no policy is given"),
        ("", ["-c", "sandbox_mode=workspace-write"], "sandbox_mode = workspace-write"),
        ("default_permissions = ':workspace'", [], ":workspace"),
        ("default_permissions = ':workspace'", ["-c", "sandbox_mode=read-only"], "sandbox_mode = read-only"),
        ("default_permissions = ':workspace'", ["-P", ":danger-full-access"], ":danger-full-access"),
        ("", ["-c", "sandbox_mode=read-only", "-P", ":workspace"], ":workspace"),
        ("default_permissions = ':workspace'", ["--sandbox-state-json", STATE], "from --sandbox-state-json"),
    ],
)
def test_the_nearest_word_about_the_policy_counts(told, configured, config, arguments, policy):
    configured(config)
    assert explained(told, *arguments)["policy"] == [policy]


def test_overrides_before_the_command_count_as_those_behind_it(told):
    assert explained(told, overrides=["sandbox_mode=workspace-write"])["policy"] == ["sandbox_mode = workspace-write"]


def test_a_named_profile_can_have_another_directory(told, here):
    facts = explained(told, "-P", ":workspace", "-C", "/usr")
    assert facts["cwd"] == ["/usr"]
    assert "May be written: /usr" in facts[""] and f"May be written: {here}" not in facts[""]


def test_landlock_is_chosen_by_flag_feature_or_state(told, configured):
    for arguments in (
        ["--use-legacy-landlock"],
        ["--enable", "use_legacy_landlock"],
        ["-c", "features.use_legacy_landlock=true"],
    ):
        assert explained(told, *arguments)["backend"] == ["landlock"]
    legacy = state("read /", useLegacyLandlock=True)
    assert explained(told, "--sandbox-state-json", legacy)["backend"] == ["landlock"]
    configured("[features]\nuse_legacy_landlock = true")
    assert explained(told)["backend"] == ["landlock"]
    assert explained(told, "--disable", "use_legacy_landlock")["backend"] == ["bubblewrap"]


def test_a_state_brings_its_directory_readable_roots_and_the_network(told, here):
    (here / "a b").mkdir()
    limited = state("read :minimal", "write :project_roots", cwd=f"{here}/a%20b", surprise="is passed over")
    on = json.loads(limited)
    on["permissionProfile"]["network"] = "enabled"
    assert explained(told, "--sandbox-state-json", limited)["cwd"] == [f"{here}/a b"]
    given = ["--sandbox-state-json", json.dumps(on)]
    assert "env" not in explained(told, *given)
    roots = [f"--sandbox-state-readable-root={root}" for root in ("/opt", f"{here}/a b/c")]
    facts = explained(told, *given, *roots, "--sandbox-state-disable-network")
    assert facts["network"] == ["restricted"] and facts["env"] == ["CODEX_SANDBOX_NETWORK_DISABLED=1"]
    assert "read /opt" in facts["entry"] and len(facts["entry"]) == 3


# What it tells


def test_an_explanation_names_policy_plan_and_command_line_and_changes_nothing(told, here):
    facts = explained(told, *WORKSPACE, "--no-proc", "--", "touch", "a b")
    assert facts["backend"] == ["bubblewrap"]
    assert {"write :project_roots", "read :root"} <= set(facts["entry"])
    notes = facts[""]
    assert (
        f"May be written: {here}" in notes and f"Stays read-only: {here}/.git (.git is protected in '{here}')" in notes
    )
    assert f"Made for the run and removed after it: {here}/.git" in notes
    assert "The host's /proc is seen." in notes and "No network but its own loopback." in notes
    argv = shlex.split(facts["argv"][0])
    assert (
        argv[-3:] == ["--", "touch", "a b"]
        and ["--bind", str(here), str(here)] == argv[argv.index(str(here)) - 1 :][:3]
    )
    profile = json.loads(facts["json"][0])
    assert profile["network"] == "restricted"
    assert os.listdir(here) == []


def test_an_explanation_of_an_explanation_is_the_same(told):
    """The printed JSON is a policy that explains itself by the same command line."""
    first = explained(told, *WORKSPACE)
    again = {"permissionProfile": json.loads(first["json"][0]), "sandboxCwd": f"file://{first['cwd'][0]}"}
    second = explained(told, "--sandbox-state-json", json.dumps(again))
    assert (second["argv"], second["entry"]) == (first["argv"], first["entry"])


def test_what_cannot_be_run_is_explained_as_far_as_it_goes(told, here):
    (here / ".git").symlink_to("elsewhere")
    code, out, _ = told(*WORKSPACE, "--explain")
    assert code == 1
    assert (
        f"cannot be run: cannot enforce sandbox read-only path {here}/.git because it crosses writable symlink" in out
    )
    code, out, _ = told("windows", "--explain")
    assert code == 1 and "cannot be run: " in out


def verdicts(told):
    code, out, error = told
    assert (code, error) == (0, "")
    return {line.split()[1]: line.split()[0] for line in out.splitlines()}


def test_a_check_answers_for_each_path_and_names_the_entry(told, here):
    (here / "secret").write_text("")
    policy = state("read /", "write :project_roots", f"deny {here}/secret", f"write {here}/.aws", cwd=here)
    code, out, _ = told(
        "--sandbox-state-json", policy, "--check", "x", ".git/x", "secret", "/etc", ".aws/x", "/dev/sda"
    )
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert code == 0
    assert rows == [
        ["write", f"{here}/x", "write :project_roots"],
        ["read", f"{here}/.git/x", f".git is protected in '{here}'"],
        ["denied", f"{here}/secret", f"deny {here}/secret"],
        ["read", "/etc", "read /"],
        # It does not exist, so nothing is bound there.
        ["write", f"{here}/.aws/x", "write :project_roots"],
        ["denied", "/dev/sda", "the sandbox has its own /dev"],
    ]


def test_a_check_knows_that_reading_is_not_reopened_and_that_missing_roots_are_left_out(told, here):
    """It believed the entries, and said "read" and "write" of what the sandbox does not show."""
    for name in ("d/r", "d/w"):
        (here / name).mkdir(parents=True)
    lines = (f"deny {here}/d", f"read {here}/d/r", f"write {here}/d/w", "write /gone")
    paths = ["d/x", "d/r/x", "d/w/x", "/gone/x"]
    for root in ("read /", "read :minimal"):
        found = verdicts(told("--sandbox-state-json", state(root, *lines, cwd=here), "--check", *paths))
        beyond = "read" if root == "read /" else "denied"
        assert list(found.values()) == ["denied", "denied", "write", beyond]


def test_a_check_says_of_a_policy_that_cannot_be_held_that_it_cannot(told, here):
    (here / ".codex").symlink_to("gone")
    code, out, _ = told(*WORKSPACE, "--check", "/")
    assert code == 1 and out.startswith("cannot be run: ")


def test_a_check_is_what_the_sandbox_then_does(told, here):
    (here / ".git").mkdir()
    for name in ("x", ".git/x", "secret"):
        (here / name).write_text("")
    policy = state("read /", "write :project_roots", f"deny {here}/secret", cwd=here)
    paths = [f"{here}/x", f"{here}/.git/x", f"{here}/secret", "/etc/passwd"]
    said = verdicts(told("--sandbox-state-json", policy, "--check", *paths))
    probe = 'if (: >> "$p") 2>&-; then echo write; elif cat "$p" >/dev/null 2>&1; then echo read; else echo denied; fi'
    done = ran(here, "--sandbox-state-json", policy, "--", "sh", "-c", f"for p; do {probe}; done", "sh", *paths)
    assert done.stdout.split() == list(said.values()) == ["write", "read", "denied", "read"]


def test_a_check_knows_what_is_hidden_whatever_the_policy_says(told, here):
    """Of the agent's own directories it said "write", and the sandbox hides them."""
    (here / "run").mkdir(mode=0o700)
    keys = f"{here}/run/countersign-runs-{os.geteuid()}"
    policy = state("read /", "write :project_roots", cwd=here)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_RUNTIME_DIR", f"{here}/run")
        code, out, _ = told("--sandbox-state-json", policy, "--check", f"{keys}/key", "run/other")
    assert code == 0
    assert [line.split(maxsplit=2) for line in out.splitlines()] == [
        ["denied", f"{keys}/key", "sockets and keys of the agent are there"],
        ["write", f"{here}/run/other", "write :project_roots"],
    ]


def test_a_check_knows_the_names_under_which_a_root_is_shown(told, here):
    (here / "real").mkdir()
    (here.parent / "alias").symlink_to(here / "real")
    policy = state(f"read {here.parent}/alias", f"deny {here}/real/x", cwd=here)
    paths = [f"{here.parent}/alias/a", f"{here.parent}/alias/x", f"{here}/real/a"]
    found = verdicts(told("--sandbox-state-json", policy, "--check", *paths))
    assert list(found.values()) == ["read", "denied", "denied"]


def test_a_check_answers_for_the_means_that_is_asked_for(told, here):
    """Landlock protects no name in a writable root; a denied /proc is the host's or a fresh one."""
    policy = state("read /", "write :project_roots", cwd=here)
    paths = [f"{here}/.git/x", f"{here}/x", "/etc/passwd"]
    options = ("--sandbox-state-json", policy, "--use-legacy-landlock", "--check")
    assert list(verdicts(told(*options, *paths)).values()) == ["write", "write", "read"]
    denied = state("read /", "write :project_roots", "deny /proc", cwd=here)
    for flags in (("--no-proc",), ()):
        assert verdicts(told("--sandbox-state-json", denied, *flags, "--check", "/proc/1")) == {"/proc/1": "denied"}
    assert told("--sandbox-state-json", denied, "--use-legacy-landlock", "--check", "/")[0] == 1


def test_an_explanation_says_what_cannot_be_moved(told, here):
    (here / "a" / "b").mkdir(parents=True)
    policy = state("read /", "write :project_roots", f"read {here}/a/b", cwd=here)
    assert f"Cannot be moved, since it leads there: {here}/a" in explained(told, "--sandbox-state-json", policy)[""]


def test_a_name_that_is_no_text_is_told_as_its_bytes(here):
    """With a locale that is not C the command ended in a traceback."""
    policy = state(f"deny {here}/x", cwd=here).replace("/x", "/\\udcff")
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    for words in (["--explain"], ["--check", os.fsdecode(b"\xff")]):
        command = [COUNTERSIGN, "sandbox", "--sandbox-state-json", policy, *words]
        done = subprocess.run(command, capture_output=True, env=environ, cwd=here, timeout=30)
        assert done.returncode == 0 and os.fsencode(here) + b"/\xff" in done.stdout, done


# Running


def test_the_command_runs_under_the_policy_with_the_callers_streams(here):
    done = ran(here, *WORKSPACE, "--", "sh", "-c", "cat > kept; echo x > ../outside; exit 7", input="given")
    assert done.returncode == 7 and "Read-only file system" in done.stderr
    assert (here / "kept").read_text() == "given" and not (here.parent / "outside").exists()
    assert os.listdir(here) == ["kept"]
    assert ran(here, "-P", ":danger-full-access", "--", "sh", "-c", "echo x > ../outside").returncode == 0
    assert (here.parent / "outside").exists()


def test_without_a_policy_nothing_is_written(here):
    assert ran(here, "touch", "x").returncode != 0
    assert os.listdir(here) == []


def test_the_platform_may_be_named_and_debug_landlock_is_the_same_command(here):
    assert ran(here, "linux", "echo", "ran").stdout == "ran\n"
    done = subprocess.run([COUNTERSIGN, "debug", "landlock", "touch", "x"], capture_output=True, cwd=here, check=False)
    assert done.returncode != 0 and b"Read-only file system" in done.stderr


def test_what_cannot_be_held_is_not_run(here):
    (here / ".git").symlink_to("real")
    done = ran(here, *WORKSPACE, "--", "touch", "x")
    assert done.returncode == 1 and "crosses writable symlink" in done.stderr
    assert os.listdir(here) == [".git"]


def test_the_environment_is_the_callers_and_what_the_policy_adds(here):
    environ = {"PATH": "/usr/bin:/bin", "CODEX_HOME": os.environ["CODEX_HOME"], "HOME": str(here), "KEEP": "é"}
    done = ran(here, "env", env=environ)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found == {**environ, "CODEX_SANDBOX_NETWORK_DISABLED": "1", "PWD": str(here)}
    excluded = ran(here, "-c", 'shell_environment_policy.exclude=["KEEP"]', "env", env=environ)
    assert "KEEP" not in excluded.stdout


def test_with_the_network_on_no_variable_says_that_it_is_off(here):
    profile = {"permissionProfile": json.loads(as_json("read /", network=ENABLED)), "sandboxCwd": f"file://{here}"}
    assert "NETWORK_DISABLED" not in ran(here, "--sandbox-state-json", json.dumps(profile), "env").stdout
    assert "NETWORK_DISABLED=1" in ran(here, "env").stdout
