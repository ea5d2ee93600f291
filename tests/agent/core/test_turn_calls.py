"""Turns whose model calls tools."""

import pytest

from agent.core.steps import (
    Finish,
    Interrupted,
    Received,
    Record,
    RunTool,
    Sample,
    ToolFinished,
)
from agent.core.thread import TURN_ABORTED, message
from agent.core.tooling import ToolCall, ToolOutput
from agent.model.wire import (
    ItemAdded,
    ItemDone,
)
from tests.agent.core import model_says
from tests.agent.core.playbook import (
    Told,
    begun,
    new_turn,
)
from tests.agent.core.test_turn import say


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
    assert [one.item for one in commands if isinstance(one, Record)][:2] == [
        output(1),
        output(2, "aborted by user after 0.0s"),
    ]
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
