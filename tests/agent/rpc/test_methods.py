"""The supported methods, asked by a desktop in memory, with a scripted model behind them."""

import asyncio
import base64
import datetime as dt
import json

import pytest

from agent.model.wire import Created
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
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
