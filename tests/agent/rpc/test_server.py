import asyncio
import hashlib

import pytest

from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_SUPPORTED, MISSING, RequestFailed
from agent.rpc.serde_text import InvalidParams
from agent.rpc.server import Answer, Method
from tests.agent.rpc.memory import served
from tests.loops import on_each_loop


def any_params(params):
    if params is MISSING:
        raise InvalidParams("missing field `params`")
    return params


def method(handle):
    """A method with any params, from `async handle(connection, params) -> result`."""

    async def answer(connection, params):
        return Answer(await handle(connection, params))

    return Method(any_params, answer)


@method
async def echo(_, params):
    return {"echo": params}


def error(code, message, request_id=1):
    return {"error": {"code": code, "message": message}, "id": request_id}


# The handshake


@on_each_loop
def test_a_client_is_answered_and_then_told_of(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            answer = await client.initialize("codex_desktop", requestAttestation=True)
            assert answer == {
                "id": "init",
                "result": {
                    "userAgent": "codex_desktop/0.169.0 (Debian 12.0.0; x86_64) xterm (codex_desktop; 1)",
                    "codexHome": "/home/of/codex",
                    "platformFamily": "unix",
                    "platformOs": "linux",
                },
            }
            assert [connection.number for connection in it.initialized] == [1]

    run(scenario())


def test_the_first_client_names_the_originator_for_all_that_follow(run):
    async def scenario():
        async with served() as it:
            assert it.server.identity is None
            await (await it.connect()).initialize("first")
            second = await (await it.connect()).initialize("second")
            assert second["result"]["userAgent"].startswith("first/") and "(second; 1)" in second["result"]["userAgent"]
            assert it.server.identity.originator == "first"

    run(scenario())


def test_before_initialize_a_known_method_is_not_initialized_and_an_unknown_one_is_unknown(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            assert await client.call("thread/start", {}) == error(INVALID_REQUEST, "Not initialized")
            assert await client.call("model/list", {}) == error(INVALID_REQUEST, "Not initialized")
            assert (await client.call("no/such"))["error"]["message"].startswith("Invalid request: unknown variant")
            assert await client.call("thread/start", {}) == error(INVALID_REQUEST, "Not initialized")

    run(scenario())


def test_params_are_parsed_before_the_check_for_initialize(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.send(id=1, method="thread/start")
            assert await client.receive() == error(INVALID_REQUEST, "Invalid request: missing field `params`")

    run(scenario())


def test_a_second_initialize_is_refused_and_changes_nothing(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize(requestAttestation=True)
            assert await client.initialize() == error(INVALID_REQUEST, "Already initialized", "init")
            assert len(it.initialized) == 1 and it.connections.any_attester() is it.initialized[0]

    run(scenario())


def test_an_initialize_that_was_refused_may_be_tried_again(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            text = "Invalid clientInfo.name: 'bad name\n'. Must be a valid HTTP header value."
            assert await client.initialize("bad name\n") == error(INVALID_REQUEST, text, "init")
            missing = error(INVALID_REQUEST, "Invalid request: missing field `clientInfo`")
            assert await client.call("initialize", {}) == missing
            assert it.initialized == [] and it.server.identity is None
            assert "result" in await client.initialize()

    run(scenario())


def test_an_initialize_that_was_answered_before_there_was_a_loop_is_not_answered_twice(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect(greeted=True)
            await client.send(id="init", method="initialize", params={"clientInfo": {"name": "n", "version": "1"}})
            assert await client.call("thread/start", {"a": 1}) == {"id": 1, "result": {"echo": {"a": 1}}}
            assert len(it.initialized) == 1
            assert await client.initialize() == error(INVALID_REQUEST, "Already initialized", "init")

    run(scenario())


# Methods


def test_an_unknown_method_is_answered_with_the_list_of_the_original(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize()
            answer = await client.call("no/such/method")
            assert (answer["error"]["code"], answer["id"]) == (INVALID_REQUEST, 1)
            digest = hashlib.sha256(answer["error"]["message"].encode()).hexdigest()
            assert digest.startswith("bb8d4032a0a6")

    run(scenario())


def test_a_method_that_is_not_supported_here_says_by_whom(run):
    async def scenario():
        async with served() as it:
            client = await it.connect()
            await client.initialize()
            text = "review/start is not supported by the test server"
            assert await client.call("review/start") == error(METHOD_NOT_SUPPORTED, text)

    run(scenario())


@pytest.mark.parametrize("supported", [{}, {"thread/search": echo}])
def test_an_experimental_method_needs_its_capability(run, supported):
    async def scenario():
        async with served(supported) as it:
            plain, experimental = await it.connect(), await it.connect()
            await plain.initialize()
            await experimental.initialize(experimentalApi=True)
            text = "thread/search requires experimentalApi capability"
            assert await plain.call("thread/search") == error(INVALID_REQUEST, text)
            assert ("result" in await experimental.call("thread/search")) == bool(supported)

    run(scenario())


@pytest.mark.parametrize("request_id", [0, -7, 2**63 - 1, "string-id", ""])
def test_an_answer_carries_the_id_as_it_was_sent(run, request_id):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize()
            answer = await client.call("thread/start", {"t": 'a"\\\n é😀'}, request_id)
            assert answer == {"id": request_id, "result": {"echo": {"t": 'a"\\\n é😀'}}}

    run(scenario())


def test_a_handler_that_fails_as_it_may_is_an_error_with_its_text(run):
    @method
    async def refuse(_, params):
        raise RequestFailed(-32600, "thread not found: 019a")

    async def scenario():
        async with served({"thread/start": refuse}) as it:
            client = await it.connect()
            await client.initialize()
            assert await client.call("thread/start") == error(-32600, "thread not found: 019a")

    run(scenario())


def test_a_handler_with_a_bug_is_an_internal_error_that_does_not_quote_it(run, caplog):
    @method
    async def break_down(_, params):
        raise KeyError("secret of the thread")

    async def scenario():
        async with served({"thread/start": break_down}) as it:
            client = await it.connect()
            await client.initialize()
            assert await client.call("thread/start") == error(INTERNAL_ERROR, "thread/start failed: KeyError")
            assert "request failed method=thread/start" in caplog.text  # whoever runs it can find the bug

    run(scenario())


# Order


def test_a_text_that_no_utf_8_can_carry_does_not_end_the_connection(run):
    """It ended the writer: the client heard nothing more."""

    @method
    async def named(_, params):
        return {"name": "caf\udce9 \u00e9"}  # a file name in Latin-1, as Python reads it

    async def scenario():
        async with served({"thread/start": named}) as it:
            client = await it.connect()
            await client.initialize()
            answer = await client.call("thread/start", {})
            assert answer["result"] == {"name": "caf? \u00e9"}

    run(scenario())


@on_each_loop
def test_requests_of_one_burst_are_answered_in_their_order(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize()
            for number in range(20):
                await client.send(id=number, method="thread/start", params={})
            assert [(await client.receive())["id"] for _ in range(20)] == list(range(20))

    run(scenario())


def test_dropped_texts_between_them_get_no_answer(run):
    async def scenario():
        async with served({"thread/start": echo}) as it:
            client = await it.connect()
            await client.initialize()
            for text in (
                "{not json",
                "",
                "[]",
                '"str"',
                '{"id":91}',
                '{"id":null,"method":"thread/start","params":{}}',
                '{"id":1.5,"method":"thread/start","params":{}}',
                '{"method":"bogus/notification","params":{}}',
                '{"id":777,"result":{}}',
                '{"id":778,"error":{"code":1,"message":"x"}}',
            ):
                await client.write(text)
            assert await client.call("thread/start", {}, "after") == {"id": "after", "result": {"echo": {}}}

    run(scenario())


@on_each_loop
def test_a_slow_handler_holds_nobody_up(run):
    async def scenario():
        go = asyncio.Event()

        @method
        async def wait(_, params):
            await go.wait()
            return {}

        async with served({"thread/start": echo, "turn/start": wait}) as it:
            client = await it.connect()
            await client.initialize()
            await client.send(id="slow", method="turn/start", params={})
            assert (await client.call("thread/start", {}, "quick"))["id"] == "quick"
            go.set()
            assert (await client.receive())["id"] == "slow"

    run(scenario())


def test_what_a_handler_starts_comes_behind_its_answer(run):
    async def scenario():
        async def start(connection, params):
            return Answer({"turn": 1}, lambda: connection.notify("turn/started", {"turn": 1}))

        async with served({"turn/start": Method(any_params, start)}) as it:
            client = await it.connect()
            await client.initialize()
            await client.send(id=1, method="turn/start", params={})
            assert "result" in await client.receive()
            assert (await client.receive())["method"] == "turn/started"

    run(scenario())


@on_each_loop
def test_a_handler_that_waits_for_an_answer_of_the_same_client_does_not_deadlock(run):
    async def scenario():
        @method
        async def ask_back(connection, params):
            return {"heard": await connection.request("attestation/generate", {})}

        async with served({"turn/start": ask_back}) as it:
            client = await it.connect()
            await client.initialize()
            await client.send(id=1, method="turn/start", params={})
            question = await client.receive()
            assert question == {"method": "attestation/generate", "id": 0, "params": {}}
            await client.send(id=question["id"], result={"token": "t"})
            assert await client.receive() == {"id": 1, "result": {"heard": {"token": "t"}}}

    run(scenario())
