"""Limits and failures, as the service tells them and as they are judged."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.failures import Retry, StreamBroken, UpstreamError, failure, judge, refused_by_proxy
from agent.model.limits import Credits, LimitWindow, RateLimits, parse_limits
from agent.model.wire import LimitsSeen, parse_event
from tests.agent.model.test_wire import JSON


def test_limits_come_from_the_headers_of_both_windows():
    headers = {
        "x-codex-primary-used-percent": "12.5",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "1999999999",
        "x-codex-secondary-used-percent": "3",
    }

    assert parse_limits(headers) == RateLimits(LimitWindow(13, 300, 1999999999), LimitWindow(3, None, None))


def test_credits_come_from_the_headers_too():
    headers = {"x-codex-credits-has-credits": "true", "x-codex-credits-unlimited": "False"}
    assert parse_limits({**headers, "x-codex-credits-balance": "9.99"}).credits == Credits(True, False, "9.99")
    assert parse_limits(headers).credits == Credits(True, False, None)
    assert parse_limits({**headers, "x-codex-credits-unlimited": "perhaps"}).credits is None


WINDOW_TOLD = {"used_percent": 42.5, "window_minutes": 60, "reset_at": 1700000000}
CREDITS_TOLD = {"has_credits": True, "unlimited": False, "balance": "12.5"}


@pytest.mark.parametrize(
    ("event", "limits"),
    [
        (
            {"plan_type": "plus", "rate_limits": {"primary": WINDOW_TOLD, "secondary": None}, "credits": CREDITS_TOLD},
            RateLimits(LimitWindow(43, 60, 1700000000), None, Credits(True, False, "12.5"), "plus"),
        ),
        (
            {"rate_limits": {"secondary": {"used_percent": 1}}, "metered_limit_name": "Codex-Other"},
            RateLimits(None, LimitWindow(1, None, None), limit_id="codex_other"),
        ),
        ({"rate_limits": None}, RateLimits()),
        ({"credits": {**CREDITS_TOLD, "balance": 0}}, RateLimits(credits=Credits(True, False, "0"))),  # a text, always
    ],
)
def test_on_a_websocket_limits_come_as_an_event(event, limits):
    """Observed of codex-cli 0.169.0: there are no headers of a response there."""
    assert parse_event(json.dumps({"type": "codex.rate_limits", **event})) == LimitsSeen(limits)


@pytest.mark.parametrize(
    "event",
    [
        {"rate_limits": "x"},
        {"plan_type": 5},
        {"credits": {"unlimited": True}},
        {"rate_limits": {"primary": {"window_minutes": 5}}},
        {"rate_limits": {"primary": {**WINDOW_TOLD, "window_minutes": "x"}}},
    ],
)
def test_limits_that_are_not_as_the_service_tells_them_are_passed_over(event):
    assert parse_event(json.dumps({"type": "codex.rate_limits", **event})) is None


@pytest.mark.parametrize("text", ["", "many", "nan", "inf", "-1", "1e30", "0x10"])
def test_limits_that_are_no_numbers_are_unknown(text):
    assert parse_limits({"x-codex-primary-used-percent": text}) == RateLimits()
    limits = parse_limits({"x-codex-primary-used-percent": "1", "x-codex-primary-reset-at": text})
    assert limits.primary == LimitWindow(1, None, None)


@pytest.mark.parametrize(
    "body, message, kind, code",
    [
        ('{"error": {"type": "invalid_request", "message": "bad request"}}', "bad request", "invalid_request", ""),
        ('{"error": {"code": "server_error", "message": " x "}}', "x", "", "server_error"),
        ('{"error": {"type": "a", "code": "b", "message": "x"}}', "x", "a", "b"),
        ('{"detail": "upgrade required"}', "upgrade required", "", ""),
        ('{"error": "plain"}', '{"error": "plain"}', "", ""),
        ("", "no reason was given", "", ""),
        ("[" * 100_000, "[" * 500, "", ""),
        ("<html>" + "x" * 9000, "<html>" + "x" * 494, "", ""),
    ],
)  # fmt: skip
def test_a_failure_speaks_with_the_services_words_and_not_with_whole_pages(body, message, kind, code):
    failed = failure(502, {}, body)

    assert (failed.message, failed.kind, failed.code, failed.status) == (message, kind, code, 502)


@pytest.mark.parametrize(
    "text, seconds", [("7", 7.0), ("1.5", 1.5), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-3", None), ("", None)]
)
def test_retry_after_is_a_number_of_seconds(text, seconds):
    assert failure(429, {"Retry-After": text}, "").retry_after_s == seconds


@given(st.none() | st.integers(), st.dictionaries(st.text(max_size=5), JSON), st.text() | JSON.map(json.dumps))
def test_every_answer_is_some_failure(status, headers, body):
    failed = failure(status, headers, body)
    assert isinstance(judge(failed).retryable, bool) and str(failed)


# What a failure means: the table of retries


@pytest.mark.parametrize(
    "failed, retryable, info",
    [
        (StreamBroken("cut"), True, "other"),
        (UpstreamError("x", status=400), False, "other"),
        (UpstreamError("x", status=429), False, {"responseTooManyFailedAttempts": {"httpStatusCode": 429}}),
        (
            UpstreamError("x", status=429, retry_after_s=1.0),
            True,
            {"responseTooManyFailedAttempts": {"httpStatusCode": 429}},
        ),
        (UpstreamError("x", status=500), True, "internalServerError"),
        (UpstreamError("x", code="server_error"), True, "other"),
        (UpstreamError("x", code="incomplete"), False, "other"),
        (refused_by_proxy("a.example", 403), False, "other"),
    ],
)
def test_a_failure_is_sorted_as_the_original_sorts_it(failed, retryable, info):
    verdict = judge(failed)

    assert (verdict.retryable, verdict.info) == (retryable, info)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 413, 502, 503, 529])
def test_every_status_but_400_may_get_better_and_is_told(status):
    """A 403 of a gateway that was busy failed the turn at once; codex tries again, and ends with the status."""
    verdict = judge(UpstreamError("x", status=status))

    assert verdict.retryable and verdict.status == status
    assert verdict.info == {"httpConnectionFailed": {"httpStatusCode": status}}


@pytest.mark.parametrize("status, word", [(None, "code"), (400, "code"), (429, "kind"), (503, "code")])
@pytest.mark.parametrize(
    "said, retryable, info",
    [
        ("usage_limit_reached", False, "usageLimitExceeded"),
        ("usage_not_included", False, "usageLimitExceeded"),
        ("insufficient_quota", False, "usageLimitExceeded"),
        ("context_length_exceeded", False, "contextWindowExceeded"),
        ("server_is_overloaded", False, "serverOverloaded"),
        ("invalid_prompt", False, "other"),
        ("cyber_policy", False, "cyberPolicy"),
        ("slow_down", True, "rateLimitExceeded"),
        ("rate_limit_exceeded", True, "rateLimitExceeded"),
        ("websocket_connection_limit_reached", True, "other"),
        ("previous_response_not_found", True, "other"),
    ],
)
def test_a_word_of_the_service_says_more_than_the_status(said, retryable, info, status, word):
    """A spent quota cost twelve requests; a socket that was too old, with its 400, failed the turn at once."""
    verdict = judge(UpstreamError("x", status=status, **{word: said}))

    assert (verdict.retryable, verdict.info) == (retryable, info)


def test_the_code_of_an_error_counts_beside_its_type():
    error = {"type": "invalid_request_error", "code": "websocket_connection_limit_reached", "message": "too old"}
    with pytest.raises(UpstreamError) as failed:
        parse_event(json.dumps({"type": "error", "status": 400, "error": error}))
    assert judge(failed.value).retryable

    with pytest.raises(UpstreamError) as failed:
        parse_event(json.dumps({"type": "error", "status": 400, "error": {**error, "code": "another"}}))
    assert not judge(failed.value).retryable


@pytest.mark.parametrize(
    "message, seconds",
    [
        ("Rate limit reached for x. Please try again in 1.5s. Visit y", 1.5),
        ("please TRY AGAIN IN 700ms.", 0.7),
        ("Please try again in 3 seconds.", 3.0),
        ("Please try again in 7m3.5s.", None),
        ("Please try again in a while.", None),
    ],
)
def test_a_limit_that_tells_the_wait_in_words_is_waited_for(message, seconds):
    assert judge(UpstreamError(message, code="rate_limit_exceeded")).retry_after_s == seconds
    assert judge(UpstreamError(message, code="server_error")).retry_after_s is None


def test_only_limits_that_are_the_reason_are_told():
    told = [
        judge(UpstreamError("x", status=429, kind="usage_limit_reached")).tells_limits,
        judge(UpstreamError("x", status=429)).tells_limits,
        judge(UpstreamError("x", status=500)).tells_limits,
    ]

    assert told == [True, False, False]


def test_the_wait_that_a_service_asks_for_is_kept():
    assert judge(UpstreamError("x", status=429, retry_after_s=7.0)).retry_after_s == 7.0
    assert judge(UpstreamError("x", status=503, retry_after_s=7.0)).retry_after_s == 7.0


@pytest.mark.parametrize(
    "resets_at, text",
    [
        (None, "The usage limit of this plan is reached; try again later."),
        (1999999999, "The usage limit of this plan is reached; it resets at 2033-05-18 03:33 UTC."),
        (10**18, "The usage limit of this plan is reached; try again later."),
        (-(10**18), "The usage limit of this plan is reached; try again later."),
    ],
)
def test_a_spent_plan_says_when_it_is_filled_again_if_that_is_a_date(resets_at, text):
    spent = UpstreamError("limit", status=429, kind="usage_limit_reached", resets_at=resets_at)

    assert judge(spent) == Retry(False, text, "usageLimitExceeded", tells_limits=True)
