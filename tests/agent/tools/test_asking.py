"""Tools that the client answers: what it is asked, and what the model is told of what it says."""

import json

import pytest

from tests.agent.tools.workbench import Workbench

QUESTION = {
    "id": "q",
    "header": "Pick",
    "question": "Which?",
    "options": [{"label": "A", "description": "a"}, {"label": "B", "description": "b"}],
}
TOOL = {"name": "lookup", "description": "d", "inputSchema": {"type": "object", "properties": {"k": {}}}}


async def ask(bench, *questions):
    return (await bench.call("request_user_input", json.dumps({"questions": questions}))).content


def test_the_user_is_asked_and_the_model_told_the_answer(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path, answers=[{"answers": {"q": {"answers": ["A"]}}}]) as bench:
            assert json.loads(await ask(bench, QUESTION)) == {"answers": {"q": {"answers": ["A"]}}}
            ((method, params),) = bench.asked
            assert method == "item/tool/requestUserInput"
            assert params["questions"] == [{**QUESTION, "isOther": True, "isSecret": False}]
            assert bench.waited_for == ["waitingOnUserInput"]

    run(scenario())


@pytest.mark.parametrize("answer", [None, "A", {}, {"answers": "A"}, [], RuntimeError("no window")], ids=str)
def test_an_answer_that_cannot_be_used_is_an_output(run, tmp_path, answer):
    async def scenario():
        async with Workbench(tmp_path, answers=[answer]) as bench:
            assert "the client" in await ask(bench, QUESTION)

    run(scenario())


@pytest.mark.parametrize(
    "questions",
    [
        [],
        [QUESTION] * 4,
        ["Which?"],
        [{**QUESTION, "id": 1}],
        [{**QUESTION, "options": []}],
        [{**QUESTION, "options": ["A"]}],
        [{name: QUESTION[name] for name in ("id", "header", "question")}],
    ],
)
def test_questions_that_cannot_be_asked_are_not(run, tmp_path, questions):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            assert "question" in await ask(bench, *questions)
            assert bench.asked == []

    run(scenario())


def test_a_tool_of_the_client_is_declared_called_and_answered(run, tmp_path):
    async def scenario():
        parts = [{"type": "inputText", "text": "one"}, {"type": "inputText", "text": "two"}]
        answer = {"contentItems": parts, "success": True}
        async with Workbench(tmp_path, dynamic_tools=[TOOL], answers=[answer]) as bench:
            assert "lookup" in [item["name"] for item in bench.tools.declared(bench.thread)]
            told = [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]
            assert (await bench.call("lookup", '{"k": 1}')).content == told
            ((method, params),) = bench.asked
            assert (method, params["tool"], params["arguments"]) == ("item/tool/call", "lookup", {"k": 1})
            (item,) = bench.items("item/completed")
            assert (item["status"], item["success"], item["contentItems"]) == ("completed", True, parts)

    run(scenario())


def test_an_image_of_a_client_s_tool_reaches_the_model(run, tmp_path):
    async def scenario():
        answer = {"contentItems": [{"type": "inputImage", "imageUrl": "data:image/png;base64,AA=="}], "success": True}
        async with Workbench(tmp_path, dynamic_tools=[TOOL], answers=[answer]) as bench:
            told = (await bench.call("lookup", "{}")).content
            assert told == [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [None, "x", {}, {"contentItems": "x"}, {"contentItems": [], "success": "yes"}, RuntimeError("gone")],
    ids=str,
)
def test_what_a_client_says_that_cannot_be_used_is_a_failed_item(run, tmp_path, answer):
    async def scenario():
        async with Workbench(tmp_path, dynamic_tools=[TOOL], answers=[answer]) as bench:
            told = (await bench.call("lookup", "{}")).content
            (item,) = bench.items("item/completed")
            assert (item["status"], item["success"]) == ("failed", False)
            # What the model is told the clients are shown, too.
            assert item["contentItems"] == ([{"type": "inputText", "text": told}] if told else [])
            assert told == [] or told.startswith(("dynamic tool request failed", "dynamic tool response was invalid"))

    run(scenario())


def test_without_such_a_tool_the_client_is_not_asked(run, tmp_path):
    async def scenario():
        async with Workbench(tmp_path) as bench:
            assert (await bench.call("lookup", "{}")).content == "unsupported call: lookup"

    run(scenario())
