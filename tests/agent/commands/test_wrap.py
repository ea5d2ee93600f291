"""`countersign wrap -- CMD`: real children between a desktop and the proxy."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.standins.desktop import Manner, Script, spawn
from proxy.standins.chatgpt import ChatGPT
from tests.processes import COUNTERSIGN, attestations, finish, play, world

PYTHON = sys.executable
OK = '{"v":1,"s":0,"t":"%s"}'

# An app-server that keeps what it was told, and sends a model request when asked to. It asks for no tokens.
APP_SERVER = """
import json, os, sys, urllib.request
kept = open(os.environ["KEPT"], "wb", buffering=0)
def say(**message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\\n")
    sys.stdout.buffer.flush()
for line in sys.stdin.buffer:
    kept.write(line)
    message = json.loads(line)
    match message.get("method"):
        case "initialize":
            say(id=message["id"], result={})
        case "post":
            url = "https://chatgpt.com/backend-api/codex/responses"
            request = urllib.request.Request(url, b'{"input":[]}', {"thread-id": "t-1", **message["params"]})
            with urllib.request.urlopen(request) as answer:
                answer.read()
            say(id=message["id"], result={"status": answer.status})
        case "ask":
            say(id=0, method="attestation/generate", params={})
            kept.write(sys.stdin.buffer.readline())
            say(id=message["id"], result={})
        case "environment":
            say(id=message["id"], result=dict(os.environ))
sys.exit(5)
"""


@contextlib.asynccontextmanager
async def wrapped(here, directory, script=None, *options):
    """A desktop with the app-server above behind `countersign wrap`."""
    environment = {**here.environment, "KEPT": str(directory / "kept")}
    command = [COUNTERSIGN, "wrap", *options, "--", PYTHON, "-c", APP_SERVER]
    async with spawn(command, script or numbered(), environment, here.home) as desktop:
        yield desktop


def numbered(manner=Manner.TOKEN, **more):
    return Script(manner=manner, token=lambda number: f"token-{number}", **more)


def kept(directory):
    """What the app-server was told, message by message."""
    return [json.loads(line) for line in (directory / "kept").read_bytes().splitlines()]


# Tokens


def test_what_an_app_server_that_never_asks_sends_is_stamped_with_the_desktops_tokens(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with wrapped(here, tmp_path) as desktop:
                await desktop.initialize()
                for _ in range(2):
                    assert await desktop.request("post", {}) == {"status": 200}
            assert attestations(here.scoped()) == [[OK % "token-1"], [OK % "token-2"]]
            ids = [request["id"] for request in desktop.requests]
            assert len(set(ids)) == 2 and all(isinstance(one, str) for one in ids)
            # The questions and their answers are no business of the app-server's.
            assert [message.get("method") for message in kept(tmp_path)] == [
                "initialize",
                "initialized",
                "post",
                "post",
            ]
            assert desktop.process.returncode == 5

    play(scenario())


def test_a_desktop_that_declared_nothing_is_not_asked_and_nothing_is_stamped(tmp_path):
    """The control of the one above."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with wrapped(here, tmp_path, numbered(attests=False)) as desktop:
                await desktop.initialize()
                await desktop.request("post", {})
            assert attestations(here.scoped()) == [[]]
            assert desktop.requests == []
            said = kept(tmp_path)[0]["params"]["capabilities"]
            assert said["requestAttestation"] is False

    play(scenario())


def test_before_the_app_server_has_accepted_the_desktop_it_is_not_asked(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with wrapped(here, tmp_path) as desktop:
                await desktop.request("post", {})
                await desktop.initialize()
                await desktop.request("post", {})
            assert attestations(here.scoped()) == [[], [OK % "token-1"]]

    play(scenario())


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (numbered(Manner.ERROR), '{"v":1,"s":2}'),
        (numbered(Manner.SILENT), '{"v":1,"s":1}'),
        (numbered(Manner.NULL), '{"v":1,"s":4}'),
        (numbered(Manner.ARRAY), OK % "token-1"),
        (numbered(delay_s=0.3), '{"v":1,"s":1}'),  # and the late answer is for nobody
    ],
    ids=["error", "silent", "null", "array", "late"],
)
def test_a_desktop_without_a_token_is_told_by_the_status(tmp_path, script, expected):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with wrapped(here, tmp_path, script) as desktop:
                await desktop.initialize()
                await desktop.request("post", {})
                while desktop._tasks:  # until the late answer is on its way
                    await asyncio.wait(set(desktop._tasks))
                await desktop.request("environment", {})
            assert attestations(here.scoped()) == [[expected]]
            methods = [message.get("method") for message in kept(tmp_path)]
            assert methods == ["initialize", "initialized", "post", "environment"]

    play(scenario())


def test_the_app_servers_own_question_and_its_answer_pass(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with wrapped(here, tmp_path) as desktop:
                await desktop.initialize()
                await desktop.request("ask", {})
                await desktop.request("post", {})
            assert [request["id"] for request in desktop.requests][:1] == [0]
            assert {"id": 0, "result": {"token": "token-1"}} in kept(tmp_path)
            assert attestations(here.scoped()) == [[OK % "token-2"]]

    play(scenario())


NATIVE = '{"v":1,"s":0,"t":"native"}'


@pytest.mark.parametrize(
    ("mode", "own", "expected", "asked"),
    [
        ("always", NATIVE, [OK % "token-1"], 1),
        ("missing", NATIVE, [NATIVE], 0),
        ("missing", None, [OK % "token-1"], 1),
        ("never", NATIVE, [NATIVE], 0),
        ("never", None, [], 0),
    ],
)
def test_the_stamp_mode_decides_what_becomes_of_a_header_of_the_app_servers_own(tmp_path, mode, own, expected, asked):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with wrapped(here, tmp_path, None, "--stamp", mode) as desktop:
                await desktop.initialize()
                await desktop.request("post", {} if own is None else {"x-oai-attestation": own})
            assert attestations(here.scoped()) == [expected]
            assert desktop.asked == asked

    play(scenario())


# Bytes


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


# How it ends


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
        ("missing", 127, "not found on PATH"),
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
        program.write_bytes(b"\x7fELF and nothing else")
        program.chmod(0o755 if kind == "format" else 0o644)

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


# What is said of it


def test_the_report_tells_what_was_stamped_and_no_token_is_told_at_any_verbosity(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            report = tmp_path / "report.json"
            environment = {
                **here.environment,
                "KEPT": str(tmp_path / "kept"),
                "COUNTERSIGN_CREDENTIALS": "me:canary-secret",
            }
            options = ["-vv", "--report", str(report), "--captures", str(tmp_path / "captures")]
            command = [COUNTERSIGN, "wrap", *options, "--", PYTHON, "-c", APP_SERVER]
            messages = [
                {"id": 1, "method": "initialize", "params": INITIALIZE},
                {"id": 2, "method": "post", "params": {"authorization": "Bearer canary-bearer"}},
            ]
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, env=environment,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            for message in messages:
                process.stdin.write(json.dumps(message).encode() + b"\n")
            while b'"id": 2' not in (line := await process.stdout.readline()):
                asked = json.loads(line)
                if asked.get("method") == "attestation/generate":
                    reply = {"id": asked["id"], "result": {"token": "canary-token"}}
                    process.stdin.write(json.dumps(reply).encode() + b"\n" + json.dumps(reply).encode() + b"\n")
            _, stderr = await process.communicate()
            assert process.returncode == 5
            assert attestations(here.scoped()) == [[OK % "canary-token"]]
            assert b"canary" not in stderr and b"All 1 scoped requests carried a token" in stderr
            assert "canary" not in report.read_text()
            captured = b"".join(path.read_bytes() for path in (tmp_path / "captures").rglob("*") if path.is_file())
            assert b"backend-api/codex/responses" in captured and b"canary" not in captured
            coverage = json.loads(report.read_text())
            assert coverage["complete"] is True and coverage["attested"] == 1
            assert "canary" not in (tmp_path / "kept").read_text().replace("canary-bearer", "")

    play(scenario())


INITIALIZE = {"clientInfo": {"name": "d", "version": "1"}, "capabilities": {"requestAttestation": True}}


def test_a_report_that_cannot_be_written_is_told_before_the_app_server_starts(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            started = tmp_path / "started"
            command = ["--report", str(tmp_path / "missing" / "report.json"), "--", "touch", str(started)]
            done = await finish(COUNTERSIGN, "wrap", *command, environment=here.environment)
            assert done.code == 2 and not started.exists()
            assert "cannot write the report" in done.stderr

    play(scenario())


def test_the_app_server_gets_the_proxy_and_none_of_our_secrets(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            here.environment["COUNTERSIGN_CREDENTIALS"] = "me:correct-horse"
            async with wrapped(here, tmp_path) as desktop:
                environment = await desktop.request("environment", {})
            assert environment["HTTPS_PROXY"].startswith("http://me:correct-horse@127.0.0.1:")
            assert environment["CODEX_CA_CERTIFICATE"] == environment["SSL_CERT_FILE"]
            assert "COUNTERSIGN_CREDENTIALS" not in environment

    play(scenario())


def test_an_app_server_that_is_not_named_is_a_usage_error():
    async def scenario():
        for arguments in ([], ["--"], ["--stamp", "missing"]):
            done = await finish(COUNTERSIGN, "wrap", *arguments)
            assert done.code == 2 and "an app-server is needed, found none" in done.stderr

    play(scenario())


def test_an_app_server_that_listens_elsewhere_cannot_be_wrapped(tmp_path):
    async def scenario():
        started = tmp_path / "started"
        program = tmp_path / "codex"
        program.write_text(f"#!/bin/sh\ntouch {started}\n")
        program.chmod(0o755)
        done = await finish(COUNTERSIGN, "wrap", "--", str(program), "app-server", "--listen", "ws://127.0.0.1:1")
        assert done.code == 2 and "the app-server must speak on stdin and stdout" in done.stderr
        assert not started.exists()

    play(scenario())


def test_a_socket_for_a_desktop_is_not_ours_to_open(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            here.environment["COUNTERSIGN_RPC"] = f"unix://{tmp_path}/rpc.sock"
            done = await finish(COUNTERSIGN, "wrap", "--", "true", environment=here.environment)
            assert done.code == 0
            assert "COUNTERSIGN_RPC is not used: the desktop speaks on stdin and stdout" in done.stderr
            assert (await finish(COUNTERSIGN, "wrap", "--rpc", "unix:///x", "--", "true")).code == 2

    play(scenario())


def test_a_broken_config_is_the_app_servers_to_complain_of_unless_it_may_hold_ours(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            (here.home / "config.toml").write_text("[")
            done = await finish(COUNTERSIGN, "wrap", "--", "sh", "-c", "echo up", environment=here.environment)
            assert (done.code, done.stdout) == (0, "up\n")
            (here.home / "config.toml").write_text("[countersign]\nstamp = [")
            done = await finish(COUNTERSIGN, "wrap", "--", "sh", "-c", "echo up", environment=here.environment)
            assert (done.code, done.stdout) == (2, "") and "is not TOML" in done.stderr

    play(scenario())
