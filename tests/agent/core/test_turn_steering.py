"""Turns that are steered and interrupted."""

import pytest

from agent.core.steps import (
    Finish,
    Impossible,
    Interrupted,
    Notify,
    Received,
    Record,
    Sample,
    ToolFinished,
)
from agent.core.thread import FILTERED_ANSWER, TURN_ABORTED, message
from agent.core.tooling import ToolCall, ToolOutput
from agent.model.wire import (
    Created,
    ItemAdded,
    ItemDone,
    TextDelta,
)
from tests.agent.core import model_says
from tests.agent.core.playbook import (
    USER_SAID,
    At,
    Playbook,
    Told,
    begun,
    new_turn,
)
from tests.agent.core.test_turn import MESSAGE, STEERED, broken, say, upstream

# Steering


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


def heard():
    return [
        Told("item/started", item={"type": "userMessage", "clientId": "cm-1"}),
        Told("item/completed", item={"type": "userMessage", "clientId": "cm-1"}),
        Record(STEERED.item),
    ]


@pytest.mark.parametrize("failed", [upstream(400), upstream(code="incomplete"), upstream(429, "usage_limit_reached")])
def test_what_was_steered_into_a_turn_that_fails_is_answered_in_it(failed):
    """Observed of codex-cli 0.169.0; it was lost, though the client had been told that it was taken."""
    book = begun(new_turn())
    book.say(STEERED)
    started, completed, recorded = heard()
    assert book >> failed << started << completed << recorded << Sample()
    assert book.say(failed)[-1] == Finish("failed")


def test_what_was_steered_into_a_turn_without_room_for_it_is_kept_for_the_next():
    book = begun(new_turn())
    book.say(STEERED)
    started, completed, recorded = heard()
    assert (
        book
        >> upstream(code="context_length_exceeded")
        << Told("thread/tokenUsage/updated")
        << Told("thread/status/changed", status={"type": "systemError"})
        << Told("error", willRetry=False)
        << started
        << completed
        << recorded
        << Told("thread/readState/changed")
        << Told("turn/completed", turn={"status": "failed"})
        << Finish("failed")
    )


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_an_answer_that_a_filter_stopped_is_asked_for_again_and_the_model_is_told(transport):
    """Observed of codex-cli 0.169.0."""
    book = begun(new_turn())
    book.say(STEERED)
    commands = book.say(upstream(code="content_filter", transport=transport))

    assert book.recorded[-2:] == [message("developer", FILTERED_ANSWER), STEERED.item]
    assert commands[-1] == Sample(0.2)


# Interrupts


def test_a_turn_that_is_stopped_before_it_began_is_told_whole_and_keeps_the_users_words():
    book = Playbook(new_turn())
    book.say(Interrupted())

    assert [one.method for one in book.told] == [
        "thread/status/changed",
        "turn/started",
        "item/started",
        "item/completed",
        "thread/status/changed",
        "turn/completed",
    ]
    assert book.recorded[0] == USER_SAID and book.told[-1].params["turn"]["startedAt"] is not None


def test_a_turn_that_cannot_even_begin_is_told_whole_too():
    book = Playbook(new_turn())
    book.say(Impossible("no", "other"))

    assert [one.method for one in book.told][:2] == ["thread/status/changed", "turn/started"]
    assert book.recorded == [USER_SAID] and book.told[-1].params["turn"]["status"] == "failed"


@pytest.mark.parametrize(
    ("name", "output"),
    [("exec_command", "Wall time: 1.5 seconds\naborted by user"), ("x", "aborted by user after 1.5s")],
)
def test_the_model_is_told_how_long_a_call_ran_that_was_stopped(name, output):
    """In the words of codex-cli 0.169.0."""
    book = begun(new_turn())
    book.say(Received(ItemDone(model_says.call_item("call-1", name))))
    book.say(At(1500, Interrupted()))

    assert book.recorded[-2]["output"] == output


def test_two_calls_of_one_id_keep_their_own_outputs():
    book = begun(new_turn())
    first, second = (ToolCall.of(model_says.call_item("call-1", name)) for name in ("a", "b"))
    for call in (first, second):
        book.say(Received(ItemDone(model_says.call_item("call-1", call.name))))
    book.say(Received(model_says.completed()))
    book.say(ToolFinished(second, ToolOutput("of b")))
    book.say(ToolFinished(first, ToolOutput("of a")))

    assert [item["output"] for item in book.recorded[-2:]] == ["of a", "of b"]


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
