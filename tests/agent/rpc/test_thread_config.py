"""What the `config` of a request does to its thread: when it begins, when it is taken up, and when it is forked."""

import os

import pytest

from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn
from tests.agent.rpc.test_thread_methods import stored


@pytest.fixture
def project(tmp_path):
    """A project with an AGENTS.md, and a directory in it with instructions by another name."""
    inner = tmp_path / "project" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "project" / ".git").mkdir()
    (tmp_path / "project" / "AGENTS.md").write_text("0123456789")
    (inner / "OTHER.md").write_text("other")
    return inner


@pytest.mark.parametrize(
    ("config", "sources", "warned"),
    [
        ({}, ["AGENTS.md"], False),
        ({"project_doc_fallback_filenames": ["OTHER.md"]}, ["AGENTS.md", "OTHER.md"], False),
        ({"project_root_markers": ["nowhere"]}, [], False),
        ({"project_doc_max_bytes": 4}, ["AGENTS.md"], True),
        ({"project_doc_max_bytes": 0}, [], False),
    ],
)
def test_which_instructions_count_is_the_threads_own_matter(config, sources, warned, run, project, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path, ScriptedModel(model_says.answer("Done."))) as (app, desktop):
            answer = await desktop.request("thread/start", {"cwd": str(project), "config": config})
            assert [source.rpartition("/")[2] for source in answer["instructionSources"]] == sources
            await turn(desktop, answer["thread"]["id"], HELLO)
            said = [one["params"]["message"] for one in desktop.notifications if one["method"] == "warning"]
            assert any("Loaded only 4 of 10 bytes" in text for text in said) is warned
            found = await app.core.instructions(app.core.thread(answer["thread"]["id"]))
            assert list(found.sources) == answer["instructionSources"]  # later, too

    run(scenario())


def test_the_context_window_is_the_threads_own_matter(run, tmp_path):
    async def scenario():
        model = ScriptedModel(*(model_says.answer("Done.", item_id=f"msg-{number}") for number in range(2)))
        async with app_and_desktop(tmp_path, model, config={"model_context_window": 100_000}) as (_, desktop):
            told = []
            for config in ({"model_context_window": 50_000}, {}):
                thread_id = await start(desktop, config=config)
                await turn(desktop, thread_id, HELLO)
                usage = await desktop.wait_for("thread/tokenUsage/updated", len(told) + 1)
                told.append(usage["tokenUsage"]["modelContextWindow"])
        assert told == [47_500, 95_000]

    run(scenario())


def test_a_client_is_told_of_keys_of_its_request_that_nobody_knows(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            await start(desktop, config={"features.goals": False})
            assert not [one for one in desktop.notifications if "arning" in one["method"]]
            thread_id = await start(desktop, config={"features.gaols": False, "modle": "x"})
            summary = (await desktop.wait_for("configWarning"))["summary"]
            assert summary.endswith(
                "\n  session-flags: `features.gaols` is ignored.\n  session-flags: `modle` is ignored."
            )
            assert await desktop.wait_for("warning") == {"threadId": thread_id, "message": summary}

    run(scenario())


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"shell_environment_policy": {"inherit": "x"}}, "shell_environment_policy.inherit is 'x'"),
        ({"features": {"goals": "yes"}}, "the feature goals is true or false"),
        ({"approval_policy": {"granular": {}}}, "granular.sandbox_approval: Field required"),
    ],
)
@pytest.mark.parametrize("method", ["thread/start", "thread/resume", "thread/fork"])
def test_a_config_that_cannot_be_used_is_refused(method, config, text, run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        async with app_and_desktop(tmp_path) as (app, desktop):
            named = {} if method == "thread/start" else {"threadId": thread_id, "excludeTurns": True}
            said = await refused(desktop, method, {**named, "config": config})
            assert said.startswith("failed to load configuration: ") and text in said
            assert not app.core.is_loaded(thread_id)

    run(scenario())


@pytest.mark.parametrize("method", ["thread/resume", "thread/fork"])
def test_no_thread_is_taken_up_under_a_file_that_cannot_be_read(method, run, tmp_path):
    """It would have run with the defaults: with other secrets in the environment of its commands, for example."""

    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        async with app_and_desktop(tmp_path, config_problem="'config.toml' is not TOML") as (_, desktop):
            said = await refused(desktop, method, {"threadId": thread_id})
            assert said == "failed to load configuration: 'config.toml' is not TOML"

    run(scenario())


READ_ONLY = {"type": "readOnly", "networkAccess": False}


@pytest.mark.parametrize("method", ["thread/resume", "thread/fork"])
def test_a_thread_that_is_taken_up_gets_what_the_request_says_and_keeps_the_rest(method, run, tmp_path):
    """As the original does; it was passed over, also where it was to confine the thread."""

    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        config = {"model": "gpt-5.5", "approval_policy": "on-failure", "model_reasoning_effort": "high"}
        config |= {"sandbox_mode": "read-only", "model_verbosity": "high", "features.goals": False}
        async with app_and_desktop(tmp_path, config={"approval_policy": "untrusted"}) as (app, desktop):
            answer = await desktop.request(method, {"threadId": thread_id, "excludeTurns": True, "config": config})
            assert (answer["model"], answer["approvalPolicy"], answer["reasoningEffort"]) == (
                "gpt-5.5",
                "on-request",
                "high",
            )
            assert (answer["sandbox"], answer["activePermissionProfile"]) == (READ_ONLY, None)
            thread = app.core.thread(answer["thread"]["id"])
            assert thread.verbosity == "high" and thread.config["features"] == {"goals": False}
        async with app_and_desktop(tmp_path, config={"sandbox_mode": "danger-full-access"}) as (_, desktop):
            named = {"threadId": thread_id, "excludeTurns": True}
            answer = await desktop.request(method, {**named, "config": {"default_permissions": ":workspace"}})
            assert answer["activePermissionProfile"]["id"] == ":workspace"

    run(scenario())


WITH_NETWORK = {"writable_roots": ["/opt"], "network_access": True}


@pytest.mark.parametrize("method", ["thread/start", "thread/resume", "thread/fork"])
def test_what_a_request_says_means_the_same_however_its_thread_comes_to_be(method, run, tmp_path):
    """A thread that was taken up kept a tier that no service knows, and a path that nobody could work in."""

    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        named = {} if method == "thread/start" else {"threadId": thread_id, "excludeTurns": True}
        given = {"cwd": "below", "serviceTier": "fast", "sandbox": "workspace-write", "config": {"modle": "x"}}
        async with app_and_desktop(tmp_path, config={"sandbox_workspace_write": WITH_NETWORK}) as (_, desktop):
            answer = await desktop.request(method, {**named, **given})
            warning = await desktop.wait_for("warning")
        assert (answer["cwd"], answer["serviceTier"]) == (os.path.abspath("below"), "priority")
        assert (answer["sandbox"]["writableRoots"], answer["sandbox"]["networkAccess"]) == (["/opt"], True)
        assert warning["threadId"] == answer["thread"]["id"] and "`modle` is ignored" in warning["message"]

    run(scenario())


@pytest.mark.parametrize("method", ["thread/start", "thread/resume", "thread/fork"])
@pytest.mark.parametrize("cwd", ["/a\0b", "/\ud800"])
def test_a_directory_that_is_no_path_is_refused_by_name(method, cwd, run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        named = {} if method == "thread/start" else {"threadId": thread_id, "excludeTurns": True}
        async with app_and_desktop(tmp_path) as (app, desktop):
            assert (await refused(desktop, method, {**named, "cwd": cwd})).startswith("cwd has ")
            assert app.core.loaded == ()
            about = {"threadId": await start(desktop), "input": [HELLO]}
            assert (await refused(desktop, "turn/start", {**about, "cwd": cwd})).startswith("cwd has ")

    run(scenario())


def test_a_thread_that_could_not_be_taken_up_as_it_was_asked_for_is_not_there(run, tmp_path):
    """It was loaded as it had been, so that the next request for it was passed over."""

    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        about = {"threadId": thread_id, "excludeTurns": True}
        async with app_and_desktop(tmp_path) as (app, desktop):
            await refused(desktop, "thread/resume", {**about, "permissions": "nowhere"})
            assert not app.core.is_loaded(thread_id)
            answer = await desktop.request("thread/resume", {**about, "permissions": ":workspace"})
            assert answer["activePermissionProfile"]["id"] == ":workspace"

    run(scenario())


@pytest.mark.parametrize("method", ["thread/start", "thread/resume"])
def test_of_two_ways_to_confine_a_thread_the_one_that_was_given_last_counts(method, run, tmp_path):
    """A client that asked for less got what config.toml allows."""

    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        named = {} if method == "thread/start" else {"threadId": thread_id, "excludeTurns": True}
        async with app_and_desktop(tmp_path, config={"default_permissions": ":workspace"}) as (_, desktop):
            answer = await desktop.request(method, {**named, "config": {"sandbox_mode": "read-only"}})
        assert (answer["sandbox"], answer["activePermissionProfile"]) == (READ_ONLY, None)

    run(scenario())


def test_a_fork_has_its_model_from_the_configuration_and_the_rest_from_its_source(run, tmp_path):
    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        about = {"threadId": thread_id, "excludeTurns": True}
        async with app_and_desktop(tmp_path) as (_, desktop):
            own = {"model_reasoning_effort": "low", "service_tier": "flex", "approval_policy": "untrusted"}
            await desktop.request("thread/resume", {**about, "config": own})
            fork = await desktop.request("thread/fork", about)
            assert (fork["reasoningEffort"], fork["serviceTier"], fork["approvalPolicy"]) == (None, None, "untrusted")
        config = {"model": "gpt-5.5", "model_reasoning_effort": "high", "approval_policy": "never"}
        async with app_and_desktop(tmp_path, config=config) as (_, desktop):
            fork = await desktop.request("thread/fork", about)
            assert (fork["model"], fork["reasoningEffort"], fork["approvalPolicy"]) == ("gpt-5.5", "high", "untrusted")

    run(scenario())


def test_whoever_takes_a_thread_up_hears_how_many_tokens_it_has_used(run, tmp_path):
    """Also without its turns."""

    async def scenario():
        thread_id = await stored(tmp_path, turns=1)
        async with app_and_desktop(tmp_path) as (_, desktop):
            await desktop.request("thread/resume", {"threadId": thread_id, "excludeTurns": True})
            assert (await desktop.wait_for("thread/tokenUsage/updated"))["threadId"] == thread_id

    run(scenario())
