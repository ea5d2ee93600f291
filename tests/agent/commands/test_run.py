"""`countersign run -- CMD`: the command's exit code is ours, and its environment leads through the proxy."""

import asyncio
import json
import os
import signal
import sys

import pytest

from proxy.standins.chatgpt import ChatGPT
from tests.processes import COUNTERSIGN, finish, play, world

PYTHON = sys.executable


def waits_for(number: signal.Signals, code: int) -> str:
    """A script that says when it is up, and exits with `code` on this signal."""
    return f"""
import signal, sys
signal.signal({int(number)}, lambda *_: sys.exit({code}))
print("up", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("code", [0, 1, 3, 77])
def test_the_exit_code_is_the_commands(tmp_path, code):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(COUNTERSIGN, "run", "--", "sh", "-c", f"exit {code}", environment=here.environment)
            assert done.code == code
            assert "No scoped request was made" in done.stderr
            assert done.stdout == ""

    play(scenario())


def test_a_command_that_dies_of_a_signal_is_reported_as_a_shell_would(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(COUNTERSIGN, "run", "--", "sh", "-c", "kill -KILL $$", environment=here.environment)
            assert done.code == 128 + signal.SIGKILL

    play(scenario())


def test_a_command_that_is_not_there_ends_with_127(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(COUNTERSIGN, "run", "--", "no-such-command", environment=here.environment)
            assert done.code == 127
            assert "cannot run 'no-such-command': not found on PATH" in done.stderr

    play(scenario())


def test_the_commands_own_options_and_streams_are_its_own(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            script = "import sys; print(sys.argv[1:], sys.stdin.read())"
            done = await finish(
                COUNTERSIGN, "run", "--", PYTHON, "-c", script, "--port", "x", "--", "-v",
                environment=here.environment, stdin=b"typed",
            )  # fmt: skip
            assert done.stdout == "['--port', 'x', '--', '-v'] typed\n"
            assert done.code == 0

    play(scenario())


@pytest.mark.parametrize("between", [["--"], []])
def test_what_stands_behind_the_first_word_of_the_command_is_the_commands_also_without_the_two_dashes(
    tmp_path, between
):
    """`run sh -c true` took -c for its own, and `run sh -- x` dropped the dashes."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            script = 'printf "%s\\n" "$*"'
            command = ["-q", *between, "sh", "-c", script, "0", "--port", "x", "--", "-v"]
            done = await finish(COUNTERSIGN, "run", *command, environment=here.environment)
            assert (done.code, done.stdout) == (0, "--port x -- -v\n")

    play(scenario())


def test_an_option_that_does_not_exist_is_not_taken_for_the_command(tmp_path):
    async def scenario():
        done = await finish(COUNTERSIGN, "run", "--bogus", "touch", str(tmp_path / "made"))
        assert done.code == 2 and "--bogus" in done.stderr
        assert not (tmp_path / "made").exists()

    play(scenario())


def test_the_child_is_led_through_the_proxy_and_not_told_fixed_credentials_twice(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            environment = {
                **here.environment,
                "COUNTERSIGN_CREDENTIALS": "me:correct-horse",
                "https_proxy": "http://elsewhere:1",
                "NO_PROXY": "chatgpt.com,git.corp.example",
            }
            script = "import json, os; print(json.dumps(dict(os.environ)))"
            done = await finish(COUNTERSIGN, "run", "--", PYTHON, "-c", script, environment=environment)
            child = json.loads(done.stdout)
            assert child["HTTPS_PROXY"] == child["https_proxy"]
            assert child["HTTPS_PROXY"].startswith("http://me:correct-horse@127.0.0.1:")
            assert child["NO_PROXY"] == child["no_proxy"] == "localhost,127.0.0.1,::1,git.corp.example"
            assert "COUNTERSIGN_CREDENTIALS" not in child

    play(scenario())


def test_an_announced_desktop_is_waited_for_and_its_absence_is_told(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            rpc = tmp_path / "rpc.sock"
            done = await finish(
                COUNTERSIGN, "run", "--rpc", f"unix://{rpc}", "--wait-desktop", "0.2", "--", "true",
                environment=here.environment,
            )  # fmt: skip
            assert done.code == 0
            line = (
                f"no desktop that makes tokens came to unix://{rpc} within 0.2 s; the command runs without attestation"
            )
            assert line in done.stderr  # in one piece, however long the path

    play(scenario())


def test_a_desktop_is_not_awaited_where_none_is_asked(tmp_path):
    """It waited, and then said that the command would run without attestation."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            started = tmp_path / "started"
            command = [COUNTERSIGN, "run", "--wait-desktop", "60", "touch", str(started)]
            environment = {**here.environment, "COUNTERSIGN_STAMP": "never"}
            done = await finish(*command, environment=environment)
            assert done.code == 2 and not started.exists()
            assert "--wait-desktop: no desktop is asked, since COUNTERSIGN_STAMP is 'never'" in done.stderr
            command = [COUNTERSIGN, "run", "--rpc", f"unix://{tmp_path}/rpc.sock", "touch", str(started)]
            done = await finish(*command, environment=environment)
            assert done.code == 0 and started.exists() and "desktop" not in done.stderr

    play(scenario())


@pytest.mark.parametrize("wanted", ["nan", "inf", "-1", "soon"])
def test_a_wait_that_is_no_number_of_seconds_is_refused(wanted):
    async def scenario():
        done = await finish(COUNTERSIGN, "run", "--wait-desktop", wanted, "--", "true")
        assert done.code == 2
        assert f"--wait-desktop: a finite number of seconds is needed, 0 or more, found '{wanted}'" in done.stderr

    play(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_is_passed_on_to_the_command(tmp_path, number):
    """SIGHUP once ended us and left the command behind, without its proxy."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            script = waits_for(number, 9)
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "run", "--", PYTHON, "-c", script,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=here.environment,
            )  # fmt: skip
            assert process.stdout is not None
            assert await process.stdout.readline() == b"up\n"
            process.send_signal(number)
            assert await process.wait() == 9

    play(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_while_the_desktop_is_awaited_leaves_neither_key_nor_socket_nor_command(tmp_path, number):
    """They stayed, since nobody handled signals before the command was there."""
    runtime, rpc, started = tmp_path / "runtime", tmp_path / "rpc.sock", tmp_path / "started"
    runtime.mkdir(mode=0o700)

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "run", "--rpc", f"unix://{rpc}", "--wait-desktop", "60", "--", "touch", str(started),
                env={**here.environment, "XDG_RUNTIME_DIR": str(runtime)},
            )  # fmt: skip
            while not rpc.exists():
                await asyncio.sleep(0.02)
            assert list(runtime.glob("*/run-*/mitmproxy-ca.pem")) != []
            process.send_signal(number)
            assert await process.wait() == 128 + number
        assert list(runtime.glob("*/*")) == [] and not rpc.exists() and not started.exists()

    play(scenario())


def test_a_report_that_cannot_be_written_is_told_before_the_command_runs(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            started = tmp_path / "started"
            done = await finish(
                COUNTERSIGN, "run", "--report", str(tmp_path / "missing" / "report.json"), "--", "touch", str(started),
                environment=here.environment,
            )  # fmt: skip
            assert done.code == 2 and not started.exists()
            assert done.stderr.startswith("countersign run: cannot write the report") and "missing" in done.stderr

    play(scenario())


def test_one_that_fails_in_the_end_is_told_and_the_exit_code_stays_the_commands(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            done = await finish(
                COUNTERSIGN, "run", "--report", "/dev/full", "--", "sh", "-c", "exit 7", environment=here.environment
            )
            assert done.code == 7
            assert "cannot write the report '/dev/full': No space left on device" in done.stderr

    play(scenario())


def test_ctrl_c_is_the_commands_to_answer(tmp_path):
    """A terminal sends it to the whole group; we outlive the command to report."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            script = waits_for(signal.SIGINT, 5)
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "run", "--", PYTHON, "-c", script,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=here.environment,
                start_new_session=True,
            )  # fmt: skip
            assert process.stdout is not None
            assert await process.stdout.readline() == b"up\n"
            os.killpg(process.pid, signal.SIGINT)
            _, stderr = await process.communicate()
            assert process.returncode == 5
            assert b"No scoped request was made" in stderr
            assert b"Traceback" not in stderr

    play(scenario())


def test_a_missing_command_is_a_usage_error(tmp_path):
    async def scenario():
        done = await finish(COUNTERSIGN, "run")
        assert done.code == 2
        assert "-- CMD" in done.stderr

    play(scenario())
