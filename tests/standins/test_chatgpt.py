"""The stand-in of ChatGPT as a server: what it answers, what it keeps, and whom it lets in."""

import asyncio
import datetime as dt
import json
import ssl

import aiohttp
import pytest
import zstandard

from agent.auth import Auth
from certs.trust import client_context
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT, auth_json, fake_jwt

RESPONSES = "/backend-api/codex/responses"


def talk(story, **options):
    """Run a story with a stand-in and a session that trusts it."""

    async def scenario():
        async with ChatGPT(**options) as service:
            connector = aiohttp.TCPConnector(ssl=client_context(service.ca_pem))
            async with aiohttp.ClientSession(f"https://127.0.0.1:{service.port}", connector=connector) as session:
                await story(service, session)

    return scenario()


def test_it_listens_on_loopback_with_a_certificate_that_only_its_own_authority_signed(run):
    async def scenario():
        async with ChatGPT() as service:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", service.port, ssl=client_context(service.ca_pem), server_hostname="chatgpt.com"
            )
            writer.close()
            await writer.wait_closed()
            for context, name in (
                (ssl.create_default_context(), "chatgpt.com"),
                (client_context(service.ca_pem), "evil.example"),
            ):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await asyncio.open_connection("127.0.0.1", service.port, ssl=context, server_hostname=name)

    run(scenario())


def test_a_taken_port_is_an_error_at_once(run):
    async def scenario():
        async with ChatGPT() as first:
            with pytest.raises(OSError, match="in use"):
                await ChatGPT(port=first.port).__aenter__()

    run(scenario())


def test_a_post_is_decoded_recorded_and_streamed_as_events(run):
    async def story(service, session):
        body = zstandard.ZstdCompressor().compress(b'{"input": []}')
        headers = [("Content-Encoding", "zstd"), ("X-Mixed-Case", "kept"), ("X-Mixed-Case", "twice")]
        async with session.post(RESPONSES, data=body, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            text = await response.text()
        assert "data: " in text and "response.completed" in text
        (received,) = service.received
        assert (received.kind, received.method, received.path) == ("request", "POST", RESPONSES)
        assert received.body == {"input": []}
        assert received.values("X-MIXED-CASE") == ["kept", "twice"]
        assert (b"X-Mixed-Case", b"kept") in received.headers

    run(talk(story))


def test_a_body_that_is_no_json_is_kept_as_its_bytes(run):
    async def story(service, session):
        for body, encoding in ((b"{not json", ""), (b"not zstd", "zstd"), (b"", "")):
            async with session.post("/elsewhere", data=body, headers={"Content-Encoding": encoding}):
                pass
        assert [one.body for one in service.received] == [b"{not json", b"not zstd", None]

    run(talk(story))


def test_a_websocket_answers_each_message_and_its_end_is_recorded(run):
    async def story(service, session):
        async with session.ws_connect(RESPONSES) as socket:
            for expected in ("one", "two"):
                await socket.send_json({"type": "response.create", "input": []})
                text = ""
                while (event := await socket.receive_json())["type"] != "response.completed":
                    text += event.get("delta", "")
                assert text == expected
        await service.wait_for(1, "closed")
        assert [one.kind for one in service.received] == ["request", "message", "message", "closed"]
        assert service.received[0].is_websocket and service.received[-1].status == 1000

    run(talk(story, answers=Answers([{"text": "one"}, {"text": "two"}])))


def test_other_paths_answer_as_an_agent_needs_them(run):
    async def story(service, session):
        async with session.get("/backend-api/codex/models?client_version=1") as response:
            assert await response.json() == {"models": []}
        async with session.get("/backend-api/wham/accounts/check") as response:
            assert (await response.json())["default_account_id"] == "acc-1"
        async with session.post(f"{RESPONSES}/compact", json={}) as response:
            assert (await response.json())["output"][0]["type"] == "compaction"
        async with session.post("/backend-api/codex/realtime/calls", json={}) as response:
            assert response.status == 201 and response.headers["Location"] == "/v1/realtime/calls/rtc_1"
        async with session.ws_connect("/v1/realtime?call_id=rtc_1") as socket:
            assert (await socket.receive_json())["type"] == "session.created"
        async with session.get("/nothing/here") as response:
            assert (response.status, await response.json()) == (404, {"detail": "Not Found"})
        assert [one.path for one in service.received][-1] == "/nothing/here"

    run(talk(story))


def test_a_refresh_gives_new_tokens_each_time_and_wants_the_right_grant(run):
    async def story(service, session):
        seen = []
        for _ in range(2):
            async with session.post("/oauth/token", json={"grant_type": "refresh_token"}) as response:
                seen.append(await response.json())
        assert seen[0]["access_token"] != seen[1]["access_token"]
        assert [one["refresh_token"] for one in seen] == ["stand-in-refresh-1", "stand-in-refresh-2"]
        async with session.post("/oauth/token", json={"grant_type": "password"}) as response:
            assert response.status == 400

    run(talk(story))


def test_waiting_for_something_that_does_not_come_ends(run):
    async def story(service, session):
        with pytest.raises(TimeoutError):
            await service.wait_for(1, timeout_s=0.01)

    run(talk(story))


def test_its_credentials_are_those_of_an_account_that_our_agent_reads(tmp_path):
    (tmp_path / "auth.json").write_text(json.dumps(auth_json()))
    account = Auth(tmp_path, None).account()

    assert (account.mode, account.plan, account.account_id) == ("chatgpt", "pro", "acc-1")
    assert account.email == "stand-in@example.com"
    assert fake_jwt(dt.timedelta(hours=1), serial=1) != fake_jwt(dt.timedelta(hours=1), serial=2)
