"""The model client against the stand-in of ChatGPT, through the real proxy.

What is sent when, over which transport, with whose token and with how many questions for attestation
(facts/protocol.md 5).
"""

import asyncio
import contextlib
import datetime as dt
import traceback

import pytest

from agent.core.thread import message
from agent.model.failures import StreamBroken, UpstreamError, judge
from agent.model.wire import Completed, Created, TurnState
from proxy.standins.faults import Fault
from tests.agent.model.chatgpt_behind_proxy import (
    IDENTITY,
    QUICK,
    RESPONSES,
    brief,
    conversation,
    text_of,
    world,
)

EXPIRED = dt.timedelta(seconds=-60)
KEY = {"OPENAI_API_KEY": "sk-stand-in-4711"}
ONE_TWO = [{"text": "one"}, {"text": "two"}, {"text": "three"}]


def bearers(requests):
    return [request.values("authorization")[0].removeprefix("Bearer ") for request in requests]


@contextlib.asynccontextmanager
async def talking(tmp_path, *faults, answers=ONE_TWO, provider=QUICK, **options):
    """A world and one conversation in it."""
    async with world(tmp_path, answers=answers, faults=faults, **options) as here:
        async with conversation(here.client, provider=provider) as talk:
            yield here, talk


# WebSocket


def test_a_prewarmed_thread_continues_by_response_id_and_sends_only_what_is_new(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.prewarm()
            assert [await talk.say("hello"), await talk.say("again")] == ["one", "two"]

            assert [brief(body) for body in here.bodies(prewarm=True)] == [
                (None, ["BASE"]),
                ("resp_0001", ["hello"]),
                ("resp_0002", ["again"]),
            ]
            assert here.bodies(prewarm=True)[0]["generate"] is False
            assert len(here.requests()) == 1 and here.tokens.threads == ["thread-1"]

    run(scenario())


def test_a_turn_that_comes_before_the_prewarm_is_answered_waits_for_it(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            here.service.event_delay_s = 0.02
            warming = asyncio.create_task(talk.prewarm())
            await here.service.wait_for(1, "message")
            assert await talk.say() == "one"
            await warming

            assert [brief(body) for body in here.bodies(prewarm=True)] == [
                (None, ["BASE"]),
                ("resp_0001", ["hello"]),
            ]
            assert len(here.requests()) == 1

    run(scenario())


def test_a_thread_without_a_prewarm_sends_all_of_its_input_first(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.say()
            assert [brief(body) for body in here.bodies()] == [(None, ["BASE", "hello"])]

    run(scenario())


def test_outputs_of_tools_continue_the_response_that_called_them(run, tmp_path):
    """ws_prewarm_then_tool."""

    async def scenario():
        call = {"call": {"name": "x", "arguments": {}}}
        async with talking(tmp_path, answers=[call, {"text": "done"}]) as (here, talk):
            await talk.say()
            talk.history.append({"type": "function_call_output", "call_id": "call_0001", "output": "no"})
            assert await talk.say(None) == "done"

            second = here.bodies()[1]
            assert second["previous_response_id"] == "resp_0001"
            assert [item["type"] for item in second["input"]] == ["function_call_output"]

    run(scenario())


def test_a_handshake_says_who_and_which_thread_it_is_for(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.say()
            (handshake,) = here.requests()
            assert here.auth_file["tokens"]["access_token"] == bearers([handshake])[0]

        wanted = {
            "chatgpt-account-id": "acc-1",
            "user-agent": IDENTITY.user_agent,
            "originator": "codex_desktop",
            "openai-beta": "responses_websockets=2026-02-06",
            "version": "0.169.0",
            "x-client-request-id": "thread-1",
            "session-id": "thread-1",
            "thread-id": "thread-1",
            "x-codex-window-id": "thread-1:0",
            "x-codex-turn-metadata": '{"request_kind":"turn"}',
            "x-codex-routing-hint": "model=gpt-5.5",
            "x-oai-attestation": '{"v":1,"s":0,"t":"token-1"}',
        }
        assert {name: handshake.values(name) for name in wanted} == {name: [value] for name, value in wanted.items()}
        assert handshake.is_websocket and handshake.path == RESPONSES

    run(scenario())


@pytest.mark.parametrize(
    "change",
    [
        {"model": "gpt-6-sol"},
        {"effort": "high"},
        {"summary": "auto"},
        {"output_schema": {}},
        {"service_tier": "priority"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_request_of_another_shape_sends_all_of_its_input_on_the_same_socket(change, run, tmp_path):
    """turn_options."""

    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.say("hello")
            await talk.say("again", **change)
            await talk.say("more", **change)

            assert [brief(body) for body in here.bodies()][1:] == [
                (None, ["BASE", "hello", "one", "again"]),
                ("resp_0002", ["more"]),
            ]
            assert len(here.requests()) == 1

    run(scenario())


def test_a_history_that_was_changed_is_sent_whole(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.say("hello")
            talk.history[1] = message("user", "edited")
            await talk.say("again")

            assert brief(here.bodies()[1]) == (None, ["BASE", "edited", "one", "again"])

    run(scenario())


def test_a_stream_that_was_given_up_costs_the_socket_and_the_next_request_sends_everything(run, tmp_path):
    """turn_interrupt."""

    async def scenario():
        async with talking(tmp_path, "websocket:stall:1") as (here, talk):
            async with contextlib.aclosing(talk.session.stream(talk.request("long job"))) as events:
                assert isinstance(await anext(events), Created)
            assert await talk.say("after interrupt") == "two"

            assert brief(here.bodies()[1]) == (None, ["BASE", "long job", "after interrupt"])
            assert len(here.requests()) == 2 == here.tokens.asked
            await here.service.wait_for(1, "closed")

    run(scenario())


def test_a_caller_that_leaves_at_the_end_of_a_response_keeps_the_socket(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            async with contextlib.aclosing(talk.session.stream(talk.request("hello"))) as events:
                async for event in events:
                    if isinstance(event, Completed):
                        break
            await talk.say("again")
            assert len(here.requests()) == 1

    run(scenario())


def test_a_socket_that_was_closed_between_turns_is_opened_again_without_a_word(run, tmp_path):
    """ws_closed_between_turns: a new handshake, a new token, all of the input."""

    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.say("hello")
            await here.service.__aexit__(None, None, None)  # it restarts, on the same port
            await here.service.__aenter__()
            await here.stage.reported(1)
            for _ in range(100):  # the end of the socket has left the proxy; let it arrive
                await asyncio.sleep(0)
            assert await talk.say("again") == "two"

            assert brief(here.bodies()[1]) == (None, ["BASE", "hello", "one", "again"])
            assert [one.values("x-oai-attestation") for one in here.requests()] == [
                ['{"v":1,"s":0,"t":"token-1"}'],
                ['{"v":1,"s":0,"t":"token-2"}'],
            ]

    run(scenario())


def test_a_failed_prewarm_is_silent_and_the_turn_does_without(run, tmp_path):
    """err_ws_handshake_500."""

    async def scenario():
        async with talking(tmp_path, "websocket:500:1") as (here, talk):
            await talk.prewarm()
            assert await talk.say() == "one"
            assert [brief(body) for body in here.bodies(prewarm=True)] == [(None, ["BASE", "hello"])]

    run(scenario())


@pytest.mark.parametrize("word", ["websocket_connection_limit_reached", "previous_response_not_found"])
def test_a_socket_that_cannot_go_on_is_replaced_and_the_next_request_sends_everything(word, run, tmp_path):
    """With its status 400 it failed the turn; codex reconnects without a word."""

    async def scenario():
        error = {"type": "invalid_request_error", "code": word, "message": "not here"}
        steps = [{"text": "one"}, {"events": [{"type": "error", "status": 400, "error": error}]}, {"text": "two"}]
        async with talking(tmp_path, answers=steps) as (here, talk):
            await talk.say("hello")
            with pytest.raises(UpstreamError) as failed:
                await talk.say("again")
            assert judge(failed.value).retryable
            assert await talk.say(None) == "two"

            assert [brief(body) for body in here.bodies()][1:] == [
                ("resp_0001", ["again"]),
                (None, ["BASE", "hello", "one", "again"]),
            ]
            assert len(here.requests()) == 2

    run(scenario())


@pytest.mark.parametrize(
    "target", ["https://chatgpt.com/elsewhere", "https://evil.example/", "http://chatgpt.com/", "%"]
)
def test_a_redirected_handshake_is_refused_with_its_status_and_not_followed(target, run, tmp_path):
    """websockets follows redirects by itself, with our headers; one that it could not follow was a bug of ours."""

    async def scenario():
        fault = Fault.parse("websocket:302")
        fault.headers["Location"] = target
        async with world(tmp_path, faults=[fault]) as here, conversation(here.client) as talk:
            with pytest.raises(UpstreamError) as failed:
                await talk.say()
            assert failed.value.status == 302
            assert [one.path for one in here.requests("/")] == [RESPONSES]

    run(scenario())


def test_a_header_that_cannot_be_sent_breaks_the_stream_and_is_not_shown(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (_, talk):
            with pytest.raises(StreamBroken) as failed:
                await talk.say(turn_metadata="secret-4711\n")
            assert "4711" not in "".join(traceback.format_exception_only(failed.value))

    run(scenario())


@pytest.mark.parametrize("model", ["bad\nmodel", "nul\0", "\xe9\u2603"])
@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_a_model_that_is_no_header_value_travels_in_the_body_alone(model, transport, run, tmp_path):
    """Each turn failed with an internal error."""

    async def scenario():
        async with talking(tmp_path) as (here, talk):
            if transport == "post":
                talk.session.use_http()
            assert await talk.say(model=model) == "one"
            assert here.bodies()[0]["model"] == model
            assert here.requests()[0].values("x-codex-routing-hint") == []

    run(scenario())


def test_a_response_without_an_id_is_not_continued(run, tmp_path):
    async def scenario():
        events = [
            {"type": "response.created", "response": {"id": "resp_0001"}},
            {"type": "response.completed", "response": {"id": ""}},
        ]
        async with talking(tmp_path, answers=[{"events": events}, {"text": "two"}]) as (here, talk):
            await talk.say("hello")
            await talk.say("again")
            assert brief(here.bodies()[1]) == (None, ["BASE", "hello", "again"])
            assert len(here.requests()) == 1

    run(scenario())


def test_threads_have_sockets_of_their_own(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk), conversation(here.client, "thread-2") as other:
            await asyncio.gather(talk.say("hello"), other.say("other"))
            assert sorted(request.values("thread-id")[0] for request in here.requests()) == ["thread-1", "thread-2"]
            assert sorted(here.tokens.threads) == ["thread-1", "thread-2"]

    run(scenario())


def test_the_requests_of_one_thread_go_one_after_the_other(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            here.service.event_delay_s = 0.01
            one, two = talk.request("hello"), talk.request("again")

            async def take(request):
                async with contextlib.aclosing(talk.session.stream(request)) as events:
                    return text_of([event async for event in events])

            assert await asyncio.gather(take(one), take(two)) == ["one", "two"]
            assert len(here.requests()) == 1

    run(scenario())


def test_closing_a_session_closes_its_socket_in_order(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            await talk.say()
            await talk.session.aclose()
            await here.service.wait_for(1, "closed")
            assert [one.status for one in here.service.received if one.kind == "closed"] == [1000]
            await talk.session.aclose()

    run(scenario())


# What the service wants back within a turn


def test_the_turn_state_goes_back_as_a_header_of_a_post(run, tmp_path):
    """turn_state_http."""

    async def scenario():
        async with talking(tmp_path) as (here, talk):
            talk.session.use_http()
            await talk.say("hello")
            await talk.say("again", turn_state="TS-1")
            await talk.say("more")
            assert [one.values("x-codex-turn-state") for one in here.requests()] == [[], ["TS-1"], []]

    run(scenario())


def test_the_turn_state_goes_back_in_the_metadata_of_a_socket(run, tmp_path):
    """turn_state_ws."""

    async def scenario():
        events = [
            {"type": "response.created", "response": {"id": "resp_0001"}},
            {"type": "response.metadata", "headers": {"x-codex-turn-state": "TS-1"}},
            {"type": "response.completed", "response": {"id": "resp_0001"}},
        ]
        async with talking(tmp_path, answers=[{"events": events}]) as (here, talk):
            assert TurnState("TS-1") in await talk.events("hello")
            await talk.say("again", turn_state="TS-1")
            await talk.say("more")

            states = [body["client_metadata"].get("x-codex-turn-state") for body in here.bodies()]
            assert states == [None, "TS-1", None]
            assert here.requests()[0].values("x-codex-turn-state") == []
            assert all(
                body["client_metadata"]["x-codex-ws-stream-request-start-ms"].isdecimal() for body in here.bodies()
            )

    run(scenario())
