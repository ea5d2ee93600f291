"""Commands of the model, in the real sandbox."""

import asyncio
import json
import os
import resource

import pytest

from tests.agent.tools.workbench import Workbench, output_of, session_of

ESCALATED = {"sandbox_permissions": "require_escalated", "justification": "May I?"}


def test_the_model_reads_what_a_command_says_in_the_order_in_which_it_said_it(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            told = await bench.command("for n in 1 2 3; do echo out $n; echo err $n >&2; done; exit 3")
            assert "Process exited with code 3" in told
            assert output_of(told) == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
            (item,) = bench.items("item/completed")
            assert (item["status"], item["exitCode"]) == ("failed", 3)
            assert bench.asked == []

    run(scenario())


@pytest.mark.parametrize(("mode", "writes"), [("read-only", False), ("workspace-write", True)])
def test_the_workspace_is_written_to_where_the_thread_may(run, tmp_path, mode, writes):
    async def scenario():
        async with Workbench(tmp_path, mode=mode) as bench:
            told = await bench.command("echo x > here")
            assert (bench.cwd / "here").exists() is writes
            assert ("code 0" in told) is writes

    run(scenario())


@pytest.mark.parametrize(("mode", "gets_out"), [("workspace-write", False), ("danger-full-access", True)])
def test_nothing_is_written_beside_the_workspace(run, tmp_path, mode, gets_out):
    async def scenario():
        async with Workbench(tmp_path, mode=mode) as bench:
            await bench.command(f"echo x > {tmp_path}/outside")
            assert (tmp_path / "outside").exists() is gets_out
            assert bench.asked == []

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "runs"),
    [
        ({"decision": "accept"}, True),
        ({"decision": "acceptForSession"}, True),
        ({"decision": {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["touch"]}}}, True),
        ({"decision": "decline"}, False),
        ({"decision": "cancel"}, False),
        ({"decision": "ACCEPT"}, False),
        ({"decision": {"accept": True}}, False),
        ({"decision": None}, False),
        ("accept", False),
        (None, False),
        (["accept"], False),
        (RuntimeError("no"), False),
    ],
    ids=str,
)
def test_a_command_leaves_the_sandbox_on_a_clear_yes_alone(run, tmp_path, answer, runs):
    async def scenario():
        async with Workbench(tmp_path, answers=[answer]) as bench:
            told = await bench.command(f"touch {tmp_path}/outside", **ESCALATED)
            assert (tmp_path / "outside").exists() is runs
            assert ("Rejected" in told) is not runs
            ((_, params),) = bench.asked
            assert params["reason"] == "May I?"
            assert bench.waited_for == ["waitingOnApproval"]

    run(scenario())


def test_what_was_allowed_for_the_session_is_not_asked_again(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "acceptForSession"}, {"decision": "decline"}]) as bench:
            for _ in range(2):
                await bench.command(f"touch {tmp_path}/outside", **ESCALATED)
            assert len(bench.asked) == 1
            await bench.command(f"rm {tmp_path}/outside", **ESCALATED)
            assert len(bench.asked) == 2
            assert (tmp_path / "outside").exists()

    run(scenario())


def test_a_program_that_the_model_calls_a_shell_is_not_what_was_allowed(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "acceptForSession"}, {"decision": "decline"}]) as bench:
            await bench.command("true", **ESCALATED)
            evil = bench.cwd / "evil"
            evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/outside\n")
            evil.chmod(0o755)
            await bench.command("true", shell=str(evil), **ESCALATED)
            assert len(bench.asked) == 2
            assert not (tmp_path / "outside").exists()

    run(scenario())


def test_with_never_nobody_is_asked_and_the_command_does_not_run(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, policy="never") as bench:
            told = await bench.command(f"touch {tmp_path}/outside", **ESCALATED)
            assert "approval policy is Never" in told
            assert bench.asked == []
            assert not (tmp_path / "outside").exists()

    run(scenario())


def test_a_command_that_goes_on_is_talked_with_on_its_terminal(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            told = await bench.command("stty -echo; read x; echo got $x; exit 4", tty=True, yield_time_ms=300)
            number = session_of(told)
            answer = await write(bench, session_id=number, chars="abc\n", yield_time_ms=10_000)
            assert output_of(answer) == "got abc\r\n"
            assert "code 4" in answer
            assert "Unknown process id" in await write(bench, session_id=number, chars="more")
            (talk,) = [params for method, params in bench.told if method.endswith("terminalInteraction")]
            assert (talk["processId"], talk["stdin"]) == (str(number), "abc\n")

    run(scenario())


@pytest.mark.parametrize("mode", ["workspace-write", "danger-full-access"])
def test_control_c_interrupts_what_runs_on_a_terminal(run, tmp_path, mode):
    async def scenario():
        async with Workbench(tmp_path, mode=mode) as bench:
            told = await bench.command("trap 'echo interrupted; exit 5' INT; cat", tty=True, yield_time_ms=500)
            answer = await write(bench, session_id=session_of(told), chars="\x03", yield_time_ms=10_000)
            assert "interrupted" in answer
            assert "code 5" in answer

    run(scenario())


def test_two_calls_that_write_at_once_are_read_one_after_the_other(run, tmp_path):
    """One of them waited for what the other was told, and failed."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            script = "stty raw -echo; echo ready; head -c 400000 | tr -s xy; echo"
            number = session_of(await bench.command(script, tty=True, yield_time_ms=500))
            texts = [letter * 200_000 for letter in "xy"]
            told = await asyncio.gather(*(write(bench, session_id=number, chars=text) for text in texts))
            assert not any("failed" in one for one in told)
            said = bench.items("item/completed")[0]["aggregatedOutput"]
            assert said.split() == ["ready", "xy"]

    run(scenario())


def test_without_a_terminal_there_is_nothing_to_write_to(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            number = session_of(await bench.command("sleep 60", yield_time_ms=250))
            assert "stdin is closed" in await write(bench, session_id=number, chars="x")
            assert "running with session" in await write(bench, session_id=number, yield_time_ms=250)

    run(scenario())


def test_the_end_of_a_thread_ends_what_its_commands_left_running(run, tmp_path):
    async def scenario():
        pipe = tmp_path / "project" / "alive"
        async with Workbench(tmp_path) as bench:
            await bench.command(f"mkfifo {pipe}; (sleep 60 & exec 3<>{pipe}; sleep 60 & sleep 60)", yield_time_ms=500)
            assert len(bench.kept["sessions"]) == 1
            (session,) = bench.kept["sessions"].values()
        assert session.is_over

    run(scenario())


def test_clients_are_told_when_a_command_ends_that_the_model_does_not_ask_about(run, tmp_path):
    """It went on for ever, as they saw it."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            os.mkfifo(bench.cwd / "go")
            number = session_of(await bench.command("read x < go; echo late; exit 3", yield_time_ms=250))
            assert bench.items("item/completed") == []
            (session,) = bench.kept["sessions"].values()
            (bench.cwd / "go").write_text("x\n")
            await session.wait(10)
            await asyncio.sleep(0)  # who waits for the end longer is told first
            (item,) = bench.items("item/completed")
            assert (item["status"], item["exitCode"], item["aggregatedOutput"]) == ("failed", 3, "late\n")
            told = await write(bench, session_id=number)
            assert "code 3" in told and output_of(told) == "late\n"
            assert len(bench.items("item/completed")) == 1

    run(scenario())


def test_the_oldest_of_too_many_commands_gives_way_and_clients_are_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.tools.shell.MOST_SESSIONS", 1)

    async def scenario():
        async with Workbench(tmp_path) as bench:
            first, second = [session_of(await bench.command("sleep 60", yield_time_ms=250)) for _ in range(2)]
            (item,) = bench.items("item/completed")
            assert (item["processId"], item["status"]) == (str(first), "failed")
            assert list(bench.kept["sessions"]) == list(bench.kept["items"]) == [second]
        assert len(bench.items("item/completed")) == 1  # of what ends with its thread nobody is told

    run(scenario())


def test_a_command_that_says_nothing_is_shown_while_it_runs(run, tmp_path):
    """Clients saw it only when its time to yield was over, or not at all where the user stopped it before."""

    async def scenario():
        async with Workbench(tmp_path) as bench:
            call = asyncio.create_task(bench.command("sleep 60", yield_time_ms=30_000))
            while not bench.items("item/started"):
                await asyncio.sleep(0)
            assert not call.done()
            call.cancel()
            await asyncio.wait((call,))

    run(scenario())


def test_an_interruption_kills_all_that_the_call_started(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            beating = bench.cwd / "beating"
            script = f"(while :; do echo x >> {beating}; sleep 0.02; done) & sleep 60"
            call = asyncio.create_task(bench.command(script))
            while not beating.exists():
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait((call,))
            assert call.cancelled()
            size = beating.stat().st_size
            # Ten times as long as it takes between two beats.
            assert await bench.command("sleep 0.2") is not None
            assert beating.stat().st_size == size

    run(scenario())


def test_output_without_end_is_bounded_in_memory_and_for_the_model(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            told = await bench.command("echo begin; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo end",
                                       yield_time_ms=30_000, max_output_tokens=100)  # fmt: skip
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert "code 0" in told
            assert output_of(told).startswith("begin\n")
            assert told.endswith("end\n")
            assert len(told) < 1000
            assert grown < 64 * 1024
            assert sum(len(params.get("delta", "")) for _, params in bench.told) < 2 * 1024 * 1024

    run(scenario())


def test_a_letter_in_two_pieces_is_shown_whole(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            told = await bench.command("printf 'a\\303'; sleep 0.1; printf '\\244b'")
            assert output_of(told) == "aäb"
            assert "".join(params.get("delta", "") for _, params in bench.told) == "aäb"

    run(scenario())


def test_calls_run_beside_each_other(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            (bench.cwd / "wanted").mkdir()
            # Each waits for the other: one after the other would never end.
            calls = [
                bench.command(f"touch wanted/{own}; until [ -e wanted/{other} ]; do sleep 0.01; done; echo met")
                for own, other in (("a", "b"), ("b", "a"))
            ]
            assert [output_of(told) for told in await asyncio.gather(*calls)] == ["met\n", "met\n"]

    run(scenario())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "failed to parse function arguments"),
        ("[]", "an object is needed"),
        ("{}", "missing field `cmd`"),
        ('{"cmd": 1}', "cmd must be a str"),
        ('{"cmd": "a\\u0000b"}', "NUL"),
        ('{"cmd": "true", "sandbox_permissions": "all"}', "require_escalated"),
        ('{"cmd": "true", "yield_time_ms": "soon"}', "yield_time_ms"),
    ],
)
def test_arguments_that_cannot_be_used_are_an_output(run, tmp_path, text, reason):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            assert reason in (await bench.call("exec_command", text)).content
            assert bench.told == []

    run(scenario())


def test_half_a_letter_in_a_command_is_taken_for_a_whole_one(run, tmp_path):

    async def scenario():
        async with Workbench(tmp_path) as bench:
            told = (await bench.call("exec_command", '{"cmd": "echo \\ud800"}')).content
            assert output_of(told) == "\ufffd\n"

    run(scenario())


def test_a_tool_that_is_not_there_is_an_output(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            assert (await bench.call("launch", "{}")).content == "unsupported call: launch"

    run(scenario())


def test_a_directory_that_is_not_there_is_an_output(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            told = await bench.command("true", workdir="nowhere")
            assert "code 0" not in told

    run(scenario())


def test_a_command_that_could_not_be_started_after_a_yes_ends_for_clients_too(run, tmp_path):
    """It stayed at work for them."""

    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "accept"}]) as bench:
            told = await bench.command("true", workdir="nowhere", sandbox_permissions="require_escalated")
            assert told.startswith("exec_command failed: ")
            (item,) = bench.items("item/completed")
            assert (item["status"], item["exitCode"]) == ("failed", None)

    run(scenario())


async def write(bench, **given):
    return (await bench.call("write_stdin", json.dumps(given))).content


def test_a_command_is_shown_where_it_runs(run, tmp_path):
    """It was shown in the thread's directory; an approval too."""

    async def scenario():
        async with Workbench(tmp_path, answers=[{"decision": "accept"}]) as bench:
            (bench.cwd / "sub").mkdir()
            assert output_of(await bench.command("pwd", workdir="sub", **ESCALATED)) == f"{bench.cwd}/sub\n"
            ((_, params),) = bench.asked
            shown = [params, *bench.items("item/started"), *bench.items("item/completed")]
            assert {one["cwd"] for one in shown} == {f"{bench.cwd}/sub"}

    run(scenario())
