"""What a model may ask for that would bring an app-server to its knees, with real processes."""

import asyncio
import json
import os
import signal
import time

from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from tests.e2e.test_bad_input import END_S, begun, client
from tests.processes import play, world

PATCH = "*** Begin Patch\n*** Delete File: fifo\n*** End Patch"


def calls(name, **arguments):
    """A model that makes this call, and then says something."""
    return ChatGPT(answers=Answers([{"call": {"name": name, "arguments": arguments}}]))


def test_half_a_letter_in_a_call_ends_no_turn(tmp_path):
    """What the model was told of it could not be sent, nor anything later in that thread."""

    async def scenario():
        upstream = calls("exec_command", cmd="true", sandbox_permissions="\ud800")
        async with world(tmp_path, upstream) as here, client(here) as desktop:
            thread_id = await begun(desktop, tmp_path)
            assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "completed"
            assert (await desktop.turn(thread_id, "again"))["status"] == "completed"

    play(scenario())


def test_a_patch_of_what_never_ends_holds_neither_the_turn_nor_the_process(tmp_path):
    """It waited for a writer of the FIFO: no interruption ended that, and no SIGTERM."""

    async def scenario():
        os.mkfifo(tmp_path / "fifo")
        upstream = calls("exec_command", cmd=f"apply_patch <<'EOF'\n{PATCH}\nEOF")
        async with world(tmp_path, upstream) as here, client(here) as desktop:
            await begun(desktop, tmp_path)
            async with asyncio.timeout(20):
                assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "completed"
            sent = [one.body for one in here.upstream.received if one.kind == "message"][-1]["input"]
            assert "verification failed" in json.dumps(sent)
            began = time.monotonic()
            desktop.process.send_signal(signal.SIGTERM)
            assert await desktop.process.wait() == 0
            assert time.monotonic() - began < END_S

    play(scenario())
