"""What a turn makes of requests that fail: the rows of facts/protocol.md 5.6."""

import pytest

from agent.core.steps import (
    FallBack,
    Finish,
    Impossible,
    Notify,
    Received,
    Record,
    Sample,
    SampleFailed,
)
from agent.core.turn import MAX_RETRY_DELAY_S
from agent.model.failures import failure
from agent.model.wire import (
    Created,
    ItemAdded,
    LimitsSeen,
    TextDelta,
    TokenUsage,
)
from tests.agent.core import model_says
from tests.agent.core.playbook import (
    Told,
    begun,
    new_thread,
    new_turn,
)
from tests.agent.core.test_turn import MESSAGE, NO_LIMITS, broken, reconnecting, say, upstream
from tests.agent.core.test_turn_calls import called, ended, output


def test_the_first_broken_socket_is_nobodys_business_and_the_later_ones_are_told():
    """err_ws_cut_midway, retry_exhausted_ws; the delay doubles."""
    details = "stream disconnected before completion: cut"
    assert (
        begun(new_turn())
        >> broken()
        << Sample(0.2)
        >> broken()
        << reconnecting(2, details)
        << Sample(0.4)
        >> broken()
        << reconnecting(3, details)
        << Sample(0.8)
        >> broken()
        << reconnecting(4, details)
        << Sample(1.6)
        >> broken()
        << reconnecting(5, details)
        << Sample(3.2)
    )


def test_a_spent_websocket_budget_falls_back_to_post_with_a_fresh_one():
    """retry_exhausted_ws."""
    book = begun(new_turn(retries=2))
    book.say(broken())
    book.say(broken())
    text = "Falling back from WebSockets to HTTPS transport. stream disconnected before completion: cut"
    assert (
        book
        >> broken()
        << Notify("warning", {"threadId": "thread-1", "message": text})
        << FallBack()
        << Sample(0.0)
        >> broken("http")
        << reconnecting(1, retries=2)
        << Sample(0.2)
        >> broken("http")
        << reconnecting(2, retries=2)
        << Sample(0.4)
        >> broken("http")
        << Told("thread/status/changed", status={"type": "systemError"})
        << Told("error", willRetry=False, error={"message": "stream disconnected before completion: cut"})
        << Told("thread/readState/changed")
        << Told("turn/completed", turn={"status": "failed", "items": [], "itemsView": "notLoaded"})
        << Finish("failed")
    )


def test_over_post_the_first_retry_is_told_and_its_limits_before_it():
    """err_http_cut_midway."""
    book = say(begun(new_turn()), [LimitsSeen(NO_LIMITS), Created("r1")])
    assert (
        book
        >> broken("http")
        << Told("account/rateLimits/updated", rateLimits={"primary": None})
        << reconnecting(1)
        << Sample(0.2)
    )


@pytest.mark.parametrize("failed", [broken("http"), upstream(transport="http"), upstream(500, transport="http")])
def test_limits_of_an_answer_that_fails_are_told_behind_what_was_used(failed):
    """Observed of codex-cli 0.169.0: the limits of all that began to be answered, however it ended."""
    turn = new_turn(new_thread(total=TokenUsage(total=110)))
    book = say(begun(turn), [LimitsSeen(NO_LIMITS), Created("r1")])
    assert (
        book
        >> failed
        << Told("thread/tokenUsage/updated", tokenUsage={"total": {"totalTokens": 110}})
        << Told("account/rateLimits/updated")
        << Told("error", willRetry=True)
        << Sample(0.2)
    )


def test_a_completed_response_makes_the_budget_new():
    book = begun(new_turn())
    book.say(broken())
    book.say(broken())
    say(book, model_says.calls(model_says.call_item("call-1", "x")))

    assert book >> broken() << Sample(0.2)


def test_a_message_begun_before_a_break_stays_open_and_the_next_attempt_starts_its_own():
    """err_ws_cut_midway: m-cut is started and never completed."""
    partial = {**model_says.message_item("m-cut", ""), "content": []}
    book = say(begun(new_turn()), [ItemAdded(partial), TextDelta("m-cut", "partia")])
    assert (
        book
        >> broken()
        << Sample(0.2)
        >> Received(TextDelta("m-cut", "l"))
        >> Received(ItemAdded({**MESSAGE, "content": []}))
        << Told("item/started", item={"id": "msg-1"})
    )


def test_calls_that_were_complete_before_a_break_keep_their_outputs():
    book = begun(new_turn())
    book.say(called())

    assert book >> broken() >> ended() << Record(output()) << Sample(0.2) >> broken() << reconnecting(2) << Sample(0.4)


@pytest.mark.parametrize("status", [None, 500, 502, 503, 529])
def test_a_failing_service_is_asked_again(status):
    """err_ws_500, err_response_failed."""
    assert begun(new_turn()) >> upstream(status) << Sample(0.2)


def test_a_failing_service_that_never_recovers_fails_the_turn_with_its_own_status():
    """retry_exhausted_http500."""
    book = begun(new_turn(retries=1))
    book.say(upstream(500, transport="http"))
    assert (
        book
        >> upstream(500, transport="http")
        << Told("thread/status/changed", status={"type": "systemError"})
        << Told("error", willRetry=False, error={"codexErrorInfo": "internalServerError", "additionalDetails": None})
        << Told("thread/readState/changed")
        << Told("turn/completed", turn={"status": "failed", "error": {"codexErrorInfo": "internalServerError"}})
        << Finish("failed")
    )


def test_an_unauthorized_request_is_retried_as_a_stream():
    """err_401_refresh_fails: what the client could not mend begins again."""
    assert begun(new_turn()) >> upstream(transport="http") << reconnecting(1) << Sample(0.2)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 413, 502])
def test_a_client_is_told_the_status_that_is_behind_a_retry(status):
    info = {"responseStreamDisconnected": {"httpStatusCode": status}}
    told = Told("error", willRetry=True, error={"message": "Reconnecting... 1/5", "codexErrorInfo": info})

    assert begun(new_turn()) >> upstream(status, transport="http") << told << Sample(0.2)


def test_a_turn_that_ran_out_of_retries_ends_with_the_status():
    book = begun(new_turn(retries=0))
    *_, finished, _ = book.say(upstream(401, transport="http"))
    info = {"httpConnectionFailed": {"httpStatusCode": 401}}

    assert isinstance(finished, Notify) and finished.params["turn"]["error"]["codexErrorInfo"] == info


@pytest.mark.parametrize("retry_after_s, delay_s", [(7.0, 7.0), (0.0, 0.2), (3600.0, MAX_RETRY_DELAY_S)])
def test_a_busy_service_says_how_long_to_wait_within_bounds(retry_after_s, delay_s):
    """err_http_429_plain."""
    refused = upstream(429, transport="http", retry_after_s=retry_after_s)

    assert begun(new_turn()) >> refused << reconnecting(1, status=429) << Sample(delay_s)


def test_the_backoff_is_bounded_too():
    book = begun(new_turn(retries=20))
    for _ in range(10):
        book.say(broken("http"))

    assert book >> broken("http") << reconnecting(11, retries=20) << Sample(MAX_RETRY_DELAY_S)


@pytest.mark.parametrize(
    "failed, info",
    [
        (upstream(400), "other"),  # err_http_400
        (upstream(429), {"responseTooManyFailedAttempts": {"httpStatusCode": 429}}),
        (upstream(code="insufficient_quota"), "usageLimitExceeded"),
        (upstream(code="incomplete"), "other"),  # err_incomplete
        (upstream(429, code="usage_limit_reached", limits=NO_LIMITS), "usageLimitExceeded"),  # err_ws_429_usage
        (upstream(code="context_length_exceeded"), "contextWindowExceeded"),  # err_response_failed_context
    ],
)
def test_what_a_retry_cannot_mend_fails_the_turn_at_once(failed, info):
    book = begun(new_turn())
    commands = book.say(failed)
    errors = [command.params for command in commands if isinstance(command, Notify) and command.method == "error"]

    assert commands[-1] == Finish("failed")
    assert [error["willRetry"] for error in errors] == [False]
    assert errors[0]["error"]["codexErrorInfo"] == info
    assert commands[-2].params["turn"]["error"] == errors[0]["error"]


def test_a_spent_plan_tells_the_limits_of_the_refusal_first():
    """err_http_429_usage."""
    body = '{"error": {"type": "usage_limit_reached", "message": "limit", "resets_at": 1999999999}}'
    headers = {"x-codex-primary-used-percent": "100", "x-codex-primary-window-minutes": "300"}
    primary = {"usedPercent": 100, "windowDurationMins": 300, "resetsAt": None}
    assert (
        begun(new_turn())
        >> SampleFailed(failure(429, headers, body), "http")
        << Told("account/rateLimits/updated", rateLimits={"primary": primary, "secondary": None})
        << Told("thread/status/changed", status={"type": "systemError"})
        << Told("error", willRetry=False, error={"codexErrorInfo": "usageLimitExceeded"})
        << Told("thread/readState/changed")
        << Told("turn/completed", turn={"status": "failed"})
        << Finish("failed")
    )


def test_the_limits_of_another_refusal_are_not_told():
    """err_http_400."""
    book = begun(new_turn())
    book.say(SampleFailed(failure(400, {"x-codex-primary-used-percent": "10"}, "{}"), "http"))

    assert "account/rateLimits/updated" not in [notify.method for notify in book.told]


def test_a_full_context_window_is_told_as_usage_of_the_whole_window():
    """err_response_failed_context."""
    thread = new_thread(total=TokenUsage(total=400, input=390, output=10))
    nothing = {"inputTokens": 0, "cachedInputTokens": 0, "outputTokens": 0, "reasoningOutputTokens": 0}
    usage = {
        "total": {"totalTokens": 258_400, **nothing},
        "last": {"totalTokens": 258_000, **nothing},
        "modelContextWindow": 258_400,
    }
    assert (
        begun(new_turn(thread))
        >> upstream(code="context_length_exceeded")
        << Told("thread/tokenUsage/updated", tokenUsage=usage)
        << Told("thread/status/changed", status={"type": "systemError"})
        << Told("error", willRetry=False, error={"codexErrorInfo": "contextWindowExceeded"})
        << Told("thread/readState/changed")
        << Told("turn/completed", turn={"status": "failed"})
        << Finish("failed")
    )


def test_a_request_that_cannot_be_made_fails_the_turn_and_keeps_the_outputs():
    book = begun(new_turn())
    book.say(called())
    book.say(ended())
    assert (
        book
        >> Impossible("nobody is signed in", "unauthorized")
        << Record(output())
        << Told("thread/status/changed", status={"type": "systemError"})
        << Told("error", willRetry=False, error={"message": "nobody is signed in", "codexErrorInfo": "unauthorized"})
        << Told("thread/readState/changed")
        << Told("turn/completed", turn={"status": "failed"})
        << Finish("failed")
    )


def test_a_thread_is_active_during_a_turn_and_broken_after_a_failed_one():
    thread = new_thread()
    book = begun(new_turn(thread))
    assert thread.status == "active"
    book.say(Impossible("no", "other"))
    assert thread.status == "systemError"
    say(begun(new_turn(thread, id="turn-2")), model_says.answer("Done."))
    assert thread.status == "idle"
