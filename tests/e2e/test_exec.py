"""`countersign exec` as a process: options, profiles, and how it ends."""

import json

import pytest

from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from tests.processes import COUNTERSIGN, finish, play, world

WRITE = {"call": {"name": "exec_command", "arguments": {"cmd": "echo x > written; echo code $?"}}}


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
