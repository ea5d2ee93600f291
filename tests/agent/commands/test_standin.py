"""`countersign standin` and `countersign demo`: for users who verify offline."""

import asyncio
import json
import os
import signal
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest

from agent.standins.desktop import Script
from proxy.standins.chatgpt import ChatGPT
from tests.processes import COUNTERSIGN, RESPONSES, app_server, finish, play, serving, world


def test_the_stand_in_prints_how_to_reach_it_and_records_what_arrived(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            record, script = tmp_path / "record.jsonl", tmp_path / "script.json"
            script.write_text(json.dumps([{"text": "as scripted"}]))
            command = [
                COUNTERSIGN, "standin", "chatgpt", "--directory", str(tmp_path / "standin"),
                "--script", str(script), "--record", str(record),
            ]  # fmt: skip
            async with serving(*command, environment=here.environment) as standin:
                here.environment["COUNTERSIGN_UPSTREAM_MAP"] = standin.facts["upstream_map"]
                here.environment["COUNTERSIGN_UPSTREAM_CA"] = standin.facts["ca_file"]
                (here.home / "auth.json").write_text(Path(standin.facts["auth_file"]).read_text())
                async with app_server(here, Script(token=lambda _: "tok")) as desktop:
                    await desktop.initialize()
                    thread = await desktop.request("thread/start", {})
                    turn = await desktop.turn(thread["thread"]["id"], "hello")
                assert turn["items"][0]["text"] == "as scripted"
                done = await standin.stop()
            assert done.code == 0
            lines = [json.loads(line) for line in record.read_text().splitlines()]
            handshake = next(line for line in lines if line["path"] == RESPONSES and line["kind"] == "request")
            headers = {name.lower(): value for name, value in handshake["headers"]}
            assert headers["x-oai-attestation"] == '{"v":1,"s":0,"t":"tok"}'
            assert headers["authorization"] == "<redacted>"

    play(scenario())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["chatgpt", "--fault", "explode"], "a fault must be [WHERE:]KIND[:TIMES]"),
        (["chatgpt", "--fault", "post:500:0"], "a fault must be [WHERE:]KIND[:TIMES]"),
        (["chatgpt", "--script", "/no/such/file"], "--script: '/no/such/file' cannot be read: No such file"),
        (["chatgpt", "--name", "bad name"], "a host name is needed, such as chatgpt.example, found 'bad name'"),
        (["chatgpt", "--name", "*.a.example"], "found '*.a.example'"),
        (["chatgpt", "--name", ""], "found ''"),
        (["chatgpt", "--event-delay", "nan"], "a finite number of seconds is needed, 0 or more, found 'nan'"),
        (["chatgpt", "-c", "countersign.port=1"], "unrecognized arguments: -c"),
        (["desktop", "--connect", "unix:///x", "--delay", "-1"], "a finite number of seconds is needed"),
        (["desktop", "--connect", "unix:///x", "--patience", "nan"], "a finite number of seconds is needed"),
        (["desktop", "--connect", "unix:///x", "--patience", "inf"], "a finite number of seconds is needed"),
        (["chatgpt", "--port", "99999"], "a port must be 0 to 65535"),
        (["chatgpt", "--port", "-5"], "a port must be 0 to 65535"),
        (["chatgpt", "--port", "x"], "a port must be 0 to 65535"),
        (["chatgpt", "--directory", "/proc/nope"], "cannot use the directory '/proc/nope'"),
        (["chatgpt", "--directory", "/proc"], "cannot write '/proc/auth.json'"),
        (["chatgpt", "--record", "/nonexistent/x"], "cannot write the record '/nonexistent/x'"),
        (["desktop", "--connect", "tcp://x"], "an RPC address must be unix://PATH"),
        (["elsewhere"], "name a stand-in, chatgpt, desktop or apple; found 'elsewhere'"),
        ([], "name a stand-in, chatgpt, desktop or apple; found none"),
    ],
)
def test_a_stand_in_that_cannot_be_started_says_why_with_code_2(arguments, problem):
    async def scenario():
        done = await finish(COUNTERSIGN, "standin", *arguments)
        assert done.code == 2
        assert problem in done.stderr and "Traceback" not in done.stderr and done.stdout == ""

    play(scenario())


@pytest.mark.parametrize("name", ["auth.json", "ca.pem"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_directory_already_is_named_and_not_overwritten(tmp_path, name, kind):
    """A CODEX_HOME with a real sign-in was once overwritten, without a word."""

    async def scenario():
        real = tmp_path / "real"
        real.write_text("a real sign-in")
        home = tmp_path / "home"
        home.mkdir()
        if kind == "file":
            real.rename(home / name)
        else:
            (home / name).symlink_to(real)
        done = await finish(COUNTERSIGN, "standin", "chatgpt", "--directory", str(home))
        assert done.code == 2 and f"{home}/{name}' is there already" in done.stderr
        assert [path.name for path in home.iterdir()] == [name]
        assert (home / name).read_text() == "a real sign-in"

    play(scenario())


def test_what_it_writes_is_only_for_its_owner_and_a_record_holds_no_sign_in(tmp_path):
    """The record was readable for all, and had the refresh token in it."""

    async def scenario():
        record, directory = tmp_path / "record.jsonl", tmp_path / "standin"
        record.write_text("of the last time")
        record.chmod(0o644)
        command = [COUNTERSIGN, "standin", "chatgpt", "--directory", str(directory), "--record", str(record)]
        async with serving(*command, environment=dict(os.environ)) as standin:
            url = f"https://127.0.0.1:{standin.facts['port']}/oauth/token"
            context = ssl.create_default_context(cafile=standin.facts["ca_file"])
            refresh = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": "canary-1"}
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
                await session.post(url, json=refresh)
                await session.post(url, data={"code": "canary-2", "client_secret": "canary-3"})
                await session.post(url.replace("oauth/token", "elsewhere"), json={"input": "kept"})
            assert (await standin.stop()).code == 0
        bodies = [json.loads(line)["body"] for line in record.read_text().splitlines()]
        assert bodies == [
            {"grant_type": "refresh_token", "client_id": "app", "refresh_token": "<redacted>"}, "<redacted>",
            {"input": "kept"},
        ]  # fmt: skip
        assert "canary" not in record.read_text()
        for path in (record, directory / "auth.json", directory / "ca.pem"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    play(scenario())


def test_help_says_what_each_stand_in_is_for():
    async def scenario():
        shown = (await finish(COUNTERSIGN, "standin", "--help")).stdout
        assert "chatgpt   serve what an agent needs" in shown and "desktop   connect to the socket" in shown

    play(scenario())


def test_help_says_that_a_record_holds_tokens():
    async def scenario():
        shown = (await finish(COUNTERSIGN, "standin", "chatgpt", "--help")).stdout
        assert "holds the attestation tokens" in " ".join(shown.split())

    play(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_ended_by_a_signal_leaves_nothing(tmp_path, number):
    async def scenario():
        temp, runtime = tmp_path / "temp", tmp_path / "runtime"
        temp.mkdir()
        runtime.mkdir(mode=0o700)
        environment = {**os.environ, "TMPDIR": str(temp), "XDG_RUNTIME_DIR": str(runtime)}
        process = await asyncio.create_subprocess_exec(COUNTERSIGN, "demo", env=environment)
        while not list(runtime.glob("*/run-*/mitmproxy-ca.pem")):  # the app-server that it has started
            await asyncio.sleep(0.02)
        process.send_signal(number)
        assert await process.wait() == 128 + number
        assert list(temp.iterdir()) == [] and list(runtime.glob("*/*")) == []

    play(scenario())


def test_a_desktop_without_a_proxy_gives_up_and_says_so(tmp_path):
    async def scenario():
        address = f"unix://{tmp_path}/nobody.sock"
        done = await finish(COUNTERSIGN, "standin", "desktop", "--connect", address, "--patience", "0.1")
        assert done.code == 1
        assert f"nobody answers on {address}" in done.stderr
        assert "is the proxy running?" in done.stderr

    play(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_desktop_that_waits_for_its_socket_can_be_stopped(tmp_path, number):
    """It noticed a signal only when it had connected, or not at all."""

    async def scenario():
        rpc = tmp_path / "rpc.sock"
        dialled = asyncio.Event()

        async def mute(reader, writer):
            dialled.set()
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(mute, rpc):
            command = [COUNTERSIGN, "standin", "desktop", "--connect", f"unix://{rpc}", "--patience", "60"]
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            await dialled.wait()
            process.send_signal(number)
            _, stderr = await process.communicate()
            assert (process.returncode, stderr) == (128 + number, b"")

    play(scenario())


def test_a_desktop_that_is_stopped_when_connected_tells_how_often_it_was_asked(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            rpc = f"unix://{tmp_path}/rpc.sock"
            async with serving(COUNTERSIGN, "proxy", "--json", "--rpc", rpc, environment=here.environment):
                command = [COUNTERSIGN, "standin", "desktop", "--connect", rpc]
                async with serving(*command, environment=here.environment) as desktop:
                    done = await desktop.stop()
            assert (done.code, done.stdout, done.stderr) == (0, '{"asked": 0}\n', "")

    play(scenario())


def test_the_demo_shows_both_transports_attested(tmp_path):
    async def scenario():
        done = await finish(COUNTERSIGN, "demo")
        assert done.code == 0, done.stderr
        assert done.stderr == ""
        assert all(line == line.rstrip() for line in done.stdout.splitlines())
        rows = [line.split() for line in done.stdout.splitlines()]
        assert [RESPONSES, "websocket", "2", "2", "ok"] in rows
        assert [RESPONSES, "post", "1", "1", "ok"] in rows
        assert ["/backend-api/codex/models", "get", "2", "0", "none"] in rows
        assert done.stdout.count('{"v":1,"s":0,"t":"v1.standin-') == 3
        assert "All 3 scoped requests arrived with a token of their own; the other 2 arrived without.\n" in done.stdout

    play(scenario())


def test_the_demo_fails_when_a_scoped_request_arrives_unstamped():
    """The negative control of the demo's judgement."""
    from agent.commands.demo import Arrival, _problems

    good = [
        Arrival(RESPONSES, "websocket", True, "ok", "a"),
        Arrival(RESPONSES, "post", True, "ok", "b"),
        Arrival("/backend-api/codex/models", "get", False, "none", None),
    ]
    assert _problems(good) == []
    assert _problems([Arrival(RESPONSES, "websocket", True, "none", None), *good[1:]])
    assert _problems([Arrival(RESPONSES, "websocket", True, "timeout", "c"), *good[1:]])
    assert _problems([*good, Arrival("/backend-api/codex/models", "get", False, "ok", "d")])
    assert _problems([good[0], Arrival(RESPONSES, "post", True, "ok", "a"), good[2]])
    assert _problems(good[1:]) and _problems(good[:2])
