"""Threads with several requests or several clients at once; compared with codex-cli 0.169.0."""

import asyncio

from agent.core.store import Store
from agent.core.tooling import NoTools
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_idle_threads import Slow, passes
from tests.agent.rpc.test_methods import HELLO, refused, start, turn
from tests.agent.rpc.test_thread_methods import MANY, file_of, stored


def told(desktop, method):
    return [one["params"] for one in desktop.notifications if one["method"] == method]


async def outcomes(desktop, thread_id, *requests):
    """What became of requests that are sent in one breath: the result of each, or the text of its error."""
    asked = [desktop.request(method, {"threadId": thread_id, **more}) for method, more in requests]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [one if isinstance(one, dict) else one.message for one in answers]


# In order


def test_what_is_asked_of_one_thread_in_one_breath_is_done_in_order(run, tmp_path):
    """A stored thread was loaded for its new name, and refused to everybody else until it was put down again."""

    async def scenario():
        thread_id = await stored(tmp_path, 1)
        with ScriptedModel(MANY[1]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                name, goal, git, resumed, begun = await outcomes(
                    desktop,
                    thread_id,
                    ("thread/name/set", {"name": "n"}),
                    ("thread/goal/set", {"objective": "win", "status": "paused"}),
                    ("thread/metadata/update", {"gitInfo": {"sha": "abc"}}),
                    ("thread/resume", {}),
                    ("turn/start", {"input": [HELLO]}),
                )
                assert (
                    name == {} and goal["goal"]["objective"] == "win" and git["thread"]["status"]["type"] == "notLoaded"
                )
                assert (resumed["thread"]["name"], resumed["thread"]["gitInfo"]["sha"]) == ("n", "abc")
                assert len(resumed["thread"]["turns"]) == 1
                assert told(desktop, "turn/started")[0]["turn"]["id"] == begun["turn"]["id"]
                await desktop.wait_for("turn/completed")

    run(scenario())


def test_a_thread_that_is_put_away_in_one_breath_is_put_away_once(run, tmp_path):
    async def scenario():
        with ScriptedModel(MANY[0]) as model:
            async with app_and_desktop(tmp_path, model) as (_, desktop):
                thread_id = await start(desktop)
                await turn(desktop, thread_id, HELLO)
                put_away = await outcomes(
                    desktop,
                    thread_id,
                    ("thread/archive", {}),
                    ("thread/archive", {}),
                    ("turn/start", {"input": [HELLO]}),
                    ("thread/unarchive", {}),
                    ("thread/resume", {}),
                    ("thread/delete", {}),
                    ("thread/resume", {}),
                )
        missing = f"no rollout found for thread id {thread_id}"
        assert put_away[:3] == [{}, missing, f"thread not found: {thread_id}"]
        assert put_away[3]["thread"]["id"] == put_away[4]["thread"]["id"] == thread_id
        assert put_away[5:] == [{}, missing]

    run(scenario())


def test_a_thread_that_is_named_by_its_file_is_the_same_thread(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        async with app_and_desktop(tmp_path) as (_, desktop):
            requests = (
                ("thread/resume", {"threadId": "", "path": str(file_of(tmp_path)), "model": "gpt-5.5"}),
                ("thread/archive", {"threadId": thread_id.upper()}),
                ("thread/unarchive", {}),
            )
            resumed, archived, _ = await outcomes(desktop, thread_id, *requests)
            assert (resumed["thread"]["id"], archived) == (thread_id, {})

    run(scenario())


def test_a_new_thread_that_is_deleted_while_its_first_turn_begins_leaves_nothing(run, tmp_path):
    """Its file was made by the end of that turn, after it had been looked for."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            thread_id = await start(desktop)
            requests = (("turn/start", {"input": [HELLO]}), ("thread/delete", {}))
            assert (await outcomes(desktop, thread_id, *requests))[1] == {}
            assert told(desktop, "turn/completed")[0]["turn"]["status"] == "interrupted"
        assert list(tmp_path.rglob("rollout-*")) == []

    run(scenario())


# Several clients


def test_a_turn_that_runs_is_in_progress_for_whoever_looks(run, tmp_path):
    """It was shown as interrupted: a client that came later took it for dead."""

    async def scenario():
        pause = Pause()
        with ScriptedModel([pause, *MANY[0]]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop), app.desktop() as second:
                about = {"threadId": await start(desktop)}
                await desktop.request("turn/start", {**about, "input": [HELLO]})
                await pause.reached.wait()
                looks = [
                    (await second.request("thread/resume", about))["thread"]["turns"],
                    (await second.request("thread/read", {**about, "includeTurns": True}))["thread"]["turns"],
                    (await second.request("thread/turns/list", about))["data"],
                ]
                assert [[turn["status"] for turn in turns] for turns in looks] == [["inProgress"]] * 3
                forked = (await second.request("thread/fork", about))["thread"]["turns"]
                assert [turn["status"] for turn in forked] == ["interrupted"]
                pause.over.set()
                assert (await second.wait_for("turn/completed"))["turn"]["status"] == "completed"

    run(scenario())


class SlowStore(Store):
    """A store that is told of the second that somebody reads, and takes its time over it."""

    def __init__(self, home, meanwhile):
        super().__init__(home)
        self.meanwhile = meanwhile

    def read(self, found, *, whole=True):
        thread = super().read(found, whole=whole)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return thread


def test_what_is_told_while_a_client_joins_is_not_lost_to_it(run, tmp_path):
    """The end of the turn came after the file was read and before the client followed: it waited for good."""

    async def scenario():
        loop, pause = asyncio.get_running_loop(), Pause()
        with ScriptedModel([pause, *MANY[0]]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop), app.desktop() as second:
                about = {"threadId": await start(desktop)}
                await desktop.request("turn/start", {**about, "input": [HELLO]})
                await pause.reached.wait()

                async def end():
                    pause.over.set()
                    await desktop.wait_for("turn/completed")

                app.core.store = SlowStore(
                    tmp_path, lambda: asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=10)
                )
                (seen,) = (await second.request("thread/resume", about))["thread"]["turns"]
                assert seen["status"] == "completed" and told(second, "turn/completed") == []

    run(scenario())


def test_a_thread_that_is_unloaded_while_it_is_resumed_is_not_said_to_be_there(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        loop = asyncio.get_running_loop()
        async with app_and_desktop(tmp_path) as (app, desktop):
            await desktop.request("thread/resume", {"threadId": thread_id})
            unloading = app.core.unload(thread_id)
            app.core.store = SlowStore(
                tmp_path, lambda: asyncio.run_coroutine_threadsafe(unloading, loop).result(timeout=10)
            )
            text = await refused(desktop, "thread/resume", {"threadId": thread_id})
            assert text.endswith("it was unloaded while it was read; retry thread/resume")
            await desktop.request("thread/resume", {"threadId": thread_id})

    run(scenario())


class MovingStore(Store):
    """A store whose first file is put away after it was found and before it is read."""

    moves = True

    def read(self, found, *, whole=True):
        if self.moves:
            self.moves = False
            self.move(found, archived=True)
        return super().read(found, whole=whole)


def test_a_thread_that_is_put_away_while_somebody_reads_it_is_read(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        async with app_and_desktop(tmp_path) as (app, desktop):
            app.core.store = MovingStore(tmp_path)
            assert len((await desktop.request("thread/turns/list", {"threadId": thread_id}))["data"]) == 1

    run(scenario())


def test_all_clients_hear_of_a_goal_and_of_a_thread_that_is_loaded(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, 1)
        async with app_and_desktop(tmp_path) as (app, desktop), app.desktop() as other:
            about = {"threadId": thread_id}
            await desktop.request("thread/resume", about)
            assert await other.wait_for("thread/goal/cleared") == about
            assert told(other, "thread/status/changed")[-1] == {**about, "status": {"type": "idle"}}
            await desktop.request("thread/goal/set", {**about, "objective": "win", "status": "paused"})
            assert (await other.wait_for("thread/goal/updated"))["goal"]["objective"] == "win"

    run(scenario())


def test_those_who_followed_a_thread_that_was_put_away_do_not_follow_it_when_it_is_back(run, tmp_path):
    async def scenario():
        with ScriptedModel(MANY[0], MANY[1]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop), app.desktop() as other:
                about = {"threadId": await start(desktop)}
                await turn(desktop, about["threadId"], HELLO)
                await desktop.request("thread/archive", about)
                await desktop.request("thread/unarchive", about)
                await other.request("thread/resume", about)
                await turn(other, about["threadId"], HELLO)
                assert len(told(desktop, "turn/completed")) == 1
                assert await desktop.request("thread/unsubscribe", about) == {"status": "notSubscribed"}

    run(scenario())


def test_a_revert_stops_what_runs_and_all_followers_hear_of_it(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel(MANY[0], [pause], MANY[1]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop), app.desktop() as other:
                about = {"threadId": await start(desktop)}
                first = await turn(desktop, about["threadId"], {**HELLO, "text": "first"})
                await other.request("thread/resume", about)
                await desktop.request("turn/start", {**about, "input": [HELLO]})
                await pause.reached.wait()
                answer = await desktop.request("thread/revert", {**about, "beforeTurnId": first["id"]})
                assert answer["turnsBackwardsCursor"] is None
                assert await other.wait_for("thread/reverted") == about
                assert told(other, "turn/completed")[-1]["turn"]["status"] == "interrupted"
                kinds = [one["status"]["type"] for one in told(other, "thread/status/changed")]
                assert kinds[-3:] == ["idle", "notLoaded", "idle"]
                await turn(desktop, about["threadId"], {**HELLO, "text": "anew"})
        assert [text for text in model.inputs(3) if text in ("user: first", "user: anew")] == ["user: anew"]
        assert "turn_aborted" not in " ".join(model.inputs(3))

    run(scenario())


def test_whoever_unloads_a_thread_that_is_being_unloaded_waits_for_it(run, tmp_path):
    """The second was told at once that it was not loaded, and moved a file that was still written."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (app, desktop):
            thread_id = await start(desktop)
            companion = Slow()
            app.core.accompany(thread_id, companion)
            first, second = (asyncio.create_task(app.core.unload(thread_id)) for _ in range(2))
            await companion.closing.wait()
            await passes()
            assert not second.done()
            companion.go_on.set()
            assert (await first, await second) == (True, False)

    run(scenario())


class SlowToForget(NoTools):
    """Tools that take their time over the end of what they have begun."""

    def __init__(self):
        self.forgetting, self.go_on = asyncio.Event(), asyncio.Event()

    async def forget(self, thread_id, session):
        self.forgetting.set()
        await self.go_on.wait()


def test_a_thread_is_let_go_of_also_where_the_client_that_put_it_away_has_gone(run, tmp_path):
    """Its file stayed locked: until this process ended, nobody could take the thread up."""

    async def scenario():
        tools = SlowToForget()
        with ScriptedModel(MANY[0]) as model:
            async with app_and_desktop(tmp_path, model, tools=tools) as (app, desktop):
                about = {"threadId": await start(desktop)}
                await turn(desktop, about["threadId"], HELLO)
                async with app.desktop() as second:
                    asking = asyncio.create_task(second.request("thread/archive", about))
                    await tools.forgetting.wait()
                await asyncio.gather(asking, return_exceptions=True)
                tools.go_on.set()
                await app.core.unload(about["threadId"])
                resumed = await desktop.request("thread/resume", about)
                assert len(resumed["thread"]["turns"]) == 1

    run(scenario())


def test_no_turn_begins_once_the_server_ends(run, tmp_path):
    async def scenario():
        pause = Pause()
        with ScriptedModel([pause]) as model:
            async with app_and_desktop(tmp_path, model) as (app, desktop):
                about = {"threadId": await start(desktop)}
                await desktop.request("thread/goal/set", {**about, "objective": "win"})
                await pause.reached.wait()
                await app.core.aclose()
                assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "interrupted"
                text = f"thread not found: {about['threadId']}"
                assert await refused(desktop, "turn/start", {**about, "input": [HELLO]}) == text
                await desktop.request("thread/goal/set", {**about, "status": "active"})
                assert not app.core.is_loaded(about["threadId"])

    run(scenario())
