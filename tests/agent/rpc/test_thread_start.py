"""thread/start, compared with codex-cli 0.169.0."""

import json
import os

import pytest

from agent.core.thread import BASE_INSTRUCTIONS
from agent.standins.desktop import Script
from tests.agent.core import model_says, published_schema
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import ScriptedModel
from tests.agent.rpc.test_methods import HELLO, refused, start, turn


def test_a_thread_starts_with_the_defaults_of_the_original(run, tmp_path):
    """plain_turn_ws."""

    async def scenario():
        async with app_and_desktop(tmp_path, ScriptedModel()) as (app, desktop):
            answer = await desktop.request("thread/start", {"cwd": "/work"})
            started = await desktop.wait_for("thread/started")
            assert app.core.thread(answer["thread"]["id"]).base_instructions == BASE_INSTRUCTIONS

        assert published_schema.misfit("ThreadStartResponse", answer) is None
        assert started == {"thread": answer["thread"]}
        assert answer["model"] == answer["thread"]["model"] == "gpt-6.1-sol"
        assert answer["approvalPolicy"] == "on-request"
        assert answer["sandbox"] == {"type": "readOnly", "networkAccess": False}
        assert answer["activePermissionProfile"] == {"id": ":read-only", "extends": None}
        assert answer["reasoningEffort"] is None and answer["serviceTier"] is None
        assert answer["thread"]["cwd"] == "/work" and answer["thread"]["originator"] == "codex_desktop"
        assert answer["thread"]["createdAt"] == 1_700_000_000

    run(scenario())


def test_a_thread_is_prewarmed_after_it_was_answered(run, tmp_path):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop, baseInstructions="BASE")
            await turn(desktop, thread_id, HELLO)
        (warm,) = model.prewarmed
        assert warm.thread_id == thread_id and not warm.generate
        assert warm.input[0]["content"][0]["text"] == "BASE"

    run(scenario())


def test_a_request_says_what_its_thread_is_like(run, tmp_path):
    """thread_start_options."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (app, desktop):
            answer = await desktop.request(
                "thread/start",
                {
                    "cwd": "/work",
                    "model": "gpt-5.5",
                    "baseInstructions": "BASE",
                    "developerInstructions": "DEV",
                    "personality": "pragmatic",
                    "config": {"model_reasoning_effort": "high", "model_verbosity": "high"},
                    "ephemeral": True,
                    "serviceName": "svc",
                    "serviceTier": "fast",
                    "sandbox": "workspace-write",
                    "approvalPolicy": "never",
                    "threadSource": "user",
                },
            )
            thread = app.core.thread(answer["thread"]["id"])

        assert answer["model"] == "gpt-5.5" and answer["reasoningEffort"] == "high"
        assert answer["sandbox"]["type"] == "workspaceWrite" and answer["activePermissionProfile"] is None
        assert answer["approvalPolicy"] == "never" and answer["serviceTier"] == "priority"
        assert answer["thread"]["ephemeral"] is True and answer["thread"]["threadSource"] == "user"
        assert (thread.base_instructions, thread.developer_instructions) == ("BASE", "DEV")
        assert thread.verbosity == "high"

    run(scenario())


def test_a_request_beats_its_config_and_its_config_beats_the_file(run, tmp_path):
    async def scenario():
        file = {"model": "from-file", "sandbox_mode": "danger-full-access", "approval_policy": "never"}
        async with app_and_desktop(tmp_path, config=file) as (_, desktop):
            plain = await desktop.request("thread/start", {})
            over = await desktop.request("thread/start", {"config": {"model": "from-config"}})
            params = {"model": "from-request", "sandbox": "read-only", "approvalPolicy": "untrusted"}
            best = await desktop.request("thread/start", {"config": {"model": "from-config"}, **params})

        assert (plain["model"], over["model"], best["model"]) == ("from-file", "from-config", "from-request")
        assert plain["sandbox"] == {"type": "dangerFullAccess"} and best["sandbox"]["type"] == "readOnly"
        assert (plain["approvalPolicy"], best["approvalPolicy"]) == ("never", "untrusted")
        assert plain["activePermissionProfile"] is None

    run(scenario())


def test_a_thread_without_a_directory_is_where_the_server_was_started(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            answers = [await desktop.request("thread/start", {"cwd": cwd}) for cwd in (None, "sub", "/no/such/dir/..")]
        assert [answer["cwd"] for answer in answers] == [os.getcwd(), f"{os.getcwd()}/sub", "/no/such"]

    run(scenario())


def test_a_thread_of_an_unknown_model_is_no_error(run, tmp_path):
    """thread_start_options."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            assert (await desktop.request("thread/start", {"model": "made-up-model"}))["model"] == "made-up-model"

    run(scenario())


@pytest.mark.parametrize(
    "params, text",
    [
        ({"modelProvider": "nope"}, "failed to load configuration: Model provider `nope` not found"),
        (
            {"config": {"model_verbosity": "loud"}},
            "failed to load configuration: model_verbosity is 'loud': Input should be 'low', 'medium' or 'high'",
        ),
        ({"dynamicTools": [{}]}, "thread/start.dynamicTools[0]: a name of letters, digits, _ and - is needed"),
        ({"dynamicTools": [3]}, "thread/start.dynamicTools[0]: tools of type 'int' are not supported by countersign"),
        (
            {"dynamicTools": [{"type": "namespace", "name": "n", "description": "", "tools": []}]},
            "thread/start.dynamicTools[0]: tools of type 'namespace' are not supported by countersign",
        ),
        (
            {"dynamicTools": [{"name": "x", "description": "", "inputSchema": True}]},
            "thread/start.dynamicTools[0]: inputSchema must be a JSON Schema object",
        ),
        (
            {"dynamicTools": [{"name": "x", "description": "", "inputSchema": {}}] * 2},
            "thread/start.dynamicTools[1]: the name 'x' is there twice",
        ),
        ({"cwd": 5}, "Invalid request: invalid type: integer `5`, expected a string"),
    ],
)
def test_a_thread_that_cannot_start_says_why(params, text, run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            assert await refused(desktop, "thread/start", params) == text
            assert not [one for one in desktop.notifications if one["method"] == "thread/started"]

    run(scenario())


@pytest.mark.parametrize("member, value", [("dynamicTools", []), ("experimentalRawEvents", True)])
def test_experimental_members_want_the_capability(member, value, run, tmp_path):
    """initialize_no_experimental."""

    async def scenario():
        plain = Script(experimental=False)
        async with app_and_desktop(tmp_path, script=plain) as (_, desktop):
            text = await refused(desktop, "thread/start", {member: value})
        assert text == f"thread/start.{member} requires experimentalApi capability"
        async with app_and_desktop(tmp_path) as (_, desktop):
            await desktop.request("thread/start", {member: value})

    run(scenario())


def test_a_new_thread_is_told_to_everybody_and_its_turns_only_to_who_started_it(run, tmp_path):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (app, desktop), app.desktop(Script(name="other")) as other:
            await turn(desktop, await start(desktop), HELLO)
            await other.wait_for("thread/started")
            # Of a thread's status all clients hear (two_clients_ws).
            assert {one["method"] for one in other.notifications} == {"thread/started", "thread/status/changed"}

    run(scenario())


@pytest.mark.parametrize(
    ("model", "tier", "counts"),
    [
        *[("gpt-5.5", tier, tier) for tier in ("priority", "flex", "default")],
        ("gpt-5.5", "fast", "priority"),
        ("gpt-5.5", "turbo", None),
        ("nobody-s", "flex", "flex"),
        ("nobody-s", "priority", None),
    ],
)
def test_a_service_tier_that_the_model_is_not_offered_in_is_left_out_and_told(run, tmp_path, model, tier, counts):
    """Observed; the service was sent whatever stood there."""

    async def scenario():
        async with app_and_desktop(tmp_path, ScriptedModel()) as (_, desktop):
            answer = await desktop.request("thread/start", {"cwd": "/work", "model": model, "serviceTier": tier})
            assert answer["serviceTier"] == counts
            if counts is None:
                told = (await desktop.wait_for("warning"))["message"]
                text = f"is not advertised as supported for model `{model}` and will be omitted from requests."
                assert told == f"Configured service tier `{tier}` {text}"

    run(scenario())


def test_a_turn_of_a_model_that_nobody_lists_is_warned_of(run, tmp_path):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop, cwd=str(tmp_path), model="nobody-s")
            await turn(desktop, thread_id, HELLO)
            told = await desktop.wait_for("warning")
            assert told["message"] == (
                "Model metadata for `nobody-s` not found. Defaulting to fallback metadata; this can degrade "
                "performance and cause issues."
            )
        (request,) = model.requests
        # Of what it can do nothing is known, and nothing is asked (observed).
        assert (request.effort, request.summary, request.verbosity) == (None, "auto", None)
        assert "reasoning_effort" not in json.loads(request.turn_metadata)

    run(scenario())
