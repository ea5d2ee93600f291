"""Threads that outlive their process: resumed, forked, listed, put away and taken back."""

import json
from pathlib import Path

import pytest

from agent.core.store import Journal
from agent.rpc.jsonrpc import INTERNAL_ERROR
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, UNKNOWN, refused, start, turn

MANY = [model_says.answer("Done.", item_id=f"msg-{number}") for number in range(6)]


def file_of(tmp_path):
    (path,) = tmp_path.rglob("rollout-*.jsonl")
    return path


async def stored(tmp_path, turns=2):
    """A thread with some turns, of a process that has ended; its id."""
    with ScriptedModel(*MANY[:turns]) as model:
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop, cwd="/work")
            for number in range(turns):
                await turn(desktop, thread_id, {**HELLO, "text": f"turn {number}"})
    return thread_id


def test_a_resumed_thread_goes_on_where_it_was(run, tmp_path):
    """thread_resume_restart."""

    async def scenario():
        thread_id = await stored(tmp_path)
        with ScriptedModel(MANY[5]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                assert (await desktop.request("thread/loaded/list", {}))["data"] == []
                answer = await desktop.request("thread/resume", {"threadId": thread_id})
                assert [len(one["items"]) for one in answer["thread"]["turns"]] == [2, 2]
                assert answer["thread"]["preview"] == "turn 0" and answer["thread"]["path"] == str(file_of(tmp_path))
                await turn(desktop, thread_id, {**HELLO, "text": "turn 2"})
                assert [text for text in map(_text, model.requests[0].input) if text and text.startswith("turn")] == [
                    "turn 0", "turn 1", "turn 2",
                ]  # fmt: skip
                page = await desktop.request("thread/turns/list", {"threadId": thread_id, "limit": 2})
                assert len(page["data"]) == 2 and page["nextCursor"]
                rest = await desktop.request(
                    "thread/turns/list", {"threadId": thread_id, "limit": 2, "cursor": page["nextCursor"]}
                )
                assert len(rest["data"]) == 1 and rest["nextCursor"] is None
                ids = [one["id"] for one in (*page["data"], *rest["data"])]
                assert len(set(ids)) == 3 and ids[::-1] == sorted(ids)

    run(scenario())


def _text(item):
    content = item.get("content")
    return content[0].get("text") if isinstance(content, list) and content else None


def test_before_the_first_message_there_is_nothing_to_resume(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            thread_id = await start(desktop)
            text = f"no rollout found for thread id {thread_id}"
            for method in ("thread/resume", "thread/fork"):
                assert await refused(desktop, method, {"threadId": thread_id}) == text
            for method in ("thread/turns/list", "thread/items/list"):
                refusal = await refused(desktop, method, {"threadId": thread_id})
                assert refusal.startswith(f"thread {thread_id} is not materialized yet; {method} is unavailable")
            assert list(tmp_path.rglob("rollout-*")) == []
            read = await desktop.request("thread/read", {"threadId": thread_id})
            assert read["thread"]["status"] == {"type": "idle"}

    run(scenario())


def test_the_metadata_of_a_new_thread_can_be_changed_but_not_of_one_that_is_not_kept(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            about = {"threadId": await start(desktop), "gitInfo": {"sha": "abc"}}
            git = (await desktop.request("thread/metadata/update", about))["thread"]["gitInfo"]
            assert git == {"sha": "abc", "branch": None, "originUrl": None}
            about["threadId"] = await start(desktop, ephemeral=True)
            text = await refused(desktop, "thread/metadata/update", about)
            assert text == f"ephemeral thread does not support metadata updates: {about['threadId']}"

    run(scenario())


def test_an_ephemeral_thread_leaves_nothing_on_disk(run, tmp_path):
    async def scenario():
        with ScriptedModel(MANY[0]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop, ephemeral=True)
                await turn(desktop, thread_id, HELLO)
                text = "ephemeral threads do not support includeTurns"
                assert await refused(desktop, "thread/read", {"threadId": thread_id, "includeTurns": True}) == text
        assert list(tmp_path.rglob("rollout-*")) == []

    run(scenario())


def test_a_thread_that_another_process_has_is_refused_by_name(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        other = Journal(file_of(tmp_path), dict, exists=True)
        other.lock()
        async with app_and_desktop(tmp_path) as (_, desktop):
            assert "another process has this thread loaded" in await refused(
                desktop, "thread/resume", {"threadId": thread_id}
            )
            other.close()
            await desktop.request("thread/resume", {"threadId": thread_id})  # the control

    run(scenario())


def test_a_torn_end_is_told_and_the_thread_goes_on(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        path = file_of(tmp_path)
        path.write_bytes(path.read_bytes()[:-20])
        with ScriptedModel(MANY[1]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                answer = await desktop.request("thread/resume", {"threadId": thread_id})
                assert answer["thread"]["turns"][0]["status"] == "interrupted"
                warning = await desktop.wait_for("warning")
                assert "torn by a crash" in warning["message"]
                assert (await turn(desktop, thread_id, HELLO))["status"] == "completed"
        lines = [json.loads(one) for one in path.read_text().splitlines() if one.startswith("{") and one.endswith("}")]
        assert [one["type"] for one in lines].count("turn_ended") == 2

    run(scenario())


@pytest.mark.parametrize("content", [b"", b"garbage\n", b'{"type":"session_meta","payload":{"id":"x"}}\n'])
def test_a_file_that_is_no_thread_of_ours_says_so(run, tmp_path, content):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        file_of(tmp_path).write_bytes(content)
        async with app_and_desktop(tmp_path) as (_, desktop):
            text = await refused(desktop, "thread/resume", {"threadId": thread_id}, INTERNAL_ERROR)
            assert "cannot be used" in text and Path(file_of(tmp_path)).name in text
            assert (await desktop.request("thread/list", {}))["data"] == []

    run(scenario())


def test_a_fork_begins_with_the_history_up_to_its_turn(run, tmp_path):
    """thread_fork."""

    async def scenario():
        thread_id = await stored(tmp_path)
        with ScriptedModel(MANY[4]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                whole = await desktop.request("thread/fork", {"threadId": thread_id})
                assert len(whole["thread"]["turns"]) == 2 and whole["thread"]["forkedFromId"] == thread_id
                first = whole["thread"]["turns"][0]["id"]
                part = await desktop.request("thread/fork", {"threadId": thread_id, "lastTurnId": first})
                assert [one["id"] for one in part["thread"]["turns"]] == [first]
                await turn(desktop, part["thread"]["id"], {**HELLO, "text": "turn of the fork"})
                told = [text for text in map(_text, model.requests[0].input) if text and text.startswith("turn")]
                assert told == ["turn 0", "turn of the fork"]
                assert await refused(desktop, "thread/fork", {"threadId": thread_id, "lastTurnId": "x"}) == (
                    "turn not found: x"
                )
                turns = await desktop.request("thread/turns/list", {"threadId": part["thread"]["id"]})
                assert len(turns["data"]) == 2

    run(scenario())


def test_what_is_archived_is_found_again(run, tmp_path):
    """thread_lifecycle."""

    async def scenario():
        thread_id = await stored(tmp_path, 1)
        async with app_and_desktop(tmp_path) as (_, desktop):
            await desktop.request("thread/resume", {"threadId": thread_id})
            await desktop.request("thread/archive", {"threadId": thread_id})
            assert (await desktop.wait_for("thread/archived"))["threadId"] == thread_id
            assert (await desktop.request("thread/list", {}))["data"] == []
            (row,) = (await desktop.request("thread/list", {"archived": True}))["data"]
            assert row["status"] == {"type": "notLoaded"} and "/archived_sessions/" in row["path"]
            text = await refused(desktop, "thread/resume", {"threadId": thread_id})
            assert text == f"session {thread_id} is archived. Run `codex unarchive {thread_id}` to unarchive it first."
            back = await desktop.request("thread/unarchive", {"threadId": thread_id})
            assert "/sessions/" in back["thread"]["path"]
            await desktop.request("thread/resume", {"threadId": thread_id})
            await desktop.request("thread/delete", {"threadId": thread_id})
            assert await refused(desktop, "thread/read", {"threadId": thread_id}) == f"thread not loaded: {thread_id}"
        assert list(tmp_path.rglob("rollout-*")) == []

    run(scenario())


def test_lists_are_filtered_and_paged(run, tmp_path):
    """thread_list."""

    async def scenario():
        ids = [await stored(tmp_path, 1) for _ in range(3)]
        async with app_and_desktop(tmp_path) as (_, desktop):
            await desktop.request("thread/name/set", {"threadId": ids[1], "name": "My Thread"})

            async def listed(**params):
                return [row["id"] for row in (await desktop.request("thread/list", params))["data"]]

            assert await listed() == ids[::-1]
            assert await listed(sortDirection="asc") == ids
            assert await listed(cwd="/nope") == [] and len(await listed(cwd=["/work", "/x"])) == 3
            assert await listed(searchTerm="my thread") == [ids[1]]
            assert await listed(excludedThreadIds=ids[:2]) == [ids[2]]
            page = await desktop.request("thread/list", {"limit": 2})
            rest = await desktop.request("thread/list", {"limit": 2, "cursor": page["nextCursor"]})
            assert [row["id"] for row in (*page["data"], *rest["data"])] == ids[::-1] and rest["nextCursor"] is None
            assert await refused(desktop, "thread/list", {"cursor": "bogus"}) == "invalid cursor: bogus"

    run(scenario())


def test_a_revert_takes_turns_back_for_good(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path)
        with ScriptedModel(MANY[3]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop):
                resumed = await desktop.request("thread/resume", {"threadId": thread_id})
                second = resumed["thread"]["turns"][1]["id"]
                about = {"threadId": thread_id, "beforeTurnId": second}
                assert (await refused(desktop, "thread/revert", {**about, "beforeTurnId": "x"})) == "turn not found: x"
                answer = await desktop.request("thread/revert", about)
                assert answer["thread"]["turns"] == [] and answer["thread"]["status"] == {"type": "idle"}
                assert await desktop.wait_for("thread/reverted") == {"threadId": thread_id}
                assert app.core.thread(thread_id).context_tokens > 0  # or it would not be compacted in time
                page = {"threadId": thread_id, "cursor": answer["turnsBackwardsCursor"], "sortDirection": "desc"}
                (left,) = (await desktop.request("thread/turns/list", page))["data"]
                assert left["id"] == resumed["thread"]["turns"][0]["id"]
                await turn(desktop, thread_id, {**HELLO, "text": "turn anew"})
                told = [text for text in map(_text, model.requests[0].input) if text and text.startswith("turn")]
                assert told == ["turn 0", "turn anew"]
        async with app_and_desktop(tmp_path) as (_, desktop):
            resumed = await desktop.request("thread/resume", {"threadId": thread_id})
            assert len(resumed["thread"]["turns"]) == 2

    run(scenario())


def test_the_rest_of_what_is_done_to_threads(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        with ScriptedModel(MANY[3]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                await desktop.request("thread/resume", {"threadId": thread_id, "excludeTurns": True})
                about = {"threadId": thread_id}
                item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "turn injected"}]}
                await desktop.request("thread/inject_items", {**about, "items": [item]})
                await turn(desktop, thread_id, HELLO)
                assert item in model.requests[0].input
                wanted = {**about, "objective": "win", "status": "paused"}
                goal = (await desktop.request("thread/goal/set", wanted))["goal"]
                assert (goal["objective"], goal["status"]) == ("win", "paused")
                assert (await desktop.request("thread/goal/get", about))["goal"] == goal
                assert (await desktop.request("thread/goal/clear", about)) == {"cleared": True}
                git = await desktop.request("thread/metadata/update", {**about, "gitInfo": {"branch": "b"}})
                assert git["thread"]["gitInfo"] == {"sha": None, "branch": "b", "originUrl": None}
                assert (await desktop.request("thread/unsubscribe", about)) == {"status": "unsubscribed"}
                assert (await desktop.request("thread/unsubscribe", about)) == {"status": "notSubscribed"}
                assert await refused(desktop, "thread/name/set", {**about, "name": " "}) == (
                    "thread name must not be empty"
                )
                for method in ("thread/resume", "thread/delete", "thread/metadata/update"):
                    extra = {"gitInfo": {"sha": "x"}} if method.endswith("update") else {}
                    text = await refused(desktop, method, {"threadId": UNKNOWN, **extra})
                    assert text == f"no rollout found for thread id {UNKNOWN}"

    run(scenario())
