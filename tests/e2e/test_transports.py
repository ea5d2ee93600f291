"""The app-server's sockets, as clients meet them: a process, real clients, and raw bytes."""

import asyncio
import stat

import pytest

from agent.standins.desktop import Script
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.e2e.listening import UPGRADE, listening, refused, thread_of
from tests.processes import attestations, play, world

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
