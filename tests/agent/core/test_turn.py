"""A turn as a dialogue: what comes from the model and the user, and what clients are told, in which order.

The orders and payloads are those of the original (the goldens named in the tests; tests/agent/test_goldens.py replays
the recordings themselves).
"""

import pytest

from agent.core.steps import (
    FallBack,
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
from agent.core.thread import ABORTED_CALL, TURN_ABORTED, message
from agent.core.tooling import ToolCall, ToolOutput
from agent.core.turn import MAX_RETRY_DELAY_S
from agent.model.failures import StreamBroken, UpstreamError, failure
from agent.model.limits import LimitWindow, RateLimits
from agent.model.wire import (
    Created,
    ItemAdded,
    ItemDone,
    LimitsSeen,
    SummaryDelta,
    SummaryPartAdded,
    TextDelta,
    TokenUsage,
    TurnState,
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


def test_limits_are_told_once_for_each_answer_that_brought_them():
    turn = new_turn()
    book = say(begun(turn), [LimitsSeen(NO_LIMITS), *model_says.calls(model_says.call_item("c", "x"))])
    say(book, model_says.answer("Done."))

    assert [notify.method for notify in book.told].count("account/rateLimits/updated") == 1


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


# Items


def test_an_item_that_was_never_added_starts_when_it_is_done():
    assert (
        begun(new_turn())
        >> At(70, Received(ItemDone(MESSAGE)))
        << Record({"type": "message", "role": "assistant", "content": MESSAGE["content"]})
        << Told("item/started", item=model_says.shown_message("msg-1", "Done."), startedAtMs=NOW_MS + 70)
        << Told("item/completed", item=model_says.shown_message("msg-1", "Done."), completedAtMs=NOW_MS + 70)
    )


def test_an_item_without_an_id_gets_one_of_ours():
    item = {name: value for name, value in MESSAGE.items() if name != "id"}
    assert (
        begun(new_turn())
        >> Received(ItemDone(item))
        << Record(item)
        << Told("item/started", item={"id": "id-2"})
        << Told("item/completed", item={"id": "id-2", "text": "Done."})
    )


def test_an_empty_piece_of_text_is_not_told():
    """turn_state_http: the recorded backend sent one, and the original said nothing of it."""
    book = say(begun(new_turn()), [ItemAdded({**MESSAGE, "content": []})])
    assert (
        book
        >> Received(TextDelta("msg-1", ""))
        >> Received(TextDelta("msg-1", "a"))
        << Told("item/agentMessage/delta", delta="a")
    )


def test_deltas_of_items_that_clients_do_not_know_are_not_told():
    assert (
        begun(new_turn())
        >> Received(TextDelta("nobody", "Do"))
        >> Received(SummaryPartAdded("nobody", 0))
        >> Received(SummaryDelta("nobody", 0, "think"))
    )


def test_reasoning_is_told_in_summary_parts_and_deltas_and_then_whole():
    reasoning = {
        "type": "reasoning",
        "id": "rs-1",
        "summary": [{"type": "summary_text", "text": "think"}, {"type": "summary_text", "text": "more"}],
        "content": [{"type": "reasoning_text", "text": "raw"}],
        "encrypted_content": "secret",
    }
    assert (
        begun(new_turn())
        >> Received(ItemAdded({"type": "reasoning", "id": "rs-1", "summary": []}))
        << Told("item/started", item={"type": "reasoning", "id": "rs-1", "summary": [], "content": []})
        >> Received(SummaryPartAdded("rs-1", 0))
        << Told("item/reasoning/summaryPartAdded", itemId="rs-1", summaryIndex=0)
        >> Received(SummaryDelta("rs-1", 0, "think"))
        << Told("item/reasoning/summaryTextDelta", itemId="rs-1", summaryIndex=0, delta="think")
        >> Received(TextDelta("rs-1", "a text delta of a reasoning item is none of ours"))
        >> Received(ItemDone(reasoning))
        << Record({name: value for name, value in reasoning.items() if name != "id"})
        << Told("item/completed", item={"type": "reasoning", "summary": ["think", "more"], "content": ["raw"]})
    )


def test_reasoning_is_not_the_last_message_of_a_turn():
    book = say(begun(new_turn()), model_says.message("msg-1", "Done."))
    say(book, [ItemDone({"type": "reasoning", "id": "rs-1", "summary": []}), model_says.completed()])

    assert [item["id"] for item in book.told[-1].params["turn"]["items"]] == ["msg-1"]


def test_items_that_clients_are_not_shown_are_still_remembered():
    item = {"type": "image_generation_call", "id": "ig-1", "status": "completed", "result": ""}
    assert begun(new_turn()) >> Received(ItemDone(item)) << Record({"type": "image_generation_call", "result": ""})


@pytest.mark.parametrize(
    ("action", "shown", "query"),
    [
        ({"type": "search", "query": "a"}, {"type": "search", "query": "a", "queries": None}, "a"),
        ({"type": "search", "queries": ["a", "b"]}, {"type": "search", "query": None, "queries": ["a", "b"]}, "a ..."),
        ({"type": "open_page", "url": "u"}, {"type": "openPage", "url": "u"}, "u"),
        (
            {"type": "find_in_page", "url": "u", "pattern": "p"},
            {"type": "findInPage", "url": "u", "pattern": "p"},
            "'p' in u",
        ),
        ({"type": "dance"}, {"type": "other"}, ""),
        (None, {"type": "other"}, ""),
    ],
)
def test_what_the_model_did_on_the_web_is_shown(action, shown, query):
    """tool_web_search_item."""
    item = {"type": "web_search_call", "id": "ws-1", "status": "completed", "action": action}
    book = say(begun(new_turn()), [ItemDone(item)])
    (completed,) = [one.params["item"] for one in book.told if one.params.get("item", {}).get("id") == "ws-1"][1:]
    assert (completed["type"], completed["action"], completed["query"]) == ("webSearch", shown, query)


def test_an_item_that_was_added_and_never_done_does_not_complete():
    book = say(begun(new_turn()), [ItemAdded({**MESSAGE, "content": []}), model_says.completed()])
    completed = [notify.params["item"]["type"] for notify in book.told if notify.method == "item/completed"]

    assert completed == ["userMessage"]


def test_the_state_that_the_service_wants_back_is_kept_for_the_turn():
    turn = new_turn()
    say(begun(turn), [TurnState("TS-1")])

    assert turn.state == "TS-1"
    assert new_turn().state is None


# Calls


def call(number=1, name="x", kind="function_call", text="{}"):
    return ToolCall(f"call-{number}", kind, name, text)


def called(number=1, name="x"):
    return Received(ItemDone(model_says.call_item(f"call-{number}", name)))


def ended(number=1, name="x", text="done", **result):
    return ToolFinished(call(number, name), ToolOutput(text, **result))


def output(number=1, text="done"):
    return {"type": "function_call_output", "call_id": f"call-{number}", "output": text}


@pytest.mark.parametrize(
    "call_type, member, output_type",
    [
        ("function_call", "arguments", "function_call_output"),
        ("custom_tool_call", "input", "custom_tool_call_output"),
    ],
)
def test_a_call_is_carried_out_and_the_model_is_asked_again_with_its_output(call_type, member, output_type):
    item = {"type": call_type, "id": "fc-1", "call_id": "call-1", "name": "x", member: "{}"}
    made = call(kind=call_type)
    assert (
        begun(new_turn())
        >> Received(ItemAdded({**item, member: ""}))
        >> Received(ItemDone(item))
        << Record({name: value for name, value in item.items() if name != "id"})
        << RunTool(made)
        >> ToolFinished(made, ToolOutput("done"))
        >> Received(model_says.completed())
        << Told("thread/tokenUsage/updated")
        << Record({"type": output_type, "call_id": "call-1", "output": "done"})
        << Sample()
    )


def test_the_end_of_a_response_waits_for_its_calls_and_their_outputs_keep_their_order():
    """tool_exec_on_request_accept: the usage is told when the command has ended."""
    book = begun(new_turn())
    for number in (1, 2, 3):
        book.say(called(number))
    assert (
        book
        >> ended(3, text="third")
        >> Received(model_says.completed())
        >> ended(1, text="first")
        >> ended(2, text="second")
        << Told("thread/tokenUsage/updated")
        << Record(output(1, "first"))
        << Record(output(2, "second"))
        << Record(output(3, "third"))
        << Sample()
    )


def test_a_turn_that_called_tools_ends_with_the_last_message():
    book = begun(new_turn())
    book.say(called())
    book.say(ended())
    book.say(Received(model_says.completed()))
    say(book, model_says.answer("Done.", item_id="msg-9"))

    assert [item["id"] for item in book.told[-1].params["turn"]["items"]] == ["msg-9"]
    assert book.recorded[1:3] == [
        {"type": "function_call", "call_id": "call-1", "name": "x", "arguments": "{}"},
        output(),
    ]


def test_a_call_that_the_user_cancelled_ends_the_turn():
    """tool_exec_on_request_cancel."""
    book = begun(new_turn())
    book.say(called())
    assert (
        book
        >> Received(model_says.completed())
        >> ended(text="rejected", stops_turn=True)
        << Told("thread/tokenUsage/updated")
        << Record(output(text="rejected"))
        << Record(message("user", TURN_ABORTED))
        << Told("thread/status/changed", status={"type": "idle"})
        << Told("turn/completed", turn={"status": "interrupted", "items": []})
        << Finish("interrupted")
    )


def test_calls_that_run_when_the_turn_is_stopped_get_an_output_too():
    book = begun(new_turn())
    book.say(called(1))
    book.say(called(2))
    book.say(ended(1))
    commands = book.say(Interrupted())
    assert [one.item for one in commands if isinstance(one, Record)][:2] == [output(1), output(2, ABORTED_CALL)]
    assert book.say(ended(2)) == []


def test_an_output_of_a_call_that_nobody_made_is_nothing():
    assert (
        begun(new_turn())
        >> ended()
        >> Received(model_says.completed())
        << Told("thread/tokenUsage/updated")
        << Told("thread/status/changed")
        << Told("turn/completed")
        << Finish("completed")
    )


# Steering


STEERED = Steered(
    [{"type": "text", "text": "also do B", "text_elements": []}],
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "also do B"}]},
    "cm-1",
)


def test_what_is_steered_becomes_an_item_when_the_response_is_over_and_is_answered():
    """turn_steer."""
    book = say(begun(new_turn()), [Created("resp-1"), ItemAdded({**MESSAGE, "content": []})])
    assert (
        book
        >> STEERED
        >> Received(TextDelta("msg-1", "Done."))
        << Told("item/agentMessage/delta", delta="Done.")
        >> Received(ItemDone(MESSAGE))
        << Record({"type": "message", "role": "assistant", "content": MESSAGE["content"]})
        << Told("item/completed", item={"id": "msg-1"})
        >> Received(model_says.completed())
        << Told("thread/tokenUsage/updated")
        << Told("item/started", item={"type": "userMessage", "clientId": "cm-1", "content": STEERED.content})
        << Told("item/completed", item={"type": "userMessage", "clientId": "cm-1"})
        << Record(STEERED.item)
        << Sample()
    )


def test_outputs_come_before_what_was_steered():
    book = say(begun(new_turn()), [ItemDone(model_says.call_item("call-1", "x"))])
    book.say(STEERED)
    say(book, [model_says.completed()])

    assert [item["type"] for item in book.recorded[1:]] == ["function_call", "function_call_output", "message"]


def test_steering_a_turn_that_is_over_says_nothing():
    book = say(begun(new_turn()), model_says.answer("Done."))
    assert book >> STEERED >> Interrupted() >> broken() >> Received(TextDelta("msg-1", "late"))


# Interrupts


def test_an_interrupt_ends_the_turn_at_once_and_the_partial_message_never_completes():
    """turn_interrupt: status, turn/completed without items, a note for the model; no readState."""
    book = say(begun(new_turn()), [Created("r"), ItemAdded({**MESSAGE, "content": []}), TextDelta("msg-1", "first ")])
    aborted = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": TURN_ABORTED}]}
    assert (
        book
        >> At(40, Interrupted())
        << Record(aborted)
        << Notify("thread/status/changed", {"threadId": "thread-1", "status": {"type": "idle"}})
        << Told(
            "turn/completed",
            turn={"status": "interrupted", "items": [], "itemsView": "notLoaded", "error": None, "durationMs": 40},
        )
        << Finish("interrupted")
        >> Received(TextDelta("msg-1", "answer"))
        >> Received(ItemDone(MESSAGE))
        >> Received(model_says.completed())
        >> Interrupted()
    )
    assert TURN_ABORTED.startswith("<turn_aborted>")


def test_calls_that_were_complete_when_the_user_stopped_get_their_outputs():
    """A call without its output in the history is refused by the service, in this and in every later turn."""
    book = say(begun(new_turn()), [ItemDone(model_says.call_item("call-1", "x"))])
    book.say(Interrupted())

    assert [item["type"] for item in book.recorded] == ["message", "function_call", "function_call_output", "message"]
    assert book.recorded[-2]["call_id"] == "call-1"


# Retries: the rows of facts/protocol.md 5.6


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
