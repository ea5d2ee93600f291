"""Model providers of the user's own, through the real proxy and past it: what is sent where, and what never is."""

import contextlib
import datetime as dt

import pytest

from agent.model.failures import StreamBroken, Unavailable, UpstreamError
from agent.model.provider import OPENAI, Provider
from proxy.capture.exchange import Stamp, Transport
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT, auth_json
from proxy.standins.faults import Fault
from tests.agent.model.chatgpt_behind_proxy import IDENTITY, RESPONSES, conversation, world

KEY = "sk-of-the-provider"
EVERYTHING = {
    "env_key": "MINE_KEY",
    "query_params": {"api-version": "2026", "b": "x y"},
    "http_headers": {"X-Team": "blue", "user-agent": "mine/1", "AUTHORIZATION": "Basic eA=="},
    "env_http_headers": {"X-Org": "MINE_ORG", "X-Not-There": "MINE_NOTHING"},
}
ENVIRON = {"MINE_KEY": KEY, "MINE_ORG": "org-1"}
SIGNED_IN = auth_json(dt.timedelta(hours=1))


class PlainModels(ChatGPT):
    """The stand-in as a model server of this machine has it: without TLS."""

    def _context(self):
        return None


def mine(base_url, **changes):
    settings = {"id": "mine", "name": "Mine", "base_url": base_url, "needs_openai_auth": False, "websockets": False}
    return Provider(**settings | {"request_retries": 0} | changes)


@contextlib.asynccontextmanager
async def plain(tmp_path, *faults, environ=ENVIRON, auth=SIGNED_IN, answers=({"text": "one"}, {"text": "two"})):
    """(everything around the real proxy, the model server beside it, its base URL)."""
    beside = PlainModels(answers=Answers(answers), faults=[Fault.parse(fault) for fault in faults])
    async with world(tmp_path, environ=environ, auth=auth) as here, beside:
        yield here, beside, f"http://127.0.0.1:{beside.port}/v1"


def names(request):
    return {name.decode().lower() for name, _ in request.headers}


def test_a_plain_http_provider_is_reached_directly_with_what_is_its_own(run, tmp_path):
    async def scenario():
        async with plain(tmp_path) as (here, beside, url):
            async with conversation(here.client, provider=mine(url, **EVERYTHING)) as talk:
                await talk.prewarm()
                assert [await talk.say("hello"), await talk.say("again")] == ["one", "two"]
            first, second = beside.received
            assert first.path == "/v1/responses?api-version=2026&b=x%20y" == second.path
            assert first.values("authorization") == [f"Bearer {KEY}"]  # of its own, whatever http_headers say
            assert (first.values("x-team"), first.values("x-org")) == (["blue"], ["org-1"])
            assert first.values("user-agent") == ["mine/1"] != [IDENTITY.user_agent]
            assert first.values("originator") == [IDENTITY.originator]
            assert first.values("thread-id") == ["thread-1"]
            stays_here = {"x-not-there", "chatgpt-account-id", "version", "x-codex-routing-hint", "content-encoding"}
            assert not names(first) & (stays_here | {"x-oai-attestation", "proxy-authorization"})
            assert "previous_response_id" not in second.body
            # Neither the proxy nor the desktop has heard of it.
            assert here.stage.exchanges == [] == here.service.received and here.tokens.asked == 0

    run(scenario())


def test_a_provider_with_websockets_is_asked_over_one(run, tmp_path):
    async def scenario():
        async with plain(tmp_path) as (here, beside, url):
            provider = mine(url, websockets=True, bearer_token="sk-written-down", query_params={"v": "1"})
            async with conversation(here.client, provider=provider) as talk:
                await talk.prewarm()
                assert await talk.say("hello") == "one"
            handshake = beside.received[0]
            assert handshake.is_websocket and handshake.path == "/v1/responses?v=1"
            assert handshake.values("authorization") == ["Bearer sk-written-down"]
            assert not names(handshake) & {"x-oai-attestation", "proxy-authorization"}
            assert beside.received[2].body["previous_response_id"] == "resp_0001"
            assert here.stage.exchanges == [] and here.tokens.asked == 0

    run(scenario())


@pytest.mark.parametrize("auth", [SIGNED_IN, {"OPENAI_API_KEY": "sk-x"}], ids=["account", "key"])
def test_the_service_is_told_the_organization_and_the_project_of_the_environment(run, tmp_path, auth):
    paid_by = {"OPENAI_ORGANIZATION": "org-a", "OPENAI_PROJECT": " "}

    async def scenario():
        async with world(tmp_path, environ=paid_by, auth=auth, answers=[{"text": "one"}]) as here:
            async with conversation(here.client, provider=OPENAI) as talk:
                await talk.say("hello")
            (handshake,) = here.requests("/")
            assert handshake.values("openai-organization") == ["org-a"] and handshake.values("openai-project") == []

    run(scenario())


def test_an_https_provider_goes_through_the_proxy_untouched_and_unstamped(run, tmp_path):
    async def scenario():
        async with world(tmp_path, environ=ENVIRON, answers=[{"text": "one"}]) as here:
            url = f"https://127.0.0.1:{here.service.port}/v1"
            with pytest.raises(UpstreamError, match="refused to connect to 127.0.0.1:[0-9]+ with 403"):
                await here.http.post(url, b"", {})  # nobody has configured it yet
            async with conversation(here.client, provider=mine(url, env_key="MINE_KEY")) as talk:
                assert await talk.say("hello") == "one"
            (request,) = here.requests("/v1/responses")
            assert request.values("authorization") == [f"Bearer {KEY}"]
            assert not names(request) & {"x-oai-attestation", "chatgpt-account-id", "proxy-authorization"}
            assert here.tokens.asked == 0
            (tunnel,) = await here.stage.reported(1)
            assert (tunnel.host, tunnel.port, tunnel.stamp) == ("127.0.0.1", here.service.port, Stamp.NOT_SCOPED)
            assert tunnel.transport is Transport.TUNNEL

    run(scenario())


def test_an_https_provider_needs_a_certificate_that_is_trusted(run, tmp_path):
    async def scenario():
        async with world(tmp_path) as here, ChatGPT() as stranger:
            url = f"https://127.0.0.1:{stranger.port}/v1"
            async with conversation(here.client, provider=mine(url)) as talk:
                with pytest.raises(StreamBroken):
                    await talk.say("hello")
            assert stranger.received == []

    run(scenario())


@pytest.mark.parametrize("wants", [True, False])
def test_what_the_user_is_signed_in_with_is_sent_only_to_a_provider_that_is_to_have_it(wants, run, tmp_path):
    """direct_custom_provider_http, but for the token: that is for ChatGPT alone."""

    async def scenario():
        async with plain(tmp_path) as (here, beside, url):
            async with conversation(here.client, provider=mine(url, needs_openai_auth=wants)) as talk:
                assert await talk.say("hello") == "one"
            (request,) = beside.received
            sent = [f"Bearer {SIGNED_IN['tokens']['access_token']}"] if wants else []
            assert request.values("authorization") == sent
            assert request.values("chatgpt-account-id") == (["acc-1"] if wants else [])
            assert "x-oai-attestation" not in names(request) and here.tokens.asked == 0

    run(scenario())


def test_a_key_of_its_own_comes_before_what_the_user_is_signed_in_with(run, tmp_path):
    async def scenario():
        async with plain(tmp_path) as (here, beside, url):
            provider = mine(url, needs_openai_auth=True, env_key="MINE_KEY")
            async with conversation(here.client, provider=provider) as talk:
                await talk.say("hello")
            assert beside.received[0].values("authorization") == [f"Bearer {KEY}"]
            assert not beside.received[0].values("chatgpt-account-id")

    run(scenario())


@pytest.mark.parametrize(
    "environ, said",
    [
        ({}, "Missing environment variable: `MINE_KEY`. Ask the operator."),
        ({"MINE_KEY": "  "}, "Missing environment variable: `MINE_KEY`. Ask the operator."),
        ({"MINE_KEY": "sk-s3cret\n"}, "`MINE_KEY` of the model provider is no value for a header (not shown)"),
    ],
)
def test_without_a_usable_key_nothing_is_sent(environ, said, run, tmp_path):
    async def scenario():
        async with plain(tmp_path, environ=environ) as (here, beside, url):
            provider = mine(url, env_key="MINE_KEY", env_key_instructions="Ask the operator.")
            async with conversation(here.client, provider=provider) as talk:
                with pytest.raises(Unavailable) as failed:
                    await talk.say("hello")
            assert (str(failed.value), failed.value.info) == (said, "other")
            assert beside.received == []

    run(scenario())


@pytest.mark.parametrize("provider_id", ["openai", "mine"])
def test_with_a_chatgpt_account_openai_is_chatgpt_whatever_base_url_says(provider_id, run, tmp_path):
    """direct_openai_base_url: and so it can be stamped."""

    async def scenario():
        async with plain(tmp_path) as (here, beside, url):
            provider = mine(url, id=provider_id, name="OpenAI", needs_openai_auth=True)
            async with conversation(here.client, provider=provider) as talk:
                await talk.say("hello")
            (request,) = here.requests()
            assert request.path == RESPONSES and request.values("content-encoding") == ["zstd"]
            assert len(request.values("x-oai-attestation")) == 1 == here.tokens.asked
            assert beside.received == []

    run(scenario())


def test_with_an_api_key_openai_is_where_base_url_says(run, tmp_path):
    async def scenario():
        async with plain(tmp_path, auth={"OPENAI_API_KEY": "sk-mine"}) as (here, beside, url):
            async with conversation(here.client, provider=Provider(base_url=url, websockets=False)) as talk:
                await talk.say("hello")
            (request,) = beside.received
            assert (request.path, request.values("authorization")) == ("/v1/responses", ["Bearer sk-mine"])
            assert request.values("version") == [IDENTITY.version]
            assert here.service.received == [] and here.tokens.asked == 0

    run(scenario())


def test_a_provider_without_a_url_is_where_its_credentials_belong(run, tmp_path):
    async def scenario():
        async with world(tmp_path, environ=ENVIRON, answers=[{"text": "one"}] * 2) as here:
            async with conversation(here.client, provider=mine(None, env_key="MINE_KEY")) as talk:
                await talk.say("hello")
            async with conversation(here.client, provider=mine(None, needs_openai_auth=True)) as talk:
                await talk.say("hello")
            by_key, by_account = here.requests("/")
            assert (by_key.path, by_key.values("host")) == ("/v1/responses", ["api.openai.com"])
            assert (by_account.path, by_account.values("host")) == (RESPONSES, ["chatgpt.com"])
            stamped = [len(one.values("x-oai-attestation")) for one in (by_key, by_account)]
            assert stamped == [0, 1]  # ChatGPT is ChatGPT, whoever asks it

    run(scenario())


@pytest.mark.parametrize("retries, posts", [(0, 1), (2, 3)])
def test_a_post_is_tried_as_often_as_the_provider_says(retries, posts, run, tmp_path):
    """retry_exhausted_http500."""

    async def scenario():
        async with plain(tmp_path, "post:503") as (here, beside, url):
            async with conversation(here.client, provider=mine(url, request_retries=retries)) as talk:
                with pytest.raises(UpstreamError, match="asked for a 503"):
                    await talk.say("hello")
            assert len(beside.received) == posts

    run(scenario())


def test_a_401_of_a_provider_with_a_key_is_told_at_once(run, tmp_path):
    async def scenario():
        async with plain(tmp_path, "post:401:1") as (here, beside, url):
            async with conversation(here.client, provider=mine(url, env_key="MINE_KEY")) as talk:
                with pytest.raises(UpstreamError) as failed:
                    await talk.say("hello")
            assert failed.value.status == 401 and len(beside.received) == 1
            assert here.requests("/oauth/token") == []  # it is nobody's business there

    run(scenario())


@pytest.mark.parametrize("websockets", [True, False])
def test_the_silence_that_a_provider_is_given_is_its_own(websockets, run, tmp_path):
    """idle_timeout_ws, idle_timeout_http."""

    async def scenario():
        async with plain(tmp_path, "stall:1" if not websockets else "websocket:stall:1") as (here, beside, url):
            provider = mine(url, websockets=websockets, idle_timeout_s=0.3)
            async with conversation(here.client, provider=provider) as talk:
                with pytest.raises(StreamBroken, match="idle timeout"):
                    await talk.say("hello")

    run(scenario())


def test_nothing_secret_of_a_provider_is_in_its_repr():
    provider = mine("https://models.example", bearer_token="s3cret", http_headers={"X-Key": "s3cret"})
    assert "s3cret" not in repr(provider) and "models.example" in repr(provider)
    assert "s3cret" not in repr(mine(None, query_params={"key": "s3cret"}))


def test_the_variables_that_hold_secrets_are_known():
    assert mine(None, **EVERYTHING).variables == {"MINE_KEY", "MINE_ORG", "MINE_NOTHING"}
    assert mine(None).variables == frozenset()
