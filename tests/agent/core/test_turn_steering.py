"""Turns that are steered and interrupted."""

from agent.core.steps import (
    Finish,
    Interrupted,
    Notify,
    Received,
    Record,
    Sample,
)
from agent.core.thread import TURN_ABORTED
from agent.model.wire import (
    Created,
    ItemAdded,
    ItemDone,
    TextDelta,
)
from tests.agent.core import model_says
from tests.agent.core.playbook import (
    At,
    Told,
    begun,
    new_turn,
)
from tests.agent.core.test_turn import MESSAGE, STEERED, broken, say

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
