"""Clients that connect to a Unix socket, and the place of that socket.

Longer than most modules: that a client is served is how each test sees whose socket it is.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys

import pytest
import websockets
from websockets.asyncio.client import unix_connect

from agent.rpc.listen import MAX_FRAME_BYTES, SocketUnavailable, listen_unix, socket_path
from tests.agent.rpc.memory import served
from tests.loops import on_each_loop

INITIALIZE = {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "desktop", "version": "1"}}}


@pytest.fixture
def path(tmp_path):
    """Where the socket goes, in a directory of our own."""
    return tmp_path / "rpc.sock"


@contextlib.asynccontextmanager
async def listening(path):
    async with served() as it, listen_unix(path, it.server.serve):
        yield it


def dial(path, **options):
    return unix_connect(str(path), uri="ws://localhost/rpc", **{"compression": None, **options})


async def initialized(path, **options):
    """Whether a client can do its handshake there."""
    async with dial(path, **options) as client:
        await client.send(json.dumps(INITIALIZE))
        return "result" in json.loads(await client.recv())


@on_each_loop
def test_a_client_is_served_and_the_socket_is_gone_afterwards(run, path):
    async def scenario():
        async with listening(path):
            assert await initialized(path)
        assert not path.exists()

    run(scenario())


@on_each_loop
def test_the_socket_is_only_for_its_owner_whatever_the_umask(run, path):
    async def scenario():
        previous = os.umask(0)
        try:
            async with listening(path):
                status = path.stat()
                assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
                assert os.umask(0) == 0  # and the umask is as it was
        finally:
            os.umask(previous)

    run(scenario())


def test_a_directory_that_has_to_be_made_is_only_for_its_owner(run, tmp_path):
    async def scenario():
        previous = os.umask(0)
        try:
            async with listening(tmp_path / "new" / "one" / "rpc.sock"):
                for made in (tmp_path / "new", tmp_path / "new" / "one"):
                    assert stat.S_IMODE(made.stat().st_mode) == 0o700
        finally:
            os.umask(previous)

    run(scenario())


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "", "file://"])
def test_a_web_page_is_refused(run, path, origin):
    """B1: a page can reach a local service, and cannot leave out its Origin."""

    async def scenario():
        async with listening(path) as it:
            with pytest.raises(websockets.InvalidStatus) as refusal:
                await dial(path, additional_headers={"Origin": origin})
            assert refusal.value.response.status_code == 403
            assert it.initialized == [] and await initialized(path)  # without one it is served

    run(scenario())


def test_the_answer_to_the_upgrade_tells_the_limit_and_no_version(run, path):
    async def scenario():
        async with listening(path), dial(path) as client:
            headers = client.response.headers
            assert headers["x-codex-websocket-max-unfragmented-message-bytes"] == str(MAX_FRAME_BYTES) == "16777216"
            assert "Server" not in headers

    run(scenario())


@on_each_loop
def test_binary_frames_and_texts_that_are_no_messages_are_ignored(run, path):
    async def scenario():
        async with listening(path), dial(path) as client:
            for odd in (json.dumps(INITIALIZE).encode(), b"\xff", "{not json", json.dumps(INITIALIZE) + "\n{}", ""):
                await client.send(odd)
            await client.send(json.dumps(INITIALIZE))
            assert json.loads(await client.recv())["id"] == 1

    run(scenario())


def test_a_frame_that_is_not_utf8_ends_that_connection_and_no_other(run, path):
    async def scenario():
        async with listening(path), dial(path) as broken:
            await broken.send(b"\xff\xfe", text=True)
            with pytest.raises(websockets.ConnectionClosedError):
                await broken.recv()
            assert await initialized(path)

    run(scenario())


def test_what_is_no_websocket_gets_nothing_from_us(run, path):
    async def scenario():
        async with listening(path) as it:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(json.dumps(INITIALIZE).encode() + b"\n")
            writer.write_eof()
            assert b"result" not in await reader.read()
            writer.close()
            await writer.wait_closed()
            assert it.initialized == []

    run(scenario())


@on_each_loop
def test_a_client_that_leaves_is_forgotten(run, path):
    async def scenario():
        async with listening(path) as it:
            async with dial(path) as client:
                message = dict(INITIALIZE)
                message["params"] = {**INITIALIZE["params"], "capabilities": {"requestAttestation": True}}
                await client.send(json.dumps(message))
                await client.recv()
                attester = it.connections.any_attester()
                question = asyncio.create_task(attester.request("attestation/generate", {}))
                await client.recv()
            with pytest.raises(ConnectionError):
                await question
            assert it.connections.any_attester() is None

    run(scenario())


# The place of the socket


LEFT_BEHIND = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
os._exit(0)
"""


@on_each_loop
def test_a_socket_that_a_dead_process_left_is_replaced(run, path):
    subprocess.run([sys.executable, "-c", LEFT_BEHIND, str(path)], check=True)
    assert path.is_socket()

    async def scenario():
        async with listening(path):
            assert await initialized(path)

    run(scenario())


@on_each_loop
def test_a_socket_with_a_listener_is_left_to_it(run, path):
    """The negative control of the replacement: one fact is changed, the other process lives."""

    async def scenario():
        async with listening(path):
            with pytest.raises(SocketUnavailable, match="another process listens on"):
                async with listening(path):
                    pass
            assert await initialized(path)

    run(scenario())


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "dangling link", "fifo"])
def test_what_is_no_socket_of_ours_is_left_alone(run, path, kind):
    """I5: also a link, which somebody else may have put there."""
    with socket.socket(socket.AF_UNIX) as elsewhere:
        match kind:
            case "file":
                path.write_text("precious")
            case "directory":
                path.mkdir()
            case "link to a socket":
                elsewhere.bind(str(path.with_name("other")))
                path.symlink_to(path.with_name("other"))
            case "dangling link":
                path.symlink_to(path.with_name("missing"))
            case "fifo":
                os.mkfifo(path)
        before = path.lstat().st_ino

        async def scenario():
            with pytest.raises(SocketUnavailable, match="no socket of ours"):
                async with listening(path):
                    pass

        run(scenario())
    assert path.lstat().st_ino == before


@pytest.mark.parametrize(
    ("mode", "is_refused"), [(0o777, True), (0o770, True), (0o722, True), (0o1777, False), (0o755, False)]
)
def test_a_directory_in_which_others_could_swap_the_socket_is_refused(run, tmp_path, mode, is_refused):
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)

    async def scenario():
        async with listening(place / "rpc.sock"):
            assert await initialized(place / "rpc.sock")

    if is_refused:
        with pytest.raises(SocketUnavailable, match="others may write"):
            run(scenario())
        assert list(place.iterdir()) == []
    else:
        run(scenario())


def test_a_path_that_is_too_long_says_so(run, tmp_path):
    async def scenario():
        with pytest.raises(SocketUnavailable, match="too long for a socket; choose another path"):
            async with listening(tmp_path / ("x" * 120)):
                pass

    run(scenario())


def test_a_directory_that_cannot_be_made_says_why(run, tmp_path):
    (tmp_path / "file").touch()

    async def scenario():
        with pytest.raises(SocketUnavailable, match="cannot listen on"):
            async with listening(tmp_path / "file" / "rpc.sock"):
                pass

    run(scenario())


@on_each_loop
def test_when_the_listener_stops_its_clients_are_told(run, path):
    async def scenario():
        async with listening(path):
            client = await dial(path)
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        await client.close()

    run(scenario())


async def hung_client(path):
    """A desktop that did its handshake and does not read or answer any more, until its process is killed."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(
        b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return writer


@on_each_loop
def test_a_client_that_has_hung_does_not_hold_up_the_end(run, path):
    """It once took ten seconds, the patience of the library."""

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(listening(path))
            writer = await hung_client(path)
            async with asyncio.timeout(5):
                await stack.aclose()
                assert asyncio.all_tasks() == {asyncio.current_task()}  # nor does anything that goes on behind
            writer.close()

    run(scenario())


@on_each_loop
def test_who_starts_while_another_one_still_ends_keeps_its_socket(run, path):
    """The one that ended once removed the new one's: nobody could connect after a restart."""

    async def scenario():
        async with contextlib.AsyncExitStack() as former:
            await former.enter_async_context(listening(path))
            writer = await hung_client(path)
            ending = asyncio.create_task(former.aclose())
            while path.exists():
                await asyncio.sleep(0)
            async with listening(path):
                await ending
                assert await initialized(path)
            writer.close()
        assert not path.exists()

    run(scenario())


def test_a_socket_that_is_not_ours_any_more_is_left_to_its_owner(run, path):
    async def scenario():
        async with contextlib.AsyncExitStack() as former:
            await former.enter_async_context(listening(path))
            path.unlink()
            async with listening(path):
                await former.aclose()
                assert await initialized(path)

    run(scenario())


def test_two_that_start_at_once_do_so_one_after_the_other(run, path):
    """Between bind and listen a socket looks dead, and the second start once took it away from the first."""

    async def scenario():
        descriptor = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # as another process does in that moment
        async with contextlib.AsyncExitStack() as stack:
            start = asyncio.create_task(stack.enter_async_context(listening(path)))
            await asyncio.sleep(0.1)
            assert not start.done() and not path.exists()
            os.close(descriptor)
            await start
            assert await initialized(path)

    run(scenario())


def test_one_that_is_held_up_by_another_for_too_long_says_so(run, path):
    async def scenario():
        descriptor = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(SocketUnavailable, match="does not finish"):
            async with listening(path):
                pass
        os.close(descriptor)

    run(scenario())


def test_a_listener_that_accepts_nobody_is_one_too(run, path):
    """Its backlog was full, and the start once waited for it without end."""

    async def scenario():
        with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
            busy.bind(str(path))
            busy.listen(0)
            for _ in range(3):
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect_ex(str(path))
            with pytest.raises(SocketUnavailable, match="another process listens on"):
                async with listening(path):
                    pass

    run(scenario())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(run, tmp_path):
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    os.chown(place, 12345, -1)

    async def scenario():
        with pytest.raises(SocketUnavailable, match="of another user"):
            async with listening(place / "rpc.sock"):
                pass

    run(scenario())


def test_an_address_is_a_path_behind_its_scheme():
    assert str(socket_path("unix:///run/rpc.sock")) == "/run/rpc.sock"


@pytest.mark.parametrize("address", ["", "unix://", "/run/rpc.sock", "ws://localhost", "UNIX:///run/rpc.sock"])
def test_anything_else_is_no_address(address):
    with pytest.raises(ValueError) as refusal:
        socket_path(address)
    assert repr(address) in str(refusal.value)
