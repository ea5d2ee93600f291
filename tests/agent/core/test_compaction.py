"""A history that is summed up by the service: what is kept, when it happens, and what is left after a crash."""

import pytest

from agent.core import rollout
from agent.core.compaction import TRIGGER, estimated_tokens, is_full
from agent.core.steps import (
    CommandEnded,
    Finish,
    Interrupted,
    Received,
    Record,
    Replace,
    Sample,
    SampleFailed,
    Steered,
    ToolFinished,
)
from agent.core.thread import message
from agent.core.tooling import ToolCall, ToolOutput
from agent.model.failures import StreamBroken, UpstreamError
from agent.model.wire import Completed, ItemAdded, ItemDone, TokenUsage
from tests.agent.core import model_says
from tests.agent.core.playbook import START, USER_SAID, Playbook, Told, begun, new_thread, new_turn
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.test_session import ID, room

WINDOW = 258_400
FULL = TokenUsage(total=244_800, input=244_700, output=100)
NEARLY = TokenUsage(total=244_788, input=244_699, output=89)
SUMMARY = {"type": "compaction", "id": "cmp-1", "encrypted_content": "SECRET"}
KEPT_SUMMARY = {"type": "compaction", "encrypted_content": "SECRET"}
CALL = model_says.call_item("call-1", "x")
CONTEXT = message("user", "<environment_context>\n</environment_context>")


def said(text, role="assistant"):
    return {"type": "message", "role": role, "content": [{"type": "output_text", "text": text}]}


def summary(*items, usage=model_says.USAGE):
    return [*(ItemDone(item) for item in items), Completed("resp-c", usage)]


def playing(turn, *events):
    """All that a turn says to these events."""
    book = Playbook(turn)
    return [command for event in events for command in book.say(event)]


def test_a_context_is_full_at_nine_tenths_of_the_models_window():
    """Clients are told 95% of 272,000."""
    assert is_full(FULL.total, WINDOW) and not is_full(NEARLY.total, WINDOW)


def test_the_users_own_bound_counts_if_it_is_lower():
    assert is_full(1_000, WINDOW, 1_000) and not is_full(999, WINDOW, 1_000)
    assert is_full(FULL.total, WINDOW, WINDOW * 2)


def test_a_turn_compacts_first_where_the_user_wants_it_to():
    def said_first(**limit):
        thread = new_thread(history=[CONTEXT, USER_SAID], context_tokens=1_000)
        return [one.params["item"]["type"] for one in playing(new_turn(thread, **limit), START)[2:3]]

    assert said_first(compaction_limit=1_000) == ["contextCompaction"]
    assert said_first(compaction_limit=1_001) == ["userMessage"]


@pytest.mark.parametrize("wanted", [{"compaction_limit": 1_000}, {"former_model": "gpt-6-sol"}])
def test_what_is_said_during_a_command_of_the_user_is_asked_after_the_same_preparation(wanted):
    """It went out with the history as it was, which may not fit any more."""
    thread = new_thread(history=[CONTEXT, USER_SAID], context_tokens=1_000)
    turn = new_turn(thread, content=[], item={}, of_user=True, **wanted)
    commands = playing(turn, START, Steered([{"type": "text", "text": "hi"}], USER_SAID, None), CommandEnded())
    assert [one.params["item"]["type"] for one in commands[2:3]] == ["contextCompaction"] and turn.trigger


def test_an_image_counts_for_what_it_is_worth_and_not_for_its_bytes():
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "x" * 4_000_000}

    assert estimated_tokens([{"content": [image]}]) < 2_000
    assert estimated_tokens([message("user", "x" * 4_000)]) >= 1_000


# A turn of its own


def test_a_compaction_is_a_turn_with_one_item_and_no_words(run):
    thread = new_thread(history=[CONTEXT, USER_SAID, said("hi")], total=TokenUsage(total=110))
    turn = new_turn(thread, content=[], item={}, compacts=True)
    left = estimated_tokens((*thread.static_input(), CONTEXT, USER_SAID, KEPT_SUMMARY))
    item = {"type": "contextCompaction", "id": "id-1"}

    assert (
        Playbook(turn)
        >> START
        << Told("thread/status/changed", status={"type": "active"})
        << Told("turn/started")
        << Told("item/started", item={**item, "completedAtMs": None})
        << Sample()
    )
    assert turn.trigger == (TRIGGER,)
    assert (
        Playbook(turn)
        >> Received(ItemDone(SUMMARY))
        >> Received(Completed("resp-2", model_says.USAGE))
        << Replace([CONTEXT, USER_SAID, KEPT_SUMMARY])
        << Told("thread/tokenUsage/updated", tokenUsage={"total": {"totalTokens": 110}, "last": {"totalTokens": left}})
        << Told("item/completed", item=item)
        << Told("thread/status/changed", status={"type": "idle"})
        << Told("turn/completed", turn={"status": "completed", "items": []})
        << Finish("completed")
    )
    assert turn.trigger == () and thread.context_tokens == left


def test_what_the_service_says_besides_is_not_shown():
    turn = new_turn(content=[], item={}, compacts=True)
    commands = playing(turn, START, *map(Received, model_says.message("msg-1", "I will", " not")))

    assert [one.method for one in commands[:3]] == ["thread/status/changed", "turn/started", "item/started"]
    assert commands[3:] == [Sample()]


def test_without_a_summary_the_turn_fails_and_the_history_stays():
    """compact_v2_bad."""
    thread = new_thread(history=[CONTEXT, USER_SAID])
    turn = new_turn(thread, content=[], item={}, compacts=True)
    commands = playing(turn, START, *map(Received, model_says.answer("Done.")))
    text = (
        "Error running remote compact task: Fatal error: remote compaction v2 expected exactly one compaction output "
        "item, got 0 from 1 output items"
    )

    errors = [one.params["error"] for one in commands if getattr(one, "method", "") == "error"]
    assert errors == [{"message": text, "codexErrorInfo": "other", "additionalDetails": None, "misalignment": None}]
    assert commands[-1] == Finish("failed") and thread.history == [CONTEXT, USER_SAID]
    assert not any(isinstance(one, Replace) for one in commands)


def test_a_broken_stream_is_retried_and_counts_for_nothing():
    turn = new_turn(content=[], item={}, compacts=True)
    broken = SampleFailed(StreamBroken("cut"), "websocket")
    commands = playing(turn, START, Received(ItemDone(SUMMARY)), broken)

    assert commands[-1] == Sample(0.2) and turn.trigger == (TRIGGER,)
    commands = playing(turn, *map(Received, summary(SUMMARY)))
    assert Replace([KEPT_SUMMARY]) in commands and commands[-1] == Finish("completed")


def test_what_cannot_be_retried_says_that_it_was_the_compaction():
    turn = new_turn(content=[], item={}, compacts=True)
    commands = playing(turn, START, SampleFailed(UpstreamError("bad request", status=400), "http"))

    (error,) = [one.params["error"]["message"] for one in commands if getattr(one, "method", "") == "error"]
    assert error.startswith("Error running remote compact task: ") and commands[-1] == Finish("failed")


def test_an_interrupted_one_leaves_the_history_as_it_was():
    turn = new_turn(content=[], item={}, compacts=True)
    commands = playing(turn, START, Received(ItemDone(SUMMARY)), Interrupted())

    assert commands[-1] == Finish("interrupted") and not any(isinstance(one, Replace) for one in commands)


# By itself


def test_a_turn_whose_context_is_full_is_compacted_before_it_goes_on():
    """compact_auto."""
    thread = new_thread(history=[CONTEXT])
    turn = new_turn(thread)
    begun(turn)
    call = ToolCall.of(CALL)
    commands = playing(
        turn,
        Received(ItemDone(CALL)),
        Received(Completed("resp-1", FULL)),
        ToolFinished(call, ToolOutput("done")),
    )

    assert commands[-3:] == [
        Record(ToolOutput("done").item(call)),
        commands[-2],
        Sample(),
    ]
    assert commands[-2].params["item"]["type"] == "contextCompaction" and turn.trigger == (TRIGGER,)
    commands = playing(turn, *map(Received, summary(SUMMARY)))
    assert commands[-1] == Sample() and turn.trigger == ()
    assert playing(turn, *map(Received, model_says.answer("Done.")))[-1] == Finish("completed")
    assert thread.total == FULL + model_says.USAGE


@pytest.mark.parametrize("usage", [NEARLY, None])
def test_one_that_is_not_full_goes_on_at_once(usage):
    turn = new_turn()
    begun(turn)
    events = [Received(ItemDone(CALL)), Received(Completed("resp-1", usage))]
    playing(turn, *events, ToolFinished(ToolCall.of(CALL), ToolOutput("")))

    assert turn.trigger == ()


def test_the_output_of_a_call_counts_before_the_service_has_counted_it():
    """Observed of codex-cli 0.169.0: a long output was sent to the service, which had no room for it."""
    turn = new_turn()
    begun(turn)
    playing(turn, Received(ItemDone(CALL)), Received(Completed("resp-1", NEARLY)))
    playing(turn, ToolFinished(ToolCall.of(CALL), ToolOutput("x" * 4000)))

    assert turn.trigger == (TRIGGER,)


def test_a_summary_for_which_there_was_no_room_leaves_the_context_as_it_was_counted():
    """Observed of codex-cli 0.169.0: or the next turn would try the same again before it hears the user."""
    thread = new_thread(history=[CONTEXT, USER_SAID], context_tokens=110)
    full = SampleFailed(UpstreamError("full", code="context_length_exceeded"), "websocket")
    turn = new_turn(thread, content=[], item={}, compacts=True)
    commands = playing(turn, START, full)

    assert commands[-1] == Finish("failed") and thread.context_tokens == 110
    assert "thread/tokenUsage/updated" not in [getattr(one, "method", "") for one in commands]


def test_a_compaction_that_did_not_help_is_not_made_again_at_once():
    turn = new_turn()
    begun(turn)
    full = [Received(ItemDone(CALL)), Received(Completed("resp-1", FULL))]
    finished = ToolFinished(ToolCall.of(CALL), ToolOutput("done"))
    playing(turn, *full, finished, *map(Received, summary(SUMMARY)))
    playing(turn, *full, finished)
    assert turn.trigger == ()
    playing(turn, *full, finished)
    assert turn.trigger == (TRIGGER,)


def test_a_full_context_is_compacted_before_the_next_words():
    thread = new_thread(context_tokens=FULL.total, history=[CONTEXT, USER_SAID])
    turn = new_turn(thread)
    commands = playing(turn, START)
    assert turn.trigger == (TRIGGER,) and Record(USER_SAID) not in commands

    commands = playing(turn, *map(Received, summary(SUMMARY)))
    assert Replace([CONTEXT, USER_SAID, KEPT_SUMMARY]) in commands
    assert commands[-2:] == [Record(USER_SAID), Sample()]


# In a thread


def test_the_next_request_has_what_was_kept_and_the_summary(run):
    async def scenario():
        model = ScriptedModel(model_says.answer("one"), summary(SUMMARY), model_says.answer("two", item_id="msg-2"))
        async with room(model, new_thread(developer_instructions="be brief")) as here:
            await here.turn("hello")
            here.core.start_compaction(ID).begin()
            await here.audience.hears("turn/completed", 2)
            await here.turn("again")

        assert model.inputs(2)[-1] == "compaction_trigger" and model.inputs(2)[:-1] == [
            *model.inputs(1), "assistant: one",
        ]  # fmt: skip
        assert model.inputs(3) == [*model.inputs(1), "compaction", "user: again"]
        windows = [request.client_metadata["x-codex-window-id"] for request in model.requests]
        assert windows == [f"{ID}:0", f"{ID}:0", f"{ID}:1"]

    run(scenario())


# On disk


NOW = "2026-01-01T00:00:00.000Z"


def stored(*lines):
    meta = {**new_thread().meta(), "countersign": rollout.FORMAT}
    return rollout.read(rollout.line(kind, payload, NOW) for kind, payload in ((rollout.META, meta), *lines))


def begins(turn_id):
    return rollout.TURN_STARTED, {"turn": {"id": turn_id, "status": "inProgress"}}


def ends(turn_id):
    return rollout.TURN_ENDED, {"turn": {"id": turn_id, "status": "completed"}}


ONE, TWO, THREE = (message("user", text) for text in ("one", "two", "three"))
COMPACTED = (
    begins("t1"), (rollout.HISTORY, ONE), ends("t1"),
    begins("t2"), (rollout.HISTORY, TWO), ends("t2"),
    begins("t3"), (rollout.COMPACTED, {"history": [TWO, KEPT_SUMMARY]}), ends("t3"),
    begins("t4"), (rollout.HISTORY, THREE), ends("t4"),
)  # fmt: skip


def test_a_compacted_thread_is_read_back_as_it_was():
    thread = stored(*COMPACTED)

    assert thread.history == [TWO, KEPT_SUMMARY, THREE] and thread.window == 1 and thread.problems == []


@pytest.mark.parametrize(
    ("turn_id", "left"),
    [("t4", [TWO, KEPT_SUMMARY]), ("t3", [ONE, TWO]), ("t2", [ONE]), ("t1", [])],
)
def test_reverting_goes_back_behind_a_compaction(turn_id, left):
    assert stored(*COMPACTED, (rollout.REVERTED, {"turn_id": turn_id})).history == left


def test_a_compaction_that_a_crash_tore_has_not_been():
    meta = {**new_thread().meta(), "countersign": rollout.FORMAT}
    lines = [rollout.line(kind, payload, NOW) for kind, payload in ((rollout.META, meta), *COMPACTED[:8])]
    for length in range(1, len(lines[-1]) - 1, 7):
        thread = rollout.read([*lines[:-1], lines[-1][:length]])
        assert thread.history == [ONE, TWO] and thread.window == 0 and "torn" in thread.problems[0]


def test_items_that_only_begin_are_of_no_account():
    turn = new_turn(content=[], item={}, compacts=True)
    commands = playing(turn, START, Received(ItemAdded(SUMMARY)), Received(Completed("resp-2", None)))

    assert commands[-1] == Finish("failed")
