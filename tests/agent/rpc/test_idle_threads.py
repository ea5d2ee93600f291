"""Threads that nobody follows any more; compared with codex-cli 0.169.0, which waits for a minute."""

import asyncio
import os

import pytest

from agent.core.tooling import NoTools
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_methods import refused, start, turn


class Busy(NoTools):
    """A command that a call has left, until it ends."""

    busy = True

    def is_busy(self, session):
        return self.busy


async def passes(times=50):
    """The loop has gone round this often, and with it every timer of no length."""
    for _ in range(times):
        await asyncio.sleep(0)


def told(desktop, method):
    return [one["params"] for one in desktop.notifications if one["method"] == method]


def test_a_thread_that_nobody_follows_is_unloaded_and_can_be_taken_up_again(run, tmp_path):
    """A server that went on for days kept every thread that it had ever had, with its file and its socket."""

    async def scenario():
        model = ScriptedModel(model_says.answer("one"), model_says.answer("two", item_id="msg-2"))
        async with app_and_desktop(tmp_path, model, unload_after_s=0) as (app, desktop):
            thread_id = await start(desktop)
            about = {"threadId": thread_id}
            await turn(desktop, thread_id)
            path = app.core.thread(thread_id).path
            assert path in open_files()
            assert await desktop.request("thread/unsubscribe", about) == {"status": "unsubscribed"}
            assert await desktop.wait_for("thread/closed") == about
            assert told(desktop, "thread/status/changed")[-1] == {**about, "status": {"type": "notLoaded"}}
            assert app.core.loaded == ()
            assert model.closed and path not in open_files()
            assert await desktop.request("thread/unsubscribe", about) == {"status": "notLoaded"}
            assert await refused(desktop, "turn/start", {**about, "input": []}) == f"thread not found: {thread_id}"
            app.idle.after_s = 60
            again = await desktop.request("thread/resume", about)
            assert len(again["thread"]["turns"]) == 1
            await turn(desktop, thread_id)
            assert app.core.loaded == (thread_id,)

    run(scenario())


def open_files():
    return [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if is_open(name)]


def is_open(name):
    return os.path.lexists(f"/proc/self/fd/{name}")


def test_a_thread_whose_last_client_goes_is_unloaded_and_the_others_hear_of_it(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path, unload_after_s=0) as (app, watching):
            async with app.desktop() as desktop:
                about = {"threadId": await start(desktop)}
                await passes()
                assert app.core.loaded == (about["threadId"],)
            assert await watching.wait_for("thread/closed") == about
            assert app.core.loaded == ()

    run(scenario())


def test_one_follower_of_two_is_enough(run, tmp_path):
    async def scenario():
        model = ScriptedModel(model_says.answer("one"))
        async with app_and_desktop(tmp_path, model, unload_after_s=0) as (app, first):
            thread_id = await start(first)
            await turn(first, thread_id)
            async with app.desktop() as second:
                await second.request("thread/resume", {"threadId": thread_id})
                await first.request("thread/unsubscribe", {"threadId": thread_id})
                await passes()
                assert app.core.loaded == (thread_id,)
            await first.wait_for("thread/closed")

    run(scenario())


def test_a_turn_that_runs_keeps_its_thread_until_it_is_over(run, tmp_path):
    async def scenario():
        pause = Pause()
        model = ScriptedModel([pause, *model_says.answer("one")])
        async with app_and_desktop(tmp_path, model, unload_after_s=0) as (app, desktop):
            about = {"threadId": await start(desktop)}
            await desktop.request("turn/start", {**about, "input": [{"type": "text", "text": "hello"}]})
            await pause.reached.wait()
            await desktop.request("thread/unsubscribe", about)
            await passes()
            assert app.core.is_loaded(about["threadId"]) and not told(desktop, "thread/closed")
            pause.over.set()
            assert await desktop.wait_for("thread/closed") == about

    run(scenario())


def test_what_a_call_has_left_running_keeps_its_thread(run, tmp_path):
    async def scenario():
        tools = Busy()
        async with app_and_desktop(tmp_path, tools=tools, unload_after_s=0) as (app, desktop):
            about = {"threadId": await start(desktop)}
            await desktop.request("thread/unsubscribe", about)
            await passes()
            assert app.core.is_loaded(about["threadId"])
            tools.busy = False
            assert await desktop.wait_for("thread/closed") == about

    run(scenario())


@pytest.mark.parametrize("method", ["thread/resume", "thread/name/set"])
def test_a_thread_that_is_being_unloaded_is_not_taken_up(run, tmp_path, method):
    async def scenario():
        model = ScriptedModel(model_says.answer("one"))
        async with app_and_desktop(tmp_path, model, unload_after_s=0) as (app, desktop):
            thread_id = await start(desktop)
            await turn(desktop, thread_id)
            companion = Slow()
            app.core.accompany(thread_id, companion)
            await desktop.request("thread/unsubscribe", {"threadId": thread_id})
            await companion.closing.wait()
            about = {"threadId": thread_id, "name": "x"} if "name" in method else {"threadId": thread_id}
            code = -32603 if "name" in method else -32600
            text = await refused(desktop, method, about, code)
            assert text.endswith("it is closing; retry thread/resume after the thread is closed")
            companion.go_on.set()
            await desktop.wait_for("thread/closed")

    run(scenario())


class Slow:
    """A `Companion` that takes its time."""

    def __init__(self):
        self.closing, self.go_on = asyncio.Event(), asyncio.Event()

    def told(self, method, params):
        pass

    async def aclose(self):
        self.closing.set()
        await self.go_on.wait()


def test_a_turn_in_the_instant_of_unloading_is_refused_by_name(run, tmp_path):
    """It was an internal error, or a turn that was begun to be interrupted."""

    async def scenario():
        model = ScriptedModel(model_says.answer("one"))
        async with app_and_desktop(tmp_path, model, unload_after_s=0) as (app, desktop):
            about = {"threadId": await start(desktop)}
            await turn(desktop, about["threadId"])
            companion = Slow()
            app.core.accompany(about["threadId"], companion)
            await desktop.request("thread/unsubscribe", about)
            await companion.closing.wait()
            hello = {"input": [{"type": "text", "text": "hello"}]}
            for method, more in (("turn/start", hello), ("thread/compact/start", {}), ("thread/shellCommand", COMMAND)):
                assert await refused(desktop, method, {**about, **more}) == f"thread not found: {about['threadId']}"
            companion.go_on.set()
            await desktop.wait_for("thread/closed")
            assert len(told(desktop, "turn/started")) == 1

    run(scenario())


COMMAND = {"command": "true"}


def test_a_thread_that_is_set_to_work_before_it_is_unloaded_stays(run, tmp_path):
    """It was looked at whether it worked, and then it was unloaded: a turn that had begun in between was lost."""

    async def scenario():
        pause = Pause()
        model = ScriptedModel([pause, *model_says.answer("one")])
        async with app_and_desktop(tmp_path, model) as (app, desktop):
            about = {"threadId": await start(desktop)}
            await desktop.request("thread/unsubscribe", about)
            await passes()
            app.idle._timers[about["threadId"]].cancel()
            app.idle._due(about["threadId"])  # its time has come, and a turn begins before the loop goes round
            app.core.start_turn(about["threadId"], [], {}, None, None, lambda thread: None).begin()
            await pause.reached.wait()
            assert app.core.is_loaded(about["threadId"])
            pause.over.set()
            await passes()

    run(scenario())
