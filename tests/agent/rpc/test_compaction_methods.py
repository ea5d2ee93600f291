"""Compaction at a client's wish, and what is left of it in the next process."""

import asyncio

from agent.model.wire import Completed, ItemDone, TokenUsage
from agent.rpc.jsonrpc import INTERNAL_ERROR
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn

UNKNOWN = "019a0000-0000-7000-8000-00000000dead"
SUMMARY = {"type": "compaction", "id": "cmp-1", "encrypted_content": "SECRET"}
COMPACTION = [ItemDone(SUMMARY), Completed("resp-c", model_says.USAGE)]


async def compact(desktop, thread_id):
    """A whole compaction; the `turn` of its turn/completed."""
    before = sum(one["method"] == "turn/completed" for one in desktop.notifications)
    assert await desktop.request("thread/compact/start", {"threadId": thread_id}) == {}
    return (await desktop.wait_for("turn/completed", before + 1))["turn"]


def test_the_answer_comes_before_the_turn_and_the_item_is_in_the_threads_items(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("one"), COMPACTION) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop):
                thread_id = await start(desktop, cwd="/work")
                await turn(desktop, thread_id, HELLO)
                heard = len(app.heard)
                done = await compact(desktop, thread_id)
                assert done["status"] == "completed" and done["items"] == []
                told = [one.get("method", "answer") for one in app.heard[heard:]]
                page = await desktop.request("thread/turns/list", {"threadId": thread_id, "itemsView": "full"})
        assert told == [
            "answer",
            "thread/status/changed",
            "turn/started",
            "item/started",
            "thread/tokenUsage/updated",
            "item/completed",
            "thread/status/changed",
            "turn/completed",
        ]
        assert ["contextCompaction"] in [[item["type"] for item in one["items"]] for one in page["data"]]

    run(scenario())


def test_a_resumed_thread_goes_on_with_the_summary(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("one"), COMPACTION) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await turn(desktop, thread_id, HELLO)
                await compact(desktop, thread_id)
        with ScriptedModel(model_says.answer("two", item_id="msg-2")) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                await desktop.request("thread/resume", {"threadId": thread_id})
                await turn(desktop, thread_id, {**HELLO, "text": "again"})
        assert model.inputs(1)[-3:] == [f"user: {HELLO['text']}", "compaction", "user: again"]
        assert model.requests[0].client_metadata["x-codex-window-id"] == f"{thread_id}:1"

    run(scenario())


def test_a_fork_from_before_a_compaction_has_what_was_said_then(run, tmp_path):
    async def scenario():
        answers = [model_says.answer("one"), COMPACTION, model_says.answer("two", item_id="msg-2")]
        with ScriptedModel(*answers, model_says.answer("three", item_id="msg-3")) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                first = await turn(desktop, thread_id, HELLO)
                await compact(desktop, thread_id)
                await turn(desktop, thread_id, {**HELLO, "text": "again"})
                wanted = {"threadId": thread_id, "lastTurnId": first["id"]}
                forked = (await desktop.request("thread/fork", wanted))["thread"]
                assert [one["id"] for one in forked["turns"]] == [first["id"]]
                await turn(desktop, forked["id"], {**HELLO, "text": "otherwise"})
        assert model.inputs(4)[-3:] == [f"user: {HELLO['text']}", "assistant: one", "user: otherwise"]

    run(scenario())


def test_a_whole_fork_of_a_compacted_thread_keeps_its_turns_in_order(run, tmp_path):
    async def scenario():
        answers = [model_says.answer("one"), COMPACTION, model_says.answer("two", item_id="msg-2")]
        with ScriptedModel(*answers) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                ids = [(await turn(desktop, thread_id, HELLO))["id"], (await compact(desktop, thread_id))["id"]]
                ids.append((await turn(desktop, thread_id, {**HELLO, "text": "again"}))["id"])
                forked = (await desktop.request("thread/fork", {"threadId": thread_id}))["thread"]
                page = await desktop.request("thread/turns/list", {"threadId": forked["id"]})
        assert [one["id"] for one in forked["turns"]] == ids
        assert [one["id"] for one in page["data"]] == ids[::-1]

    run(scenario())


def test_an_unknown_thread_is_refused(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            text = await refused(desktop, "thread/compact/start", {"threadId": UNKNOWN})
            assert text == f"thread not found: {UNKNOWN}"
            assert "threadId" in await refused(desktop, "thread/compact/start", {})

    run(scenario())


def test_a_compaction_takes_no_words_in(run, tmp_path):
    """In the words of codex-cli 0.169.0, which keeps nothing of what comes meanwhile."""

    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *COMPACTION], model_says.answer("two")) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await desktop.request("thread/compact/start", {"threadId": thread_id})
                await pause.reached.wait()
                turn_id = (await desktop.wait_for("turn/started"))["turn"]["id"]
                steer = {"threadId": thread_id, "expectedTurnId": turn_id, "input": [HELLO]}
                assert await refused(desktop, "turn/steer", steer) == "cannot steer a compact turn"
                begin = {"threadId": thread_id, "input": [HELLO], "model": "gpt-5.5"}
                reason = "failed to submit turn input: ActiveTurnNotSteerable { turn_kind: Compact }"
                assert await refused(desktop, "turn/start", begin, INTERNAL_ERROR) == reason
                pause.over.set()
                await desktop.wait_for("turn/completed")
                await turn(desktop, thread_id, {**HELLO, "text": "again"})
        assert model.inputs(2)[-2:] == ["compaction", "user: again"] and model.requests[1].model != "gpt-5.5"

    run(scenario())


def ends(desktop):
    return [one["params"]["turn"]["status"] for one in desktop.notifications if one["method"] == "turn/completed"]


def test_a_turn_that_runs_gives_way_and_the_model_is_not_told_of_it(run, tmp_path):
    """It was refused, where codex-cli 0.169.0 takes the place of what runs."""

    async def scenario():
        with ScriptedModel([Pause()], COMPACTION) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await desktop.wait_for("turn/started")
                await desktop.request("thread/compact/start", {"threadId": thread_id})
                await desktop.wait_for("turn/completed", 2)
                assert ends(desktop) == ["interrupted", "completed"]
        assert model.inputs(2)[-1] == "compaction_trigger"
        assert model.inputs(2)[-2] == f"user: {HELLO['text']}"

    run(scenario())


def test_a_turn_that_gives_way_before_it_has_begun_is_told_whole_and_keeps_its_input(run, tmp_path):
    async def scenario():
        with ScriptedModel(COMPACTION) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                about = {"threadId": await start(desktop, cwd="/work")}
                await asyncio.gather(
                    desktop.request("turn/start", {**about, "input": [HELLO]}),
                    desktop.request("thread/compact/start", about),
                )
                await desktop.wait_for("turn/completed", 2)
                begun = [
                    one["params"]["turn"]["id"] for one in desktop.notifications if one["method"] == "turn/started"
                ]
                over = [
                    one["params"]["turn"]["id"] for one in desktop.notifications if one["method"] == "turn/completed"
                ]
                assert begun == over and ends(desktop) == ["interrupted", "completed"]
        assert f"user: {HELLO['text']}" in model.inputs(1)

    run(scenario())


def test_a_full_thread_is_compacted_first_when_it_is_resumed(run, tmp_path):
    async def scenario():
        full = TokenUsage(total=250_000, input=249_990, output=10)
        said = [*model_says.message("msg-1", "one"), Completed("resp-1", full)]
        with ScriptedModel(said) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, cwd="/work")
                await turn(desktop, thread_id, HELLO)
        with ScriptedModel(COMPACTION, model_says.answer("two", item_id="msg-2")) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                await desktop.request("thread/resume", {"threadId": thread_id})
                await turn(desktop, thread_id, {**HELLO, "text": "again"})
        assert model.inputs(1)[-1] == "compaction_trigger"
        assert model.inputs(2)[-2:] == ["compaction", "user: again"]

    run(scenario())
