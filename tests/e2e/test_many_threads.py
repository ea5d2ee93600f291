"""Many threads in one app-server: each runs its turn, is attested for itself, and costs little."""

import asyncio
from pathlib import Path

from agent.standins.desktop import Desktop, spawn
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from tests.e2e.one_turn import numbered
from tests.processes import COUNTERSIGN, World, attestations, play, world

THREADS = 100
MOST_MIB_A_THREAD = 1.0
# As macOS has it; on Linux it usually is 1024.
OPEN_FILES = 256


def limited(here: World):
    """An app-server that was started with a low limit of open files."""
    command = f"ulimit -Sn {OPEN_FILES}; exec '{COUNTERSIGN}' app-server --quiet"
    return spawn(["sh", "-c", command], numbered(), here.environment, here.home)


async def one_turn(desktop: Desktop, cwd: Path) -> str:
    """Start a thread and its turn; the thread."""
    wanted = {"cwd": str(cwd), "model": "gpt-5.5", "sandbox": "read-only", "approvalPolicy": "never"}
    thread_id = (await desktop.request("thread/start", wanted))["thread"]["id"]
    content = [{"type": "text", "text": "hello", "text_elements": []}]
    await desktop.request("turn/start", {"threadId": thread_id, "input": content})
    return str(thread_id)


def resident_mib(pid: int) -> float:
    """VmRSS."""
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def test_a_hundred_threads_at_a_time_complete_are_stamped_and_need_little_memory(tmp_path):
    async def scenario():
        limit = {"call": {"name": "exec_command", "arguments": {"cmd": "ulimit -Sn"}}}
        async with world(tmp_path, ChatGPT(answers=Answers([limit]))) as here, limited(here) as desktop:
            await desktop.initialize()
            # What one thread needs is loaded before it is measured.
            await one_turn(desktop, tmp_path)
            await desktop.wait_for("turn/completed")
            items = [one["params"]["item"] for one in desktop.notifications if one["method"] == "item/completed"]
            # We may open more; what we start may as many as ever.
            (said,) = (one["aggregatedOutput"] for one in items if one["type"] == "commandExecution")
            assert said.split()[-1] == str(OPEN_FILES)
            before = resident_mib(desktop.process.pid)
            threads = await asyncio.gather(*(one_turn(desktop, tmp_path) for _ in range(THREADS)))
            await desktop.wait_for("turn/completed", THREADS + 1)
            grown = resident_mib(desktop.process.pid) - before
            turns = [one["params"] for one in desktop.notifications if one["method"] == "turn/completed"]
            assert [one["turn"]["status"] for one in turns] == ["completed"] * (THREADS + 1)
            assert {one["threadId"] for one in turns[1:]} == set(threads)
            assert grown < THREADS * MOST_MIB_A_THREAD
            stamped = attestations(here.scoped())
            assert [len(values) for values in stamped] == [1] * (THREADS + 1)
            # The stand-in and the desktop are one busy process here, in which an answer may come too late.
            tokens = [value for (value,) in stamped if '"t":' in value]
            assert len(set(tokens)) == len(tokens) > THREADS // 4
            assert len(list(here.home.rglob("rollout-*"))) == THREADS + 1

    play(scenario())
