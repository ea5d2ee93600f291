"""The supported methods, asked by a desktop in memory, with a scripted model behind them."""

import asyncio
import base64
import datetime as dt
import json
import os

import pytest

from agent.core.thread import BASE_INSTRUCTIONS
from agent.model.wire import Created
from agent.rpc.input import MAX_IMAGE_BYTES, MAX_INPUT_CHARACTERS
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, RequestFailed
from agent.standins.desktop import Script
from proxy.standins.chatgpt import auth_json
from tests.agent.core import model_says, published_schema
from tests.agent.core.memory_app import BUILT_IN_SLUGS, ORIGIN, app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HELLO = {"type": "text", "text": "hello", "text_elements": []}
UNKNOWN = "019a0000-0000-7000-8000-000000000000"


async def refused(desktop, method, params, code=INVALID_REQUEST):
    """The text that a request is refused with."""
    with pytest.raises(RequestFailed) as failed:
        await desktop.request(method, params)
    assert failed.value.code == code
    return failed.value.message


async def start(desktop, **params):
    return (await desktop.request("thread/start", params))["thread"]["id"]


async def turn(desktop, thread_id, *inputs, **more):
    """A whole turn with these inputs; the `turn` of its turn/completed."""
    before = sum(one["method"] == "turn/completed" for one in desktop.notifications)
    await desktop.request("turn/start", {"threadId": thread_id, "input": list(inputs), **more})
    return (await desktop.wait_for("turn/completed", before + 1))["turn"]


def said_by_user(model, number=1):
    """The content parts of the last user message of the n-th request."""
    return model.requests[number - 1].input[-1]["content"]


# account/read


def test_nobody_signed_in_is_no_account(run, tmp_path):
    """account_read_none."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            answer = await desktop.request("account/read", {})
        assert answer == {"account": None, "userId": None, "requiresOpenaiAuth": True, "workspaceRouting": None}
        assert published_schema.misfit("GetAccountResponse", answer) is None

    run(scenario())


def test_a_chatgpt_account_is_told_with_its_plan_and_where_it_lives(run, tmp_path):
    """account_read_chatgpt."""

    async def scenario():
        (tmp_path / "auth.json").write_text(json.dumps(auth_json()))
        async with app_and_desktop(tmp_path) as (_, desktop):
            answer = await desktop.request("account/read", {})
        assert answer == {
            "account": {
                "type": "chatgpt",
                "email": "stand-in@example.com",
                "planType": "pro",
                "workspaceName": None,
            },
            "userId": "user-1",
            "requiresOpenaiAuth": True,
            "workspaceRouting": {
                "chatgptAccountId": "acc-1",
                "backendOrigin": ORIGIN,
                "accountRoutingOverride": "NO_CONSTRAINT",
            },
        }
        assert published_schema.misfit("GetAccountResponse", answer) is None

    run(scenario())


def test_an_api_key_is_told_as_such(run, tmp_path):
    async def scenario():
        (tmp_path / "auth.json").write_text('{"OPENAI_API_KEY": "sk-4711"}')
        async with app_and_desktop(tmp_path) as (_, desktop):
            answer = await desktop.request("account/read", {"refreshToken": True})
        assert answer["account"] == {"type": "apiKey"} and answer["workspaceRouting"] is None
        assert "4711" not in json.dumps(answer)

    run(scenario())


def test_a_refresh_that_was_asked_for_is_done_first(run, tmp_path):
    async def scenario():
        (tmp_path / "auth.json").write_text(json.dumps(auth_json()))
        asked = []

        async def sign_in(url, body):
            asked.append(body["refresh_reason"])
            return 200, {"access_token": auth_json(dt.timedelta(days=1))["tokens"]["access_token"] + "x"}

        async with app_and_desktop(tmp_path, post_json=sign_in) as (_, desktop):
            await desktop.request("account/read", {})
            assert not asked
            await desktop.request("account/read", {"refreshToken": True})
        assert asked == ["forced"]
        assert json.loads((tmp_path / "auth.json").read_text())["tokens"]["access_token"].endswith("x")

    run(scenario())


@pytest.mark.parametrize("status", [0, 400, 404, 500])
def test_a_refresh_that_fails_leaves_the_account_as_it_is(status, run, tmp_path):
    """account_read_chatgpt."""

    async def scenario():
        (tmp_path / "auth.json").write_text(json.dumps(auth_json()))

        async def sign_in(url, body):
            return status, None

        async with app_and_desktop(tmp_path, post_json=sign_in) as (_, desktop):
            plain = await desktop.request("account/read", {})
            assert await desktop.request("account/read", {"refreshToken": True}) == plain

    run(scenario())


def test_a_file_that_cannot_be_used_is_an_error_that_names_it(run, tmp_path):
    async def scenario():
        (tmp_path / "auth.json").write_text("{secret-4711")
        async with app_and_desktop(tmp_path) as (_, desktop):
            text = await refused(desktop, "account/read", {}, INTERNAL_ERROR)
        assert text == f"'{tmp_path}/auth.json' is not JSON; sign in again"

    run(scenario())


# model/list


def test_the_models_are_paged_by_a_cursor(run, tmp_path):
    """model_list."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):

            async def page(**params):
                answer = await desktop.request("model/list", params)
                assert published_schema.misfit("ModelListResponse", answer) is None
                return [model["id"] for model in answer["data"]], answer["nextCursor"]

            assert await page() == (BUILT_IN_SLUGS, None)
            assert await page(limit=2) == (BUILT_IN_SLUGS[:2], "2")
            assert await page(limit=2, cursor="2") == (BUILT_IN_SLUGS[2:4], "4")
            assert await page(limit=100, cursor="8") == (BUILT_IN_SLUGS[8:], None)
            assert await page(cursor="9") == ([], None)
            assert await page(limit=0) == (BUILT_IN_SLUGS[:1], "1")
            assert await page(cursor="+7") == (BUILT_IN_SLUGS[7:], None)

    run(scenario())


@pytest.mark.parametrize("cursor", ["zz", "", "-1", "1.5", " 1", "٢", "9" * 5000])
def test_a_cursor_that_is_none_is_refused_in_the_words_of_the_original(cursor, run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            assert await refused(desktop, "model/list", {"cursor": cursor}) == f"invalid cursor: {cursor}"
            assert await refused(desktop, "model/list", {"cursor": "99"}) == "cursor 99 exceeds total models 9"

    run(scenario())


def test_hidden_models_are_listed_when_they_are_asked_for(run, tmp_path):
    async def scenario():
        (tmp_path / "auth.json").write_text(json.dumps(auth_json()))
        listed = {"models": [{"slug": "gpt-7"}, {"slug": "gpt-7-hidden", "visibility": "hide"}]}
        async with app_and_desktop(tmp_path, listed=listed) as (_, desktop):
            shown = (await desktop.request("model/list", {}))["data"]
            every = (await desktop.request("model/list", {"includeHidden": True}))["data"]
        assert [(model["id"], model["isDefault"]) for model in shown] == [("gpt-7", True)]
        assert [(model["id"], model["hidden"]) for model in every] == [("gpt-7", False), ("gpt-7-hidden", True)]

    run(scenario())


def test_a_listed_model_says_what_it_can_do_and_what_replaces_it(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            models = {model["id"]: model for model in (await desktop.request("model/list", {}))["data"]}
        sol = models["gpt-6.1-sol"]
        assert sol["defaultReasoningEffort"] == "low" and sol["isDefault"]
        assert [one["reasoningEffort"] for one in sol["supportedReasoningEfforts"]][:2] == ["low", "medium"]
        assert all(one["description"] for one in sol["supportedReasoningEfforts"])
        assert models["gpt-5.5"]["upgrade"] == models["gpt-5.5"]["upgradeInfo"]["model"] == "gpt-6-sol"
        assert sol["upgrade"] is sol["upgradeInfo"] is None

    run(scenario())


# thread/start


def test_a_thread_starts_with_the_defaults_of_the_original(run, tmp_path):
    """plain_turn_ws."""

    async def scenario():
        async with app_and_desktop(tmp_path, ScriptedModel()) as (app, desktop):
            answer = await desktop.request("thread/start", {"cwd": "/work"})
            started = await desktop.wait_for("thread/started")

        assert published_schema.misfit("ThreadStartResponse", answer) is None
        assert started == {"thread": answer["thread"]}
        assert answer["model"] == answer["thread"]["model"] == "gpt-6.1-sol"
        assert answer["approvalPolicy"] == "on-request"
        assert answer["sandbox"] == {"type": "readOnly", "networkAccess": False}
        assert answer["activePermissionProfile"] == {"id": ":read-only", "extends": None}
        assert answer["reasoningEffort"] is None and answer["serviceTier"] is None
        assert answer["thread"]["cwd"] == "/work" and answer["thread"]["originator"] == "codex_desktop"
        assert answer["thread"]["createdAt"] == 1_700_000_000
        assert app.core.thread(answer["thread"]["id"]).base_instructions == BASE_INSTRUCTIONS

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


# turn/start


def test_a_turn_is_answered_before_anything_is_told_of_it(run, tmp_path):
    async def scenario():
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (app, desktop):
            thread_id = await start(desktop)
            answer = await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
            completed = await desktop.wait_for("turn/completed")

        heard = [one.get("method", one.get("id")) for one in app.heard]
        assert heard[:6] == [1, 2, "thread/started", 3, "thread/status/changed", "turn/started"]
        assert published_schema.misfit("TurnStartResponse", answer) is None
        assert answer["turn"]["status"] == "inProgress" and answer["turn"]["startedAt"] is None
        assert completed["turn"]["id"] == answer["turn"]["id"]
        assert completed["turn"]["items"][0]["text"] == "Done."

    run(scenario())


def test_read_state_is_told_to_clients_of_the_experimental_api_only(run, tmp_path):
    """initialize_no_experimental."""

    async def scenario():
        for experimental in (True, False):
            model = ScriptedModel(model_says.answer("Done."))
            async with app_and_desktop(tmp_path, model, Script(experimental=experimental)) as (_, desktop):
                await turn(desktop, await start(desktop), HELLO)
                told = [one["method"] for one in desktop.notifications]
            assert ("thread/readState/changed" in told) is experimental

    run(scenario())


def test_the_input_comes_back_as_it_was_sent_and_goes_to_the_model_as_parts(run, tmp_path):
    async def scenario():
        image = "data:image/png;base64,iVBORw0KGgo="
        model = ScriptedModel(model_says.answer("Done."))
        inputs = [
            {"type": "text", "text": "look", "text_elements": []},
            {"type": "image", "url": image, "detail": "high"},
            {"type": "image", "url": image, "detail": None},
            {"type": "image", "fileId": "file_1", "detail": None},
            {"type": "skill", "name": "pdf", "path": "/skills/pdf"},
            {"type": "mention", "name": "a.py", "path": "/code/a.py"},
        ]
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            await turn(desktop, await start(desktop), *inputs, clientUserMessageId="cu-1")
            item = (await desktop.wait_for("item/started"))["item"]

        assert item["type"] == "userMessage" and item["clientId"] == "cu-1" and item["content"] == inputs
        assert published_schema.misfit("ThreadItem", item) is None
        assert said_by_user(model) == [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": image, "detail": "high"},
            {"type": "input_image", "image_url": image},
            {"type": "input_image", "file_id": "file_1"},
            {"type": "input_text", "text": "Use the skill 'pdf' described in /skills/pdf."},
            {"type": "input_text", "text": "@a.py (/code/a.py)"},
        ]

    run(scenario())


def around(number, path, *parts):
    """Parts between the tags that name a local image."""
    return [
        {"type": "input_text", "text": f'<image name=[Image #{number}] path="{path}">'},
        *parts,
        {"type": "input_text", "text": "</image>"},
    ]


def test_local_images_are_read_and_sent_inline_by_name_and_number(run, tmp_path):
    """What they are is seen by their content; as codex-cli 0.169.0 sends them."""

    async def scenario():
        first, second = tmp_path / "dot.png", tmp_path / "not what it says.txt"
        first.write_bytes(PNG)
        second.write_bytes(PNG)
        given = [{"type": "localImage", "path": str(path), "detail": None} for path in (first, second)]
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            await turn(desktop, await start(desktop), {"type": "image", "url": "data:,x"}, *given)
            item = (await desktop.wait_for("item/started"))["item"]

        image = {"type": "input_image", "image_url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}
        assert said_by_user(model)[1:] == [*around(2, first, image), *around(3, second, image)]
        assert item["content"][1:] == given

    run(scenario())


@pytest.mark.parametrize(
    "name, reason",
    [
        ("missing.png", "No such file or directory"),
        ("dir.png", "Is a directory"),
        ("fifo.png", "not a regular file"),
        ("bad\0.png", "it is no path"),
    ],
)
def test_a_local_image_that_cannot_be_read_is_told_to_the_model_and_the_turn_goes_on(name, reason, run, tmp_path):
    """It refused the turn, and a FIFO stopped the whole server until somebody wrote to it."""

    async def scenario():
        os.mkfifo(tmp_path / "fifo.png")
        (tmp_path / "dir.png").mkdir()
        path = f"{tmp_path}/{name}"
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            assert (await turn(desktop, await start(desktop), HELLO, {"type": "localImage", "path": path}))["status"]
        text = f"countersign could not read the local image at `{path}`: {reason}"
        assert said_by_user(model)[1:] == [{"type": "input_text", "text": text}]

    run(scenario())


@pytest.mark.parametrize("content, size", [(b"secret-4711", 11), (b"", 0), (PNG, MAX_IMAGE_BYTES + 1)])
def test_a_file_that_is_no_image_is_not_sent_whatever_its_name(content, size, run, tmp_path):
    async def scenario():
        path = tmp_path / "dot.png"
        path.write_bytes(content)
        os.truncate(path, size)
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            await turn(desktop, await start(desktop), {"type": "localImage", "path": str(path)})
        omitted = {"type": "input_text", "text": "image content omitted because it could not be processed"}
        assert said_by_user(model) == around(1, path, omitted)

    run(scenario())


@pytest.mark.parametrize("head", [PNG, b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\0\0\0\0WEBP"])
def test_the_largest_image_of_each_format_is_sent(head, run, tmp_path):
    async def scenario():
        path = tmp_path / "large"
        path.write_bytes(head)
        os.truncate(path, MAX_IMAGE_BYTES)
        model = ScriptedModel(model_says.answer("Done."))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            await turn(desktop, await start(desktop), {"type": "localImage", "path": str(path)})
        assert len(said_by_user(model)[1]["image_url"]) > MAX_IMAGE_BYTES

    run(scenario())


@pytest.mark.parametrize(
    "texts, taken",
    [
        (["\xe9" * MAX_INPUT_CHARACTERS], True),
        (["x" * (MAX_INPUT_CHARACTERS + 1)], False),
        (["x" * MAX_INPUT_CHARACTERS, "y"], False),
    ],
    ids=["all of it", "one more", "one more in another text"],
)
def test_the_texts_of_an_input_have_a_limit_in_characters(texts, taken, run, tmp_path):
    """codex-cli 0.169.0 answers -32602 with this text."""
    inputs = [{"type": "text", "text": text} for text in texts]
    said = "Input exceeds the maximum length of 1048576 characters."

    async def scenario():
        pause = Pause()
        model = ScriptedModel([pause, *model_says.answer("one")], *[model_says.answer("two")] * taken)
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop)
            params = {"threadId": thread_id, "input": [HELLO]}
            turn_id = (await desktop.request("turn/start", params))["turn"]["id"]
            await pause.reached.wait()
            steering = {"threadId": thread_id, "expectedTurnId": turn_id, "input": inputs}
            if taken:
                await desktop.request("turn/steer", steering)
            else:
                assert await refused(desktop, "turn/steer", steering, INVALID_PARAMS) == said
                starting = {"threadId": thread_id, "input": inputs}
                assert await refused(desktop, "turn/start", starting, INVALID_PARAMS) == said
            pause.over.set()
            await desktop.wait_for("turn/completed")

    run(scenario())


def test_no_thread_starts_while_the_configuration_is_broken(run, tmp_path):
    """The server goes on without config.toml; a thread with other settings than the user's would be a surprise."""

    async def scenario():
        async with app_and_desktop(tmp_path, config_problem="'config.toml' is not TOML") as (_, desktop):
            text = "failed to load configuration: 'config.toml' is not TOML"
            assert await refused(desktop, "thread/start", {}) == text
            assert (await desktop.request("model/list", {}))["data"]

    run(scenario())


@pytest.mark.parametrize(
    "given, text",
    [
        ({"type": "audio", "url": "x"}, "audio input is not supported by countersign"),
        ({"type": "localAudio", "path": "/x"}, "localAudio input is not supported by countersign"),
        (
            {"type": "image", "url": "HTTPS://a.example/b.png"},
            "remote image URLs are not supported; use an inline data URL instead",
        ),
    ],
)
def test_input_that_we_cannot_take_is_named(given, text, run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            params = {"threadId": await start(desktop), "input": [given]}
            assert await refused(desktop, "turn/start", params) == text

    run(scenario())


@pytest.mark.parametrize(
    "method, params",
    [
        ("turn/start", {"input": []}),
        ("turn/steer", {"input": [], "expectedTurnId": "x"}),
        ("turn/steer", {"input": [], "expectedTurnId": ""}),
        ("turn/interrupt", {"turnId": "x"}),
    ],
)
def test_a_thread_that_is_not_there_is_named(method, params, run, tmp_path):
    """initialize_errors."""

    async def scenario():
        async with app_and_desktop(tmp_path) as (_, desktop):
            text = await refused(desktop, method, {"threadId": UNKNOWN, **params})
            other_spelling = await refused(desktop, method, {"threadId": UNKNOWN.replace("-", ""), **params})
            no_id = await refused(desktop, method, {"threadId": "019", **params})
        assert text == other_spelling == f"thread not found: {UNKNOWN}"
        assert no_id == "invalid thread id: invalid length: expected length 32 for simple format, found 3"

    run(scenario())


def test_a_turn_may_begin_without_input_and_cannot_be_given_none(run, tmp_path):
    """turn_options; the refusals were observed of codex 0.169.0."""

    async def scenario():
        pause = Pause()
        model = ScriptedModel([Created("r"), pause, *model_says.answer("one")])
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop)
            empty = {"threadId": thread_id, "input": []}
            turn_id = (await desktop.request("turn/start", empty))["turn"]["id"]
            await pause.reached.wait()
            assert await refused(desktop, "turn/start", empty, INTERNAL_ERROR) == (
                "failed to submit turn input: EmptyInput"
            )
            text = await refused(desktop, "turn/steer", {**empty, "expectedTurnId": turn_id})
            assert text == "input must not be empty"
            pause.over.set()
            assert (await desktop.wait_for("turn/completed"))["turn"]["status"] == "completed"
        kinds = [one["params"]["item"]["type"] for one in desktop.notifications if one["method"] == "item/started"]
        assert kinds == ["agentMessage"]

    run(scenario())


def test_overrides_of_a_turn_hold_for_the_turns_after_it(run, tmp_path):
    """turn_options."""

    async def scenario():
        model = ScriptedModel(model_says.answer("one"), model_says.answer("two"))
        policy = {"type": "externalSandbox", "networkAccess": "restricted"}
        async with app_and_desktop(tmp_path, model) as (app, desktop):
            thread_id = await start(desktop)
            await turn(
                desktop,
                thread_id,
                HELLO,
                model="gpt-5.5",
                effort="high",
                summary="detailed",
                serviceTier="fast",
                cwd="/elsewhere",
                approvalPolicy="never",
                sandboxPolicy=policy,
                outputSchema={"type": "object"},
            )
            await turn(desktop, thread_id, HELLO)
            thread = app.core.thread(thread_id)

        first, second = model.requests
        for request in (first, second):
            assert (request.model, request.effort, request.summary) == ("gpt-5.5", "high", "detailed")
            assert request.service_tier == "priority"
            assert json.loads(request.turn_metadata)["sandbox_mode"] == "external-sandbox"
        assert (first.output_schema, second.output_schema) == ({"type": "object"}, None)
        assert (thread.cwd, thread.approval_policy, thread.sandbox, thread.profile) == (
            "/elsewhere",
            "never",
            policy,
            None,
        )

    run(scenario())


def test_overrides_of_a_turn_that_runs_already_change_nothing(run, tmp_path):
    async def scenario():
        pause = Pause()
        model = ScriptedModel([Created("r"), pause, *model_says.answer("one")], model_says.answer("two"))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop)
            await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
            await pause.reached.wait()
            more = {"threadId": thread_id, "input": [HELLO], "model": "gpt-5.5"}
            await desktop.request("turn/start", more)
            pause.over.set()
            await desktop.wait_for("turn/completed")
        assert [request.model for request in model.requests] == ["gpt-6.1-sol", "gpt-6.1-sol"]

    run(scenario())


def test_the_preview_of_a_thread_is_the_first_text(run, tmp_path):
    async def scenario():
        model = ScriptedModel(model_says.answer("one"), model_says.answer("two"))
        async with app_and_desktop(tmp_path, model) as (app, desktop):
            thread_id = await start(desktop)
            await turn(desktop, thread_id, {"type": "image", "url": "data:,x"}, HELLO)
            await turn(desktop, thread_id, {**HELLO, "text": "more"})
            assert app.core.thread(thread_id).preview == "hello"

    run(scenario())


# turn/steer, turn/interrupt


def test_steering_is_answered_with_the_turn_and_refused_in_the_words_of_the_original(run, tmp_path):
    """turn_steer."""

    async def scenario():
        pause = Pause()
        model = ScriptedModel([Created("r"), pause, *model_says.answer("one")], model_says.answer("two"))
        async with app_and_desktop(tmp_path, model) as (_, desktop):
            thread_id = await start(desktop)
            answer = await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
            turn_id = answer["turn"]["id"]
            await pause.reached.wait()

            async def steer(expected):
                params = {"threadId": thread_id, "expectedTurnId": expected, "input": [HELLO]}
                return await desktop.request("turn/steer", {**params, "clientUserMessageId": "cm-1"})

            for expected, text in (
                ("wrong", f"expected active turn id `wrong` but found `{turn_id}`"),
                ("", "expectedTurnId must not be empty"),
            ):
                with pytest.raises(RequestFailed, match=f"^{text}$"):
                    await steer(expected)
            steered = await steer(turn_id)
            assert steered == {"turnId": turn_id}
            assert published_schema.misfit("TurnSteerResponse", steered) is None
            pause.over.set()
            await desktop.wait_for("turn/completed")
            with pytest.raises(RequestFailed, match="^no active turn to steer$"):
                await steer(turn_id)
            clients = [
                one["params"]["item"]["clientId"]
                for one in desktop.notifications
                if one["method"] == "item/started" and one["params"]["item"]["type"] == "userMessage"
            ]
        assert clients == [None, "cm-1"]

    run(scenario())


def test_an_interrupt_is_answered_before_the_turn_is_told_to_be_over(run, tmp_path):
    """turn_interrupt."""

    async def scenario():
        pause = Pause()
        async with app_and_desktop(tmp_path, ScriptedModel([Created("r"), pause])) as (app, desktop):
            thread_id = await start(desktop)

            async def interrupt(turn_id):
                return await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})

            answer = await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
            turn_id = answer["turn"]["id"]
            await pause.reached.wait()
            with pytest.raises(RequestFailed, match=f"^expected active turn id bogus but found {turn_id}$"):
                await interrupt("bogus")
            assert await interrupt(turn_id) == {}
            completed = await desktop.wait_for("turn/completed")
            assert [one.get("method", one.get("result")) for one in app.heard][-3:] == [
                {},
                "thread/status/changed",
                "turn/completed",
            ]
            with pytest.raises(RequestFailed, match="^no active turn to interrupt$"):
                await interrupt(turn_id)

        assert completed["turn"]["status"] == "interrupted" and completed["turn"]["items"] == []

    run(scenario())


def test_a_turn_outlives_the_client_that_started_it(run, tmp_path):
    async def scenario():
        pause = Pause()
        model = ScriptedModel([Created("r"), pause, *model_says.answer("Done.")])
        async with app_and_desktop(tmp_path, model) as (app, desktop):
            async with app.desktop(Script(name="other")) as other:
                thread_id = await start(other)
                await other.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await pause.reached.wait()
            pause.over.set()
            while app.core.thread(thread_id).status == "active":
                await asyncio.sleep(0)
            assert app.core.thread(thread_id).status == "idle"
            heard = {one["method"] for one in desktop.notifications}
            assert "thread/started" in heard and heard <= {"thread/started", "thread/status/changed"}

    run(scenario())
