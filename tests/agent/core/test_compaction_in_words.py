"""A history that another model provider than the service sums up: it is asked in words, and answers in words."""

import pytest

from agent.core.compaction import FOUND, WANTED, Compaction, NotOneSummary, estimated_tokens, kept
from agent.core.steps import Finish, Received, Replace, Sample
from agent.core.thread import message
from agent.model.provider import Provider
from agent.model.wire import Completed, ItemDone, TokenUsage
from tests.agent.core import model_says
from tests.agent.core.playbook import START, USER_SAID, Playbook, Told, new_thread, new_turn
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.test_compaction import CONTEXT, KEPT_SUMMARY, said
from tests.agent.core.test_session import ID, room

MINE = Provider(id="mine", name="Mine", base_url="https://models.example")
SUMMED_UP = message("user", f"{FOUND}\nAll is well.")


def test_a_provider_is_asked_for_a_summary_which_takes_the_place_of_what_was_said():
    thread = new_thread(history=[CONTEXT, USER_SAID, said("hi")], total=TokenUsage(total=110), provider=MINE)
    turn = new_turn(thread, content=[], item={}, compacts=True)
    left = estimated_tokens((*thread.static_input(), CONTEXT, USER_SAID, SUMMED_UP))
    cost = TokenUsage(total=30, input=20, output=10)

    assert (
        Playbook(turn)
        >> START
        << Told("thread/status/changed")
        << Told("turn/started")
        << Told("item/started")
        << Sample()
    )
    assert turn.trigger == (message("user", WANTED),)
    assert (
        Playbook(turn)
        >> Received(ItemDone(said("All is well.")))
        >> Received(Completed("resp-2", cost))
        << Told("thread/tokenUsage/updated", tokenUsage={"total": {"totalTokens": 140}, "last": {"totalTokens": 30}})
        << Replace([CONTEXT, USER_SAID, SUMMED_UP])
        << Told("thread/tokenUsage/updated", tokenUsage={"total": {"totalTokens": 140}, "last": {"totalTokens": left}})
        << Told("item/completed")
        << Told("thread/status/changed", status={"type": "idle"})
        << Told("turn/completed", turn={"status": "completed", "items": []})
        << Finish("completed")
    )


@pytest.mark.parametrize("outputs", [[], [said("  ")], [{"type": "reasoning", "summary": []}], [KEPT_SUMMARY]])
def test_without_a_word_the_history_stays(outputs):
    with pytest.raises(NotOneSummary, match="gave none; the history stays"):
        Compaction("item-1", 0, outputs, in_words=True).result([CONTEXT, USER_SAID])


def test_a_failure_is_not_called_a_remote_one():
    turn = new_turn(new_thread(provider=MINE), content=[], item={}, compacts=True)
    book = Playbook(turn)
    commands = [command for event in (START, Received(Completed("r", None))) for command in book.say(event)]

    (error,) = [one.params["error"]["message"] for one in commands if getattr(one, "method", "") == "error"]
    assert error.startswith("the model was asked for a summary") and commands[-1] == Finish("failed")


def test_a_former_summary_is_not_the_users_word():
    assert kept([CONTEXT, USER_SAID, SUMMED_UP]) == [CONTEXT, USER_SAID]


@pytest.mark.parametrize(("name", "in_words"), [("Mine", True), ("OpenAI", False), ("Azure", False)])
def test_who_knows_no_trigger_is_asked_without_tools(name, in_words, run):
    """Observed of codex-cli 0.169.0: OpenAI and Azure are sent a trigger, all others words."""

    async def scenario():
        thread = new_thread(history=[CONTEXT, USER_SAID], provider=Provider(id="mine", name=name))
        answer = [ItemDone(said("All is well.") if in_words else KEPT_SUMMARY), Completed("r", model_says.USAGE)]
        with ScriptedModel(answer) as model:
            async with room(model, thread) as here:
                here.core.start_compaction(ID).begin()
                turn = (await here.audience.hears("turn/completed"))["turn"]
            assert turn["status"] == "completed"
            (request,) = model.requests
            assert (request.input[-1] == message("user", WANTED)) is in_words
            assert request.shape()["parallel_tool_calls"] is bool(request.tools)
            assert thread.history[-1] == (SUMMED_UP if in_words else KEPT_SUMMARY)

    run(scenario())
