"""Turns of the app-server as a process: from a desktop on its stdin to the bytes that reach the service."""

import datetime as dt
import json

import pytest

from agent.standins.desktop import Manner, Script
from proxy.standins.chatgpt import ChatGPT, auth_json
from proxy.standins.faults import Fault
from tests.e2e.one_turn import OK, numbered, one_turn, thread_of
from tests.processes import app_server, attestations, play, world


def test_a_turn_by_websocket_is_attested_once_for_its_handshake(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with app_server(here, numbered()) as desktop:
                turn = await one_turn(desktop)
                again = await desktop.turn(thread_of(desktop), "again")
            assert [turn["status"], again["status"]] == ["completed", "completed"]
            assert turn["items"][0]["text"] == "Hello from the stand-in."
            assert attestations(here.scoped()) == [[OK % "token-1"]]
            assert here.scoped()[0].is_websocket

    play(scenario())


def test_after_a_426_each_post_carries_a_token_of_its_own(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(faults=[Fault.parse("websocket:426")])) as here:
            async with app_server(here, numbered()) as desktop:
                await one_turn(desktop)
                await desktop.turn(thread_of(desktop), "again")
            handshake, *posts = here.scoped()
            assert handshake.is_websocket and [post.method for post in posts] == ["POST", "POST"]
            assert attestations(here.scoped()) == [[OK % "token-1"], [OK % "token-2"], [OK % "token-3"]]
            assert posts[0].values("content-encoding") == ["zstd"]
            assert posts[0].body["input"][-1]["content"][0]["text"] == "hello"

    play(scenario())


def test_requests_out_of_scope_carry_no_header(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            async with app_server(here) as desktop:
                await one_turn(desktop)
                await desktop.request("model/list", {})
            assert [one.path.partition("?")[0] for one in here.others()] == ["/backend-api/codex/models"]
            assert attestations(here.others()) == [[]]

    play(scenario())


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (numbered(), [OK % "token-1"]),
        (numbered(delay_s=0.04), [OK % "token-1"]),
        (numbered(Manner.EXTRA), [OK % "token-1"]),
        (numbered(Manner.ARRAY), [OK % "token-1"]),
        (Script(token=lambda _: ""), [OK % ""]),
        (Script(token=lambda _: "x" * 12_000), [OK % ("x" * 12_000)]),
        (Script(token=lambda _: 'a"b\\c\nd'), ['{"v":1,"s":0,"t":"a\\"b\\\\c\\nd"}']),
        (Script(token=lambda _: "a\r\nx-injected: 1"), ['{"v":1,"s":0,"t":"a\\r\\nx-injected: 1"}']),
        (Script(token=lambda _: "tökén"), ['{"v":1,"s":4}']),
        (numbered(Manner.SILENT), ['{"v":1,"s":1}']),
        (numbered(delay_s=0.35), ['{"v":1,"s":1}']),
        (numbered(Manner.ERROR), ['{"v":1,"s":2}']),
        (numbered(Manner.NO_TOKEN), ['{"v":1,"s":4}']),
        (numbered(Manner.NULL), ['{"v":1,"s":4}']),
        (numbered(Manner.NUMBER), ['{"v":1,"s":4}']),
        (numbered(attests=False), []),
    ],
    ids=[
        "token", "slow", "extra", "array", "empty", "long", "escaped", "cr-lf", "non-ascii", "silent", "late", "error",
        "no-token", "null", "number", "no-capability",
    ],
)  # fmt: skip
@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_what_the_desktop_does_arrives_as_the_original_would_send_it(tmp_path, script, expected, transport):
    async def scenario():
        faults = [Fault.parse("websocket:426")] if transport == "post" else []
        async with world(tmp_path, ChatGPT(faults=faults)) as here:
            async with app_server(here, script) as desktop:
                turn = await one_turn(desktop)
            assert turn["status"] == "completed"  # a failed attestation never fails the turn
            arrived = attestations(here.scoped())
            # Each request asks anew, so a second one carries the second token.
            renumbered = [value.replace("token-1", f"token-{len(arrived)}") for value in expected]
            assert arrived[-1] == renumbered

    play(scenario())


def test_an_api_key_is_never_attested_and_goes_to_the_api(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(), auth={"OPENAI_API_KEY": "sk-stand-in"}) as here:
            async with app_server(here) as desktop:
                turn = await one_turn(desktop)
                assert desktop.asked == 0
            assert turn["status"] == "completed"
            (request,) = [one for one in here.upstream.received if one.kind == "request"]
            assert request.path == "/v1/responses"
            assert request.values("authorization") == ["Bearer sk-stand-in"]
            assert attestations([request]) == [[]]

    play(scenario())


def test_an_expired_sign_in_is_refreshed_before_anything_else(tmp_path):
    async def scenario():
        expired = auth_json(dt.timedelta(hours=-1))
        async with world(tmp_path, ChatGPT(), auth=expired) as here:
            async with app_server(here) as desktop:
                turn = await one_turn(desktop)
            assert turn["status"] == "completed"
            refresh, handshake, *_ = [one for one in here.upstream.received if one.kind == "request"]
            assert refresh.path == "/oauth/token"
            assert refresh.body["refresh_reason"] == "proactive_expiry"
            kept = json.loads((here.home / "auth.json").read_text())
            assert handshake.values("authorization") == [f"Bearer {kept['tokens']['access_token']}"]
            assert kept["tokens"]["access_token"] != expired["tokens"]["access_token"]

    play(scenario())


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        (None, "nobody is signed in"),
        ("{not json", "is not JSON; sign in again"),
        ('{"tokens": {"access_token": 5}}', "no usable tokens.access_token"),
        ("{}", "neither tokens nor an API key"),
    ],
)
def test_a_turn_without_usable_credentials_fails_with_the_reason(tmp_path, auth, reason):
    async def scenario():
        async with world(tmp_path, ChatGPT(), auth=auth) as here:
            async with app_server(here) as desktop:
                turn = await one_turn(desktop)
            assert turn["status"] == "failed"
            assert reason in turn["error"]["message"]
            assert turn["error"]["codexErrorInfo"] == "unauthorized"
            assert here.upstream.received == []

    play(scenario())


def test_an_upstream_that_is_not_there_fails_the_turn_and_says_so(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            with_nobody = ",".join(f"{name}=127.0.0.1:9" for name in ("chatgpt.com",))
            here.environment["COUNTERSIGN_UPSTREAM_MAP"] = with_nobody
            async with app_server(here) as desktop:
                turn = await one_turn(desktop)
                assert desktop.asked == 0  # no token is made for a request that cannot go out
            assert turn["status"] == "failed"
            assert "the proxy could not connect to chatgpt.com" in turn["error"]["message"]

    play(scenario())


@pytest.mark.parametrize("fault", ["cut:1", "failed:1", "error-500:1", "garbage:1", "bad-frame:1", "reset:1"])
@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_a_stream_that_breaks_once_is_taken_up_again(tmp_path, fault, transport):
    async def scenario():
        faults = [Fault.parse(f"{transport}:{fault}")]
        if transport == "post":
            faults.append(Fault.parse("websocket:426"))
        async with world(tmp_path, ChatGPT(faults=faults)) as here:
            async with app_server(here) as desktop:
                turn = await one_turn(desktop)
            assert turn["status"] == "completed"
            asked = attestations(here.scoped())
            assert len({value for values in asked for value in values}) == len(asked)  # none was used twice

    play(scenario())


def test_an_interrupted_turn_ends_at_once_and_the_next_one_starts_afresh(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT(event_delay_s=0.15)) as here:
            async with app_server(here) as desktop:
                await desktop.initialize()
                thread_id = (await desktop.request("thread/start", {"cwd": "/"}))["thread"]["id"]
                content = [{"type": "text", "text": "long job"}]
                answer = await desktop.request("turn/start", {"threadId": thread_id, "input": content})
                await desktop.wait_for("item/agentMessage/delta")
                turn_id = answer["turn"]["id"]
                assert await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id}) == {}
                completed = await desktop.wait_for("turn/completed")
                assert completed["turn"]["status"] == "interrupted"
                here.upstream.event_delay_s = 0
                turn = await desktop.turn(thread_id, "after")
                assert turn["status"] == "completed"
            first, second = (one for one in here.upstream.received if one.kind == "request")
            assert attestations([first]) != attestations([second])  # a new socket, a new token
            last = [one for one in here.upstream.received if one.kind == "message"][-1].body
            assert "previous_response_id" not in last
            assert "<turn_aborted>" in last["input"][-2]["content"][0]["text"]

    play(scenario())
