"""What clients are told of the items of a response."""

import pytest

from agent.core.steps import (
    Received,
    Record,
)
from agent.model.wire import (
    ItemAdded,
    ItemDone,
    SummaryDelta,
    SummaryPartAdded,
    TextDelta,
    TurnState,
)
from tests.agent.core import model_says
from tests.agent.core.playbook import (
    NOW_MS,
    At,
    Told,
    begun,
    new_turn,
)
from tests.agent.core.test_turn import MESSAGE, say


def test_an_item_that_was_never_added_starts_when_it_is_done():
    assert (
        begun(new_turn())
        >> At(70, Received(ItemDone(MESSAGE)))
        << Record({"type": "message", "role": "assistant", "content": MESSAGE["content"]})
        << Told("item/started", item=model_says.shown_message("msg-1", "Done."), startedAtMs=NOW_MS + 70)
        << Told("item/completed", item=model_says.shown_message("msg-1", "Done."), completedAtMs=NOW_MS + 70)
    )


def test_an_item_starts_with_what_is_there_of_it():
    """Observed of codex-cli 0.169.0: a client must know of a message's phase before its text comes."""
    action = {"type": "search", "query": "q"}
    summary = [{"type": "summary_text", "text": "think"}]
    assert (
        begun(new_turn())
        >> Received(ItemAdded({**MESSAGE, "phase": "commentary"}))
        << Told("item/started", item={"id": "msg-1", "text": "Done.", "phase": "commentary"})
        >> Received(ItemAdded({"type": "web_search_call", "id": "ws-1", "action": action}))
        << Told("item/started", item={"id": "ws-1", "query": "q"})
        >> Received(ItemAdded({"type": "reasoning", "id": "rs-1", "summary": summary}))
        << Told("item/started", item={"id": "rs-1", "summary": ["think"]})
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
