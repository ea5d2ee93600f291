"""Patches of the model: what is shown is what is done, and only where it may be done."""

import asyncio
import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.apply_patch import run_as
from agent.tools.patch import PatchError, parse
from agent.tools.patching import patch_in, preview
from agent.tools.reach import Reach
from tests.agent.tools.test_reach import EVERYTHING
from tests.agent.tools.workbench import Workbench

ADD = "*** Begin Patch\n*** Add File: {}\n+new\n*** End Patch"


def test_a_patch_in_the_workspace_is_done_without_a_question_and_told(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "old").write_text("one\ntwo\n")
            told = await bench.patch(
                "*** Begin Patch\n*** Add File: new\n+hello\n*** Update File: old\n@@\n one\n-two\n+2\n*** End Patch"
            )
            assert told.startswith("Exit code: 0\n")
            assert (bench.cwd / "new").read_text() == "hello\n"
            assert (bench.cwd / "old").read_text() == "one\n2\n"
            assert bench.asked == []
            (item,) = bench.items("item/completed")
            assert item["status"] == "completed"
            assert [change["kind"]["type"] for change in item["changes"]] == ["add", "update"]
            (diff,) = [params["diff"] for method, params in bench.told if method == "turn/diff/updated"]
            assert "--- a/old\n+++ b/old\n" in diff

    run(scenario())


@pytest.mark.parametrize(("tool", "text"), [("patch", ADD.format("new")), ("command", "true"), ("command", "exit 3")])
def test_once_it_is_told_its_output_is_there_without_a_pause(run, tmp_path, tool, text):
    """The output is written down next: a crash in between would tell the model that it was not done."""

    async def scenario():
        ended = []

        class Told(list):
            def append(self, one):
                super().append(one)
                if one[0] == "item/completed":
                    asyncio.get_running_loop().call_soon(lambda: ended.append(patched.done()))

        async with Workbench(tmp_path) as bench:
            bench.told = Told()
            patched = asyncio.create_task(getattr(bench, tool)(text))
            await patched
            assert ended == [True]

    run(scenario())


def test_a_long_patch_is_done_too(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            lines = ["x" * 99] * 5000
            told = await bench.patch(
                "\n".join(["*** Begin Patch", "*** Add File: long", *(f"+{line}" for line in lines), "*** End Patch"])
            )
            assert told.startswith("Exit code: 0\n")
            assert (bench.cwd / "long").read_text().split() == lines

    run(scenario())


def test_of_a_thread_only_the_changes_of_the_turn_at_work_are_kept(run, tmp_path):
    """The files of all its turns were, as they had been before and after, as long as the thread was loaded."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            for number in range(3):
                bench.turn_id = f"turn-{number}"
                for name in ("a", "b"):
                    await bench.patch(f"*** Begin Patch\n*** Add File: {name}{number}\n+{number}\n*** End Patch\n")
            _, kept = bench.kept["diffs"]
            assert sorted(os.path.basename(path) for path in kept) == ["a2", "b2"]
            assert not any("turn-0" in repr(one) for one in bench.kept.items())
            diffs = [params["diff"] for method, params in bench.told if method == "turn/diff/updated"]
            assert [diff.count("diff --git") for diff in diffs] == [1, 2, 1, 2, 1, 2]

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "applied"),
    [
        ({"decision": "accept"}, True),
        ({"decision": "acceptForSession"}, True),
        ({"decision": "decline"}, False),
        ({"decision": "cancel"}, False),
        ({"decision": ["accept"]}, False),
        ({}, False),
        (None, False),
        ("accept", False),
        (RuntimeError("no"), False),
    ],
    ids=str,
)
def test_outside_of_the_workspace_a_patch_needs_a_clear_yes(run, tmp_path, answer, applied):
    async def scenario():
        async with Workbench(tmp_path, answers=[answer]) as bench:
            told = await bench.patch(ADD.format(tmp_path / "outside"))
            assert (tmp_path / "outside").exists() is applied
            assert (told == "patch rejected by user") is not applied
            (item,) = bench.items("item/completed")
            assert item["status"] == ("completed" if applied else "declined")

    run(scenario())


def test_a_yes_for_the_session_is_for_the_files_that_were_shown(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "acceptForSession"}, {"decision": "decline"}]) as bench:
            await bench.patch(ADD.format(tmp_path / "outside"))
            await bench.patch(f"*** Begin Patch\n*** Delete File: {tmp_path}/outside\n*** End Patch")
            assert len(bench.asked) == 1
            assert not (tmp_path / "outside").exists()
            await bench.patch(ADD.format(tmp_path / "another"))
            assert len(bench.asked) == 2
            assert not (tmp_path / "another").exists()

    run(scenario())


@pytest.mark.parametrize(("policy", "mode"), [("never", "read-only"), ("never", "workspace-write")])
def test_with_never_a_patch_outside_is_refused(run, tmp_path, policy, mode):
    async def scenario():
        async with Workbench(tmp_path, policy=policy, mode=mode) as bench:
            assert (await bench.patch(ADD.format(tmp_path / "outside"))).startswith("patch rejected: ")
            assert bench.told == []
            assert not (tmp_path / "outside").exists()

    run(scenario())


@pytest.mark.parametrize(("mode", "gets_out"), [("workspace-write", False), ("danger-full-access", True)])
def test_a_symlink_leads_no_patch_out_of_the_workspace(run, tmp_path, mode, gets_out):
    async def scenario():
        async with Workbench(tmp_path, policy="never", mode=mode) as bench:
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere/secret").write_text("before\n")
            (bench.cwd / "directory").symlink_to(tmp_path / "elsewhere")
            (bench.cwd / "file").symlink_to(tmp_path / "elsewhere/secret")
            await bench.patch(ADD.format("directory/outside"))
            await bench.patch("*** Begin Patch\n*** Update File: file\n@@\n-before\n+after\n*** End Patch")
            assert (tmp_path / "elsewhere/outside").exists() is gets_out
            assert (tmp_path / "elsewhere/secret").read_text() == ("after\n" if gets_out else "before\n")

    run(scenario())


def test_a_symlink_that_is_put_there_after_the_look_leads_nowhere_either(run, tmp_path):
    """The change is made by a process in the sandbox: what was looked at before does not count."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            (tmp_path / "elsewhere").mkdir()
            (bench.cwd / "directory").mkdir()

            class Swaps(list):  # the client is told between the look and the deed
                def append(self, told):
                    super().append(told)
                    if told[0] == "item/started":
                        os.rmdir(bench.cwd / "directory")
                        os.symlink(tmp_path / "elsewhere", bench.cwd / "directory")

            bench.told = Swaps()
            told = await bench.patch(ADD.format("directory/outside"))
            assert not told.startswith("Exit code: 0")
            assert list((tmp_path / "elsewhere").iterdir()) == []

    run(scenario())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no patch",
        "*** Begin Patch\n*** End Patch",
        "*** Begin Patch\n*** Delete File: nowhere\n*** End Patch",
        "*** Begin Patch\n*** Update File: here\n@@\n-not in it\n+x\n*** End Patch",
        "*** Begin Patch\n*** Update File: binary\n@@\n-x\n+y\n*** End Patch",
    ],
)
def test_a_patch_that_does_not_fit_is_an_output_and_shown_to_nobody(run, tmp_path, text):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "here").write_text("something\n")
            (bench.cwd / "binary").write_bytes(b"\xff\xfe")
            assert (await bench.patch(text)).startswith("apply_patch verification failed: ")
            assert bench.told == []

    run(scenario())


def test_a_command_that_is_a_patch_is_one(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "sub").mkdir()
            told = await bench.command(f"cd sub && apply_patch <<'EOF'\n{ADD.format('new')}\nEOF\n")
            assert told.startswith("Exit code: 0\n")
            assert (bench.cwd / "sub/new").read_text() == "new\n"
            assert bench.items("item/completed")[0]["type"] == "fileChange"

    run(scenario())


@pytest.mark.parametrize(
    "cmd", ["apply_patch x", "true && apply_patch <<E\nx\nE", "apply_patch <<E\nx\nE\nrm -rf y", "cd $X && apply_patch"]
)
def test_a_command_that_does_more_is_no_patch(cmd):
    assert patch_in(cmd) is None


NAMES = st.sampled_from(["a", "b", "sub/c"])
LINES = st.lists(st.sampled_from(["x", "y", "z", ""]), max_size=4)


def hunk(operation):
    kind, name, first, second, target = operation
    match kind:
        case "add":
            return f"*** Add File: {name}\n" + "".join(f"+{line}\n" for line in first or ["x"])
        case "delete":
            return f"*** Delete File: {name}\n"
        case _:
            move = f"*** Move to: {target}\n" if kind == "move" else ""
            old, new = "".join(f"-{line}\n" for line in first), "".join(f"+{line}\n" for line in second)
            return f"*** Update File: {name}\n{move}@@\n{old}{new}"


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "update", "move"]), NAMES, LINES, LINES, NAMES), min_size=1, max_size=3
)


@settings(max_examples=60)
@given(st.dictionaries(NAMES, LINES, max_size=3), OPERATIONS)
def test_what_is_shown_is_what_is_done(tmp_path_factory, before, operations):
    workspace = tmp_path_factory.mktemp("workspace")
    for name, lines in before.items():
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_text("".join(f"{line}\n" for line in lines))
    files = contents(workspace)
    text = "*** Begin Patch\n" + "".join(map(hunk, operations)) + "*** End Patch"
    try:
        changes = preview(parse(text), str(workspace), Reach(EVERYTHING, {}))
    except (PatchError, OSError):
        changes = None
    code = apply(text, workspace)
    if changes is None:
        return  # what was done before the hunk that fails stays done; such a patch is never begun
    assert code == 0
    expected, diffs = dict(files), {}
    for change in changes:
        change.note(diffs)
    for path, (_, after) in diffs.items():
        name = os.path.relpath(path, workspace)
        expected.pop(name, None)
        if after is not None:
            expected[name] = after
    assert contents(workspace) == expected


def apply(text, workspace):
    with contextlib.chdir(workspace):
        return run_as([text])


def contents(workspace):
    return {str(path.relative_to(workspace)): path.read_text() for path in workspace.rglob("*") if path.is_file()}


def test_clients_are_shown_where_a_file_was_moved_to(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "a").write_text("one\n")
            await bench.patch(
                "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@\n-one\n+two\n*** End Patch"
            )  # fmt: skip
            (change,) = bench.items("item/completed")[0]["changes"]
            assert change["diff"] == f"@@ -1 +1 @@\n-one\n+two\n\n\nMoved to: {bench.cwd}/b"
            assert change["kind"] == {"type": "update", "move_path": f"{bench.cwd}/b"}

    run(scenario())
