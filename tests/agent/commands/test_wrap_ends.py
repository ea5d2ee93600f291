"""`countersign wrap -- CMD`: how it ends, and what it leaves."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from proxy.standins.chatgpt import ChatGPT
from tests.agent.commands.wrapped import PYTHON
from tests.processes import COUNTERSIGN, finish, play, world


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 128 + signal.SIGKILL)])
def test_the_exit_code_is_the_app_servers_also_when_the_desktop_stays(tmp_path, script, code):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", "sh", "-c", f"echo last words; {script}",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=here.environment,
            )  # fmt: skip
            assert process.stdout is not None
            assert await process.stdout.read() == b"last words\n"
            assert await process.wait() == code

    play(scenario())


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("missing", 127, "not found"),
        ("interpreter", 127, "the interpreter that it names is not there"),
        ("mode", 126, "Permission denied"),
        ("directory", 126, "Permission denied"),
        ("format", 126, "Exec format error"),
    ],
)
def test_an_app_server_that_cannot_be_run_ends_as_in_a_shell_and_says_why(tmp_path, kind, code, reason):
    program = tmp_path / "program"
    if kind == "directory":
        program.mkdir()
    elif kind != "missing":
        program.write_bytes(b"#!/no/such/interpreter\n" if kind == "interpreter" else b"\x7fELF and nothing else")
        program.chmod(0o644 if kind == "mode" else 0o755)

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(COUNTERSIGN, "wrap", "--", str(program), environment=here.environment)
            assert (done.code, done.stdout) == (code, "")
            assert done.stderr.splitlines()[-1] == f"countersign wrap: cannot run {str(program)!r}: {reason}"

    play(scenario())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_the_app_server_gets_three_descriptors_and_no_copies_of_them(tmp_path):
    """With copies it could close neither its input nor its output: the other end would not notice."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(COUNTERSIGN, "wrap", "--", "ls", "/proc/self/fd", environment=here.environment)
            assert done.stdout.split() == ["0", "1", "2", "3"]  # the last is the directory that is listed

    play(scenario())


def test_a_process_that_the_app_server_leaves_behind_does_not_keep_us(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", "sh", "-c", "sleep 600 & echo $!; exit 4",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=here.environment,
            )  # fmt: skip
            assert process.stdout is not None
            left = int(await process.stdout.readline())
            try:
                assert await process.wait() == 4
                assert await process.stdout.read() == b""
            finally:
                os.kill(left, signal.SIGKILL)

    play(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_is_passed_on_and_the_answer_to_it_is_the_app_servers(tmp_path, number):
    script = f"""
import signal, sys
signal.signal({int(number)}, lambda *_: sys.exit(9))
print("up", flush=True)
while True:
    signal.pause()
"""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", PYTHON, "-c", script,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=here.environment,
            )  # fmt: skip
            assert process.stdout is not None
            assert await process.stdout.readline() == b"up\n"
            process.send_signal(number)
            _, stderr = await process.communicate()
            assert process.returncode == 9
            assert b"No scoped request was made" in stderr and b"Traceback" not in stderr

    play(scenario())


def test_a_desktop_that_reads_nothing_is_waited_for_until_a_signal_comes(tmp_path):
    script = "import os; os.write(1, b'x' * 100_000); open(os.environ['KEPT'], 'w').close(); os._exit(6)"

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            reading, writing = os.pipe()
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", PYTHON, "-c", script,
                stdin=asyncio.subprocess.DEVNULL, stdout=writing,
                env={**here.environment, "KEPT": str(tmp_path / "kept")},
            )  # fmt: skip
            os.close(writing)
            while not (tmp_path / "kept").exists():
                await asyncio.sleep(0.02)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), 0.5)
            process.terminate()
            assert await process.wait() == 6
            os.close(reading)

    play(scenario())


def test_nothing_of_a_run_is_left(tmp_path):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            environment = {**here.environment, "XDG_RUNTIME_DIR": str(runtime)}
            script = f"ls {runtime}/*/run-*/mitmproxy-ca.pem"
            done = await finish(COUNTERSIGN, "wrap", "--", "sh", "-c", script, environment=environment)
            assert done.code == 0 and done.stdout.endswith("mitmproxy-ca.pem\n")
            assert list(runtime.glob("*/*")) == []

    play(scenario())


def test_a_desktop_that_closed_our_stderr_still_gets_the_exit_code(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            reading, writing = os.pipe()
            os.close(reading)
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--report", "/dev/full", "--", "sh", "-c", "exit 7",
                stdin=asyncio.subprocess.DEVNULL, stderr=writing, env=here.environment,
            )  # fmt: skip
            os.close(writing)
            assert await process.wait() == 7

    play(scenario())


def test_a_desktop_that_started_us_without_stderr_reads_nothing_of_ours(tmp_path):
    """The table at the end came out of stdout, among the messages of the app-server."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            script = 'exec "$0" wrap -- echo up 2>&-'
            done = await finish("sh", "-c", script, COUNTERSIGN, environment=here.environment)
            assert (done.code, done.stdout) == (0, "up\n")

    play(scenario())
