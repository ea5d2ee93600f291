"""What a profile makes of a shell is learnt once, and commands are as if they had read the profile."""

import asyncio
import pwd
from types import SimpleNamespace

import pytest

from agent.core.thread import sandbox_policy
from agent.sandbox.environment import ShellEnvironmentPolicy
from agent.tools.shell_snapshot import ShellSnapshot, parse
from tests.agent.tools.workbench import Workbench, output_of

# Tells of each time it is read, where that can be told.
COUNTED = "{ echo read >> log; } 2>/dev/null; "
SEE = 'echo "<$VALUE>"'


@pytest.fixture(autouse=True)
def bash(tmp_path, monkeypatch):  # after the directory, which pytest names by the user
    """The user's shell, whoever runs the tests."""
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_shell="/bin/bash"))


def workbench(tmp_path, profile, **more):
    """A workspace of somebody with this profile, which is outside of it."""
    bench = Workbench(tmp_path, **more)
    (tmp_path / "user" / ".profile").write_text(profile)
    return bench


async def said(bench, cmd, **more):
    return output_of(await bench.command(cmd, **more))


async def learnt(bench):
    """Run a command, which reads the profile, and wait for the snapshot that it has made."""
    await bench.command("true")
    await asyncio.wait((bench.kept["shell_snapshot"].task,))


def times_read(bench):
    return (bench.cwd / "log").read_text().count("read")


def test_a_command_is_as_if_it_had_read_the_profile(run, tmp_path):
    big = "".join(f"  echo 'line {number} of a function that fills more than a variable'\n" for number in range(3000))
    profile = (
        "export VALUE=\"it's $HOME\\nnew\nline\"; export RAW=$'\\xff\\xc3\\xa4'; PATH=$PATH:/opt/mine; unset LC_CTYPE\n"
        "shopt -s extglob nullglob expand_aliases; set -o pipefail; set -f; umask 027\n"
        'greet() { case $1 in +(a|b)) echo "hello $1";; esac; }; shared() { :; }; export -f shared\n'
        f"big() {{\n{big}}}\nalias hi='greet ab'; trap 'echo bye' EXIT\necho what the profile says\n"
    )
    see = "hi; big | tail -1; bash -c 'type shared'; alias; trap; shopt; set -o; umask; echo $0 $-; env | sort"

    async def scenario():
        async with workbench(tmp_path, profile) as bench:
            await learnt(bench)
            learned = await said(bench, see)
            read = await said(bench, see, shell="/bin/bash")
            assert "hello ab\n" in learned and "bye\n" in learned
            assert "what the profile says" in read and "what the profile says" not in learned
            assert _compared(learned) == _compared(read)

    run(scenario())


def _compared(output):
    other = ("CODEX_TOOL_CALL_ID=", "_=", "login_shell ", "what the profile says")
    return [line for line in output.splitlines() if not line.startswith(other)]


def test_the_profile_is_read_by_the_first_command_and_for_the_snapshot(run, tmp_path):
    async def scenario():
        async with workbench(tmp_path, COUNTED + "export VALUE=profile") as bench:
            await learnt(bench)
            for _ in range(3):
                assert await said(bench, SEE) == "<profile>\n"
            assert times_read(bench) == 2

    run(scenario())


def test_clients_see_the_command_as_it_would_be_without(run, tmp_path):
    async def scenario():
        async with workbench(tmp_path, "f() { :; }") as bench:
            await learnt(bench)
            assert bench.kept["shell_snapshot"].task.result().code
            await bench.command("true")
            commands = [item["command"] for item in bench.items("item/completed")]
            assert commands == ["/bin/bash -lc true"] * 2

    run(scenario())


def test_nobody_waits_for_a_profile_that_hangs(run, tmp_path):
    profile = "if [ -e hang ]; then rm hang; touch hanging; sleep 600; fi; export VALUE=profile"

    async def scenario():
        async with workbench(tmp_path, profile) as bench:
            await bench.command("touch hang")
            while not (bench.cwd / "hanging").exists():
                await asyncio.sleep(0)
            assert await said(bench, SEE) == "<profile>\n"
            task = bench.kept["shell_snapshot"].task
            assert not task.done()
        assert task.cancelled()

    run(scenario())


@pytest.mark.parametrize(
    "profile",
    [
        'case "$BASH_EXECUTION_STRING" in *printf*) exit 0;; esac',
        'case "$BASH_EXECUTION_STRING" in *printf*) exec true;; esac',
        'case "$BASH_EXECUTION_STRING" in *printf*) exec >/dev/null;; esac',
        'case "$BASH_EXECUTION_STRING" in *printf*) head -c 9000000 /dev/zero;; esac',
        "{ set -x; } 2>/dev/null",
        None,
    ],
)
def test_where_there_is_no_snapshot_each_command_reads_the_profile(run, tmp_path, monkeypatch, profile):
    if profile is None:
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_shell="/bin/sh"))

    async def scenario():
        async with workbench(tmp_path, f"{COUNTED}{profile or ''}\nexport VALUE=profile") as bench:
            if profile is None:
                await bench.command("true")
            else:
                await learnt(bench)
            before = times_read(bench)
            assert "<profile>\n" in await said(bench, SEE)
            assert times_read(bench) == before + 1

    run(scenario())


@pytest.mark.parametrize(("mode", "gets_out"), [("workspace-write", False), ("danger-full-access", True)])
def test_the_profile_is_read_as_the_commands_are_confined(run, tmp_path, mode, gets_out):
    async def scenario():
        # Only what reads it for the snapshot tries to get out.
        profile = f'case "$BASH_EXECUTION_STRING" in *printf*) echo x > {tmp_path}/outside;; esac; export VALUE=profile'
        async with workbench(tmp_path, profile, mode=mode) as bench:
            await learnt(bench)
            assert await said(bench, SEE) == "<profile>\n"
            assert (tmp_path / "outside").exists() is gets_out

    run(scenario())


@pytest.mark.parametrize(("cannot_read", "value"), [(True, ""), (False, "of a secret")])
def test_what_a_command_may_not_read_it_is_not_told_by_the_profile(run, tmp_path, cannot_read, value):
    async def scenario():
        secret = tmp_path / "user" / "secret"
        files = {":root": "read", str(secret): "deny" if cannot_read else "read"}
        config = {"permissions": {"mine": {"filesystem": files}}}
        async with workbench(tmp_path, ". ~/secret 2>/dev/null", config=config) as bench:
            secret.write_text("export VALUE='of a secret'")
            bench.thread.profile = "mine"
            await learnt(bench)
            assert await said(bench, SEE) == f"<{value}>\n"

    run(scenario())


def test_what_was_learnt_in_one_sandbox_is_not_used_in_another(run, tmp_path):
    async def scenario():
        async with workbench(
            tmp_path, "export VALUE=$(touch x 2>/dev/null && echo wrote)", mode="workspace-write"
        ) as it:
            await learnt(it)
            assert await said(it, SEE) == "<wrote>\n"
            it.thread.sandbox = sandbox_policy("read-only", {})
            assert await said(it, SEE) == "<>\n"
            await asyncio.wait((it.kept["shell_snapshot"].task,))
            assert await said(it, SEE) == "<>\n"

    run(scenario())


def test_a_command_that_changes_the_profile_changes_no_later_command(run, tmp_path):
    async def scenario():
        async with workbench(tmp_path, "export VALUE=before", environ={"HOME": str(tmp_path / "project")}) as bench:
            (bench.cwd / ".profile").write_text("export VALUE=before; f() { :; }")
            await learnt(bench)
            assert "code 0" in await bench.command("echo 'export VALUE=after' > ~/.profile; VALUE=mine")
            assert await said(bench, SEE) == "<before>\n"
            assert await said(bench, SEE, shell="/bin/bash") == "<after>\n"

    run(scenario())


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        ({}, "profile"),
        ({"assigned": (("VALUE", "assigned"),)}, "assigned"),
        ({"exclude": ("VAL*",)}, ""),
        ({"include_only": ("PATH", "HOME")}, ""),
        ({"include_only": ("VALUE", "HOME")}, "profile"),
    ],
)
def test_the_users_policy_for_variables_wins_over_the_profile(run, tmp_path, policy, value):
    async def scenario():
        environment = ShellEnvironmentPolicy(**policy)
        async with workbench(tmp_path, "export VALUE=profile", environment=environment) as bench:
            await learnt(bench)
            assert await said(bench, SEE) == f"<{value}>\n"

    run(scenario())


def test_what_a_thread_lays_down_of_variables_wins_over_the_profile_too(run, tmp_path):
    """The policy of all threads was asked."""

    async def scenario():
        async with workbench(tmp_path, "export VALUE=profile") as bench:
            await learnt(bench)
            assert await said(bench, SEE) == "<profile>\n"
            bench.thread.config = {"shell_environment_policy": {"exclude": ["VAL*"]}}
            assert await said(bench, SEE) == "<>\n"

    run(scenario())


def test_neither_the_agents_variables_nor_its_proxy_come_by_the_profile(run, tmp_path):
    profile = (
        "export COUNTERSIGN_X=canary CODEX_ACCESS_TOKEN=canary CODEX_CI=canary "
        "https_proxy=http://countersign:canary@127.0.0.1:1 VALUE=profile"
    )

    async def scenario():
        async with workbench(tmp_path, profile, environ={"COUNTERSIGN_SOCKET": "canary"}) as bench:
            await learnt(bench)
            told = await said(bench, "env; declare -p")
            assert "VALUE=profile" in told and "CODEX_CI=1" in told
            assert "canary" not in told
            assert "profile" not in repr(bench.kept["shell_snapshot"].task.result())

    run(scenario())


@pytest.mark.parametrize(
    ("more", "value"), [({"login": False}, ""), ({"shell": "/bin/sh"}, "other"), ({"tty": True}, "other")]
)
def test_a_command_that_wants_another_shell_gets_it(run, tmp_path, more, value):
    async def scenario():
        async with workbench(tmp_path, "export VALUE=profile") as bench:
            await learnt(bench)
            (tmp_path / "user" / ".profile").write_text("export VALUE=other")
            assert (await said(bench, SEE, **more)).replace("\r", "") == f"<{value}>\n"

    run(scenario())


def test_a_shell_that_did_not_come_to_its_end_is_no_snapshot():
    bare, login = [b"A=1\0B=2\0", b"set +o x\n", b""], [b"A=1\0C=3\0", b"set -o x\n", b"f () { :; }\n"]
    whole = b"noise" + b"\0mark\0".join([b"", *bare, b"profile", *login, b"bye"])
    assert parse(whole, "mark") == ShellSnapshot({"C": "3"}, frozenset({"B"}), "set -o x\nf () { :; }\n")
    for end in range(len(whole) - len(b"\0bye")):
        assert parse(whole[:end], "mark") is None
    assert parse(whole, "other") is None
