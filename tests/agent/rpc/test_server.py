import asyncio
import hashlib
import json

import pytest

from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_SUPPORTED, MISSING, RequestFailed
from agent.rpc.outbox import HIGH_WATER_CHARACTERS, MOST_CHARACTERS
from agent.rpc.serde_text import InvalidParams
from agent.rpc.server import Answer, ClientGone, Connections, Method
from tests.agent.rpc.memory import MemoryStream, served
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


# Ends


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
