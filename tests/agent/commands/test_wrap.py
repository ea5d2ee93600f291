"""`countersign wrap -- CMD`: its arguments, what it says, and what it gives to the app-server."""

import asyncio
import json

from proxy.standins.chatgpt import ChatGPT
from tests.agent.commands.wrapped import APP_SERVER, OK, PYTHON, wrapped
from tests.processes import COUNTERSIGN, attestations, finish, play, world


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
            assert b"canary" not in stderr and b"1 of 1 scoped requests carried a token" in stderr
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
            here.environment["COUNTERSIGN_METRICS_TOKEN"] = "correct-battery"
            async with wrapped(here, tmp_path) as desktop:
                environment = await desktop.request("environment", {})
            assert environment["HTTPS_PROXY"].startswith("http://me:correct-horse@127.0.0.1:")
            assert environment["CODEX_CA_CERTIFICATE"] == environment["SSL_CERT_FILE"]
            assert "COUNTERSIGN_CREDENTIALS" not in environment
            assert "correct-battery" not in environment.values()

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
