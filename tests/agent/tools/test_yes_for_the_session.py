"""What a yes lets run: just what was asked about, once or for the session, and nothing that only looks like it."""

import json
import os

import pytest

from tests.agent.tools.workbench import Workbench

ESCALATED = {"sandbox_permissions": "require_escalated", "justification": "May I?"}
YES, NO = {"decision": "acceptForSession"}, {"decision": "decline"}
UPDATE = "*** Begin Patch\n*** Update File: a\n@@\n-x\n+changed\n*** End Patch"


def test_a_yes_inside_of_the_sandbox_is_none_outside(run, tmp_path):
    """It was: `untrusted` asks about each command, and the model wants it outside the second time."""

    async def scenario():
        async with Workbench(tmp_path, policy="untrusted", answers=[YES, NO]) as bench:
            for more in ({}, {}, ESCALATED):
                await bench.command(f"touch {tmp_path}/outside", **more)
            assert not (tmp_path / "outside").exists()
            assert len(bench.asked) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("cmd", "more"),
    [("pwd -P", {}), ("pwd", {"workdir": "sub"}), ("pwd", {"tty": True}), ("pwd", {"shell": "/bin/sh"})],
    ids=str,
)
def test_a_yes_is_for_the_command_as_it_was_asked_about(run, tmp_path, cmd, more):
    """What began with it ran as well, and elsewhere, and on a terminal, where more can be said to it."""

    async def scenario():
        async with Workbench(tmp_path, answers=[YES, NO]) as bench:
            (bench.cwd / "sub").mkdir()
            for _ in range(2):
                assert "code 0" in await bench.command("pwd", **ESCALATED)
            assert len(bench.asked) == 1
            assert "rejected by user" in await bench.command(cmd, **ESCALATED, **more)

    run(scenario())


def test_a_yes_for_the_session_holds_where_a_rule_asks_too(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, answers=[YES, NO]) as bench:
            for _ in range(2):
                (bench.cwd / "x").touch()
                await bench.command("rm -f x")
                assert not (bench.cwd / "x").exists()
            assert "rejected" in await bench.command("rm -f x y")

    run(scenario())


@pytest.mark.parametrize(
    "amendment",
    [5, None, {}, {"execpolicy_amendment": 5}, {"execpolicy_amendment": "touch"}, {"execpolicy_amendment": [5]}],
    ids=str,
)
def test_an_amendment_that_makes_no_sense_is_no_yes(run, tmp_path, amendment):
    """It was one, and for good: what we had proposed was taken for what the client had meant."""

    async def scenario():
        answers = [{"decision": {"acceptWithExecpolicyAmendment": amendment}}, NO]
        async with Workbench(tmp_path, answers=answers) as bench:
            for _ in range(2):
                assert "Rejected" in await bench.command(f"touch {tmp_path}/outside", **ESCALATED)
            assert not (tmp_path / "outside").exists()

    run(scenario())


def test_an_amendment_is_for_all_that_begins_so(run, tmp_path):
    """The control of the tests above."""

    async def scenario():
        answers = [{"decision": {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["touch"]}}}]
        async with Workbench(tmp_path, answers=answers) as bench:
            for name in ("one", "two"):
                await bench.command(f"touch {tmp_path}/{name}", **ESCALATED)
                assert (tmp_path / name).exists()
            assert len(bench.asked) == 1

    run(scenario())


@pytest.mark.parametrize(("policy", "is_written"), [("on-request", True), ("never", False)])
def test_a_yes_for_the_session_ends_where_the_policy_says_never(run, tmp_path, policy, is_written):
    """Of a command it did, of a patch not."""

    async def scenario():
        async with Workbench(tmp_path, answers=[YES]) as bench:
            outside = tmp_path / "outside"
            outside.write_text("x\n")
            update = UPDATE.replace("a\n", f"{outside}\n", 1)
            assert "Exit code: 0" in await bench.patch(update)
            outside.write_text("x\n")
            bench.thread.approval_policy = policy
            told = await bench.patch(update)
            assert told.startswith("Exit code: 0" if is_written else "patch rejected: ")
            assert outside.read_text() == ("changed\n" if is_written else "x\n")
            assert len(bench.asked) == 1

    run(scenario())


@pytest.mark.parametrize("policy", ["untrusted", "on-request"])
def test_a_file_that_became_a_symlink_is_not_the_one_that_a_yes_was_for(run, tmp_path, policy):
    """The patch followed it, outside of any sandbox and without a word."""

    async def scenario():
        async with Workbench(tmp_path, policy=policy, answers=[YES, YES, NO]) as bench:
            (bench.cwd / "a").write_text("x\n")
            (tmp_path / "profile").write_text("x\n")
            await bench.patch(UPDATE)
            assert (bench.cwd / "a").read_text() == "changed\n"
            await bench.command(f"rm a; ln -s {tmp_path}/profile a")
            assert (bench.cwd / "a").is_symlink()
            bench.asked.clear()
            bench._answers = iter([NO])
            assert await bench.patch(UPDATE) == "patch rejected by user"
            assert (tmp_path / "profile").read_text() == "x\n"
            ((_, params),) = bench.asked
            assert params["reason"] == f"by symbolic links it changes {tmp_path}/profile"

    run(scenario())


def test_a_symlink_that_is_turned_while_the_user_thinks_leads_to_what_he_was_asked_about(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, answers=[None]) as bench:
            for name in ("asked", "other"):
                (tmp_path / name).write_text("x\n")
            (bench.cwd / "a").symlink_to(tmp_path / "asked")

            def turned():
                (bench.cwd / "a").unlink()
                (bench.cwd / "a").symlink_to(tmp_path / "other")
                yield {"decision": "accept"}

            bench._answers = turned()
            assert "Exit code: 0" in await bench.patch(UPDATE)
            assert (tmp_path / "asked").read_text() == "changed\n"
            assert (tmp_path / "other").read_text() == "x\n"

    run(scenario())


@pytest.mark.parametrize("hunk", ["*** Delete File: {}", "*** Update File: {}\n*** Move to: moved\n@@\n-x\n+y"])
def test_a_symlink_that_a_patch_removes_is_removed_and_not_what_it_leads_to(run, tmp_path, hunk):
    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "accept"}]) as bench:
            (tmp_path / "file").write_text("x\n")
            (bench.cwd / "a").symlink_to(tmp_path / "file")
            assert "Exit code: 0" in await bench.patch(f"*** Begin Patch\n{hunk.format('a')}\n*** End Patch")
            assert not os.path.lexists(bench.cwd / "a")
            assert (tmp_path / "file").read_text() == "x\n"
            assert len(bench.asked) == 1

    run(scenario())


def test_a_workspace_behind_a_symlink_is_patched_as_any_other(run, tmp_path):
    """Each patch in it was asked about, as if it led out; in it is what the name leads to."""

    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "accept"}]) as bench:
            (tmp_path / "link").symlink_to(bench.cwd)
            bench.thread.cwd = str(tmp_path / "link")
            (bench.cwd / "a").write_text("x\n")
            assert "Exit code: 0" in await bench.patch(UPDATE)
            assert bench.asked == []
            (change,) = bench.items("item/completed")[0]["changes"]
            assert change["path"] == f"{tmp_path}/link/a"
            assert "Exit code: 0" in await bench.patch("*** Begin Patch\n*** Add File: ../b\n+changed\n*** End Patch")
            assert (tmp_path / "b").read_text() == "changed\n"
            assert bench.asked[0][1]["reason"] is None

    run(scenario())


def test_a_patch_in_a_command_starts_where_the_command_does(run, tmp_path):
    """It changed a file of the same name in the thread's directory."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "sub" / "deeper").mkdir(parents=True)
            patch = "apply_patch <<'EOF'\n*** Begin Patch\n*** Add File: {}\n+x\n*** End Patch\nEOF"
            await bench.command(patch.format("one"), workdir="sub")
            await bench.command("cd deeper && " + patch.format("two"), workdir="sub")
            assert sorted(str(path.relative_to(bench.cwd)) for path in bench.cwd.rglob("*") if path.is_file()) == [
                "sub/deeper/two",
                "sub/one",
            ]

    run(scenario())


def test_of_a_patch_that_fails_half_way_only_what_it_did_is_in_the_diff_of_the_turn(run, tmp_path):
    """All of it was."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "directory").mkdir()
            (bench.cwd / "a").write_text("x\n")
            move = "*** Update File: a\n*** Move to: directory\n@@\n-x\n+y"
            told = await bench.patch(f"*** Begin Patch\n*** Add File: done\n+x\n{move}\n*** End Patch")
            assert told.startswith("Exit code: 1")
            await bench.patch("*** Begin Patch\n*** Add File: later\n+x\n*** End Patch")
            (diff,) = [params["diff"] for method, params in bench.told if method == "turn/diff/updated"]
            assert [line for line in diff.splitlines() if line.startswith("+++")] == ["+++ b/done", "+++ b/later"]

    run(scenario())


def test_a_command_that_no_system_would_take_is_an_output(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            told = (await bench.call("exec_command", json.dumps({"cmd": "a" * 131072}))).content
            assert "cmd is longer than 131071 bytes" in told
            assert bench.told == []

    run(scenario())
