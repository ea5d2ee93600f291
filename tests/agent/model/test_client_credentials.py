"""The credentials that the model client sends, and when it refreshes them."""

import asyncio
import datetime as dt
import traceback

import pytest

from agent.model.failures import StreamBroken, Unavailable, UpstreamError
from proxy.standins.chatgpt import auth_json
from tests.agent.model.chatgpt_behind_proxy import (
    RESPONSES,
    conversation,
    write_auth,
)
from tests.agent.model.test_client import EXPIRED, KEY, bearers, talking


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_the_first_401_is_tried_again_with_the_same_token(transport, run, tmp_path):
    """err_ws_handshake_401."""

    async def scenario():
        async with talking(tmp_path, f"{transport}:401:1") as (here, talk):
            if transport == "post":
                talk.session.use_http()
            assert await talk.say() == "one"

            first, second = bearers(here.requests())
            assert first == second
            assert not here.requests("/oauth/token")
            assert here.tokens.asked == 2

    run(scenario())


def test_a_token_that_somebody_else_refreshed_is_found_in_the_file(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "websocket:401:1") as (here, talk):
            await here.client.auth.bearer()
            newer = auth_json(dt.timedelta(hours=2))
            write_auth(here.home, newer)
            await talk.say()

            assert bearers(here.requests())[1] == newer["tokens"]["access_token"]
            assert bearers(here.requests())[0] != newer["tokens"]["access_token"]
            assert not here.requests("/oauth/token")

    run(scenario())


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_the_second_401_refreshes_the_token_through_the_tunnel(transport, run, tmp_path):
    """err_http_401_refresh."""

    async def scenario():
        async with talking(tmp_path, f"{transport}:401:2") as (here, talk):
            if transport == "post":
                talk.session.use_http()
            old = here.auth_file["tokens"]
            assert await talk.say() == "one"

            (refresh,) = here.requests("/oauth/token")
            assert refresh.body == {
                "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
                "grant_type": "refresh_token",
                "refresh_token": "stand-in-refresh-0",
                "refresh_reason": "unauthorized_recovery",
            }
            assert refresh.values("host") == ["auth.openai.com"]
            assert refresh.values("x-oai-attestation") == []
            new = here.auth_file["tokens"]
            assert new["access_token"] != old["access_token"] and new["refresh_token"] == "stand-in-refresh-1"
            assert bearers(here.requests()) == [old["access_token"]] * 2 + [new["access_token"]]
            assert here.tokens.asked == 3

    run(scenario())


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_the_third_401_is_left_to_the_turn(transport, run, tmp_path):
    async def scenario():
        async with talking(tmp_path, f"{transport}:401") as (here, talk):
            if transport == "post":
                talk.session.use_http()
            with pytest.raises(UpstreamError, match="asked for a 401") as failed:
                await talk.say()
            assert failed.value.status == 401
            assert len(here.requests()) == 3 and len(here.requests("/oauth/token")) == 1

    run(scenario())


def test_a_token_that_has_expired_is_refreshed_before_anything_else(run, tmp_path):
    """auth_expiring_token."""

    async def scenario():
        async with talking(tmp_path, auth=auth_json(EXPIRED)) as (here, talk):
            await talk.prewarm()
            await talk.say()

            assert [one.path for one in here.service.received if one.kind == "request"] == ["/oauth/token", RESPONSES]
            (refresh,) = here.requests("/oauth/token")
            assert refresh.body["refresh_reason"] == "proactive_expiry"
            assert bearers(here.requests()) == [here.auth_file["tokens"]["access_token"]]

    run(scenario())


def test_threads_that_find_the_same_token_expired_refresh_it_once(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, auth=auth_json(EXPIRED)) as (here, talk):
            async with conversation(here.client, "thread-2") as second, conversation(here.client, "thread-3") as third:
                await asyncio.gather(talk.say(), second.say(), third.say())
            assert len(here.requests("/oauth/token")) == 1
            assert len(set(bearers(here.requests()))) == 1

    run(scenario())


def test_a_sign_in_service_that_fails_leaves_the_retry_to_the_turn(run, tmp_path):
    """err_401_refresh_fails."""

    async def scenario():
        async with talking(tmp_path, "websocket:401:2", "token:500:1") as (here, talk):
            with pytest.raises(UpstreamError, match="the sign-in service answered 500") as failed:
                await talk.say()
            assert failed.value.status is None
            assert await talk.say(None) == "one"
            assert len(here.requests("/oauth/token")) == 1

    run(scenario())


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_refresh_is_final(status, run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "websocket:401", f"token:{status}") as (_, talk):
            with pytest.raises(Unavailable, match="sign in again") as failed:
                await talk.say()
            assert failed.value.info == "unauthorized"

    run(scenario())


def test_nobody_signed_in_is_said_before_anything_is_sent(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            (here.home / "auth.json").unlink()
            with pytest.raises(Unavailable, match="nobody is signed in") as failed:
                await talk.say()
            assert failed.value.info == "unauthorized"
            assert not here.service.received and here.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_an_api_key_goes_to_the_public_api_without_attestation(transport, run, tmp_path):
    """attestation_apikey: not asked, not stamped, not compressed."""

    async def scenario():
        async with talking(tmp_path, auth=KEY) as (here, talk):
            if transport == "post":
                talk.session.use_http()
            await talk.prewarm()
            assert await talk.say() == "one"

            (request,) = here.requests("/v1/responses")
            assert request.values("host") == ["api.openai.com"]
            assert bearers([request]) == ["sk-stand-in-4711"]
            assert request.values("x-oai-attestation") == request.values("chatgpt-account-id") == []
            assert request.values("content-encoding") == []
            assert here.tokens.asked == 0 and not here.requests(RESPONSES)

    run(scenario())


def test_an_api_key_that_is_refused_is_not_refreshed(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "websocket:401", auth=KEY) as (here, talk):
            with pytest.raises(UpstreamError) as failed:
                await talk.say()
            assert failed.value.status == 401
            assert len(here.requests("/v1/responses")) == 1  # there is nothing newer to try
            assert not here.requests("/oauth/token")

    run(scenario())


@pytest.mark.parametrize("fault", ["websocket:401", "post:401", "websocket:reset", "websocket:cut", "post:cut"])
def test_no_failure_shows_a_token(fault, run, tmp_path, caplog):
    async def scenario():
        async with talking(tmp_path, fault) as (here, talk):
            if fault.startswith("post"):
                talk.session.use_http()
            secrets = [*here.auth_file["tokens"].values(), here.endpoint.secret]
            with pytest.raises((StreamBroken, UpstreamError)) as failed:
                await talk.say()
            secrets += here.auth_file["tokens"].values()
        told = "".join(traceback.format_exception(failed.value)) + repr(failed.value) + caplog.text
        assert not [secret for secret in secrets if secret not in ("acc-1",) and secret in told]

    run(scenario())
