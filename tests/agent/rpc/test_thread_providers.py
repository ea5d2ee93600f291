"""Threads at model providers of the user's own: how they are begun, shown, taken up again and forked."""

import contextlib

import pytest

from agent.model.provider import OPENAI
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.standins.desktop import Script
from tests.agent.core import model_says
from tests.agent.core.memory_app import MemoryApp, app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn

MINE = {"name": "Mine", "base_url": "https://mine.example/v1"}
YOURS = {"name": "Yours", "base_url": "https://yours.example/v1", "requires_openai_auth": True}
BOTH = {"model_providers": {"mine": MINE, "yours": YOURS}}
GONE = (
    "This chat uses model provider “mine”, which is no longer configured. "
    "Restore this provider’s configuration to continue."
)


@contextlib.asynccontextmanager
async def desk(home, config, *answers):
    """(a desktop, the providers of the model sessions that were opened)."""
    opened = []
    with ScriptedModel(*answers) as model:
        app = MemoryApp(home, lambda thread_id, provider: opened.append(provider) or model, config=config)
        try:
            async with app.desktop(Script(name="codex_desktop")) as desktop:
                yield desktop, opened
        finally:
            await app.core.aclose()


async def stored(home):
    """A thread with a turn at the provider `mine`, of a process that has ended; its id."""
    async with desk(home, BOTH | {"model_provider": "mine"}, model_says.answer("Done.")) as (desktop, _):
        thread_id = await start(desktop, cwd="/work")
        await turn(desktop, thread_id, HELLO)
    return thread_id


@pytest.mark.parametrize(
    ("config", "params", "wanted"),
    [
        ({}, {}, OPENAI.id),
        (BOTH, {}, OPENAI.id),
        (BOTH | {"model_provider": "mine"}, {}, "mine"),
        (BOTH | {"model_provider": "mine"}, {"modelProvider": "yours"}, "yours"),
        (BOTH, {"config": {"model_provider": "yours"}}, "yours"),
        ({}, {"modelProvider": "new", "config": {"model_providers.new": MINE}}, "new"),
        ({}, {"modelProvider": "new", "config": {"model_providers": {"new": MINE}}}, "new"),
        ({}, {"modelProvider": "new", "config": {f"model_providers.new.{key}": MINE[key] for key in MINE}}, "new"),
    ],
)
def test_a_thread_is_begun_at_the_provider_that_was_wanted(config, params, wanted, run, tmp_path):
    async def scenario():
        async with desk(tmp_path, config) as (desktop, opened):
            answer = await desktop.request("thread/start", {"cwd": "/work", **params})
            assert answer["modelProvider"] == wanted == answer["thread"]["modelProvider"]
            assert [provider.id for provider in opened] == [wanted]

    run(scenario())


def test_a_provider_that_is_not_in_order_is_no_thread(run, tmp_path):
    async def scenario():
        async with desk(tmp_path, {"model_providers": {"bad": {"name": "B", "wire_api": "chat"}}}) as (desktop, opened):
            said = await refused(desktop, "thread/start", {"cwd": "/work"})
            assert said.startswith('failed to load configuration: `wire_api = "chat"` is no longer supported.')
            assert opened == []

    run(scenario())


def test_a_review_is_made_by_the_provider_of_its_thread(run, tmp_path):
    async def scenario():
        fine = model_says.answer('{"findings": [], "overall_explanation": "fine"}')
        async with desk(tmp_path, BOTH | {"model_provider": "mine"}, fine) as (desktop, opened):
            thread_id = await start(desktop, cwd="/work")
            await desktop.request("review/start", {"threadId": thread_id, "target": {"type": "uncommittedChanges"}})
            await desktop.wait_for("turn/completed")
            assert [provider.id for provider in opened] == ["mine", "mine"]

    run(scenario())


def test_a_thread_that_is_taken_up_again_keeps_its_provider_as_it_is_now(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path)
        moved = {"model_providers": {"mine": MINE | {"base_url": "https://moved.example"}, "yours": YOURS}}
        async with desk(tmp_path, moved | {"model_provider": "yours"}) as (desktop, opened):
            answer = await desktop.request("thread/resume", {"threadId": thread_id})
            assert answer["modelProvider"] == "mine" == answer["thread"]["modelProvider"]
            assert [provider.base_url for provider in opened] == ["https://moved.example"]

    run(scenario())


def test_a_thread_whose_provider_is_gone_says_so(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path)
        async with desk(tmp_path, {}) as (desktop, opened):
            with pytest.raises(RequestFailed) as failed:
                await desktop.request("thread/resume", {"threadId": thread_id})
            assert (failed.value.code, failed.value.message) == (INVALID_REQUEST, GONE)
            # It is as it was, can be named, and goes on once the request brings the provider.
            await desktop.request("thread/name/set", {"threadId": thread_id, "name": "mine"})
            given = {"threadId": thread_id, "config": {"model_providers.mine": MINE}}
            assert (await desktop.request("thread/resume", given))["thread"]["name"] == "mine"
            assert opened[-1].id == "mine"

    run(scenario())


def test_what_the_error_is_about_is_told_as_data(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path)
        async with app_and_desktop(tmp_path) as (app, desktop):
            await refused(desktop, "thread/resume", {"threadId": thread_id})
            about = {"type": "modelProviderNotConfigured", "modelProvider": "mine"}
            assert [one["error"] for one in app.heard if "error" in one] == [
                {"code": INVALID_REQUEST, "data": about, "message": GONE}
            ]

    run(scenario())


@pytest.mark.parametrize("other", [{"modelProvider": "yours"}, {"config": {"model_provider": "yours"}}])
def test_a_thread_cannot_change_its_provider(other, run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path)
        async with desk(tmp_path, BOTH) as (desktop, _):
            said = await refused(desktop, "thread/resume", {"threadId": thread_id, **other})
            assert said == (
                "failed to load configuration: Cannot change this thread's model provider from `mine` to `yours` "
                "on resume."
            )
            same = await desktop.request("thread/resume", {"threadId": thread_id, "modelProvider": "mine"})
            assert same["modelProvider"] == "mine"

    run(scenario())


@pytest.mark.parametrize(
    ("config", "params", "wanted"),
    [({}, {}, "openai"), (BOTH | {"model_provider": "yours"}, {}, "yours"), (BOTH, {"modelProvider": "mine"}, "mine")],
)
def test_a_fork_is_at_the_default_provider_or_at_that_which_is_wanted(config, params, wanted, run, tmp_path):
    """Observed: not at that of the thread it comes from."""

    async def scenario():
        thread_id = await stored(tmp_path)
        async with desk(tmp_path, config) as (desktop, opened):
            answer = await desktop.request("thread/fork", {"threadId": thread_id, **params})
            assert answer["modelProvider"] == wanted == answer["thread"]["modelProvider"]
            assert [provider.id for provider in opened] == [wanted]
            said = await refused(desktop, "thread/fork", {"threadId": thread_id, "modelProvider": "nope"})
            assert said == "failed to load configuration: Model provider `nope` not found"

    run(scenario())


@pytest.mark.parametrize(("name", "needs"), [("openai", True), ("yours", True), ("mine", False)])
def test_whether_a_sign_in_is_needed_is_the_default_providers_matter(name, needs, run, tmp_path):
    (tmp_path / "auth.json").write_text('{"OPENAI_API_KEY": "sk-mine"}')

    async def scenario():
        async with desk(tmp_path, BOTH | {"model_provider": name}) as (desktop, _):
            answer = await desktop.request("account/read", {})
            assert answer["requiresOpenaiAuth"] is needs
            assert answer["account"] == ({"type": "apiKey"} if needs else None)

    run(scenario())
