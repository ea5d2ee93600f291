"""The check of all that is sent can fail."""

import pytest

from tests.agent.core import published_schema
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.core.published_schema import misfit_of_message

pytestmark = pytest.mark.skipif(not published_schema.is_there(), reason=published_schema.MISSING)

# Experimental, or of before the second version of the protocol: the bundle has no definition of their answers.
UNCHECKED = ("initialize", "fuzzyFileSearch", "thread/realtime/")


@pytest.mark.parametrize(
    "message",
    [
        {"method": "thread/status/changed", "params": {"threadId": "t", "status": {"type": "bogus"}}},
        {"method": "thread/nobody/knows", "params": {}},
        {"id": 1, "method": "item/commandExecution/requestApproval", "params": {}},
        {"id": 1, "method": "nobody/knows", "params": {}},
        {"id": 7, "result": {"turn": {}}},
        {"id": 7},
    ],
)
def test_what_is_not_as_published_is_told(message):
    assert misfit_of_message(message, {7: "turn/start"}) is not None


def test_every_method_of_ours_has_a_schema_of_its_answer(run, tmp_path):
    async def scenario():
        async with app_and_desktop(tmp_path) as (app, _):
            return list(app.methods)

    methods = run(scenario())
    assert "thread/shellCommand" in methods
    assert [name for name in methods if not published_schema.is_checked(name) and not name.startswith(UNCHECKED)] == []
