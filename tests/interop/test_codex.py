"""The real, unmodified codex through our proxy, and the official SDK on our app-server."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.standins.desktop import Script, connect, spawn
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.interop.original import codex
from tests.processes import COUNTERSIGN, World, attestations, finish, play, serving, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]


@contextlib.asynccontextmanager
async def desktop_on(here: World, rpc: Path, *options: str) -> AsyncIterator[None]:
    """The stand-in desktop as a process, waiting for the socket."""
    process = await asyncio.create_subprocess_exec(
        COUNTERSIGN, "standin", "desktop", "--connect", f"unix://{rpc}", *options,
        env=here.environment, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_codex_exec_is_attested_without_a_change_to_it(outside, transport):
    async def scenario():
        faults = [Fault.parse("websocket:426")] if transport == "post" else []
        async with world(outside, ChatGPT(faults=faults, answers=Answers([{"text": "Hello from afar."}]))) as here:
            rpc, report = outside / "rpc.sock", outside / "report.json"
            async with desktop_on(here, rpc):
                done = await finish(
                    COUNTERSIGN, "run", "--rpc", f"unix://{rpc}", "--report", str(report), "--",
                    codex(), "exec", "--skip-git-repo-check", "hello",
                    environment=here.environment, cwd=here.home,
                )  # fmt: skip
            assert done.code == 0, done.stderr
            assert "Hello from afar." in done.stdout
            expected = ["websocket"] if transport == "websocket" else ["websocket", "post"]
            assert [("websocket" if one.is_websocket else "post") for one in here.scoped()] == expected
            values = attestations(here.scoped())
            assert all(len(value) == 1 and value[0].startswith('{"v":1,"s":0,"t":"v1.standin-') for value in values)
            assert len({value[0] for value in values}) == len(values)
            # Its other requests pass without the header.
            assert here.others() and attestations(here.others()) == [[]] * len(here.others())
            coverage = json.loads(report.read_text())
            assert coverage["complete"] is True
            assert coverage["scoped"] == coverage["attested"] == len(values)
            assert "scoped requests carried a token" in done.stderr

    play(scenario())


def test_without_a_desktop_codex_runs_and_the_report_says_that_nothing_was_attested(outside):
    async def scenario():
        async with world(outside, ChatGPT()) as here:
            report = outside / "report.json"
            done = await finish(
                COUNTERSIGN, "run", "--report", str(report), "--",
                codex(), "exec", "--skip-git-repo-check", "hello",
                environment=here.environment, cwd=here.home,
            )  # fmt: skip
            assert done.code == 0, done.stderr
            assert attestations(here.scoped()) == [[]]
            coverage = json.loads(report.read_text())
            assert coverage["complete"] is False
            assert coverage["rows"][0]["outcome"] == "absent"

    play(scenario())


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_in_capture_only_the_native_header_of_codex_is_seen_and_left_as_it_is(outside, transport):
    async def scenario():
        faults = [Fault.parse("websocket:426")] if transport == "post" else []
        async with world(outside, ChatGPT(faults=faults)) as here:
            report = outside / "report.json"
            command = [COUNTERSIGN, "proxy", "--json", "--stamp", "never", "--report", str(report)]
            async with serving(*command, environment=here.environment) as proxy:
                environment = {**here.environment, **proxy.facts["env"]}
                script = Script(token=lambda number: f"native-{number}")
                async with spawn([codex(), "app-server"], script, environment, here.home) as desktop:
                    await desktop.initialize()
                    started = await desktop.request("thread/start", {"cwd": str(here.home)})
                    turn = await desktop.turn(started["thread"]["id"], "hello")
                assert turn["status"] == "completed"
                done = await proxy.stop()
            values = attestations(here.scoped())
            assert values == [[f'{{"v":1,"s":0,"t":"native-{number}"}}'] for number in range(1, len(values) + 1)]
            rows = json.loads(report.read_text())["rows"]
            assert {row["outcome"] for row in rows} == {"native ok"}
            assert sum(row["requests"] for row in rows) == len(values)
            assert "attestation=native:OK" in done.stderr
            assert "native-1" not in done.stderr  # the status is told, never the token

    play(scenario())


def test_a_native_header_is_replaced_when_the_proxy_stamps(outside):
    async def scenario():
        async with world(outside, ChatGPT()) as here:
            rpc = outside / "rpc.sock"
            command = [COUNTERSIGN, "proxy", "--json", "--rpc", f"unix://{rpc}"]
            async with serving(*command, environment=here.environment) as proxy:
                environment = {**here.environment, **proxy.facts["env"]}
                native, ours = Script(token=lambda _: "native"), Script(token=lambda _: "ours")
                async with connect(rpc, ours), spawn([codex(), "app-server"], native, environment) as desktop:
                    await desktop.initialize()
                    started = await desktop.request("thread/start", {"cwd": str(here.home)})
                    await desktop.turn(started["thread"]["id"], "hello")
            assert attestations(here.scoped()) == [['{"v":1,"s":0,"t":"ours"}']]

    play(scenario())


SDK_SCRIPT = """
import sys
from openai_codex import Codex, CodexConfig, Sandbox
with Codex(CodexConfig(codex_bin=sys.argv[1], cwd=sys.argv[2])) as codex:
    print(codex.metadata.serverInfo.name, codex.account().account.root.type, len(codex.models().data) > 3)
    thread = codex.thread_start(cwd=sys.argv[2], sandbox=Sandbox.full_access, model="gpt-5.5")
    first = thread.run("hello")
    print(first.final_response, first.status.value)
    second = thread.run("please use tool")
    print(second.final_response, second.status.value)
    handle = thread.turn("stream it")
    print([event.method for event in handle.stream()][-1])
"""

ASYNC_SDK_SCRIPT = """
import asyncio, sys
from openai_codex import AsyncCodex, CodexConfig, Sandbox
async def main():
    async with AsyncCodex(CodexConfig(codex_bin=sys.argv[1], cwd=sys.argv[2])) as codex:
        thread = await codex.thread_start(cwd=sys.argv[2], sandbox=Sandbox.workspace_write, model="gpt-5.5")
        print((await thread.run("hello")).final_response)
        handle = await thread.turn("slow please")
        methods = []
        async for event in handle.stream():
            methods.append(event.method)
            if event.method == "item/agentMessage/delta" and methods.count(event.method) == 1:
                await handle.steer("more")
                await handle.interrupt()
        print(methods[-1])
asyncio.run(main())
"""


def test_the_official_sdk_runs_turns_on_our_app_server(outside):
    async def scenario():
        steps = [{"text": "one"}, {"call": {"name": "exec_command", "arguments": {"cmd": "ls"}}}, {"text": "two"}]
        async with world(outside, ChatGPT(answers=Answers(steps))) as here:
            done = await finish(*python(SDK_SCRIPT, here), environment=here.environment, cwd=here.home)
            assert done.code == 0, done.stderr
            assert done.stdout.splitlines() == [
                "codex_python_sdk chatgpt True",
                "one completed",
                "two completed",
                "turn/completed",
            ]
            messages = [one.body for one in here.upstream.received if one.kind == "message"]
            outputs = [item for body in messages for item in body["input"] if item["type"] == "function_call_output"]
            (output,) = [item["output"] for item in outputs]
            assert "Process exited with code 0" in output and "auth.json" in output

    play(scenario())


def test_the_official_async_sdk_steers_and_interrupts(outside):
    async def scenario():
        async with world(outside, ChatGPT(event_delay_s=0.1)) as here:
            done = await finish(*python(ASYNC_SDK_SCRIPT, here), environment=here.environment, cwd=here.home)
            assert done.code == 0, done.stderr
            assert done.stdout.splitlines() == ["Hello from the stand-in.", "turn/completed"]

    play(scenario())


def python(script: str, here: World) -> list[str]:
    return [sys.executable, "-c", script, COUNTERSIGN, str(here.home)]
