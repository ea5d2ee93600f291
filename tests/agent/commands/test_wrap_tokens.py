"""`countersign wrap -- CMD`: who is asked for a token, and which request carries it."""

import asyncio

import pytest

from agent.standins.desktop import Manner
from proxy.standins.chatgpt import ChatGPT
from tests.agent.commands.wrapped import OK, kept, numbered, wrapped
from tests.processes import attestations, play, world


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
