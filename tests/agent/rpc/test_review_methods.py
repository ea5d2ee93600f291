"""Reviews, as clients see them, with a scripted reviewer."""

import json

import pytest

from agent.core.review import INSTRUCTIONS, NO_ANSWER, target_of
from agent.model.failures import UpstreamError
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn

UNKNOWN = "019a0000-0000-7000-8000-00000000dead"
UNCOMMITTED = {"type": "uncommittedChanges"}
FINE = json.dumps({"findings": [], "overall_explanation": "fine"})


async def review(desktop, thread_id, **target):
    """Start a review; the answer."""
    wanted = {"threadId": thread_id, "target": target or {"type": "uncommittedChanges"}}
    return await desktop.request("review/start", wanted)


def modes(desktop):
    """(kind, text) of the review items that began."""
    items = [one["params"]["item"] for one in desktop.notifications if one["method"] == "item/completed"]
    return [(item["type"], item["review"]) for item in items if "review" in item]


def test_a_review_is_a_turn_of_its_thread_and_ends_with_the_findings(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer(FINE), model_says.answer("Done.", item_id="msg-2")) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                answer = await review(desktop, thread_id)
                done = (await desktop.wait_for("turn/completed"))["turn"]
                assert answer["reviewThreadId"] == thread_id and answer["turn"]["id"] == done["id"]
                assert answer["turn"]["items"][0]["content"][0]["text"] == "current changes"
                assert done["status"] == "completed" and done["items"][0]["text"] == "fine"
                assert modes(desktop) == [("enteredReviewMode", "current changes"), ("exitedReviewMode", "fine")]
                threads = {one["params"].get("threadId", thread_id) for one in desktop.notifications}
                assert threads == {thread_id}
                await turn(desktop, thread_id, HELLO)
        reviewed, after = model.requests
        assert model.inputs(1)[0] == f"developer: {INSTRUCTIONS}"
        assert (reviewed.subagent, reviewed.session_id) == ("review", thread_id) and reviewed.thread_id != thread_id
        assert (after.subagent, after.thread_id) == (None, thread_id)
        assert model.inputs(2)[-2:] == ["assistant: fine", f"user: {HELLO['text']}"]
        assert json.loads(reviewed.turn_metadata)["parent_thread_id"] == thread_id

    run(scenario())


def test_a_reviewer_that_fails_fails_the_turn_and_the_mode_is_left(run, tmp_path):
    async def scenario():
        with ScriptedModel([UpstreamError("bad request", status=400)]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await review(desktop, thread_id)
                done = (await desktop.wait_for("turn/completed"))["turn"]
                assert done["status"] == "failed" and done["error"]["message"]
                assert modes(desktop)[-1] == ("exitedReviewMode", NO_ANSWER)
                assert [one["method"] for one in desktop.notifications].count("error") == 1

    run(scenario())


def test_an_interrupted_review_leaves_the_mode_first_and_the_thread_works_again(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause], model_says.answer("Done.")) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop):
                thread_id = await start(desktop, cwd="/work")
                turn_id = (await review(desktop, thread_id))["turn"]["id"]
                await pause.reached.wait()
                await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
                assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "interrupted"
                assert modes(desktop)[-1] == ("exitedReviewMode", NO_ANSWER)
                assert (await turn(desktop, thread_id, HELLO))["status"] == "completed"
                assert app.connections._parents == {}

    run(scenario())


def test_a_review_takes_no_words_in(run, tmp_path):
    """In the words of codex-cli 0.169.0; what is an error to be told from others has the original's kind."""

    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *model_says.answer(FINE)]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop):
                thread_id = await start(desktop, cwd="/work")
                turn_id = (await review(desktop, thread_id))["turn"]["id"]
                await pause.reached.wait()
                wanted = {"threadId": thread_id, "expectedTurnId": turn_id, "input": [HELLO]}
                assert await refused(desktop, "turn/steer", wanted) == "cannot steer a review turn"
                (error,) = [one["error"] for one in app.heard if "error" in one]
                assert error["data"]["codexErrorInfo"] == {"activeTurnNotSteerable": {"turnKind": "review"}}
                pause.over.set()
                done = (await desktop.wait_for("turn/completed"))["turn"]
                assert (done["id"], done["items"][0]["text"]) == (turn_id, "fine")

    run(scenario())


def test_a_review_is_there_when_the_thread_is_resumed(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer(FINE)) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await review(desktop, thread_id)
                await desktop.wait_for("turn/completed")
        async with app_and_desktop(tmp_path) as (_, desktop):
            (stored,) = (await desktop.request("thread/resume", {"threadId": thread_id}))["thread"]["turns"]
        kinds = [item["type"] for item in stored["items"]]
        assert kinds == ["enteredReviewMode", "userMessage", "exitedReviewMode", "agentMessage"]
        assert stored["status"] == "completed"

    run(scenario())


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"threadId": UNKNOWN, "target": {"type": "uncommittedChanges"}}, "thread not found"),
        ({"threadId": UNKNOWN, "target": {"type": "custom", "instructions": " "}}, "instructions must not be empty"),
        ({"threadId": UNKNOWN, "target": {"type": "baseBranch", "branch": ""}}, "branch must not be empty"),
        ({"threadId": UNKNOWN, "target": {"type": "commit", "sha": ""}}, "sha must not be empty"),
        ({"threadId": UNKNOWN, "target": {"type": "commit"}}, "missing field `sha`"),
        ({"threadId": UNKNOWN, "target": {"type": "nope"}}, "unknown variant `nope`"),
        ({"threadId": UNKNOWN}, "missing field `target`"),
        (
            {"threadId": UNKNOWN, "target": {"type": "uncommittedChanges"}, "delivery": "detached"},
            "not supported by countersign",
        ),
    ],
)
def test_what_cannot_be_reviewed_is_refused(params, text, run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (app, desktop):
            assert text in await refused(desktop, "review/start", params)
            assert app.connections._parents == {}

    run(scenario())


def test_a_turn_that_runs_gives_way_to_a_review(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause], model_says.answer(FINE)) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await pause.reached.wait()
                turn_id = (await review(desktop, thread_id))["turn"]["id"]
                assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "interrupted"
                done = (await desktop.wait_for("turn/completed", 2))["turn"]
                assert (done["id"], done["status"], done["items"][0]["text"]) == (turn_id, "completed", "fine")

    run(scenario())


def test_a_review_gives_way_to_another(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause], model_says.answer(FINE)) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop):
                thread_id = await start(desktop, cwd="/work")
                await review(desktop, thread_id)
                await pause.reached.wait()
                await review(desktop, thread_id)
                assert (await desktop.wait_for("turn/completed", 2))["turn"]["status"] == "completed"
                assert [kind for kind, _ in modes(desktop)] == ["enteredReviewMode", "exitedReviewMode"] * 2
                assert app.connections._parents == {}

    run(scenario())


def test_a_review_that_is_interrupted_before_it_began_leaves_nothing(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (app, desktop):
            thread_id = await start(desktop, cwd="/work")
            app.connections.adopt("reviewer", thread_id)
            started = app.core.start_review(
                thread_id, "reviewer", target_of(UNCOMMITTED), lambda: app.connections.disown("reviewer")
            )
            started.begin()
            app.core.interrupt(thread_id, started.wire["id"])()
            assert app.connections._parents == {} and modes(desktop) == []

    run(scenario())
