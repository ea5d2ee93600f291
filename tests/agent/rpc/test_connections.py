"""Connections: what clients are asked and told, and who of them is asked for a token."""

import asyncio

import pytest

from agent.rpc.jsonrpc import RequestFailed
from agent.rpc.server import ClientGone, Connections
from tests.agent.rpc.memory import MemoryStream, served
from tests.loops import on_each_loop

# Questions to the client


def test_ids_of_questions_count_over_all_connections(run):
    async def scenario():
        async with served() as it:
            clients = [await it.connect() for _ in range(2)]
            for client in clients:
                await client.initialize(requestAttestation=True)
            questions = [asyncio.create_task(it.initialized[n].request("m", {})) for n in (0, 1, 0)]
            asked = [await clients[n].receive() for n in (0, 0, 1)]
            assert sorted(question["id"] for question in asked) == [0, 1, 2]
            for question in questions:
                question.cancel()

    run(scenario())


def test_another_client_cannot_answer_for_the_one_that_was_asked(run):
    """D1, D2: ids are known to all, answers count only from where they were asked."""

    async def scenario():
        async with served() as it:
            asked, impostor = await it.connect(), await it.connect()
            await asked.initialize(requestAttestation=True)
            await impostor.initialize(requestAttestation=True)
            question = asyncio.create_task(it.connections.any_attester().request("attestation/generate", {}))
            request_id = (await asked.receive())["id"]
            await impostor.send(id=request_id, result={"token": "stolen"})
            assert (await impostor.call("no/such"))["error"]  # it was read, and nothing came of it
            assert not question.done()
            await asked.send(id=request_id, result={"token": "real"})
            assert await question == {"token": "real"}

    run(scenario())


@pytest.mark.parametrize("wrong", [5, "0", -1, None])
def test_an_answer_with_a_wrong_id_or_a_second_one_changes_nothing(run, wrong):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            question = asyncio.create_task(it.connections.any_attester().request("m", {}))
            request_id = (await client.receive())["id"]
            await client.send(id=wrong, result="wrong")
            await client.send(id=request_id, result="right")
            await client.send(id=request_id, result="again")
            assert await question == "right"
            assert (await client.call("no/such"))["error"]

    run(scenario())


@on_each_loop
def test_a_question_to_a_client_that_leaves_fails_at_once(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            connection = it.connections.any_attester()
            question = asyncio.create_task(connection.request("m", {}))
            await client.receive()
            await client.leave()
            with pytest.raises(ClientGone):
                await question
            with pytest.raises(ClientGone):
                await connection.request("m", {})
            assert it.connections.any_attester() is None

    run(scenario())


def test_an_error_of_the_client_is_an_error_for_whoever_asked(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            question = asyncio.create_task(it.connections.any_attester().request("m", {}))
            await client.send(id=(await client.receive())["id"], error={"code": -32000, "message": "no token"})
            with pytest.raises(RequestFailed, match="no token"):
                await question

    run(scenario())


# Notifications


def test_a_client_hears_nothing_before_it_has_initialised(run):
    async def scenario():
        async with served() as it:
            early, ready = await it.connect(), await it.connect()
            await ready.initialize()
            it.connections.broadcast("thread/started", {"n": 1})
            message = await ready.receive()
            assert message["method"] == "thread/started" and message["emittedAtMs"] > 1_600_000_000_000
            assert early.stream.outgoing.empty()

    run(scenario())


def test_a_client_does_not_hear_what_it_opted_out_of_by_its_exact_name(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(optOutNotificationMethods=["item/started", "turn/*", "unknown"])
            for name in ("item/started", "item/completed", "turn/started"):
                it.connections.broadcast(name, {})
            assert [(await client.receive())["method"] for _ in range(2)] == ["item/completed", "turn/started"]
            assert client.stream.outgoing.empty()

    run(scenario())


def test_opting_out_does_not_keep_questions_away(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True, optOutNotificationMethods=["attestation/generate"])
            question = asyncio.create_task(it.connections.any_attester().request("attestation/generate", {}))
            assert (await client.receive())["method"] == "attestation/generate"
            question.cancel()

    run(scenario())


def test_an_experimental_notification_goes_only_to_those_who_want_them(run):
    async def scenario():
        async with served() as it:
            plain, experimental = await it.connect(), await it.connect()
            await plain.initialize()
            await experimental.initialize(experimentalApi=True)
            it.connections.broadcast("thread/readState/changed", {})
            assert (await experimental.receive())["method"] == "thread/readState/changed"
            assert plain.stream.outgoing.empty()

    run(scenario())


def test_a_thread_is_published_to_its_followers_only(run):
    async def scenario():
        async with served() as it:
            follower, other = await it.connect(), await it.connect()
            await follower.initialize()
            await other.initialize()
            it.connections.subscribe("thread-1", it.initialized[0])
            it.connections.publish("thread-1", "turn/started", {"threadId": "thread-1"})
            it.connections.publish("thread-2", "turn/started", {"threadId": "thread-2"})
            assert (await follower.receive())["params"] == {"threadId": "thread-1"}
            assert follower.stream.outgoing.empty() and other.stream.outgoing.empty()

    run(scenario())


# Who is asked for a token


async def three(it, *capable):
    """Three clients that follow thread-1; those of `capable` (from 1) can attest."""
    clients = [await it.connect() for _ in range(3)]
    for number, client in enumerate(clients, 1):
        await client.initialize(requestAttestation=number in capable)
        it.connections.subscribe("thread-1", it.initialized[-1])
    return clients


@pytest.mark.parametrize(("capable", "asked"), [((1, 2, 3), 1), ((2, 3), 2), ((3,), 3), ((), None)])
def test_the_oldest_client_of_the_thread_that_can_attest_is_asked(run, capable, asked):
    async def scenario():
        async with served() as it:
            await three(it, *capable)
            attester = it.connections.attester_for("thread-1")
            assert (None if attester is None else attester.number) == asked

    run(scenario())


@on_each_loop
def test_when_it_leaves_the_next_one_is_asked(run):
    async def scenario():
        async with served() as it:
            clients = await three(it, 1, 2)
            await clients[0].leave()
            assert await clients[0].stream.outgoing.get() is None  # its connection is over
            assert it.connections.attester_for("thread-1").number == 2
            assert it.connections.any_attester().number == 2

    run(scenario())


@pytest.mark.parametrize("thread_id", [None, "", "thread-2"])
def test_nobody_is_asked_for_a_thread_that_nobody_follows(run, thread_id):
    async def scenario():
        async with served() as it:
            await three(it, 1, 2, 3)
            assert it.connections.attester_for(thread_id) is None
            assert it.connections.any_attester().number == 1  # the control: they are there, and capable

    run(scenario())


def test_a_client_that_has_not_initialised_is_not_asked():
    connections = Connections()
    connections.subscribe("thread-1", connections.open(MemoryStream()))
    assert connections.attester_for("thread-1") is None and connections.any_attester() is None
