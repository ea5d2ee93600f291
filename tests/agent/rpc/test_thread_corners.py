"""Threads where they are not what a request takes them for; compared with codex-cli 0.169.0."""

from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, UNKNOWN, refused, start, turn
from tests.agent.rpc.test_thread_methods import stored


def test_a_thread_in_which_nothing_happened_can_be_put_away(run, tmp_path):
    """It was refused, and stayed in the client's list for good."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            for method, told in (("thread/archive", "thread/archived"), ("thread/delete", "thread/deleted")):
                about = {"threadId": await start(desktop)}
                assert await desktop.request(method, about) == {}
                assert (await desktop.wait_for(told)) == about
                assert about["threadId"] not in (await desktop.request("thread/loaded/list", {}))["data"]

    run(scenario())


def test_an_archived_thread_is_not_archived_again_nor_forked(run, tmp_path):
    async def scenario():
        about = {"threadId": await stored(tmp_path, 1)}
        async with app_and_desktop(tmp_path) as (_, desktop):
            await desktop.request("thread/archive", about)
            missing = f"no rollout found for thread id {about['threadId']}"
            assert await refused(desktop, "thread/archive", about) == missing
            assert "is archived. Run `codex unarchive" in await refused(desktop, "thread/fork", about)
            await desktop.request("thread/unarchive", about)
            text = f"no archived rollout found for thread id {about['threadId']}"
            assert await refused(desktop, "thread/unarchive", about) == text
            unknown = f"no archived rollout found for thread id {UNKNOWN}"
            assert await refused(desktop, "thread/unarchive", {"threadId": UNKNOWN}) == unknown
            assert (await refused(desktop, "thread/resume", {"threadId": "x"})).startswith("invalid session id: ")

    run(scenario())


def test_what_an_ephemeral_thread_cannot_do_is_said(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop, ephemeral=True)}
            thread_id = about["threadId"]
            assert await refused(desktop, "thread/turns/list", about) == (
                "ephemeral threads do not support thread/turns/list"
            )
            text = f"ephemeral thread does not support metadata updates: {thread_id}"
            assert await refused(desktop, "thread/name/set", {**about, "name": "x"}) == text
            assert await refused(desktop, "thread/delete", about) == (
                f"thread is not persisted and cannot be deleted: {thread_id}"
            )

    run(scenario())


def test_a_thread_is_taken_up_by_the_path_of_its_file(run, tmp_path):
    """The path was passed over: an empty id with it was an error."""

    async def scenario():
        thread_id = await stored(tmp_path, 1)
        (path,) = tmp_path.rglob("rollout-*.jsonl")
        async with app_and_desktop(tmp_path) as (_, desktop):
            found = await desktop.request("thread/resume", {"threadId": "", "path": str(path), "excludeTurns": True})
            assert found["thread"]["id"] == thread_id
            fork = await desktop.request("thread/fork", {"threadId": "", "path": str(path), "excludeTurns": True})
            assert fork["thread"]["forkedFromId"] == thread_id
            nowhere = {"threadId": thread_id, "path": "/nope"}
            assert await refused(desktop, "thread/resume", nowhere) == "no rollout found at path /nope"
            history = {"threadId": thread_id, "history": []}
            assert "cannot be resumed with a history" in await refused(desktop, "thread/resume", history)

    run(scenario())


def test_a_resumed_thread_comes_with_the_page_of_turns_that_was_asked_for(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 3)
        async with app_and_desktop(tmp_path) as (_, desktop):
            page = {"limit": 2, "sortDirection": "asc", "itemsView": "full"}
            params = {"threadId": thread_id, "excludeTurns": True}
            answer = await desktop.request("thread/resume", {**params, "initialTurnsPage": page})
            first = answer["initialTurnsPage"]
            assert [len(one["items"]) for one in first["data"]] == [2, 2] and answer["thread"]["turns"] == []
            rest = {"threadId": thread_id, "cursor": first["nextCursor"], **page}
            assert len((await desktop.request("thread/turns/list", rest))["data"]) == 1
            assert (await desktop.request("thread/resume", params))["initialTurnsPage"] is None

    run(scenario())


def test_a_fork_ends_before_the_turn_that_was_named(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 3)
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": thread_id}
            turns = (await desktop.request("thread/turns/list", {**about, "sortDirection": "asc"}))["data"]
            second = turns[1]["id"]
            fork = await desktop.request("thread/fork", {**about, "beforeTurnId": second})
            assert len(fork["thread"]["turns"]) == 1
            assert await refused(desktop, "thread/fork", {**about, "beforeTurnId": "x"}) == "turn not found: x"
            both = {**about, "beforeTurnId": second, "lastTurnId": second}
            text = "`beforeTurnId` cannot be combined with `lastTurnId`"
            assert await refused(desktop, "thread/fork", both) == text
            text = "ephemeral paginated thread/fork requires `excludeTurns: true`"
            assert await refused(desktop, "thread/fork", {**about, "ephemeral": True}) == text

    run(scenario())


def test_nothing_is_interrupted_where_no_turn_is_named_and_none_runs(run, tmp_path):
    async def scenario():
        with ScriptedModel(model_says.answer("Done.")) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop)
                await turn(desktop, thread_id, HELLO)
                assert await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": ""}) == {}
                text = "no active turn to interrupt"
                assert await refused(desktop, "turn/interrupt", {"threadId": thread_id, "turnId": "x"}) == text

    run(scenario())
