"""Connections that end, break, or are not read."""

import asyncio
import json

import pytest

from agent.rpc.outbox import HIGH_WATER_CHARACTERS, MOST_CHARACTERS
from agent.rpc.server import ClientGone, Connections
from tests.agent.rpc.memory import MemoryStream, served
from tests.agent.rpc.test_server import echo, method
from tests.loops import on_each_loop


@on_each_loop
def test_a_client_that_does_not_read_any_more_is_let_go(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            client.stream.is_broken = True
            await client.send(id=1, method="thread/start", params={})
            await it.gone(client)
            assert it.connections.any_attester() is None

    run(scenario())


def test_a_client_that_is_slow_to_read_has_its_requests_wait_and_its_answers_taken(run):
    """Whatever it asked for was queued for it, without a bound."""
    handled = []

    @method
    async def large(_, params):
        handled.append(params["number"])
        return {"text": "x" * HIGH_WATER_CHARACTERS}

    async def scenario():
        async with served({"thread/start": large}) as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            client.stream.is_read.clear()
            asking = asyncio.create_task(it.initialized[0].request("attestation/generate", {}))
            await asyncio.sleep(0)
            for number in range(3):
                await client.send(id=number, method="thread/start", params={"number": number})
            await client.send(id=0, result={"token": "t"})
            assert await asking == {"token": "t"}
            assert handled == [0]

            client.stream.is_read.set()
            assert (await client.receive())["method"] == "attestation/generate"
            assert [(await client.receive())["id"] for _ in range(3)] == [0, 1, 2]
            assert handled == [0, 1, 2]

    run(scenario())


def test_a_client_that_reads_nothing_at_all_is_let_go(run, caplog):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            client.stream.is_read.clear()
            text = "x" * (1024 * 1024)
            for _ in range(MOST_CHARACTERS // len(text) + 2):
                it.initialized[0].send(text)
            await it.gone(client)
            assert it.connections.any_attester() is None

    run(scenario())
    assert "client 1 does not read: let go" in caplog.text


def test_a_client_that_broke_is_not_asked_again_while_another_can_be(run):
    """facts/protocol.md 3: the next request goes to the next client."""

    async def scenario():
        async with served() as it:
            first, second = await it.connect(), await it.connect()
            await first.initialize(requestAttestation=True)
            await second.initialize(requestAttestation=True)
            first.stream.is_broken = True
            with pytest.raises(ClientGone):
                async with asyncio.timeout(0.5):
                    await it.connections.any_attester().request("attestation/generate", {})
            assert it.connections.any_attester() is it.initialized[1]

    run(scenario())


def test_a_client_that_left_in_the_middle_of_its_request_follows_nothing(run):
    connections = Connections()
    gone = connections.open(MemoryStream())
    connections.close(gone)
    connections.subscribe("thread-1", gone)
    connections.publish("thread-1", "turn/started", {})
    assert connections.attester_for("thread-1") is None


def test_requests_before_the_end_are_still_answered(run):
    """`printf ... | countersign app-server` shows the answers."""

    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize()
            await client.send(id=1, method="thread/start", params={})
            await client.leave()
            assert (await client.receive())["id"] == 1
            assert await client.stream.outgoing.get() is None

    run(scenario())


def test_connections_close_in_any_order_and_twice():
    connections = Connections()
    one, other = connections.open(MemoryStream()), connections.open(MemoryStream())
    connections.subscribe("thread-1", one)
    connections.close(one)
    connections.close(one)
    connections.publish("thread-1", "m", {})
    connections.broadcast("m", {})
    assert (one.number, other.number) == (1, 2)
    assert connections.open(MemoryStream()).number == 3  # numbers are not used again: the lowest is the oldest


def test_a_text_of_3_mb_is_served(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize()
            answer = await client.call("thread/start", {"t": "x" * 3_000_000})
            assert len(answer["result"]["echo"]["t"]) == 3_000_000

    run(scenario())


def test_every_answer_is_one_line(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize()
            await client.send(id="a\nb", method="thread/start", params={"c\nd": "e\r\nf"})
            text = await client.receive_text()
            assert "\n" not in text and "\r" not in text
            assert json.loads(text) == {"id": "a\nb", "result": {"echo": {"c\nd": "e\r\nf"}}}

    run(scenario())
