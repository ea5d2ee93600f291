"""thread/shellCommand: what the user runs with "!". The order and the words are those of the original (observed)."""

import os
import re

import pytest

from agent.rpc.jsonrpc import INVALID_PARAMS
from agent.tools.user_command import DEFAULT_TIMEOUT_MS
from tests.agent.core import model_says
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.scripted_model import Pause, ScriptedModel
from tests.agent.rpc.test_methods import HELLO, UNKNOWN, refused, start, turn
from tests.agent.tools.workbench import Workbench


@pytest.fixture
def bench(tmp_path):
    """Real tools; a thread that may only read, and asks for each command of the model."""
    bench = Workbench(tmp_path / "bench")
    yield bench
    bench.runner.close()


async def begun(desktop, bench, **params):
    return await start(desktop, cwd=str(bench.cwd), sandbox="read-only", approvalPolicy="untrusted", **params)


async def shell(desktop, thread_id, command, **more):
    """A command on a thread at rest: its item at the end, and the turn's."""
    before = sum(one["method"] == "turn/completed" for one in desktop.notifications)
    wanted = {"threadId": thread_id, "command": command, **more}
    assert await desktop.request("thread/shellCommand", wanted) == {}
    turn = (await desktop.wait_for("turn/completed", before + 1))["turn"]
    return items(desktop, "item/completed")[-1], turn


def items(desktop, method):
    told = [one["params"]["item"] for one in desktop.notifications if one["method"] == method]
    return [item for item in told if item["type"] == "commandExecution"]


def said(model, number):
    """What the model was told of commands in its n-th request."""
    texts = [item["content"][0]["text"] for item in model.requests[number - 1].input if item["type"] == "message"]
    return [re.sub(r"Duration: \S+", "Duration: N", one) for one in texts if one.startswith("<user_shell_command>")]


def told(command, code, output):
    return (
        f"<user_shell_command>\n<command>\n{command}\n</command>\n<result>\nExit code: {code}\n"
        f"Duration: N seconds\nOutput:\n{output}\n</result>\n</user_shell_command>"
    )


def test_on_a_thread_at_rest_it_is_a_turn_of_its_own_that_asks_nobody(run, tmp_path, bench):
    async def scenario():
        with ScriptedModel(model_says.answer("seen")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (app, desktop):
                thread_id = await begun(desktop, bench)
                heard = len(app.heard)
                item, ended = await shell(desktop, thread_id, "echo out > made; echo bang; exit 3")
                methods = [one.get("method", "answer") for one in app.heard[heard:]]
                assert (ended["status"], ended["items"], ended["itemsView"]) == ("completed", [], "notLoaded")
                await turn(desktop, thread_id, HELLO)
        assert methods == [
            *("answer", "thread/status/changed", "turn/started", "item/started"),
            *("item/commandExecution/outputDelta", "item/completed", "thread/status/changed", "turn/completed"),
        ]
        assert (item["source"], item["processId"], item["status"]) == ("userShell", None, "failed")
        assert (item["exitCode"], item["aggregatedOutput"]) == (3, "bang\n")
        assert (bench.cwd / "made").read_text() == "out\n"
        assert said(model, 1) == [told("echo out > made; echo bang; exit 3", 3, "bang\n")]

    run(scenario())


def test_beside_a_turn_of_the_model_it_belongs_to_that_turn_and_the_model_goes_on(run, tmp_path, bench):
    async def scenario():
        pause = Pause()
        first = [pause, *model_says.answer("one")]
        with ScriptedModel(first, model_says.answer("two", item_id="msg-2")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await begun(desktop, bench)
                await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await pause.reached.wait()
                await desktop.request("thread/shellCommand", {"threadId": thread_id, "command": "echo beside"})
                await desktop.wait_for("item/completed", 2)
                pause.over.set()
                ended = (await desktop.wait_for("turn/completed"))["turn"]
                begins = [
                    one["params"]["turn"]["id"] for one in desktop.notifications if one["method"] == "turn/started"
                ]
        assert begins == [ended["id"]]
        assert said(model, 2) == [told("echo beside", 0, "beside\n")]

    run(scenario())


def test_one_that_outlives_its_turn_is_read_in_the_next(run, tmp_path, bench):
    async def scenario():
        (gate := bench.directory / "gate").touch()
        pause = Pause()
        first = [pause, *model_says.answer("one")]
        with ScriptedModel(first, model_says.answer("two", item_id="msg-2")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await begun(desktop, bench)
                await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                await pause.reached.wait()
                command = f"while test -e {gate}; do sleep 0.02; done; echo late"
                await desktop.request("thread/shellCommand", {"threadId": thread_id, "command": command})
                pause.over.set()
                await desktop.wait_for("turn/completed")
                gate.unlink()
                await desktop.wait_for("item/completed", 3)
                await turn(desktop, thread_id, HELLO)
        assert said(model, 1) == []
        assert said(model, 2) == [told(command, 0, "late\n")]

    run(scenario())


@pytest.mark.parametrize("beside", [False, True])
def test_an_interrupt_stops_it_and_the_model_is_told(run, tmp_path, bench, beside):
    async def scenario():
        pause = Pause()
        steps = [[pause, *model_says.answer("never")]] * beside
        with ScriptedModel(*steps, model_says.answer("after", item_id="msg-2")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (app, desktop):
                thread_id = await begun(desktop, bench)
                if beside:
                    await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                    await pause.reached.wait()
                command = "echo $$ > pid; echo begun; exec sleep 600"
                await desktop.request("thread/shellCommand", {"threadId": thread_id, "command": command})
                await desktop.wait_for("item/commandExecution/outputDelta")
                pid = int((bench.cwd / "pid").read_text())
                running = (await desktop.wait_for("turn/started"))["turn"]["id"]
                heard = len(app.heard)
                await desktop.request("turn/interrupt", {"threadId": thread_id, "turnId": running})
                ended = (await desktop.wait_for("turn/completed"))["turn"]
                assert [one.get("method", "answer") for one in app.heard[heard:]] == [
                    *("item/completed", "answer", "thread/status/changed", "turn/completed")
                ]
                (item,) = items(desktop, "item/completed")
                await turn(desktop, thread_id, HELLO)
        assert ended["status"] == "interrupted"
        assert (item["status"], item["exitCode"]) == ("failed", -1)
        assert item["aggregatedOutput"] == "command aborted by user"
        texts = model.inputs(len(model.requests))
        aborted = next(number for number, text in enumerate(texts) if "<turn_aborted>" in text)
        assert "command aborted by user" in texts[aborted - 1]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(scenario())


def test_nothing_of_it_is_left_when_the_server_ends(run, tmp_path, bench):
    async def scenario():
        with ScriptedModel() as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await begun(desktop, bench)
                command = "echo $$ > pid; echo begun; exec sleep 600"
                await desktop.request("thread/shellCommand", {"threadId": thread_id, "command": command})
                await desktop.wait_for("item/commandExecution/outputDelta")
                pid = int((bench.cwd / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(scenario())


def test_what_the_user_says_meanwhile_is_answered_in_the_same_turn(run, tmp_path, bench):
    async def scenario():
        (gate := bench.directory / "gate").touch()
        with ScriptedModel(model_says.answer("one")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await begun(desktop, bench)
                command = f"while test -e {gate}; do sleep 0.02; done"
                await desktop.request("thread/shellCommand", {"threadId": thread_id, "command": command})
                running = (await desktop.wait_for("turn/started"))["turn"]["id"]
                answer = await desktop.request("turn/start", {"threadId": thread_id, "input": [HELLO]})
                assert answer["turn"]["id"] == running
                gate.unlink()
                ended = (await desktop.wait_for("turn/completed"))["turn"]
        assert (ended["id"], ended["items"][0]["text"]) == (running, "one")
        assert said(model, 1) == [told(command, 0, "")]

    run(scenario())


def test_its_time_its_output_and_its_environment_are_bounded(run, tmp_path, bench, monkeypatch):
    async def scenario():
        with ScriptedModel(model_says.answer("seen")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await begun(desktop, bench)
                late, _ = await shell(desktop, thread_id, "echo begun; exec sleep 600", timeoutMs=100)
                assert late["aggregatedOutput"].endswith("execution error: stopped after 0.1 seconds")
                assert (late["status"], late["exitCode"]) == ("failed", -1)
                long, _ = await shell(desktop, thread_id, "yes 0123456789 | head -c 3000000; env | grep -c OPENAI")
                assert len(long["aggregatedOutput"]) <= 2 * 1024 * 1024 and long["aggregatedOutput"].endswith("0\n")
                await turn(desktop, thread_id, HELLO)
        assert all(len(text) < 50_000 for text in said(model, 1))

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    run(scenario())


def test_what_cannot_be_started_is_an_item_too(run, tmp_path, bench):
    async def scenario():
        with ScriptedModel() as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await start(desktop, cwd=str(bench.directory / "missing"))
                item, ended = await shell(desktop, thread_id, "true")
                assert (item["status"], item["exitCode"], ended["status"]) == ("failed", -1, "completed")
                assert item["aggregatedOutput"].startswith("execution error: ")
                item, _ = await shell(desktop, thread_id, "echo a\0b")
                assert item["command"] == "<command included NUL byte>"

    run(scenario())


def test_it_is_there_after_a_restart_and_does_not_count_as_an_answer_of_the_model(run, tmp_path, bench):
    async def scenario():
        with ScriptedModel() as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                thread_id = await begun(desktop, bench, model="gpt-5.5")
                await shell(desktop, thread_id, "echo kept")
        with ScriptedModel(model_says.answer("seen")) as model:
            async with app_and_desktop(tmp_path, model, tools=bench.tools) as (_, desktop):
                resumed = await desktop.request("thread/resume", {"threadId": thread_id})
                ((item,),) = [one["items"] for one in resumed["thread"]["turns"]]
                assert item["aggregatedOutput"] == "kept\n"
                # Another model: nothing has to be summed up for it, as none has answered yet.
                await turn(desktop, thread_id, HELLO, model="gpt-6.1-sol")
        assert said(model, 1) == [told("echo kept", 0, "kept\n")]
        assert any("<environment_context>" in text for text in model.inputs(1))

    run(scenario())


def test_what_does_not_fit_is_refused(run, tmp_path, bench):
    async def scenario():
        async with app_and_desktop(tmp_path, tools=bench.tools) as (_, desktop):
            thread_id = await begun(desktop, bench)

            async def told(code=-32600, **params):
                return await refused(desktop, "thread/shellCommand", params, code)

            assert await told(threadId=thread_id, command=" \n") == "command must not be empty"
            assert await told(threadId=UNKNOWN, command="ls") == f"thread not found: {UNKNOWN}"
            assert (await told(threadId="zz", command="ls")).startswith("invalid thread id: ")
            assert await told(threadId=thread_id) == "Invalid request: missing field `command`"
            negative = await told(INVALID_PARAMS, threadId=thread_id, command="ls", timeoutMs=-1)
            assert negative == "thread/shellCommand timeoutMs must be non-negative, got -1"
            wrong = await told(threadId=thread_id, command="ls", timeoutMs=1.5)
            assert wrong == "Invalid request: invalid type: floating point `1.5`, expected i64"

    run(scenario())
    assert DEFAULT_TIMEOUT_MS == 3_600_000
