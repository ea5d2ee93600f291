"""The model client where it posts its requests."""

import json

import pytest

from agent.model.failures import UpstreamError
from tests.agent.model.chatgpt_behind_proxy import (
    IDENTITY,
    brief,
)
from tests.agent.model.test_client import talking


def test_a_426_means_post_at_once_and_for_the_rest_of_the_thread(run, tmp_path):
    """plain_turn_http: no second handshake, all of the input each time, compressed, a token for each."""

    async def scenario():
        async with talking(tmp_path, "websocket:426") as (here, talk):
            await talk.prewarm()
            assert talk.session.transport == "http"
            assert [await talk.say("hello"), await talk.say("again")] == ["one", "two"]

            assert len(here.requests(websocket=True)) == 1
            posts = here.requests(websocket=False)
            assert [brief(post.body) for post in posts] == [
                (None, ["BASE", "hello"]),
                (None, ["BASE", "hello", "one", "again"]),
            ]
            assert [post.values("content-encoding") for post in posts] == [["zstd"], ["zstd"]]
            assert [post.values("x-oai-attestation") for post in posts] == [
                ['{"v":1,"s":0,"t":"token-2"}'],
                ['{"v":1,"s":0,"t":"token-3"}'],
            ]
            assert here.tokens.threads == ["thread-1"] * 3

    run(scenario())


def test_a_426_in_a_turn_is_answered_by_a_post_in_the_same_request(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "websocket:426") as (here, talk):
            assert await talk.say() == "one"
            assert [one.is_websocket for one in here.requests()] == [True, False]

    run(scenario())


def test_there_is_nothing_to_warm_on_a_post(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            talk.session.use_http()
            await talk.prewarm()
            assert not here.service.received and here.tokens.asked == 0

    run(scenario())


def test_a_post_says_who_and_which_thread_it_is_for(run, tmp_path):
    async def scenario():
        async with talking(tmp_path) as (here, talk):
            talk.session.use_http()
            await talk.say()
            (post,) = here.requests()

        assert post.values("thread-id") == post.values("session-id") == ["thread-1"]
        assert post.values("accept") == ["text/event-stream"]
        assert post.values("content-type") == ["application/json"]
        assert post.values("user-agent") == [IDENTITY.user_agent]
        assert post.values("openai-beta") == []
        assert post.values("chatgpt-account-id") == ["acc-1"]

    run(scenario())


@pytest.mark.parametrize("times, asked", [(1, 2), (2, 3)])
def test_a_failing_service_is_posted_to_again_each_time_with_a_token_of_its_own(times, asked, run, tmp_path):
    """err_http_500; the original would send the same token again."""

    async def scenario():
        async with talking(tmp_path, f"post:500:{times}") as (here, talk):
            talk.session.use_http()
            assert await talk.say() == "one"

            posts = here.requests()
            assert len(posts) == asked == here.tokens.asked
            values = [post.values("x-oai-attestation")[0] for post in posts]
            assert len(set(values)) == asked
            assert len({json.dumps(post.body) for post in posts}) == 1

    run(scenario())


def test_a_service_that_keeps_failing_is_given_up_after_the_budget(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "post:503") as (here, talk):
            talk.session.use_http()
            with pytest.raises(UpstreamError) as failed:
                await talk.say()
            assert failed.value.status == 503
            assert len(here.requests()) == 3

    run(scenario())


@pytest.mark.parametrize("status", [400, 404, 429])
def test_other_refusals_are_not_posted_again(status, run, tmp_path):
    async def scenario():
        async with talking(tmp_path, f"post:{status}:1") as (here, talk):
            talk.session.use_http()
            with pytest.raises(UpstreamError, match=f"asked for a {status}") as failed:
                await talk.say()
            assert failed.value.status == status
            assert len(here.requests()) == 1

    run(scenario())
