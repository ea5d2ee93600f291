"""Who may connect to the app-server's sockets."""

import asyncio
import json
import struct

import pytest
import websockets
from websockets.asyncio.client import connect

from proxy.standins.chatgpt import ChatGPT
from tests.e2e.listening import TOKEN, UPGRADE, listening, refused, secret_file
from tests.processes import COUNTERSIGN, play, world


def test_a_capability_token_lets_in_and_nothing_else_does(place):
    async def scenario():
        token = ("--ws-auth", "capability-token", "--ws-token-file", secret_file(place, f"{TOKEN}\n".encode()))
        async with world(place, ChatGPT()) as here, listening(here, "ws://0.0.0.0:0", *token) as server:
            assert TOKEN not in server.banner
            for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
                with pytest.raises(websockets.InvalidStatus) as failure:
                    await connect(f"ws://127.0.0.1:{server.port}", additional_headers=given, proxy=None)
                assert failure.value.response.status_code == 401
            good = {"Authorization": f"Bearer {TOKEN}"}
            async with connect(f"ws://127.0.0.1:{server.port}", additional_headers=good, proxy=None):
                pass

    play(scenario())


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--listen", "ws://localhost:9732"], 2, "'localhost' is no IP address"),
        (["--listen", "ws://0.0.0.0:0"], 1, "add --ws-auth"),
        (["--listen", "ws://[::]:0"], 1, "add --ws-auth"),
        (["--listen", "off"], 1, "no remote control"),
        (["--listen", "nowhere"], 2, "is no address"),
        (["--listen", "unix://", "--ws-auth", "capability-token"], 2, "for --listen ws://IP:PORT only"),
        (["--ws-auth", "capability-token"], 2, "for --listen ws://IP:PORT only"),
        (["--listen", "ws://127.0.0.1:0", "--ws-token-file", "t"], 2, "without --ws-auth capability-token"),
        (["--listen", "ws://127.0.0.1:0", "--ws-issuer", "i"], 2, "without --ws-auth signed-bearer-token"),
        (["--listen", "ws://127.0.0.1:0", "--ws-auth", "capability-token"], 2, "needs one of --ws-token-file"),
        (
            ["--listen", "ws://127.0.0.1:0", "--ws-auth", "capability-token", "--ws-issuer", "i"],
            2,
            "--ws-issuer has no part in --ws-auth capability-token",
        ),
        (
            ["--listen", "ws://127.0.0.1:0", "--ws-auth", "capability-token", "--ws-token-sha256", TOKEN],
            2,
            "64 hexadecimal digits",
        ),
        (
            ["--listen", "ws://127.0.0.1:0", "--ws-auth", "capability-token", "--ws-token-file", "/missing"],
            1,
            "cannot read '/missing'",
        ),
        (["--listen", "ws://127.0.0.1:0", "--ws-auth", "signed-bearer-token"], 2, "needs --ws-shared-secret-file"),
    ],
)
def test_what_would_not_protect_or_not_work_is_refused_at_the_start(place, arguments, code, reason):
    async def scenario():
        async with world(place, ChatGPT()) as here:
            ended = await refused(here, *arguments)
            assert (ended.code, ended.stdout) == (code, "") and reason in ended.stderr and TOKEN not in ended.stderr

    play(scenario())


def test_a_short_secret_is_refused_and_not_shown(place):
    async def scenario():
        async with world(place, ChatGPT()) as here:
            path = secret_file(place, b"too-short-a-secret")
            ended = await refused(
                here,
                *("--listen", "ws://127.0.0.1:0", "--ws-auth", "signed-bearer-token", "--ws-shared-secret-file", path),
            )
            assert ended.code == 1 and "at least 32 are needed" in ended.stderr and "too-short" not in ended.stderr

    play(scenario())


# countersign app-server proxy


def test_the_proxy_passes_the_bytes_of_a_websocket_as_they_are(place):
    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here, f"unix://{place}/s.sock") as server:
            proxy = await asyncio.create_subprocess_exec(
                *(COUNTERSIGN, "app-server", "proxy", "--sock", str(server.path)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=here.environment,
            )
            proxy.stdin.write(f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
            assert (await proxy.stdout.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            params = {"clientInfo": {"name": "far", "version": "1"}}
            text = json.dumps({"id": 1, "method": "initialize", "params": params}).encode()
            # One text frame, masked with zeros.
            proxy.stdin.write(b"\x81" + bytes([0x80 | 126]) + struct.pack(">H", len(text)) + bytes(4) + text)
            assert await proxy.stdout.readuntil(b'"platformOs"')
            await server.stop()
            proxy.stdin.close()
            assert await proxy.wait() == 0

    play(scenario())


def test_the_proxy_says_when_nobody_listens(place):
    async def scenario():
        async with world(place, ChatGPT()) as here:
            ended = await refused(here, "proxy", "--sock", str(place / "none.sock"))
            assert ended.code == 1 and "No such file" in ended.stderr and "running?" in ended.stderr
            ended = await refused(here, "proxy")
            assert ended.code == 1 and "app-server-control.sock" in ended.stderr

    play(scenario())
