"""The app-server's sockets, as clients meet them: a process, real clients, and raw bytes."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import signal
import stat
import struct
import tempfile
import time
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect, unix_connect

from agent.standins.desktop import Desktop, Script, ServerGone
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.processes import COUNTERSIGN, attestations, finish, play, world

GOLDENS = Path(__file__).parents[3] / "shared/protocol/goldens"
with_recordings = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason=f"the recordings of the original are not at {GOLDENS}"
)

TOKEN = "open-sesame-1234"
SECRET = b"a secret of at least 32 bytes ..."
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def place():
    """A directory with a short path: those of sockets are limited to some 100 characters."""
    with tempfile.TemporaryDirectory(prefix="cs-") as directory:
        yield Path(directory)


class Listening:
    """A listening app-server; `where` is the address that it printed."""

    def __init__(self, process, banner):
        self.process = process
        self.banner = banner
        self.where = re.search("listening on: (.*)", banner)[1]

    @property
    def port(self):
        return int(self.where.rpartition(":")[2])

    @property
    def path(self):
        return Path(self.where.removeprefix("unix://"))

    def dial(self, **options):
        options = {"compression": None, "proxy": None, **options}
        if self.where.startswith("ws://"):
            return connect(self.where, **options)
        return unix_connect(str(self.path), uri="ws://localhost/", **options)

    @contextlib.asynccontextmanager
    async def desktop(self, script=None, **options):
        """One more desktop; initialised."""
        async with Desktop(script or Script(), Link(await self.dial(**options))) as desktop:
            await desktop.initialize()
            yield desktop

    async def raw(self, request):
        """What a request on a fresh connection gets, up to the end or to the head of an accepted upgrade."""
        if self.where.startswith("ws://"):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        else:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(request.encode())
        received = b""
        while piece := await reader.read(4096):
            received += piece
            if received.startswith(b"HTTP/1.1 101") and received.endswith(b"\r\n\r\n"):
                break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return received

    async def stop(self):
        """(exit code, seconds until then) after a SIGTERM."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        return code, time.monotonic() - begun


class Link:
    """The link of a stand-in desktop over a WebSocket."""

    def __init__(self, websocket):
        self._websocket = websocket

    async def send(self, text):
        try:
            await self._websocket.send(text)
        except websockets.ConnectionClosed as exc:
            raise ServerGone("the server closed its socket") from exc

    async def texts(self):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in self._websocket:
                yield message

    async def close(self):
        await self._websocket.close()


@contextlib.asynccontextmanager
async def listening(here, listen="ws://127.0.0.1:0", *arguments):
    process = await asyncio.create_subprocess_exec(
        *(COUNTERSIGN, "app-server", "--quiet", "--listen", listen, *arguments),
        stdin=asyncio.subprocess.DEVNULL,  # its end does not stop a listener
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=here.environment,
        cwd=here.home,
    )
    try:
        banner = b""
        async with asyncio.timeout(20):
            while b"listening on" not in banner:
                line = await process.stderr.readline()
                assert line, banner
                banner += line
        yield Listening(process, banner.decode())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refused(here, *arguments):
    """How an app-server ends that cannot start."""
    return await finish(COUNTERSIGN, "app-server", *arguments, environment=here.environment)


def secret_file(directory, content):
    path = directory / f"secret-{len(os.listdir(directory))}"
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def thread_of(started):
    return started["thread"]["id"]


# Serving


@pytest.mark.parametrize("listen", ["ws://127.0.0.1:0", "unix://"])
def test_a_turn_over_a_socket_is_attested_by_its_own_client(place, listen):
    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here, listen) as server:
            async with server.desktop(Script(token=lambda number: f"token-{number}")) as desktop:
                thread = thread_of(await desktop.request("thread/start", {"cwd": "/"}))
                assert (await desktop.turn(thread, "hello"))["status"] == "completed"
            assert attestations(here.scoped()) == [['{"v":1,"s":0,"t":"token-1"}']]
            # It goes on after its client has left.
            async with server.desktop() as desktop:
                assert (await desktop.request("thread/loaded/list", {}))["data"] == [thread]
            code, seconds = await server.stop()
            assert code == 0 and seconds < 2.0

    play(scenario())


def test_several_clients_are_served_at_once_and_one_that_leaves_takes_nothing_along(place):
    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here) as server:
            async with server.desktop(Script(token=lambda number: f"B-{number}", name="b")) as second:
                async with server.desktop(Script(token=lambda number: f"A-{number}", name="a")) as first:
                    mine = thread_of(await first.request("thread/start", {"cwd": "/"}))
                    theirs = thread_of(await second.request("thread/start", {"cwd": "/"}))
                    turns = await asyncio.gather(first.turn(mine, "one"), second.turn(theirs, "two"))
                    assert [turn["status"] for turn in turns] == ["completed", "completed"]
                    assert sorted(attestations(here.scoped())) == [
                        ['{"v":1,"s":0,"t":"A-1"}'],
                        ['{"v":1,"s":0,"t":"B-1"}'],
                    ]
                    completed = [one for one in second.notifications if one["method"] == "turn/completed"]
                    assert [one["params"]["threadId"] for one in completed] == [theirs]
                assert (await second.turn(theirs, "three"))["status"] == "completed"

    play(scenario())


def test_the_default_socket_is_for_its_owner_alone(place):
    async def scenario():
        async with world(place, ChatGPT()) as here:
            directory = here.home / "app-server-control"
            directory.mkdir(mode=0o755)
            async with listening(here, "unix://") as server:
                assert server.path == directory / "app-server-control.sock"
                assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
                upgraded = await server.raw(f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
                assert b"x-codex-websocket-max-unfragmented-message-bytes: 16777216\r\n" in upgraded
                assert await server.raw('{"id":1,"method":"initialize"}\n') == b""
                again = await refused(here, "--listen", "unix://")
                assert again.code == 1 and "another process listens on" in again.stderr
                server.process.kill()
                await server.process.wait()
            assert server.path.is_socket()  # left behind, and replaced
            async with listening(here, "unix://") as server, server.desktop():
                assert (await server.stop())[0] == 0
            assert not server.path.exists()

    play(scenario())


def test_a_directory_of_the_default_socket_that_is_a_link_is_refused(place):
    async def scenario():
        async with world(place, ChatGPT()) as here:
            (place / "elsewhere").mkdir()
            (here.home / "app-server-control").symlink_to(place / "elsewhere")
            ended = await refused(here, "--listen", "unix://")
            assert ended.code == 1 and "is no directory of ours" in ended.stderr
            assert list((place / "elsewhere").iterdir()) == []

    play(scenario())


# The end


def test_a_signal_in_the_middle_of_a_turn_ends_it_as_interrupted_and_the_client_is_told(place):
    async def scenario():
        async with world(place, ChatGPT(faults=[Fault.parse("stall")])) as here, listening(here) as server:
            async with server.desktop() as desktop:
                thread = thread_of(await desktop.request("thread/start", {"cwd": "/"}))
                content = [{"type": "text", "text": "hello", "text_elements": []}]
                await desktop.request("turn/start", {"threadId": thread, "input": content})
                await here.upstream.wait_for(2, "message")
                code, seconds = await server.stop()
                assert code == 0 and seconds < 2.0
                completed = await desktop.wait_for("turn/completed")
                assert completed["turn"]["status"] == "interrupted"

    play(scenario())


def test_a_signal_ends_it_in_time_also_with_a_client_that_does_not_read(place):
    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET / HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n".encode())
            async with server.desktop():
                code, seconds = await server.stop()
            assert code == 0 and seconds < 2.0
            writer.close()

    play(scenario())


# Who may connect


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


# The recordings of the original


def recorded(name):
    return [json.loads(line) for line in (GOLDENS / f"{name}.jsonl").read_text("utf-8").splitlines()][1:]


def head_of(answer):
    """The parts of an answer that are compared: ours has `connection: close` and a type for an empty body besides."""
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    kept = ("sec-websocket-accept", "content-length", "content-type") if body else ("sec-websocket-accept",)
    return status, {name: headers[name] for name in kept if name in headers}, body


@with_recordings
def test_raw_upgrades_are_answered_as_by_the_original(place):
    async def scenario():
        token = ("--ws-auth", "capability-token", "--ws-token-file", secret_file(place, f"{TOKEN}\n".encode()))
        upgrades = [line for line in recorded("transport_ws_auth_raw") if line.get("what") == "ws upgrade"]
        assert len(upgrades) == 5
        async with world(place, ChatGPT()) as here, listening(here, "ws://127.0.0.1:0", *token) as server:
            for line in upgrades:
                headers = line["request_headers"].replace("<tok>", TOKEN).replace("<redacted>", "wrong")
                ours = await server.raw(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{UPGRADE}{headers}\r\n")
                assert head_of(ours.decode()) == head_of(line["answer"])

    play(scenario())


def jwt(claims, secret=SECRET):
    def part(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (head + b"." + part(hmac.digest(secret, head, "sha256"))).decode()


def bearer(case):
    """What the recorded client of this case sent."""
    valid = {"iss": "iss1", "aud": "aud1", "exp": time.time() + 600}
    return {
        "none": None,
        "wrong": "Bearer wrong",
        "good": f"Bearer {TOKEN}",
        "basic": f"Basic {TOKEN}",
        "jwt good": f"Bearer {jwt(valid)}",
        "jwt none": None,
        "jwt expired": f"Bearer {jwt({**valid, 'exp': time.time() - 600})}",
        "jwt noexp": f"Bearer {jwt({'iss': 'iss1', 'aud': 'aud1'})}",
        "jwt badiss": f"Bearer {jwt({**valid, 'iss': 'other'})}",
        "jwt badsig": f"Bearer {jwt(valid, b'another secret of 32 bytes or more')}",
    }[case]


@with_recordings
@pytest.mark.parametrize("name", ["transport_ws_auth_token", "transport_ws_auth_sha", "transport_ws_auth_jwt"])
def test_who_was_let_in_by_the_original_is_let_in_and_nobody_else(place, name):
    lines = recorded(name)
    cases = [line["case"] for line in lines if line.get("what") == "connect"]
    turned_away = {line["conn"] for line in lines if line.get("what", "").startswith("connect failed")}
    assert turned_away and "good" in set(cases) - turned_away
    files = {
        "--ws-token-file": secret_file(place, TOKEN.encode()),
        "--ws-shared-secret-file": secret_file(place, SECRET),
        "--ws-token-sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
    }
    _, _, _, _, *given = lines[0]["argv"]  # codex app-server --listen ws://...
    arguments = [files.get(before, argument) for before, argument in zip(["", *given], given, strict=False)]
    kind = "jwt " if name.endswith("jwt") else ""

    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here, "ws://127.0.0.1:0", *arguments) as server:
            refused_here = set()
            for case in cases:
                header = bearer(kind + case)
                try:
                    async with server.dial(additional_headers={"Authorization": header} if header else {}):
                        pass
                except websockets.InvalidStatus as exc:
                    assert exc.response.status_code == 401
                    refused_here.add(case)
            assert refused_here == turned_away

    play(scenario())


@with_recordings
def test_a_websocket_client_gets_what_it_got_from_the_original(place):
    """Framing, health and the end; the contents of answers are compared by tests/agent/test_goldens.py."""
    lines = recorded("transport_ws")

    async def scenario():
        async with world(place, ChatGPT()) as here, listening(here) as server:
            sockets, ours = {}, []
            host = f"Host: 127.0.0.1:{server.port}\r\n"
            for line in lines:
                what, conn = line.get("what", ""), line.get("conn")
                if line["dir"] == "c>s":
                    if conn not in sockets:
                        sockets[conn] = await server.dial()
                    text = line.get("text") or json.dumps(line["msg"])
                    await sockets[conn].send(text.replace("<CWD>", "/"))
                    if "msg" in line and "id" in line["msg"]:
                        ours.append((conn, await answer_to(sockets[conn])))
                elif what.startswith("sent id 52"):
                    await sockets["A"].send(b'{"id": 52, "method": "thread/loaded/list", "params": {}}')
                elif match := re.match(r"GET (\S+)( with Origin)? -> (\d+) ?(.*)", what):
                    origin = "Origin: https://evil.example\r\n" if match[2] else ""
                    got = await server.raw(f"GET {match[1]} HTTP/1.1\r\n{host}{origin}\r\n")
                    status, _, body = head_of(got.decode())
                    assert status.split()[1] == match[3]
                    assert not match[4] or repr(body) == match[4]
                elif conn == "origin":
                    with pytest.raises(websockets.InvalidStatus) as failure:
                        await server.dial(origin="https://evil.example")
                    assert failure.value.response.status_code == 403
                elif what == "ws upgrade response headers":
                    headers = {name.lower() for name in sockets["A"].response.headers}
                    assert headers == {name.lower() for name in line["headers"]}
                elif what == "SIGTERM":
                    assert (await server.stop())[0] == 0
            theirs = [(one["conn"], one["msg"]) for one in lines if one["dir"] == "s>c" and "id" in one["msg"]]
            assert [shape(*one) for one in ours] == [shape(*one) for one in theirs]
            for socket in sockets.values():
                await socket.close()

    play(scenario())


async def answer_to(socket):
    """The next answer; notifications are passed over."""
    while "id" not in (message := json.loads(await socket.recv())):
        pass
    return message


def shape(conn, message):
    """An answer without what differs from machine to machine."""
    result = message.get("result")
    if result is None or "userAgent" not in result:
        return conn, message["id"], message.get("error"), sorted(result or ())
    agent = re.sub(r"\(.*?\) \S+ ", "", result["userAgent"])
    return conn, message["id"], agent.partition("/")[0], agent.rpartition(" (")[2]
