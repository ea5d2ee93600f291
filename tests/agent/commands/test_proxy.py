"""`countersign proxy`: what it prints is what an agent needs."""

import asyncio
import base64
import contextlib
import json
import logging
import shlex
import signal
import socket
import ssl
import stat
import sys
from pathlib import Path

import pytest

from agent.standins.desktop import Script, connect
from proxy.standins.chatgpt import ChatGPT
from tests.processes import COUNTERSIGN, RESPONSES, attestations, finish, play, serving, world


async def post(facts: dict, path: str) -> int:
    """POST through a running proxy with what it printed, as an agent would; the status."""
    import aiohttp

    context = ssl.create_default_context(cafile=facts["env"]["SSL_CERT_FILE"])
    async with aiohttp.ClientSession() as session:
        url = f"https://chatgpt.com{path}"
        async with session.post(url, json={"input": []}, proxy=facts["env"]["HTTPS_PROXY"], ssl=context) as answer:
            await answer.read()
            return answer.status


def test_the_printed_environment_is_all_that_a_client_needs(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            rpc = tmp_path / "sockets" / "rpc.sock"
            command = [COUNTERSIGN, "proxy", "--json", "--rpc", f"unix://{rpc}"]
            async with serving(*command, environment=here.environment) as proxy:
                facts = proxy.facts
                assert facts["rpc"] == f"unix://{rpc}"
                assert facts["https_proxy"] == facts["env"]["HTTPS_PROXY"]
                assert facts["https_proxy"].endswith(f"@127.0.0.1:{facts['port']}")
                assert stat.S_IMODE(rpc.stat().st_mode) == 0o600
                assert "PRIVATE" not in Path(facts["ca_file"]).read_text() + Path(facts["bundle_file"]).read_text()
                async with connect(rpc, Script(token=lambda number: f"t{number}")):
                    assert await post(facts, RESPONSES) == 200
                    assert await post(facts, "/backend-api/codex/other") == 404
                directory = Path(facts["ca_file"]).parent
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
                done = await proxy.stop()
            assert done.code == 0
            assert attestations(here.scoped()) == [['{"v":1,"s":0,"t":"t1"}']]
            assert attestations(here.others()) == [[]]
            assert "1 of 1 scoped requests carried a token (out of scope: 1" in done.stderr
            assert not directory.exists() and not rpc.exists()

    play(scenario())


def test_without_json_the_output_can_be_evaluated_by_a_shell(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "proxy", "-q", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                env=here.environment,
            )  # fmt: skip
            assert process.stdout is not None
            lines = []
            async for line in process.stdout:
                lines.append(line.decode())
                if line.startswith(b"#"):
                    break
            *exports, comment = lines
            exported = dict(shlex.split(line)[1].split("=", 1) for line in exports)
            assert {"HTTPS_PROXY", "CODEX_CA_CERTIFICATE", "SSL_CERT_FILE", "NO_PROXY"} <= set(exported)
            assert not any(name.startswith("COUNTERSIGN_") for name in exported)
            assert comment.startswith("# desktop: countersign standin desktop --connect unix:///")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0

    play(scenario())


def test_flags_beat_the_environment_and_fixed_credentials_come_from_the_environment_only(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            environment = {
                **here.environment,
                "COUNTERSIGN_PORT": "1",
                "COUNTERSIGN_CREDENTIALS": "me:correct-horse",
            }
            command = [COUNTERSIGN, "proxy", "--json", "--port", str(port)]
            async with serving(*command, environment=environment) as proxy:
                assert proxy.facts["https_proxy"] == f"http://me:correct-horse@127.0.0.1:{port}"
                done = await proxy.stop()
            assert "correct-horse" not in done.stderr
            help_page = (await finish(COUNTERSIGN, "proxy", "--help")).stdout
            assert "--credentials" not in help_page  # argv is public

    play(scenario())


def test_the_next_countersign_of_a_shell_that_took_the_exports_works(tmp_path):
    """COUNTERSIGN_RPC was among them, and sent the next one to the socket of the first."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            script = """
                "$0" proxy -q > "$1" & proxy=$!
                until [ -s "$1" ]; do sleep 0.05; done
                . "$1"
                "$0" run -- true; code=$?
                kill $proxy; wait $proxy; exit $code
            """
            command = ["sh", "-c", script, COUNTERSIGN, str(tmp_path / "env.sh")]
            done = await finish(*command, environment=here.environment)
            assert done.code == 0, done.stderr

    play(scenario())


def test_a_socket_that_is_taken_is_blamed_on_where_its_path_came_from(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            address = f"unix://{tmp_path}/rpc.sock"
            environment = {**here.environment, "COUNTERSIGN_RPC": address}
            async with serving(COUNTERSIGN, "proxy", "--json", environment=environment):
                for command in (["proxy"], ["run", "--", "true"]):
                    done = await finish(COUNTERSIGN, *command, environment=environment)
                    assert done.code == 1
                    assert f"countersign {command[0]}: COUNTERSIGN_RPC: another process listens on" in done.stderr

    play(scenario())


@pytest.mark.parametrize(("arguments", "level"), [([], logging.INFO), (["-v"], logging.DEBUG), (["-q"], logging.ERROR)])
def test_each_flag_of_loudness_makes_a_difference(arguments, level):
    """-v was the same as none."""
    probe = """
import logging, sys
from agent.commands.proxy import main
assert main([*sys.argv[1:], "--port", "x"], []) == 2
print(logging.getLogger("proxy").getEffectiveLevel())
"""

    async def scenario():
        done = await finish(sys.executable, "-c", probe, *arguments)
        assert done.stdout == f"{level}\n", done.stderr

    play(scenario())


def test_a_refused_host_is_logged_with_the_option_that_admits_it(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with serving(COUNTERSIGN, "proxy", "--json", environment=here.environment) as proxy:
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.facts["port"])
                user = proxy.facts["https_proxy"].removeprefix("http://").partition("@")[0]
                basic = base64.b64encode(user.encode()).decode()
                writer.write(f"CONNECT a.example:443 HTTP/1.1\r\nProxy-Authorization: Basic {basic}\r\n\r\n".encode())
                assert b"403" in await reader.readline() and b"--allow-host" in await reader.read()
                writer.close()
                done = await proxy.stop()
            assert "target='a.example:443' reason=not-allowed option=--allow-host" in done.stderr

    play(scenario())


@pytest.mark.parametrize("where", ["port", "rpc"])
def test_a_place_that_is_taken_is_named_and_ends_with_code_1(tmp_path, where):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            taken = tmp_path / "taken"
            taken.write_text("not a socket")
            place = str(here.upstream.port) if where == "port" else f"unix://{taken}"
            done = await finish(COUNTERSIGN, "proxy", f"--{where}", place, environment=here.environment)
            assert done.code == 1
            assert done.stdout == ""
            assert done.stderr.count("countersign proxy:") == 1
            assert place.removeprefix("unix://") in done.stderr
            assert "choose another" in done.stderr
            assert taken.read_text() == "not a socket"

    play(scenario())


def test_a_bad_credential_is_refused_without_being_repeated(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            environment = {**here.environment, "COUNTERSIGN_CREDENTIALS": "hunter2"}
            done = await finish(COUNTERSIGN, "proxy", environment=environment)
            assert done.code == 2
            assert "COUNTERSIGN_CREDENTIALS: proxy credentials must be USER:SECRET" in done.stderr
            assert "hunter2" not in done.stderr

    play(scenario())


def test_the_report_holds_the_coverage_as_json(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            report = tmp_path / "report.json"
            command = [COUNTERSIGN, "proxy", "--json", "--report", str(report)]
            async with serving(*command, environment=here.environment) as proxy:
                assert await post(proxy.facts, RESPONSES) == 200
                await proxy.stop()
            written = json.loads(report.read_text())
            assert written["rows"] == [
                {"route": "responses", "transport": "post", "outcome": "absent", "requests": 1}
            ]  # fmt: skip
            assert written["complete"] is False

    play(scenario())


def test_a_report_that_cannot_be_written_is_told_at_the_start(tmp_path):
    async def scenario():
        done = await finish(COUNTERSIGN, "proxy", "--report", str(tmp_path / "missing" / "report.json"))
        assert done.code == 2 and done.stdout == ""
        assert "cannot write the report" in done.stderr and "missing" in done.stderr

    play(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_neither_key_nor_socket(tmp_path, number):
    """A terminal that was closed (SIGHUP) once left both."""
    runtime, rpc = tmp_path / "runtime", tmp_path / "rpc.sock"
    runtime.mkdir(mode=0o700)

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            environment = {**here.environment, "XDG_RUNTIME_DIR": str(runtime)}
            command = [COUNTERSIGN, "proxy", "--json", "--rpc", f"unix://{rpc}"]
            async with serving(*command, environment=environment) as proxy:
                assert rpc.exists() and list(runtime.glob("*/run-*/mitmproxy-ca.pem")) != []
                assert (await proxy.stop(number)).code == 0
        assert list(runtime.glob("*/*")) == [] and not rpc.exists()

    play(scenario())


def test_a_desktop_that_has_hung_does_not_hold_up_the_end(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            rpc = tmp_path / "rpc.sock"
            command = [COUNTERSIGN, "proxy", "--json", "--rpc", f"unix://{rpc}"]
            async with serving(*command, environment=here.environment) as proxy:
                desktop = await asyncio.create_subprocess_exec(
                    COUNTERSIGN, "standin", "desktop", "--connect", f"unix://{rpc}", stdout=asyncio.subprocess.PIPE
                )
                assert desktop.stdout is not None and b"connected" in await desktop.stdout.readline()
                desktop.send_signal(signal.SIGSTOP)
                async with asyncio.timeout(8):
                    assert (await proxy.stop()).code == 0
                desktop.kill()
                await desktop.wait()

    play(scenario())


def test_under_nohup_a_closed_terminal_does_not_end_it(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            command = ["sh", "-c", "trap '' HUP; exec \"$0\" proxy --json", COUNTERSIGN]
            async with serving(*command, environment=here.environment) as proxy:
                proxy.process.send_signal(signal.SIGHUP)
                assert await post(proxy.facts, RESPONSES) == 200

    play(scenario())


def test_400_connections_that_say_nothing_keep_nobody_out(tmp_path):
    """With 256 descriptors they took all, and the desktop's socket was reset too, without a word in the log."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here, contextlib.AsyncExitStack() as stack:
            rpc = tmp_path / "rpc.sock"
            command = ["sh", "-c", 'ulimit -n 256; exec "$0" "$@"', COUNTERSIGN]
            command += ["proxy", "--json", "--rpc", f"unix://{rpc}"]
            async with serving(*command, environment=here.environment) as proxy:
                for _ in range(400):
                    _, writer = await asyncio.open_connection("127.0.0.1", proxy.facts["port"])
                    stack.callback(writer.close)
                async with connect(rpc, Script(token=lambda number: f"t{number}")):
                    assert await post(proxy.facts, RESPONSES) == 200
                done = await proxy.stop()
            assert attestations(here.scoped()) == [['{"v":1,"s":0,"t":"t1"}']]
            assert "connections dropped" in done.stderr and "Traceback" not in done.stderr

    play(scenario())


def test_certificates_that_cannot_be_read_are_told_in_one_line(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            (tmp_path / "roots.pem").write_text("no certificate")
            environment = {**here.environment, "SSL_CERT_FILE": str(tmp_path / "roots.pem")}
            done = await finish(COUNTERSIGN, "proxy", "-q", environment=environment)
            assert done.code == 1 and done.stderr.count("\n") == 1
            assert "roots.pem" in done.stderr and "SSL_CERT_FILE" in done.stderr

    play(scenario())
