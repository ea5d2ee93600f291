"""A history that another model has made: who sums it up, and how that is known of a thread."""

import pytest

from agent.core import rollout
from agent.model.failures import UpstreamError
from tests.agent.core import model_says
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.core.test_compaction import SUMMARY, stored, summary
from tests.agent.core.test_session import ID, room


def test_the_model_that_made_a_history_sums_it_up_before_another_takes_over(run):
    """thread_fork_model_change."""

    def other_model(thread):
        thread.model = "gpt-6-sol"

    async def scenario():
        model = ScriptedModel(model_says.answer("one"), summary(SUMMARY), model_says.answer("two", item_id="msg-2"))
        async with room(model) as here:
            await here.turn("hello", {"type": "object"})
            here.start("again", {"type": "object"}, other_model)
            await here.audience.hears("turn/completed", 2)

        assert [request.model for request in model.requests] == ["gpt-6.1-sol", "gpt-6.1-sol", "gpt-6-sol"]
        assert [request.output_schema is None for request in model.requests] == [False, True, False]
        assert model.inputs(3)[-2:] == ["compaction", "user: again"]

    run(scenario())


def test_when_it_cannot_the_new_one_tries_and_the_words_are_not_lost(run):
    """turn_options: as long as none of them can, each turn tries both."""

    def other_model(thread):
        thread.model = "gpt-6-sol"

    async def scenario():
        refusals = [model_says.answer("no"), [UpstreamError("bad request", status=400)]] * 2
        model = ScriptedModel(model_says.answer("one"), *refusals)
        async with room(model) as here:
            await here.turn("hello")
            here.start("again", None, other_model)
            done = await here.audience.hears("turn/completed", 2)
            assert done["turn"]["status"] == "failed" and here.thread.answered_by == "gpt-6.1-sol"
            items = [params["item"]["type"] for method, params in here.audience.told if method == "item/completed"]
            assert items == ["userMessage", "agentMessage", "userMessage"]
            await here.turn("and again")

        models = [request.model for request in model.requests]
        assert models == ["gpt-6.1-sol", *["gpt-6.1-sol", "gpt-6-sol"] * 2]
        assert model.inputs(5)[-2:] == ["user: again", "compaction_trigger"]

    run(scenario())


@pytest.mark.parametrize(("status", "model"), [("completed", "gpt-6-sol"), ("failed", None)])
def test_who_answered_last_is_read_back(status, model):
    started = (rollout.TURN_STARTED, {"turn": {"id": "t1", "status": "inProgress"}, "model": "gpt-6-sol"})
    thread = stored(started, (rollout.TURN_ENDED, {"turn": {"id": "t1", "status": status}}))

    assert thread.meta["answered_by"] == model


def test_who_answered_last_is_known_of_what_is_left_of_a_thread():
    """After a revert, and in a fork, it was still the one whose turns are gone."""
    lines = [
        line
        for turn_id, model in (("t1", "gpt-6-sol"), ("t2", "gpt-6.1-sol"))
        for line in (
            (rollout.TURN_STARTED, {"turn": {"id": turn_id, "status": "inProgress"}, "model": model}),
            (rollout.TURN_ENDED, {"turn": {"id": turn_id, "status": "completed"}}),
        )
    ]
    thread = stored(*lines)
    copied = stored(*rollout.entries(thread.history, thread.turns[:1]))
    reverted = stored(*lines, (rollout.REVERTED, {"turn_id": "t2"}))

    assert thread.meta["answered_by"] == "gpt-6.1-sol" and thread.turns[1].after == "gpt-6-sol"
    assert copied.meta["answered_by"] == reverted.meta["answered_by"] == "gpt-6-sol"


def test_a_revert_forgets_who_answered_what_was_taken_back(run):
    def other_model(thread):
        thread.model = "gpt-6-sol"

    async def scenario():
        model = ScriptedModel(model_says.answer("one"), summary(SUMMARY), model_says.answer("two", item_id="m2"))
        async with room(model) as here:
            await here.turn("hello")
            here.start("again", None, other_model)
            await here.audience.hears("turn/completed", 2)
            before, second = (await here.core.stored(ID))[0].turns
            here.core.revert(ID, second)
            assert here.thread.answered_by == before.model == "gpt-6.1-sol"

    run(scenario())
