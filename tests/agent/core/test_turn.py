"""A turn as a dialogue: what comes from the model and the user, and what clients are told, in which order.

The orders and payloads are those of the original (the goldens named in the tests; tests/agent/test_goldens.py replays
the recordings themselves).
"""

import pytest

from agent.core.steps import (
    Finish,
    Impossible,
    Interrupted,
    Notify,
    Received,
    Record,
    RunTool,
    Sample,
    SampleFailed,
    Steered,
    ToolFinished,
)
from agent.core.tooling import ToolOutput
from agent.model.failures import StreamBroken, UpstreamError
from agent.model.limits import Credits, LimitWindow, RateLimits
from agent.model.wire import (
    Completed,
    Created,
    ItemAdded,
    ItemDone,
    LimitsSeen,
    SummaryDelta,
    SummaryPartAdded,
    TextDelta,
    TokenUsage,
)
from tests.agent.core import model_says, published_schema
from tests.agent.core.playbook import (
    CONTENT,
    NOW_MS,
    START,
    USER_SAID,
    At,
    Playbook,
    Told,
    begun,
    new_thread,
    new_turn,
)

NO_LIMITS = RateLimits()
MESSAGE = model_says.message_item("msg-1", "Done.")
STEERED = Steered(
    [{"type": "text", "text": "also do B", "text_elements": []}],
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "also do B"}]},
    "cm-1",
)


def broken(transport="websocket", text="cut"):
    return SampleFailed(StreamBroken(text), transport)


def upstream(status=None, code="", transport="websocket", **more):
    return SampleFailed(UpstreamError("the reason", status=status, code=code, **more), transport)


def reconnecting(attempt, details=None, retries=5, status=None):
    error = {
        "message": f"Reconnecting... {attempt}/{retries}",
        "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": status}},
        "misalignment": None,
    }
    if details is not None:
        error["additionalDetails"] = details
    return Told("error", error=error, willRetry=True, threadId="thread-1", turnId="turn-1")


def say(book, events):
    """Events whose commands this story is not about; what is called is done at once."""
    for event in events:
        for command in book.say(Received(event)):
            if isinstance(command, RunTool):
                book.say(ToolFinished(command.call, ToolOutput("done")))
    return book


# The plain turn


def test_a_plain_turn_is_told_in_the_order_and_words_of_the_original():
    """plain_turn_ws, from turn/started to turn/completed."""
    about = {"threadId": "thread-1", "turnId": "turn-1"}
    user = {"type": "userMessage", "id": "id-1", "clientId": None, "content": CONTENT}
    running = {
        "id": "turn-1",
        "rootTurnId": "turn-1",
        "items": [],
        "itemsView": "notLoaded",
        "status": "inProgress",
        "error": None,
        "startedAt": NOW_MS // 1000,
        "completedAt": None,
        "durationMs": None,
    }
    counts = {
        "totalTokens": 110,
        "inputTokens": 100,
        "cachedInputTokens": 40,
        "cacheWriteInputTokens": 0,
        "outputTokens": 10,
        "reasoningOutputTokens": 3,
    }
    started = {"startedAtMs": NOW_MS, "completedAtMs": None}
    done = {"startedAtMs": NOW_MS, "completedAtMs": NOW_MS + 1500}
    shown = model_says.shown_message("msg-1", "Done.", **done)

    assert (
        Playbook(new_turn())
        >> START
        << Notify("thread/status/changed", {"threadId": "thread-1", "status": {"type": "active", "activeFlags": []}})
        << Notify("turn/started", {"threadId": "thread-1", "turn": running})
        << Notify("item/started", {"item": {**user, **started}, **about, "startedAtMs": NOW_MS})
        << Notify(
            "item/completed",
            {
                "item": {**user, "startedAtMs": NOW_MS, "completedAtMs": NOW_MS},
                **about,
                "contentTokenCount": None,
                "completedAtMs": NOW_MS,
            },
        )
        << Record(USER_SAID)
        << Sample()
        >> Received(Created("resp-1"))
        >> Received(ItemAdded({**MESSAGE, "content": []}))
        << Notify(
            "item/started",
            {"item": model_says.shown_message("msg-1", "", **started), **about, "startedAtMs": NOW_MS},
        )
        >> Received(TextDelta("msg-1", "Do"))
        << Notify("item/agentMessage/delta", {**about, "itemId": "msg-1", "delta": "Do"})
        >> Received(TextDelta("msg-1", "ne."))
        << Notify("item/agentMessage/delta", {**about, "itemId": "msg-1", "delta": "ne."})
        >> At(1500, Received(ItemDone(MESSAGE)))
        << Record({"type": "message", "role": "assistant", "content": MESSAGE["content"]})
        << Notify("item/completed", {"item": shown, **about, "contentTokenCount": None, "completedAtMs": NOW_MS + 1500})
        >> At(2500, Received(model_says.completed()))
        << Notify(
            "thread/tokenUsage/updated",
            {**about, "tokenUsage": {"total": counts, "last": counts, "modelContextWindow": 258_400}},
        )
        << Notify(
            "thread/readState/changed",
            {
                "threadId": "thread-1",
                "readState": {"firstUnread": {"type": "turn", "turnId": "turn-1"}, "revision": "id-2"},
            },
        )
        << Notify("thread/status/changed", {"threadId": "thread-1", "status": {"type": "idle"}})
        << Notify(
            "turn/completed",
            {
                "threadId": "thread-1",
                "turn": {
                    **running,
                    "items": [shown],
                    "itemsView": "summary",
                    "status": "completed",
                    "completedAt": NOW_MS // 1000 + 2,
                    "durationMs": 2500,
                },
            },
        )
        << Finish("completed")
    )


def test_the_members_of_a_notification_come_in_the_order_of_the_original():
    book = say(begun(new_turn()), model_says.answer("Done."))
    orders = {notify.method: list(notify.params) for notify in book.told}

    assert orders == {
        "thread/status/changed": ["threadId", "status"],
        "turn/started": ["threadId", "turn"],
        "item/started": ["item", "threadId", "turnId", "startedAtMs"],
        "item/completed": ["item", "threadId", "turnId", "contentTokenCount", "completedAtMs"],
        "item/agentMessage/delta": ["threadId", "turnId", "itemId", "delta"],
        "thread/tokenUsage/updated": ["threadId", "turnId", "tokenUsage"],
        "thread/readState/changed": ["threadId", "readState"],
        "turn/completed": ["threadId", "turn"],
    }


def test_the_answer_to_turn_start_shows_a_turn_that_has_not_started():
    assert new_turn().wire() == {
        "id": "turn-1",
        "rootTurnId": "turn-1",
        "items": [],
        "itemsView": "notLoaded",
        "status": "inProgress",
        "error": None,
        "startedAt": None,
        "completedAt": None,
        "durationMs": None,
    }


def test_rate_limits_are_told_after_the_usage_when_the_answer_carried_them():
    """plain_turn_http: the headers of a POST bring limits, also empty ones; a WebSocket brings none."""
    book = say(begun(new_turn()), [LimitsSeen(NO_LIMITS), *model_says.message("msg-1", "Done.")])
    assert (
        book
        >> Received(model_says.completed())
        << Told("thread/tokenUsage/updated")
        << Told("account/rateLimits/updated", rateLimits={"limitId": "codex", "primary": None, "secondary": None})
        << Told("thread/readState/changed")
        << Told("thread/status/changed", status={"type": "idle"})
        << Told("turn/completed")
        << Finish("completed")
    )


def test_rate_limits_name_percent_minutes_and_reset():
    limits = RateLimits(LimitWindow(12, 300, 1_999_999_999), LimitWindow(4, None, None))
    book = say(begun(new_turn()), [LimitsSeen(limits), *model_says.answer("Done.")])
    told = next(notify for notify in book.told if notify.method == "account/rateLimits/updated")

    assert told.params["rateLimits"]["primary"] == {
        "usedPercent": 12,
        "windowDurationMins": 300,
        "resetsAt": 1_999_999_999,
    }
    assert told.params["rateLimits"]["secondary"] == {"usedPercent": 4, "windowDurationMins": None, "resetsAt": None}


def test_limits_that_are_known_are_told_whenever_the_usage_is():
    """Observed of codex-cli 0.169.0: also in later turns, on a WebSocket that says nothing new."""
    thread = new_thread()
    book = say(begun(new_turn(thread)), [LimitsSeen(RateLimits(plan="plus")), *model_says.answer("one")])
    later = say(begun(new_turn(thread, id="turn-2")), model_says.answer("two"))

    for told in (book.told, later.told):
        (limits,) = [one.params["rateLimits"] for one in told if one.method == "account/rateLimits/updated"]
        assert limits["planType"] == "plus"


def test_limits_keep_the_credits_and_the_plan_that_a_later_answer_does_not_name():
    credits = Credits(True, False, "12.5")
    thread = new_thread(limits=RateLimits(LimitWindow(1, None, None), LimitWindow(2, None, None), credits, "who knows"))
    book = say(begun(new_turn(thread)), [LimitsSeen(RateLimits(LimitWindow(5, None, None))), *model_says.answer("one")])
    (limits,) = [one.params["rateLimits"] for one in book.told if one.method == "account/rateLimits/updated"]

    assert limits["credits"] == {"hasCredits": True, "unlimited": False, "balance": "12.5"}
    assert (limits["primary"]["usedPercent"], limits["secondary"], limits["planType"]) == (5, None, "unknown")


def test_a_response_without_usage_tells_no_usage():
    book = say(begun(new_turn()), model_says.message("msg-1", "Done."))
    assert (
        book
        >> Received(model_says.completed(usage=None))
        << Told("thread/readState/changed")
        << Told("thread/status/changed")
        << Told("turn/completed")
        << Finish("completed")
    )


def test_a_response_after_which_the_model_has_more_to_say_is_gone_on_with():
    """Observed of codex-cli 0.169.0 (`end_turn: false`): the turn ended there, half done."""
    book = say(begun(new_turn()), model_says.message("msg-1", "Let me see."))
    assert (
        book
        >> Received(Completed("resp-1", model_says.USAGE, goes_on=True))
        << Told("thread/tokenUsage/updated")
        << Sample()
    )
    say(book, model_says.answer("Done.", item_id="msg-2"))
    assert [item["id"] for item in book.told[-1].params["turn"]["items"]] == ["msg-2"]


def test_usage_adds_up_over_the_turns_of_a_thread():
    thread = new_thread()
    say(begun(new_turn(thread)), model_says.answer("one"))
    book = say(begun(new_turn(thread, id="turn-2")), model_says.answer("two"))
    usage = next(notify.params["tokenUsage"] for notify in book.told if notify.method == "thread/tokenUsage/updated")

    assert thread.total == TokenUsage(220, 200, 80, 20, 6)
    assert usage["total"]["totalTokens"] == 220 and usage["last"]["totalTokens"] == 110


def test_the_first_unread_turn_stays_the_first_unread():
    thread = new_thread()
    say(begun(new_turn(thread)), model_says.answer("one"))
    book = say(begun(new_turn(thread, id="turn-2")), model_says.answer("two"))
    state = next(notify.params["readState"] for notify in book.told if notify.method == "thread/readState/changed")

    assert state["firstUnread"] == {"type": "turn", "turnId": "turn-1"}


def test_an_ephemeral_thread_has_no_read_state():
    """thread_start_options: nobody can come back to read it."""
    book = say(begun(new_turn(new_thread(ephemeral=True))), model_says.answer("Done."))

    assert "thread/readState/changed" not in [notify.method for notify in book.told]
    assert book.told[-1].params["turn"]["itemsView"] == "summary"


def test_a_turn_without_a_message_summarises_nothing_and_leaves_nothing_unread():
    """tool_misc: the last response was a local_shell_call, which nobody answers."""
    item = {"type": "local_shell_call", "id": "ls-1", "call_id": "c", "status": "completed", "action": {}}
    book = say(begun(new_turn()), [Created("resp-1"), ItemDone(item)])
    assert (
        book
        >> Received(model_says.completed())
        << Told("thread/tokenUsage/updated")
        << Told("thread/status/changed", status={"type": "idle"})
        << Told("turn/completed", turn={"status": "completed", "items": [], "itemsView": "notLoaded", "error": None})
        << Finish("completed")
    )


# The published schema


@pytest.mark.skipif(not published_schema.is_there(), reason=published_schema.MISSING)
@pytest.mark.parametrize(
    "name, end",
    [
        ("completed", [Received(event) for event in [LimitsSeen(NO_LIMITS), *model_says.answer("Done.")]]),
        ("interrupted", [Interrupted()]),
        ("impossible", [Impossible("no", {"responseStreamDisconnected": {"httpStatusCode": 500}})]),
        ("usage limit", [upstream(429, "usage_limit_reached", limits=RateLimits(LimitWindow(1, 2, 3), None))]),
        ("context", [upstream(code="context_length_exceeded")]),
        ("fallback", [broken() for _ in range(6)] + [broken("http") for _ in range(6)]),
        (
            "reasoning",
            [
                Received(ItemAdded({"type": "reasoning", "id": "rs-1", "summary": []})),
                Received(SummaryPartAdded("rs-1", 0)),
                Received(SummaryDelta("rs-1", 0, "think")),
                Received(ItemDone({"type": "reasoning", "id": "rs-1", "summary": []})),
                STEERED,
                Received(model_says.completed()),
            ],
        ),
    ],
)
def test_every_notification_fits_the_schema_that_the_original_publishes(name, end):
    """Each playbook checks this; here it is visible when it could not."""
    book = begun(new_turn())
    for event in end:
        book.say(event)

    misfits = [published_schema.misfit_of_notification(told.method, told.params) for told in book.told]
    assert len(misfits) >= 6 and not any(misfits)


@pytest.mark.skipif(not published_schema.is_there(), reason=published_schema.MISSING)
def test_the_schema_can_refuse():
    assert published_schema.misfit_of_notification("warning", {"threadId": 5}) is not None
    assert published_schema.misfit_of_notification("no/such/notification", {}) is not None
