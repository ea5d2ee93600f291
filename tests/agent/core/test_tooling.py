"""What the model is told of a call."""

import json

import pytest

from agent.core.tooling import ToolCall, ToolOutput

CALL = ToolCall("call-1", "function_call", "view_image", "{}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a\udce9b", "a\ufffdb"),
        ([{"type": "input_text", "text": "\ud800"}], [{"type": "input_text", "text": "\ufffd"}]),
        ("a\u00e9\U0001f600", "a\u00e9\U0001f600"),
    ],
    ids=["a name on disk", "a part", "the control"],
)
def test_an_output_is_what_a_request_can_carry(content, told):
    item = ToolOutput(content).item(CALL)
    assert item["output"] == told
    assert json.dumps(item, ensure_ascii=False).encode()
