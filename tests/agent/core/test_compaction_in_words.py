"""A history that another model provider than the service sums up: it is asked in words, and answers in words."""

import pytest

from agent.core.compaction import FOUND, WANTED, Compaction, NotOneSummary, estimated_tokens, kept
from agent.core.steps import Finish, Received, Replace, Sample, SampleFailed
from agent.core.thread import message
from agent.model.failures import UpstreamError
from agent.model.limits import RateLimits
from agent.model.provider import Provider
from agent.model.wire import Completed, ItemDone, LimitsSeen, TokenUsage
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
        Compaction("item-1", 0, [], in_words=True, outputs=outputs).result([CONTEXT, USER_SAID])


def test_a_failure_is_not_called_a_remote_one():
    turn = new_turn(new_thread(provider=MINE), content=[], item={}, compacts=True)
    book = Playbook(turn)
    commands = [command for event in (START, Received(Completed("r", None))) for command in book.say(event)]

    (error,) = [one.params["error"]["message"] for one in commands if getattr(one, "method", "") == "error"]
    assert error.startswith("the model was asked for a summary") and commands[-1] == Finish("failed")


def overflow():
    return SampleFailed(UpstreamError("too long", code="context_length_exceeded"), "http")


def test_a_history_that_does_not_fit_is_summed_up_without_the_oldest_of_it():
    """Observed of codex-cli 0.169.0: a call and its output go together, and at once."""
    call = model_says.call_item("call-1", "x")
    output = {"type": "function_call_output", "call_id": "call-1", "output": "done"}
    thread = new_thread(history=[CONTEXT, call, output, USER_SAID, said("hi")], provider=MINE)
    turn = new_turn(thread, content=[], item={}, compacts=True)
    book = Playbook(turn)
    book.say(START)

    assert book.say(overflow()) == [Sample()] and list(turn.input) == [call, output, USER_SAID, said("hi")]
    assert book.say(overflow()) == [Sample()] and list(turn.input) == [USER_SAID, said("hi")]
    book.say(Received(ItemDone(said("All is well."))))
    commands = book.say(Received(Completed("r", None)))
    assert Replace([CONTEXT, USER_SAID, SUMMED_UP]) in commands and commands[-1] == Finish("completed")


def test_a_history_of_which_nothing_fits_fails_as_a_full_one():
    thread = new_thread(history=[CONTEXT, USER_SAID], provider=MINE)
    turn = new_turn(thread, content=[], item={}, compacts=True)
    book = Playbook(turn)
    book.say(START)
    book.say(overflow())

    commands = book.say(overflow())
    assert commands[-1] == Finish("failed") and thread.context_tokens == 258_400


def test_a_long_history_is_shortened_in_steps_that_grow():
    compaction = Compaction("item-1", 0, [said(str(number)) for number in range(1000)], in_words=True)
    lengths = [1000]
    while compaction.shorten():
        lengths.append(len(compaction.input))

    assert lengths[:5] == [1000, 999, 998, 997, 996] and len(lengths) < 35 and lengths[-1] == 1


def test_limits_are_told_as_soon_as_a_summary_is_begun():
    """Observed of codex-cli 0.169.0: a turn tells them with what it cost."""
    turn = new_turn(new_thread(provider=MINE, total=TokenUsage(total=110)), content=[], item={}, compacts=True)
    book = Playbook(turn)
    book.say(START)
    told = book.say(Received(LimitsSeen(RateLimits())))

    assert [one.method for one in told] == ["thread/tokenUsage/updated", "account/rateLimits/updated"]


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
