"""turn/start, compared with codex-cli 0.169.0."""

import base64
import json
import os

import pytest

from agent.model.wire import Created
from agent.rpc.input import MAX_IMAGE_BYTES, MAX_INPUT_CHARACTERS
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from agent.standins.desktop import Script
from tests.agent.core import model_says, published_schema
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_methods import HELLO, PNG, UNKNOWN, refused, said_by_user, start, turn


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
