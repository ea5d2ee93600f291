"""A model provider of the user's own with the process that users start."""

import json

import pytest

from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from tests.agent.model.test_providers import PlainModels
from tests.processes import COUNTERSIGN, finish, play, world

SHOW = {"call": {"name": "exec_command", "arguments": {"cmd": "echo keys:-$MINE_KEY-$OTHER_KEY-"}}}
TABLE = """
[model_providers.mine]
name = "Mine"
base_url = "http://127.0.0.1:{port}/v1"
env_key = "MINE_KEY"

[model_providers.other]
name = "Other"
env_key = "OTHER_KEY"
"""


@pytest.mark.parametrize("auth", ["chatgpt", None], ids=["signed-in", "not-signed-in"])
def test_exec_asks_the_provider_and_nobody_else_and_no_command_sees_its_key(tmp_path, auth):
    async def scenario():
        async with (
            PlainModels(answers=Answers([SHOW, {"text": "Done."}])) as beside,
            world(tmp_path, ChatGPT(), auth) as here,
        ):
            (here.home / "config.toml").write_text(TABLE.format(port=beside.port))
            done = await finish(
                *(COUNTERSIGN, "exec", "--skip-git-repo-check", "--yolo", "-m", "some-model"),
                *("-c", "model_provider=mine", "go"),
                environment=here.environment | {"MINE_KEY": "sk-mine", "OTHER_KEY": "sk-other"},
                cwd=tmp_path,
            )
            assert (done.code, done.stdout.strip()) == (0, "Done."), done.stderr
            first, second = beside.received
            assert first.values("authorization") == ["Bearer sk-mine"] == second.values("authorization")
            assert first.body["model"] == "some-model"
            (output,) = [one["output"] for one in second.body["input"] if one["type"] == "function_call_output"]
            assert "keys:---" in output
            assert not [one for one in here.upstream.received if "/responses" in one.path]
            kept = [path for path in here.home.rglob("*") if path.is_file() and b"sk-mine" in path.read_bytes()]
            assert kept == [] and "sk-mine" not in done.stderr
            (rollout,) = here.home.rglob("rollout-*.jsonl")
            assert json.loads(rollout.read_text().splitlines()[0])["payload"]["model_provider"] == "mine"

    play(scenario())
