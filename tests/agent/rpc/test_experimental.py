"""What wants the experimental API, refused as codex-cli 0.169.0 refuses it."""

import pytest

from agent.rpc.experimental import needs_experimental
from agent.standins.desktop import Script
from tests.agent.core.memory_app import app_and_desktop
from tests.agent.rpc.test_methods import HELLO, refused, start

GRANULAR = {"granular": {"sandbox_approval": True, "rules": True, "mcp_elicitations": True}}


@pytest.mark.parametrize(
    "method, member, value",
    [
        ("thread/start", "dynamicTools", []),  # initialize_no_experimental: an empty list was given, too
        ("thread/start", "environments", []),
        ("thread/start", "historyMode", "legacy"),
        ("thread/start", "permissions", ":workspace"),
        ("thread/resume", "path", "/x"),
        ("thread/resume", "initialTurnsPage", {}),
        ("thread/fork", "beforeTurnId", "x"),
        ("thread/list", "ancestorThreadId", "x"),
        ("turn/start", "collaborationMode", {"mode": "default", "settings": {"model": "gpt-5.5"}}),
        ("turn/start", "responsesapiClientMetadata", {}),
        ("turn/steer", "additionalContext", {}),
    ],
)
def test_a_member_of_the_experimental_api_is_named(method, member, value):
    assert needs_experimental(method, {member: value}) == f"{method}.{member}"
    # The default, written out.
    assert needs_experimental(method, {member: None}) is None
    assert needs_experimental("account/read", {member: value}) is None


def test_a_granular_policy_is_named_by_its_type():
    assert needs_experimental("turn/start", {"approvalPolicy": GRANULAR}) == "askForApproval.granular"
    assert needs_experimental("turn/start", {"approvalPolicy": "never"}) is None
    assert needs_experimental("thread/start", []) is None


def test_a_client_without_the_capability_is_told_and_another_one_is_not(run, tmp_path):
    """The members were passed over: who asked for a permission profile got another one."""

    async def scenario():
        plain = Script(experimental=False)
        async with app_and_desktop(tmp_path, script=plain) as (app, desktop):
            text = await refused(desktop, "thread/start", {"permissions": ":workspace"})
            assert text == "thread/start.permissions requires experimentalApi capability"
            turn = {"threadId": await start(desktop), "input": [HELLO], "approvalPolicy": GRANULAR}
            assert await refused(desktop, "turn/start", turn) == (
                "askForApproval.granular requires experimentalApi capability"
            )
            async with app.desktop(Script(name="other")) as other:
                answer = await other.request("thread/start", {"permissions": ":workspace"})
                assert answer["activePermissionProfile"] == {"id": ":workspace", "extends": None}

    run(scenario())
