"""What goes wrong inside a stream of the model client."""

import pytest

from agent.model.failures import StreamBroken, UpstreamError
from agent.model.provider import Provider
from tests.agent.model.chatgpt_behind_proxy import (
    QUICK,
    brief,
)
from tests.agent.model.test_client import talking


@pytest.mark.parametrize("transport", ["websocket", "post"])
@pytest.mark.parametrize(
    "fault, raised, said",
    [
        ("cut", StreamBroken, "closed|broke off|ended"),
        ("garbage", StreamBroken, "not JSON"),
        ("bad-frame", StreamBroken, "closed|broke off"),
        ("failed", UpstreamError, "the stand-in failed"),
        ("error-500", UpstreamError, "the stand-in failed"),
        ("context", UpstreamError, "the input is too long"),
        ("incomplete", UpstreamError, "content_filter"),
        ("stall", StreamBroken, "idle timeout"),
    ],
)
def test_a_broken_stream_is_told_once_and_the_next_request_sends_everything(
    fault, raised, said, transport, run, tmp_path
):
    async def scenario():
        provider = Provider(idle_timeout_s=1.5) if fault == "stall" else QUICK
        async with talking(tmp_path, f"{transport}:{fault}:1", provider=provider) as (here, talk):
            if transport == "post":
                talk.session.use_http()
            with pytest.raises(raised, match=said):
                await talk.say("hello")
            assert await talk.say(None) == "two"

            assert [brief(body) for body in here.bodies()] == [(None, ["BASE", "hello"])] * 2
            assert len(here.requests()) == 2 == here.tokens.asked

    run(scenario())


def test_a_handshake_that_is_reset_fails_once_and_the_next_one_works(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "websocket:reset:1") as (here, talk):
            with pytest.raises(UpstreamError) as failed:
                await talk.say("hello")
            assert failed.value.status == 502
            assert await talk.say(None) == "one"
            assert here.tokens.asked == 2

    run(scenario())


def test_a_post_that_is_reset_is_posted_again(run, tmp_path):
    async def scenario():
        async with talking(tmp_path, "post:reset:1") as (here, talk):
            talk.session.use_http()
            assert await talk.say("hello") == "one"
            assert len(here.requests()) == 2 == here.tokens.asked

    run(scenario())


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_a_spent_plan_is_told_with_its_limits(transport, run, tmp_path):
    async def scenario():
        async with talking(tmp_path, f"{transport}:usage-limit:1") as (_, talk):
            if transport == "post":
                talk.session.use_http()
            with pytest.raises(UpstreamError, match="^limit$") as failed:
                await talk.say()

        assert (failed.value.status, failed.value.kind) == (429, "usage_limit_reached")
        assert failed.value.resets_at == 1999999999
        assert (failed.value.limits.primary.used_percent, failed.value.limits.primary.minutes) == (100, 300)

    run(scenario())


def test_slow_but_steady_events_are_not_idle(run, tmp_path):
    async def scenario():
        steady = Provider(request_retries=0, idle_timeout_s=0.7)  # nine events take longer than that
        words = [{"text": "a b c d e f"}] * 2
        async with talking(tmp_path, provider=steady, answers=words) as (here, talk):
            here.service.event_delay_s = 0.1
            assert await talk.say() == "a b c d e f"
            talk.session.use_http()
            assert await talk.say() == "a b c d e f"

    run(scenario())
