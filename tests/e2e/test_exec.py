"""`countersign exec` as a process: options, profiles, and how it ends."""

import array
import asyncio
import fcntl
import json
import os
import signal
import termios

import pytest

from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.processes import COUNTERSIGN, finish, play, world

WRITE = {"call": {"name": "exec_command", "arguments": {"cmd": "echo x > written; echo code $?"}}}


async def until(happened):
    """Wait for what nobody tells of."""
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def executed(here, *arguments, stdin=b""):
    return await finish(
        COUNTERSIGN, "exec", "--skip-git-repo-check", "-m", "gpt-5.5", *arguments,
        environment=here.environment, cwd=here.home.parent, stdin=stdin,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ((), False),
        (("--yolo",), True),
        (("--profile", "open"), True),
        (("--profile", "open", "-c", "sandbox_mode=read-only"), False),
    ],
    ids=["default", "yolo", "profile", "override"],
)
def test_what_commands_may_do_is_what_the_options_say(tmp_path, options, written):
    async def scenario():
        async with world(tmp_path, ChatGPT(answers=Answers([WRITE, {"text": "Done."}]))) as here:
            (here.home / "open.config.toml").write_text('sandbox_mode = "danger-full-access"\n')
            done = await executed(here, *options, "go")
        assert (done.code, done.stdout.strip()) == (0, "Done."), done.stderr
        assert (tmp_path / "written").exists() is written, done.stderr

    play(scenario())


@pytest.mark.parametrize(
    "policy",
    ['"on-failure"', '"never"', "{ granular = { sandbox_approval = true, rules = true, mcp_elicitations = false } }"],
)
def test_a_policy_of_config_toml_counts_for_a_new_thread_and_a_resumed_one(tmp_path, policy):
    async def scenario():
        async with world(tmp_path, ChatGPT(answers=Answers([{"text": "One."}, {"text": "Two."}]))) as here:
            (here.home / "config.toml").write_text(f"approval_policy = {policy}\n")
            first = await executed(here, "go")
            assert (first.code, first.stdout.strip()) == (0, "One."), first.stderr
            second = await executed(here, "resume", "--last", "go on")
            assert (second.code, second.stdout.strip()) == (0, "Two."), second.stderr

    play(scenario())


def test_what_a_turn_fails_with_is_said_once(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(faults=[Fault.parse("websocket:426"), Fault.parse("post:400")])) as here:
            done = await executed(here, "go")
            assert (done.code, done.stdout) == (1, "")
            last = done.stderr.splitlines()[-1]
            assert last.startswith("countersign exec: ")
            assert done.stderr.count(last.removeprefix("countersign exec: ")) == 1, done.stderr

    play(scenario())


def test_what_cannot_be_done_is_said_in_a_line(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            missing = await executed(here, "--profile", "missing", "go")
            assert missing.code == 2 and "missing.config.toml" in missing.stderr
            both = await executed(here, "--yolo", "-s", "read-only", "go")
            assert both.code == 2 and "exclude one another" in both.stderr
            # It ended by SIGABRT now and then, while modules were still being loaded.
            unknown = await executed(here, "resume", "019a0000-0000-7000-8000-000000000000", "go")
            assert (unknown.code, unknown.stdout) == (1, "")
            assert unknown.stderr.splitlines()[-1].startswith("countersign exec: no rollout found for thread id")
            (here.home / "config.toml").write_text('profile = "p"\n')
            legacy = await executed(here, "go")
            assert legacy.code == 1 and "is no longer supported; use `--profile p`" in legacy.stderr

    play(scenario())


def test_the_newest_thread_of_any_directory_is_found_with_all(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            first = await executed(here, "--json", "one")
            thread_id = json.loads(first.stdout.splitlines()[0])["thread_id"]
            (tmp_path / "elsewhere").mkdir()
            there = ("-C", str(tmp_path / "elsewhere"))
            none = await executed(here, *there, "resume", "--last", "two")
            assert none.code == 1 and "there is no thread of" in none.stderr
            second = await executed(here, "--json", *there, "resume", "--last", "--all", "two")
            assert json.loads(second.stdout.splitlines()[0])["thread_id"] == thread_id, second.stderr

    play(scenario())


def said(here):
    """The last that the user said in each model request that arrived."""
    bodies = [one.body for one in here.upstream.received if one.kind == "message"]
    inputs = [
        [item for item in body["input"] if item.get("role") == "user"] for body in bodies if "generate" not in body
    ]
    return ["".join(part["text"] for part in given[-1]["content"]) for given in inputs]


@pytest.mark.parametrize(
    ("piped", "prompt"),
    [
        (b"one\ntwo\n", "look\n\n<stdin>\none\ntwo\n</stdin>"),
        (b"no newline", "look\n\n<stdin>\nno newline\n</stdin>"),
        (b" \n", "look"),
    ],
)
def test_what_is_piped_belongs_to_the_prompt(tmp_path, piped, prompt):
    """It was thrown away without a word."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await executed(here, "look", stdin=piped)
            assert done.code == 0 and said(here) == [prompt], done.stderr

    play(scenario())


def test_a_turn_without_a_message_prints_none(tmp_path):
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    items = [{**search, "action": {"type": "search", "query": "cats"}}]

    async def scenario():
        async with world(tmp_path, ChatGPT(answers=Answers([{"items": items}]))) as here:
            done = await executed(here, "look")
            assert (done.code, done.stdout) == (0, "") and "searched: cats" in done.stderr

    play(scenario())


def test_a_signal_ends_the_wait_for_a_desktop_and_no_turn_is_begun(tmp_path):
    """It was heard only after the 10 seconds, and after the turn had been begun."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            address = tmp_path / "rpc.sock"
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "exec", "--skip-git-repo-check", "--rpc", f"unix://{address}", "go",
                stdin=asyncio.subprocess.DEVNULL, env=here.environment, cwd=tmp_path,
            )  # fmt: skip
            await until(address.exists)
            process.terminate()
            async with asyncio.timeout(5):
                assert await process.wait() == 128 + signal.SIGTERM
            assert said(here) == []

    play(scenario())


def test_a_signal_ends_it_also_while_nobody_reads_what_it_prints(tmp_path):
    """It was stuck in the middle of a line, and no signal but SIGKILL was heard."""

    async def scenario():
        async with world(tmp_path, ChatGPT(answers=Answers([{"text": "word " * 40_000}]))) as here:
            reading, writing = os.pipe()
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "exec", "--json", "--skip-git-repo-check", "go",
                stdin=asyncio.subprocess.DEVNULL, stdout=writing, env=here.environment, cwd=tmp_path,
            )  # fmt: skip
            os.close(writing)
            try:
                await until(lambda: _is_full(reading))
                process.terminate()
                async with asyncio.timeout(10):
                    assert await process.wait() == 128 + signal.SIGTERM
            finally:
                os.close(reading)

    play(scenario())


def _is_full(pipe):
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0] > 32768  # of 65536, some of which the lines before it may have left unused
