"""kill -9 of the app-server at random moments of a turn, again and again, on one thread.

Each process takes up the thread that the former one died over, and is killed in a turn of its own: with messages, a
command and a patch. Nothing that a client was told is complete may be lost, or be there twice, for the client, for the
model or on disk; and nothing that a tool started may go on. KILLS says how often (the issue wants 200; pytest's own
limit is raised with `-o timeout=3600`), and KILLS_SEED at which moments.
"""

import asyncio
import contextlib
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from agent.core import rollout
from agent.core.tooling import OUTPUT_TYPES
from agent.standins.desktop import Desktop, Script
from proxy.standins.answers import Answers, Event
from proxy.standins.chatgpt import ChatGPT
from tests.processes import World, app_server, world

KILLS = int(os.environ.get("KILLS", "12"))
# Seconds after which none is added, unless somebody wants so many.
LONGEST_S = math.inf if "KILLS" in os.environ else 15.0
SEED = int(os.environ.get("KILLS_SEED", "1"))
# How long one process may take, and what a tool started may live on after its end.
LIFE_S, AFTERLIFE_S = 40.0, 10.0
MARK = "MARK_OF_A_KILL_TEST"


class Worker(Answers):
    """A model that runs two commands at a time, adds a file by a patch, and says what it does, in each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self._count = 0

    def events(self, request: dict[str, Any]) -> list[Event]:
        asked = [one for one in request["input"] if one.get("role") != "developer"]
        if request.get("generate") is False:
            return super().events(request)
        self.asked.set()
        self._count += 1
        number = self._count
        said = {"type": "message", "role": "assistant", "id": f"msg_{number}"}
        said["content"] = [{"type": "output_text", "text": f"This is what I say as number {number}."}]
        match asked[-1].get("type"):
            case "function_call_output":
                patch = f"*** Begin Patch\n*** Add File: file-{number}.txt\n+{number}\n*** End Patch"
                calls = [{"type": "custom_tool_call", "name": "apply_patch", "input": patch}]
            case "custom_tool_call_output":
                self._steps = [{"items": [said]}]
                return super().events(request)
            case _:
                commands = [json.dumps({"cmd": f"echo {number}; sleep {s}; echo done"}) for s in (0.0, 0.05)]
                calls = [{"type": "function_call", "name": "exec_command", "arguments": one} for one in commands]
        ids = [{"id": f"id_{number}_{place}", "call_id": f"call_{number}_{place}"} for place in range(len(calls))]
        self._steps = [{"items": [said, *(call | one for call, one in zip(calls, ids, strict=True))]}]
        return super().events(request)


@dataclass(slots=True)
class Told:
    """What the clients of all processes were told of the thread, turn by turn."""

    completed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)

    def hear(self, desktop: Desktop) -> None:
        """All that one client was told."""
        for said in desktop.notifications:
            params = said["params"]
            if said["method"] == "item/completed":
                self.completed.setdefault(params["turnId"], []).append(params["item"])
            elif said["method"] == "turn/completed":
                self.ended[params["turn"]["id"]] = params["turn"]["status"]

    def check_turns(self, turns: list[dict[str, Any]]) -> None:
        """That a resumed thread has all of it, once, in order, as it was."""
        known = {turn["id"]: turn for turn in turns}
        assert len(known) == len(turns)
        for turn_id, items in self.completed.items():
            kept = known[turn_id]["items"]
            ids = [item["id"] for item in kept]
            assert len(set(ids)) == len(ids), f"twice: {ids}"
            told = {item["id"] for item in items}
            assert [item for item in kept if item["id"] in told] == items
        for turn in turns:
            assert turn["status"] == self.ended.get(turn["id"], turn["status"])
            assert turn["status"] in ("completed", "interrupted")

    def check_history(self, items: list[dict[str, Any]]) -> None:
        """That the model is sent all of it, once, and each call with what came of it."""
        calls = [item["call_id"] for item in items if item["type"] in OUTPUT_TYPES]
        outputs = {item["call_id"]: item["output"] for item in items if item["type"] in OUTPUT_TYPES.values()}
        answered = [item["call_id"] for item in items if item["type"] in OUTPUT_TYPES.values()]
        assert sorted(calls) == sorted(set(calls)) == sorted(answered)
        texts = Counter(json.dumps(item["content"]) for item in items if item["type"] == "message")
        for item in (item for items in self.completed.values() for item in items):
            match item["type"]:
                case "agentMessage":
                    assert texts[json.dumps([{"type": "output_text", "text": item["text"]}])] == 1
                case "userMessage":
                    assert texts[json.dumps([{"type": "input_text", "text": item["content"][0]["text"]}])] == 1
                case "commandExecution":
                    # What was done is not told to the model as if it were not.
                    assert item["exitCode"] == 0 and "Process exited with code 0" in outputs[item["id"]]
                case "fileChange":
                    assert item["status"] == "completed" and "Success" in outputs[item["id"]]
                case other:
                    raise AssertionError(other)


@dataclass(slots=True)
class Lives:
    """The processes that work on the thread, one after the other."""

    here: World
    worker: Worker
    workspace: Path
    told: Told = field(default_factory=Told)
    thread_id: str | None = None
    number: int = 0

    async def one(self, moment_s: float) -> float:
        """Take up the thread, check it, and be killed in the next turn.

        Args:
            moment_s: Seconds after the model is asked; below 0, so long after the client asked for the turn.

        Returns:
            Seconds from the model's being asked to the end.
        """
        self.number += 1
        mark = f"{self.number}-{time.monotonic_ns()}"
        self.here.environment[MARK] = mark
        received = len(self.here.upstream.received)
        async with asyncio.timeout(LIFE_S), app_server(self.here, Script()) as desktop:
            await desktop.initialize()
            thread_id = await self._thread(desktop)
            self.worker.asked.clear()
            content = [{"type": "text", "text": f"turn {self.number}", "text_elements": []}]
            await desktop.request("turn/start", {"threadId": thread_id, "input": content})
            if moment_s >= 0:
                await self.worker.asked.wait()
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await desktop.wait_for("turn/completed", timeout_s=abs(moment_s))
            took_s = time.monotonic() - began
            desktop.process.kill()
            await desktop.gone.wait()
        asked = [one.body for one in self.here.upstream.received[received:] if one.kind == "message"]
        for body in [one for one in asked if one.get("generate") is not False][:1]:
            self.told.check_history(body["input"])
        self.told.hear(desktop)
        for path in self.here.home.rglob("rollout-*"):
            check_file(path)
        await nothing_lives(mark)
        return took_s

    async def _thread(self, desktop: Desktop) -> str:
        if self.thread_id is None:
            wanted = {"cwd": str(self.workspace), "approvalPolicy": "never", "sandbox": "workspace-write"}
            started = await desktop.request("thread/start", {**wanted, "model": "gpt-5.5"})
            self.thread_id = str(started["thread"]["id"])
        else:
            # Outside of bubblewrap nothing ends by itself what a tool has started.
            sandbox = "danger-full-access" if self.number % 2 else "workspace-write"
            taken_up = await desktop.request("thread/resume", {"threadId": self.thread_id, "sandbox": sandbox})
            self.told.check_turns(taken_up["thread"]["turns"])
        return self.thread_id


async def nothing_lives(mark: str) -> None:
    """That all processes with this mark are dead in a while."""
    deadline = time.monotonic() + AFTERLIFE_S
    while left := list(marked(mark)):
        assert time.monotonic() < deadline, f"still there: {left}"
        await asyncio.sleep(0.02)


def marked(mark: str) -> Iterator[str]:
    """The command lines of processes that inherited the mark."""
    wanted = f"{MARK}={mark}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                yield Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def check_file(path: Path) -> None:
    """That all lines of a rollout can be read; only those that a kill cut cannot."""
    with open(path, "rb") as lines:
        problems = rollout.read(lines).problems
    assert all("torn" in one or "interrupted" in one for one in problems), problems


def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path):
    async def scenario():
        moments = random.Random(SEED)
        worker = Worker()
        (workspace := tmp_path / "project").mkdir()
        async with world(tmp_path, ChatGPT(answers=worker, event_delay_s=0.003)) as here:
            # A login shell that is killed may leave something in its home that the next one waits for.
            here.environment["HOME"] = str(here.home)
            lives = Lives(here, worker, workspace)
            whole_s = await lives.one(LIFE_S)  # this one is killed after its turn
            assert [*lives.told.ended.values()] == ["completed"]
            enough = time.monotonic() + LONGEST_S
            while lives.number <= KILLS and time.monotonic() < enough:
                await lives.one(moments.uniform(-0.2, 1.1) * whole_s)
            await lives.one(0.0)  # sees what the last one left

    uvloop.run(scenario())
