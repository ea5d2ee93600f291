"""What the account may still use."""

import pytest

from agent.auth import Auth
from agent.model.failures import StreamBroken
from agent.rpc.account_limits import limits_wire
from agent.rpc.jsonrpc import INTERNAL_ERROR
from tests.agent.core import published_schema
from tests.agent.rpc.sign_in import ACCESS, ID_TOKEN, ORIGIN, USAGE, Service, at_desk, no_refresh


def test_limits_are_asked_for_and_told(run, tmp_path):
    service = Service()
    auth = Auth(tmp_path, no_refresh)
    auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")

    async def scenario():
        async with at_desk(tmp_path, service, auth=auth) as it:
            answer = await it.call("account/rateLimits/read")
        assert service.asked == [(f"{ORIGIN}/backend-api/wham/usage", "GET")]
        assert service.headers[0]["chatgpt-account-id"] == "acc-1"
        main = answer["rateLimits"]
        assert main["primary"] == {"usedPercent": 12, "windowDurationMins": 300, "resetsAt": 1_800_000_000}
        assert main["secondary"] is None and main["planType"] == "pro" and main["limitId"] == "codex"
        assert main["credits"] == {"hasCredits": True, "unlimited": False, "balance": "5.00"}
        assert main["rateLimitReachedType"] == "rate_limit_reached"
        assert list(answer["rateLimitsByLimitId"]) == ["codex", "other"]
        assert answer["rateLimitResetCredits"] == {"availableCount": 2, "credits": None}

    run(scenario())


def test_limits_that_cannot_be_had_are_an_error(run, tmp_path):
    """misc_requests."""
    failures = ((404, {"detail": "s3cret"}), (200, []), StreamBroken("GET chatgpt.com failed (TimeoutError)"))
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with at_desk(tmp_path, Service(usages=failures), auth=auth) as it:
            method = "account/rateLimits/read"
            assert await it.refused(method) == "codex account authentication required to read rate limits"
            auth.sign_in_with_api_key("sk")
            assert await it.refused(method) == "chatgpt authentication required to read rate limits"
            auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")
            failed = f"failed to fetch codex rate limits: GET {ORIGIN}/backend-api/wham/usage failed: "
            assert await it.refused(method, INTERNAL_ERROR) == f"{failed}404 Not Found"
            assert await it.refused(method, INTERNAL_ERROR) == f"{failed}its answer is no JSON object"
            assert "TimeoutError" in await it.refused(method, INTERNAL_ERROR)

    run(scenario())


def test_limits_are_asked_for_again_with_new_tokens_after_a_401(run, tmp_path):
    async def refresh(url, body):
        return 200, {"access_token": "new"}

    service = Service(usages=((401, None), (200, USAGE)))
    auth = Auth(tmp_path, refresh)
    auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")

    async def scenario():
        async with at_desk(tmp_path, service, auth=auth) as it:
            await it.call("account/rateLimits/read")
        assert [one["Authorization"] for one in service.headers] == [f"Bearer {ACCESS}", "Bearer new"]

    run(scenario())


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {name: 5 for name in USAGE},
        {name: [None] for name in USAGE},
        {"plan_type": "of tomorrow", "rate_limit": {"primary_window": {"used_percent": float("nan")}}},
        {"rate_limit": {"primary_window": {"used_percent": 1e99, "limit_window_seconds": -1, "reset_at": "x"}}},
    ],
)
def test_usage_of_another_shape_fits_the_schema_still(usage):
    assert published_schema.misfit("GetAccountRateLimitsResponse", limits_wire(usage)) is None
