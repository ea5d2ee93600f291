"""The official TypeScript SDK, unmodified, on `countersign exec`."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.interop.test_codex import desktop_on
from tests.processes import COUNTERSIGN, attestations, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

SDK = Path(sys.executable).parents[1] / "ts-sdk/package/dist/index.js"
SCRIPT = """
const { Codex } = await import(process.argv[2]);
const codex = new Codex({ codexPathOverride: process.argv[3] });
const options = JSON.parse(process.argv[4]);
const thread = codex.startThread({ skipGitRepoCheck: true, ...options.thread });
const out = { turns: [] };
for (const prompt of options.prompts) {
  try {
    const turn = await thread.run(prompt, options.turn ?? {});
    out.turns.push({ items: turn.items, text: turn.finalResponse, usage: turn.usage });
  } catch (error) {
    out.turns.push({ error: error.message });
  }
}
out.id = thread.id;
console.log(JSON.stringify(out));
"""


async def driven(here, directory, prompts, *, thread=None, turn=None, environment=None):
    """What the SDK says of these turns of one thread."""
    script = directory / "drive.mjs"
    script.write_text(SCRIPT)
    options = json.dumps({"prompts": prompts, "thread": thread or {}, "turn": turn})
    process = await asyncio.create_subprocess_exec(
        "node", str(script), str(SDK), COUNTERSIGN, options,
        env={**here.environment, **(environment or {})}, cwd=here.home,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return json.loads(stdout)


def test_turns_of_a_thread_with_a_command_between(outside):
    async def scenario():
        call = {"call": {"name": "exec_command", "arguments": {"cmd": "echo from the tool", "login": False}}}
        answers = Answers([call, {"text": "First."}, {"text": "Second."}])
        async with world(outside, ChatGPT(answers=answers)) as here:
            out = await driven(here, outside, ["one", [{"type": "text", "text": "two"}]])
        first, second = out["turns"]
        command, message = first["items"]
        assert (command["type"], command["exit_code"], command["status"]) == ("command_execution", 0, "completed")
        assert command["aggregated_output"] == "from the tool\n"
        assert (message["type"], first["text"], second["text"]) == ("agent_message", "First.", "Second.")
        assert first["usage"]["input_tokens"] > 0 and first["usage"]["cache_write_input_tokens"] == 0
        (file,) = here.home.rglob("rollout-*.jsonl")
        assert out["id"] in file.name  # the second turn went on with the first one's thread

    play(scenario())


@pytest.mark.parametrize("mode, written", [("read-only", False), ("workspace-write", True)])
def test_the_sandbox_is_what_the_sdk_asked_for(outside, mode, written):
    async def scenario():
        call = {"call": {"name": "exec_command", "arguments": {"cmd": "echo x > made.txt", "login": False}}}
        workspace = outside / "workspace"
        workspace.mkdir()
        async with world(outside, ChatGPT(answers=Answers([call]))) as here:
            thread = {"workingDirectory": str(workspace), "sandboxMode": mode, "model": "gpt-5.5"}
            out = await driven(here, outside, ["write"], thread=thread)
        assert (out["turns"][0]["items"][0]["status"] == "completed") is written
        assert (workspace / "made.txt").exists() is written

    play(scenario())


def test_an_output_schema_reaches_the_service(outside):
    async def scenario():
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        async with world(outside, ChatGPT()) as here:
            await driven(here, outside, ["as JSON"], turn={"outputSchema": schema})
            sent = [one.body for one in here.upstream.received if one.kind == "message"]
        assert sent[-1]["text"]["format"]["schema"] == schema

    play(scenario())


def test_a_turn_that_fails_is_an_error_of_the_sdk(outside):
    async def scenario():
        async with world(outside, ChatGPT(faults=[Fault.parse("usage-limit")])) as here:
            out = await driven(here, outside, ["one"])
        assert "usage limit" in out["turns"][0]["error"].lower()

    play(scenario())


def test_with_a_desktop_on_its_socket_exec_is_attested_and_without_one_it_is_not(outside):
    async def scenario():
        rpc = outside / "rpc.sock"
        async with world(outside, ChatGPT()) as here, desktop_on(here, rpc):
            await driven(here, outside, ["with"], environment={"COUNTERSIGN_RPC": f"unix://{rpc}"})
            stamped = attestations(here.scoped())
            await driven(here, outside, ["without"])
            assert attestations(here.scoped())[len(stamped) :] == [[]] * (len(here.scoped()) - len(stamped))
        assert stamped and all(len(value) == 1 and '"s":0' in value[0] for value in stamped)

    play(scenario())
