"""What goes wrong around a turn, with real processes: signals, silence, floods, and files that somebody has spoilt."""

import asyncio
import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agent.core import rollout
from agent.rpc.jsonrpc import RequestFailed
from agent.standins.desktop import Desktop, Script
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.processes import COUNTERSIGN, World, app_server, play, world

# What the issue allows between the signal and the end.
END_S = 2.0
STORED_TURNS = {"excludeTurns": False}


class Client(Desktop):
    """A desktop that gives one answer to all questions but those for tokens; an exception is none at all."""

    answer: Any = TimeoutError()

    async def _answer(self, message: dict[str, Any]) -> None:
        if message["method"] == "attestation/generate":
            await super()._answer(message)
        elif not isinstance(self.answer, Exception):
            await self.send({"id": message["id"], **self.answer})


@contextlib.asynccontextmanager
async def client(here: World, answer: Any = None):
    """A `Client` on an app-server of its own; initialised."""
    async with app_server(here, Script()) as desktop:
        desktop.__class__ = Client
        desktop.answer = TimeoutError() if answer is None else answer
        await desktop.initialize()
        yield desktop


async def begun(desktop: Desktop, cwd: Path, **settings: str) -> str:
    """A thread with a turn that runs; the thread."""
    wanted = {"cwd": str(cwd), "model": "gpt-5.5", "approvalPolicy": "never", "sandbox": "workspace-write"}
    thread_id = (await desktop.request("thread/start", {**wanted, **settings}))["thread"]["id"]
    content = [{"type": "text", "text": "hello", "text_elements": []}]
    await desktop.request("turn/start", {"threadId": thread_id, "input": content})
    return str(thread_id)


def command(cmd: str, **more: object) -> Answers:
    """A model that runs this command, and then says something."""
    return Answers([{"call": {"name": "exec_command", "arguments": {"cmd": cmd, **more}}}])


def last_input(here: World) -> list[dict[str, Any]]:
    return [one.body for one in here.upstream.received if one.kind == "message"][-1]["input"]


# SIGTERM


@pytest.mark.parametrize("during", ["the answer", "a command", "an approval"])
def test_a_sigterm_ends_a_turn_as_interrupted_and_its_file_is_whole(tmp_path, during):
    async def scenario():
        escalated = {"sandbox_permissions": "require_escalated", "justification": "why not"}
        upstream = {
            "the answer": lambda: ChatGPT(faults=[Fault.parse("stall:1")]),
            "a command": lambda: ChatGPT(answers=command("echo begun; sleep 60", yield_time_ms=30_000)),
            "an approval": lambda: ChatGPT(answers=command("true", **escalated)),
        }[during]()
        async with world(tmp_path, upstream) as here:
            async with client(here) as desktop:
                thread_id = await begun(desktop, tmp_path, approvalPolicy="on-request")
                match during:
                    case "the answer":
                        await here.upstream.wait_for(2, "message")
                    case "a command":
                        await desktop.wait_for("item/commandExecution/outputDelta")
                    case "an approval":
                        await desktop.wait_for("thread/status/changed", 2)
                began = time.monotonic()
                desktop.process.send_signal(signal.SIGTERM)
                assert await desktop.process.wait() == 0
                assert time.monotonic() - began < END_S
                await desktop.gone.wait()
                assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "interrupted"
            (path,) = here.home.rglob("rollout-*")
            stored = rollout.read(path.read_bytes().splitlines(keepends=True))
            assert (stored.problems, stored.closing) == ([], [])
            assert [turn.wire["status"] for turn in stored.turns] == ["interrupted"]
            async with client(here) as desktop:
                taken_up = await desktop.request("thread/resume", {"threadId": thread_id, **STORED_TURNS})
                assert [turn["status"] for turn in taken_up["thread"]["turns"]] == ["interrupted"]
                assert (await desktop.turn(thread_id, "again"))["status"] == "completed"

    play(scenario())


# Clients


@pytest.mark.parametrize(
    "answer",
    [
        {"result": None},
        {"result": 5},
        {"result": []},
        {"result": {"decision": "yes, please"}},
        {"result": {"decision": {"acceptWithExecpolicyAmendmant": {}}}},
        {"result": {"decision": ["accept"]}},
        {"error": {"code": -32000, "message": "no"}},
    ],
    ids=["null", "number", "list", "unknown", "misspelt", "in-a-list", "error"],
)
def test_a_nonsensical_answer_to_an_approval_is_none_and_the_turn_goes_on(tmp_path, answer):
    async def scenario():
        touch = command(f"touch {tmp_path}/ran", sandbox_permissions="require_escalated", justification="why not")
        async with world(tmp_path, ChatGPT(answers=touch)) as here, client(here, answer) as desktop:
            await begun(desktop, tmp_path, approvalPolicy="on-request", sandbox="read-only")
            completed = await desktop.wait_for("turn/completed", timeout_s=10)
            assert completed["turn"]["status"] == "completed"
            assert "Rejected" in last_input(here)[-1]["output"]
            assert not (tmp_path / "ran").exists()

    play(scenario())


def test_an_approval_that_is_never_answered_waits_and_can_be_interrupted(tmp_path):
    async def scenario():
        touch = command(f"touch {tmp_path}/ran", sandbox_permissions="require_escalated", justification="why not")
        async with world(tmp_path, ChatGPT(answers=touch)) as here, client(here) as desktop:
            thread_id = await begun(desktop, tmp_path, approvalPolicy="on-request", sandbox="read-only")
            waits = await desktop.wait_for("thread/status/changed", 2)
            assert waits["status"]["activeFlags"] == ["waitingOnApproval"]
            turn_id = (await desktop.wait_for("turn/started"))["turn"]["id"]
            await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
            assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "interrupted"
            assert (await desktop.turn(thread_id, "go on"))["status"] == "completed"
            assert not (tmp_path / "ran").exists()

    play(scenario())


def test_a_client_that_does_not_read_a_thousand_notifications_gets_them_all_once_it_reads(tmp_path):
    async def scenario():
        words = " ".join(str(number) for number in range(1000))
        async with world(tmp_path, ChatGPT(answers=Answers([{"text": words}]))) as here:
            process = await asyncio.create_subprocess_exec(
                *(COUNTERSIGN, "app-server", "--quiet"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=here.environment,
                limit=4096,  # the reader stops at twice this
            )
            info = {"clientInfo": {"name": "c", "version": "1"}}
            start = {"cwd": str(tmp_path), "model": "gpt-5.5"}
            for number, (method, params) in enumerate([("initialize", info), ("thread/start", start)]):
                process.stdin.write(json.dumps({"id": number, "method": method, "params": params}).encode() + b"\n")
            said: list[dict[str, Any]] = []
            while not any(one.get("id") == 1 for one in said):
                said.append(json.loads(await read_line(process.stdout)))
            thread_id = next(one for one in said if one.get("id") == 1)["result"]["thread"]["id"]
            content = [{"type": "text", "text": "hello", "text_elements": []}]
            turn = {"id": 2, "method": "turn/start", "params": {"threadId": thread_id, "input": content}}
            process.stdin.write(json.dumps(turn).encode() + b"\n")
            # Nothing is read until the thread's file says that the turn is over.
            async with asyncio.timeout(30):
                while not any(b'"turn_ended"' in path.read_bytes() for path in here.home.rglob("rollout-*")):
                    await asyncio.sleep(0.05)
            while not any(one.get("method") == "turn/completed" for one in said):
                said.append(json.loads(await read_line(process.stdout)))
            deltas = [one["params"]["delta"] for one in said if one.get("method") == "item/agentMessage/delta"]
            assert len(deltas) == 1000 and "".join(deltas) == words
            process.stdin.close()
            assert await process.wait() == 0

    play(scenario())


async def read_line(stream: asyncio.StreamReader) -> bytes:
    """A line of any length."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            piece = await stream.readuntil(b"\n")
        except asyncio.LimitOverrunError as exc:
            piece = await stream.readexactly(exc.consumed)
        line += piece
    return line


# Tools


def test_a_tool_that_prints_a_gigabyte_costs_little_memory_and_the_turn_goes_on(tmp_path):
    async def scenario():
        flood = command("head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo end", yield_time_ms=30_000)
        async with world(tmp_path, ChatGPT(answers=flood)) as here, client(here) as desktop:
            await begun(desktop, tmp_path)
            completed = await desktop.wait_for("turn/completed", timeout_s=60)
            assert completed["turn"]["status"] == "completed"
            output = last_input(here)[-1]["output"]
            assert "code 0" in output and output.rstrip().endswith("end")
            assert len(output) < 100_000
            assert peak_mib(desktop.process.pid) < 150
            assert sum(len(json.dumps(one)) for one in desktop.notifications) < 8 * 1024 * 1024

    play(scenario())


def peak_mib(pid: int) -> float:
    """VmHWM."""
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


# Threads on disk


def test_a_thread_that_another_process_has_loaded_is_refused_with_the_reason(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here, client(here) as first, client(here) as second:
            thread_id = await begun(first, tmp_path)
            await first.wait_for("turn/completed")
            with pytest.raises(RequestFailed, match="another process has this thread loaded; end it there first"):
                await second.request("thread/resume", {"threadId": thread_id})
            # The control: it is the other process that keeps it.
            first.process.kill()
            await first.process.wait()
            await second.request("thread/resume", {"threadId": thread_id})
            assert (await second.turn(thread_id, "again"))["status"] == "completed"

    play(scenario())


def test_garbage_in_the_middle_of_a_file_is_told_and_the_rest_goes_on(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with client(here) as desktop:
                thread_id = await begun(desktop, tmp_path)
                await desktop.wait_for("turn/completed")
                await desktop.turn(thread_id, "second")
            (path,) = here.home.rglob("rollout-*")
            lines = path.read_bytes().splitlines(keepends=True)
            middle = next(number for number, line in enumerate(lines) if b'"turn_ended"' in line) + 1
            spoilt = [
                b"\xff\xfe\x00 garbage\n",
                b"{}\n",
                b'{"type":"thread_item","payload":[]}\n',
                lines[-1][:40] + b"\n",
            ]
            path.write_bytes(b"".join([*lines[:middle], *spoilt, *lines[middle:]]))
            async with client(here) as desktop:
                taken_up = await desktop.request("thread/resume", {"threadId": thread_id, **STORED_TURNS})
                turns = taken_up["thread"]["turns"]
                kinds = [[item["type"] for item in turn["items"]] for turn in turns]
                assert kinds == [["userMessage", "agentMessage"]] * 2
                warning = await desktop.wait_for("warning")
                for number in range(middle + 1, middle + 1 + len(spoilt)):
                    assert f"line {number} cannot be read, and is left out" in warning["message"]
                assert (await desktop.turn(thread_id, "third"))["status"] == "completed"
            said = [item["role"] for item in last_input(here) if item.get("role") in ("user", "assistant")]
            assert said[-5:] == ["user", "assistant", "user", "assistant", "user"]

    play(scenario())
