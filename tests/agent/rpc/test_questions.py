"""A question to all who follow a thread: one id, the first answer counts, and who comes later is asked too."""

import asyncio
import itertools
import json

import pytest

from agent.rpc.jsonrpc import ErrorResponse, Response, encode
from agent.rpc.server import Connections


class Client:
    """A stream that keeps what it is sent."""

    def __init__(self):
        self.sent = asyncio.Queue()

    async def send(self, text):
        await self.sent.put(json.loads(text))

    async def aclose(self):
        pass


class Stage:
    def __init__(self):
        self.connections, self._writers = Connections(), []

    def join(self, thread_id="t", *, follows=True):
        connection = self.connections.open(Client())
        connection.initialized = _Initialized
        self._writers.append(asyncio.create_task(connection.write()))
        if follows:
            self.connections.subscribe(thread_id, connection)
        return connection

    def ask(self, thread_id="t"):
        return asyncio.create_task(self.connections.questions.ask(thread_id, "item/x/requestApproval", {"a": 1}))

    async def heard(self, connection):
        return await connection._stream.sent.get()

    def answer(self, connection, request_id, result="yes"):
        event = connection.peer.receive(encode({"id": request_id, "result": result}))
        if event is not None:
            connection.answered(event)
        return event


class _Stable:
    class capabilities:
        opted_out, experimental_api, request_attestation = frozenset(), False, True


class _Initialized:
    class capabilities:
        opted_out, experimental_api, request_attestation = frozenset(), True, True


@pytest.fixture
def stage(run):
    """Runs a scenario with a stage."""

    def play(scenario):
        async def whole():
            it = Stage()
            try:
                await scenario(it)
            finally:
                for writer in it._writers:
                    writer.cancel()

        run(whole())

    return play


def test_all_followers_are_asked_with_one_id_and_the_first_answer_counts(stage):
    async def scenario(it):
        one, two, other = it.join(), it.join(), it.join("another thread")
        asked = it.ask()
        first, second = await it.heard(one), await it.heard(two)
        assert first == second == {"method": "item/x/requestApproval", "id": first["id"], "params": {"a": 1}}
        assert isinstance(it.answer(two, first["id"], {"decision": "accept"}), Response)
        assert await asked == {"decision": "accept"}
        for connection in (one, two):
            told = await it.heard(connection)
            assert told["method"] == "serverRequest/resolved"
            assert told["params"] == {"threadId": "t", "requestId": first["id"]}
        assert it.answer(one, first["id"]) is None and one.peer.late == 1  # too late, and ignored
        assert other._stream.sent.empty()

    stage(scenario)


def test_an_error_is_an_answer_too(stage):
    async def scenario(it):
        one = it.join()
        asked = it.ask()
        request = await it.heard(one)
        event = one.peer.receive(encode({"id": request["id"], "error": {"code": -1, "message": "no"}}))
        assert isinstance(event, ErrorResponse)
        one.answered(event)
        with pytest.raises(Exception, match="no"):
            await asked

    stage(scenario)


def test_who_comes_while_it_is_open_is_asked_with_the_same_id(stage):
    async def scenario(it):
        one = it.join()
        asked = it.ask()
        request = await it.heard(one)
        it.connections.close(one)
        late = it.join()
        assert await it.heard(late) == request and not asked.done()
        it.answer(late, request["id"])
        assert await asked == "yes"

    stage(scenario)


def test_a_question_to_nobody_waits_for_somebody(stage):
    async def scenario(it):
        asked = it.ask()
        await asyncio.sleep(0)
        late = it.join()
        it.answer(late, (await it.heard(late))["id"])
        assert await asked == "yes"

    stage(scenario)


def test_a_question_that_is_taken_back_is_settled_for_all(stage):
    async def scenario(it):
        one = it.join()
        asked = it.ask()
        request = await it.heard(one)
        asked.cancel()
        assert (await it.heard(one))["method"] == "serverRequest/resolved"
        assert it.answer(one, request["id"]) is None
        with pytest.raises(asyncio.CancelledError):
            await asked

    stage(scenario)


def test_who_has_left_a_thread_is_not_asked(stage):
    async def scenario(it):
        one, two = it.join(), it.join()
        assert it.connections.unsubscribe("t", one) and not it.connections.unsubscribe("t", one)
        asked = it.ask()
        request = await it.heard(two)
        assert one._stream.sent.empty()
        it.answer(two, request["id"])
        await asked

    stage(scenario)


def test_the_ids_are_those_of_all_other_requests(stage):
    async def scenario(it):
        one = it.join()
        numbers = []
        for _ in itertools.repeat(None, 3):
            asked = it.ask()
            request = await it.heard(one)
            numbers.append(request["id"])
            it.answer(one, request["id"])
            await asked
            await it.heard(one)
        assert numbers == [0, 1, 2]

    stage(scenario)


def test_only_a_client_of_the_experimental_api_is_told_of_additional_permissions(stage):
    async def scenario(it):
        first, second = it.join(), it.join()
        second.initialized = _Stable
        params = {"command": "true", "additionalPermissions": {"network": {"enabled": True}}}
        task = asyncio.create_task(it.connections.questions.ask("t", "item/commandExecution/requestApproval", params))
        asked = await it.heard(first)
        assert asked["params"] == params
        assert (await it.heard(second))["params"] == {"command": "true"}
        it.answer(second, asked["id"])
        assert await task == "yes"

    stage(scenario)
