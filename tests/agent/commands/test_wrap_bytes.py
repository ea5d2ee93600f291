"""`countersign wrap -- CMD`: what passes between the desktop and the app-server, and what it costs."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from agent.standins.desktop import spawn
from proxy.standins.chatgpt import ChatGPT
from tests.agent.commands.wrapped import APP_SERVER, OK, PYTHON, numbered
from tests.processes import COUNTERSIGN, attestations, play, world

STRANGE = (
    b'{"id":1,"method":"x"}\r\n\n\r\n  \n{not json\n\xff\xfe\x00\nContent-Length: 2\r\n\r\n{}'
    + b'{"id":"countersign-","result":{}}\n'
    + b'{"long":"' + b"x" * 3_000_000 + b'"}\n' + os.urandom(500_000) + b"\nno end"
)  # fmt: skip
# Keeps what it was told up to the end of file, and then says what is in a file.
PARROT = """
import os, shutil, sys
shutil.copyfileobj(sys.stdin.buffer, open(os.environ["KEPT"], "wb"))
shutil.copyfileobj(open(os.environ["SAID"], "rb"), sys.stdout.buffer)
"""


def test_garbage_of_both_passes_byte_for_byte(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            said = STRANGE[::-1]
            (tmp_path / "said").write_bytes(said)
            environment = {**here.environment, "KEPT": str(tmp_path / "kept"), "SAID": str(tmp_path / "said")}
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", PYTHON, "-c", PARROT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=environment,
            )  # fmt: skip
            stdout, stderr = await process.communicate(STRANGE)
            assert process.returncode == 0, stderr
            assert digest(stdout) == digest(said)
            assert digest((tmp_path / "kept").read_bytes()) == digest(STRANGE)
            assert stderr.splitlines()[-1].startswith(b"No scoped request was made")

    play(scenario())


def digest(content):
    return len(content), hashlib.sha256(content).hexdigest()


FLOOD_BYTES = 300_000_000
FLOOD = """
import sys
print("up", flush=True)
for _ in range(int(sys.argv[1]) // 1_000_000):
    sys.stdout.buffer.write(b"x" * 1_000_000)
"""
MOST_GROWTH_BYTES = 16_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_flood_without_a_line_end_that_nobody_reads_costs_no_memory_and_arrives_whole(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", PYTHON, "-c", FLOOD, str(FLOOD_BYTES),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=here.environment,
                limit=64 * 1024,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            assert await process.stdout.readline() == b"up\n"
            before, busy_s = peak_memory(process.pid), processor_time(process.pid)
            # The other way is free meanwhile, and bounded too: the child reads nothing of it.
            process.stdin.write(b"y" * FLOOD_BYTES)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.stdin.drain(), 1.0)
            assert peak_memory(process.pid) - before < MOST_GROWTH_BYTES
            assert processor_time(process.pid) - busy_s < 0.5  # it waits, and does not look again and again
            count = 0
            while content := await process.stdout.read(1_000_000):
                count += len(content)
                assert content.count(b"x") == len(content)
            assert count == FLOOD_BYTES
            assert await process.wait() == 0
            process.stdin.transport.abort()

    play(scenario())


def peak_memory(pid):
    """Bytes: the most that has been resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def processor_time(pid):
    """Seconds that it has been running."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_question_gets_through_while_the_app_server_floods(tmp_path):
    flooding = APP_SERVER.replace("kept = ", FLOODING + "kept = ", 1)
    assert flooding != APP_SERVER

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            environment = {**here.environment, "KEPT": str(tmp_path / "kept")}
            command = [COUNTERSIGN, "wrap", "--", PYTHON, "-c", flooding]
            async with spawn(command, numbered(), environment, here.home) as desktop:
                await desktop.initialize()
                for _ in range(3):
                    assert await desktop.request("post", {}) == {"status": 200}
            assert attestations(here.scoped()) == [[OK % f"token-{number}"] for number in (1, 2, 3)]
            assert len(desktop.notifications) > 100

    play(scenario())


FLOODING = """
import threading
def flood():
    while True:
        os.write(1, b'{"method":"noise","params":{"text":"' + b"n" * 2000 + b'"}}\\n')  # one write: whole lines
threading.Thread(target=flood, daemon=True).start()
"""
