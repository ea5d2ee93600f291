"""The scripted desktop: how it answers, and what it keeps."""

import asyncio
import contextlib
import json

import pytest

from agent.rpc.jsonrpc import RequestFailed
from agent.standins.desktop import Desktop, Manner, Script, ServerGone
from tests.agent.core.memory_app import MemoryPipe

QUESTION = {"method": "attestation/generate", "id": 7, "params": {}}


@contextlib.asynccontextmanager
async def desktop(**script):
    """A desktop and the server's end of its pipe."""
    pipe = MemoryPipe()
    async with Desktop(Script(token=lambda number: f"tok-{number}", **script), pipe.desktop) as one:
        yield one, pipe.server, pipe.server.texts()


async def said(texts):
    return json.loads(await anext(texts))


@pytest.mark.parametrize(
    "manner, answer",
    [
        (Manner.TOKEN, {"result": {"token": "tok-1"}}),
        (Manner.ERROR, {"error": {"code": -32000, "message": "the stand-in has no token today"}}),
        (Manner.NO_TOKEN, {"result": {}}),
        (Manner.NULL, {"result": None}),
        (Manner.NUMBER, {"result": {"token": 5}}),
        (Manner.ARRAY, {"result": ["tok-1"]}),
        (Manner.EXTRA, {"result": {"token": "tok-1", "device": "stand-in", "more": [1, 2]}}),
    ],
)
def test_it_answers_a_question_in_its_manner(manner, answer, run):
    async def scenario():
        async with desktop(manner=manner) as (one, server, texts):
            await server.send(json.dumps(QUESTION))
            assert await said(texts) == {"id": 7, **answer}
            assert one.asked == 1 and one.requests == [QUESTION]

    run(scenario())


def test_a_silent_one_counts_the_question_and_says_nothing(run):
    async def scenario():
        async with desktop(manner=Manner.SILENT) as (one, server, texts):
            await server.send(json.dumps(QUESTION))
            await server.send(json.dumps({"method": "other/question", "id": 8, "params": {}}))
            assert (await said(texts))["id"] == 8  # the answer to the next one comes first
            assert one.asked == 1

    run(scenario())


def test_one_that_hangs_up_closes_its_end_instead(run):
    async def scenario():
        async with desktop(manner=Manner.HANG_UP) as (one, server, texts):
            await server.send(json.dumps(QUESTION))
            assert [text async for text in texts] == []
            assert one.asked == 1

    run(scenario())


def test_tokens_are_unique_unless_the_script_makes_them(run):
    assert Script().token(1) != Script().token(1)


def test_it_says_at_initialize_what_its_script_can(run):
    async def scenario():
        for attests, experimental in ((True, True), (False, False)):
            async with desktop(attests=attests, experimental=experimental, name="me") as (one, server, texts):
                hello = asyncio.create_task(one.initialize())
                message = await said(texts)
                await server.send(json.dumps({"id": message["id"], "result": {"userAgent": "x"}}))
                assert await hello == {"userAgent": "x"}
                assert message["params"]["clientInfo"]["name"] == "me"
                assert message["params"]["capabilities"] == {
                    "experimentalApi": experimental,
                    "requestAttestation": attests,
                }
                assert await said(texts) == {"method": "initialized"}

    run(scenario())


def test_it_refuses_other_questions(run):
    async def scenario():
        async with desktop() as (one, server, texts):
            await server.send(json.dumps({"method": "item/commandExecution/requestApproval", "id": 1, "params": {}}))
            assert (await said(texts))["error"]["code"] == -32601
            assert one.asked == 0

    run(scenario())


def test_an_error_answer_is_raised_and_an_answer_to_nothing_is_ignored(run):
    async def scenario():
        async with desktop() as (one, server, texts):
            asking = asyncio.create_task(one.request("turn/start", {}))
            message = await said(texts)
            await server.send('{"id": 99, "result": {}}')
            await server.send(json.dumps({"id": message["id"], "error": {"code": -32600, "message": "no"}}))
            with pytest.raises(RequestFailed, match="no"):
                await asking

    run(scenario())


def test_a_server_that_leaves_fails_what_is_waited_for(run):
    async def scenario():
        async with desktop() as (one, server, texts):
            asking = asyncio.create_task(one.request("turn/start", {}))
            waiting = asyncio.create_task(one.wait_for("turn/completed"))
            await said(texts)
            await server.close()
            for task in (asking, waiting):
                with pytest.raises(ServerGone):
                    await task
            assert one.gone.is_set()

    run(scenario())


def test_waits_are_bounded(run):
    async def scenario():
        async with desktop() as (one, _, texts):
            with pytest.raises(TimeoutError):
                await one.request("turn/start", {}, timeout_s=0.01)
            with pytest.raises(TimeoutError):
                await one.wait_for("turn/completed", timeout_s=0.01)

    run(scenario())


def test_the_nth_notification_is_given_whenever_it_came(run):
    async def scenario():
        async with desktop() as (one, server, _):
            for number in (1, 2):
                await server.send(json.dumps({"method": "error", "params": {"number": number}}))
            assert await one.wait_for("error", 2) == {"number": 2}
            assert await one.wait_for("error") == {"number": 1}
            assert [told["params"]["number"] for told in one.notifications] == [1, 2]

    run(scenario())
