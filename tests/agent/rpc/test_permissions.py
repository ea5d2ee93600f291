"""Permission profiles of threads: by request, by configuration, by what the user said of the project."""

import pytest

from tests.agent.core import model_says, published_schema
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn

WRITABLE = {
    "type": "workspaceWrite",
    "writableRoots": [],
    "networkAccess": False,
    "excludeTmpdirEnvVar": False,
    "excludeSlashTmp": False,
}


def profile(answer):
    active = answer["activePermissionProfile"]
    return None if active is None else active["id"]


@pytest.mark.parametrize(
    "name, shown",
    [
        (":read-only", {"type": "readOnly", "networkAccess": False}),
        (":workspace", WRITABLE),
        (":danger-full-access", {"type": "dangerFullAccess"}),
    ],
)
def test_a_profile_that_is_asked_for_is_the_one_in_force(name, shown, run, tmp_path):
    """It was passed over, and commands ran under the default."""

    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (app, desktop):
            answer = await desktop.request("thread/start", {"permissions": name, "cwd": str(tmp_path)})
            assert (profile(answer), answer["sandbox"]) == (name, shown)
            # The same by a turn.
            thread_id = await start(desktop, cwd=str(tmp_path), sandbox="workspace-write")
            await turn(desktop, thread_id, HELLO, permissions=name)
            thread = app.core.thread(thread_id)
            assert (thread.profile, thread.sandbox) == (name, shown)

    run(scenario())


def test_a_profile_and_an_older_policy_exclude_one_another(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            both = {"permissions": ":workspace", "sandbox": "read-only"}
            text = "`permissions` cannot be combined with `sandbox`"
            assert await refused(desktop, "thread/start", both) == text
            thread_id = await start(desktop)
            assert await refused(desktop, "thread/fork", {"threadId": thread_id, **both}) == text
            params = {"threadId": thread_id, "input": [HELLO]}
            both = {"permissions": ":workspace", "sandboxPolicy": {"type": "readOnly"}}
            text = "`permissions` cannot be combined with `sandboxPolicy`"
            assert await refused(desktop, "turn/start", {**params, **both}) == text
            refusal = await refused(desktop, "turn/start", {**params, "permissions": "zzz"})
            assert refusal.startswith("failed to load configuration: the permission profile 'zzz' is not defined")
            assert await refused(desktop, "turn/start", {**params, "environments": [{"environmentId": "zz"}]}) == (
                "unknown turn environment id `zz`"
            )
            assert "leave `environments` out" in await refused(desktop, "thread/start", {"environments": []})

    run(scenario())


def test_a_profile_of_the_configuration_is_the_default_and_outlives_the_process(run, tmp_path):
    """`default_permissions` was passed over."""
    mine = {"filesystem": {":minimal": "read", ":project_roots": {".": "write"}}}
    config = {"default_permissions": "mine", "permissions": {"mine": mine}}

    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model, config=config) as (app, desktop):
            answer = await desktop.request("thread/start", {"cwd": str(tmp_path)})
            assert profile(answer) == "mine"
            assert answer["sandbox"] == {**WRITABLE, "excludeTmpdirEnvVar": True, "excludeSlashTmp": True}
            await turn(desktop, answer["thread"]["id"], HELLO)
            # The request's own word comes first.
            assert profile(await desktop.request("thread/start", {"sandbox": "read-only"})) is None
            assert profile(await desktop.request("thread/start", {"permissions": ":read-only"})) == ":read-only"
        async with app_and_desktop(tmp_path, config=config) as (_, desktop):
            again = await desktop.request("thread/resume", {"threadId": answer["thread"]["id"]})
            assert (profile(again), again["sandbox"]) == (profile(answer), answer["sandbox"])

    run(scenario())


@pytest.mark.parametrize(
    "level, expected",
    [
        ("trusted", (":workspace", "on-request")),
        ("untrusted", (":workspace", "untrusted")),
        (None, (":read-only", "on-request")),
    ],
)
def test_what_the_user_says_of_a_project_holds_for_all_of_its_repository(level, expected, run, tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "below").mkdir()
    config = {"projects": {str(tmp_path): {"trust_level": level}}} if level else {}

    async def scenario():
        async with app_and_desktop(tmp_path, config=config) as (_, desktop):
            answer = await desktop.request("thread/start", {"cwd": str(tmp_path / "below")})
            assert (profile(answer), answer["approvalPolicy"]) == expected
            # Elsewhere it says nothing.
            elsewhere = await desktop.request("thread/start", {"cwd": "/"})
            assert (profile(elsewhere), elsewhere["approvalPolicy"]) == (":read-only", "on-request")

    run(scenario())


def test_clients_are_told_when_a_turn_changes_a_setting(run, tmp_path):
    """turn_options: thread/settings/updated."""

    async def scenario():
        model = ScriptedModel(*(model_says.answer("Done.", item_id=f"m{number}") for number in range(3)))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop, model="gpt-5.5")
            await turn(desktop, thread_id, HELLO, model="gpt-5.5")
            await turn(desktop, thread_id, HELLO, effort="low", summary="none")
            await turn(desktop, thread_id, HELLO)
            told = [one for one in desktop.notifications if one["method"] == "thread/settings/updated"]

        (one,) = [one["params"] for one in told]
        assert published_schema.misfit("ThreadSettingsUpdatedNotification", one) is None
        settings = one["threadSettings"]
        assert (settings["effort"], settings["summary"], settings["model"]) == ("low", "none", "gpt-5.5")
        assert settings["collaborationMode"]["settings"]["reasoning_effort"] == "low"
        # "none" is no summary that the service knows.
        assert [request.summary for request in model.requests] == [None, None, None]

    run(scenario())
