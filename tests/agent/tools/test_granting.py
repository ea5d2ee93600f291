"""Permissions that the model asks for, in the real sandbox: what a client grants takes effect, and nothing more."""

import json
import os

import pytest

from agent.tools.granting import RequestPermissions
from tests.agent.tools.workbench import Workbench

METHOD = "item/permissions/requestApproval"
EMPTY = {"network": None, "file_system": None}


@pytest.fixture
def outside(tmp_path):
    """A directory beside the workspace, with a file that must stay as it is unless it is granted."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "old").write_text("old\n")
    return str(directory)


def bench(tmp_path, *answers, **more):
    return Workbench(tmp_path / "bench", answers=answers, grants=True, **more)


async def request(bench, permissions, **more):
    """What the model is told of what it asked for."""
    told = await bench.call("request_permissions", json.dumps({"permissions": permissions, **more}))
    return json.loads(told.content) if told.content.startswith("{") else told.content


def writes(*paths):
    return {"file_system": {"write": list(paths)}}


def grants(*paths, **more):
    return {"permissions": {"fileSystem": {"write": list(paths)}}, **more}


def test_what_is_granted_for_a_turn_is_over_with_it(run, tmp_path, outside):
    async def scenario():
        async with bench(tmp_path, grants(outside)) as it:
            told = await request(it, writes(outside), reason="to build")
            assert told == {"permissions": {"network": None, "file_system": {"write": [outside]}}, "scope": "turn"}
            ((method, params),) = it.asked
            entry = {"path": {"type": "path", "path": outside}, "access": "write"}
            files = {"entries": [entry], "read": None, "write": [outside]}
            assert method == METHOD
            assert params == {
                "threadId": "thread-1",
                "turnId": "turn-1",
                "itemId": "call-0",
                "environmentId": "local",
                "startedAtMs": 1_700_000_000_000,
                "cwd": str(it.cwd),
                "reason": "to build",
                "permissions": {"fileSystem": files, "network": None},
            }
            assert it.waited_for == ["waitingOnApproval"]
            await it.command(f"touch {outside}/first")
            it.turn_id = "turn-2"
            await it.command(f"touch {outside}/second")
            assert sorted(os.listdir(outside)) == ["first", "old"]

    run(scenario())


def test_what_is_granted_for_the_session_goes_on(run, tmp_path, outside):
    async def scenario():
        async with bench(tmp_path, grants(outside, scope="session"), {"permissions": {}}) as it:
            assert (await request(it, writes(outside)))["scope"] == "session"
            it.turn_id = "turn-2"
            assert (await request(it, writes("/etc"))) == {"permissions": EMPTY, "scope": "turn"}
            await it.command(f"touch {outside}/new")
            assert sorted(os.listdir(outside)) == ["new", "old"]

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        {"permissions": {}},
        {"permissions": {"fileSystem": None, "network": None}, "scope": "session"},
        {"permissions": {"fileSystem": {"write": ["ABOVE"]}}},
        {"permissions": {"fileSystem": {"write": ["/"]}}},
        {"permissions": {"fileSystem": {"write": ["outside"]}}},
        {"permissions": {"fileSystem": {"write": "OUT"}}},
        {"permissions": {"fileSystem": {"read": ["OUT"]}}},
        {"permissions": {"fileSystem": {"entries": [{"path": {"type": "path", "path": "OUT"}, "access": "all"}]}}},
        {
            "permissions": {
                "fileSystem": {"entries": [{"path": {"type": "special", "value": {"kind": "root"}}, "access": "write"}]}
            }
        },
        {"permissions": {"fileSystem": {"write": ["OUT"]}}, "scope": "forever"},
        {"permissions": {"fileSystem": {"write": ["OUT"]}}, "scope": None},
        {"permissions": {"fileSystem": {"write": ["OUT"]}}, "strictAutoReview": True},
        {"scope": "session"},
        "yes",
        None,
        RuntimeError("no"),
    ],
    ids=str,
)
def test_nothing_is_written_on_less_than_a_clear_grant_of_what_was_asked_for(run, tmp_path, outside, answer):
    """The last grant is the negative control."""
    if not isinstance(answer, Exception):
        text = json.dumps(answer).replace("OUT", outside).replace("ABOVE", str(tmp_path))
        answer = json.loads(text)

    async def scenario():
        async with bench(tmp_path, answer, grants(outside)) as it:
            for is_granted in (False, True):
                await request(it, writes(outside))
                await it.command(f"touch {outside}/new")
                assert os.path.exists(f"{outside}/new") is is_granted

    run(scenario())


def test_more_than_was_asked_for_is_not_granted(run, tmp_path, outside):
    async def scenario():
        beside = str(tmp_path / "beside")
        os.mkdir(beside)
        more = {"permissions": {"fileSystem": {"write": [outside, beside]}, "network": {"enabled": True}}}
        async with bench(tmp_path, more) as it:
            told = await request(it, writes(outside))
            assert told["permissions"] == {"network": None, "file_system": {"write": [outside]}}
            await it.command(f"touch {outside}/new; touch {beside}/new")
            assert os.path.exists(f"{outside}/new") and not os.path.exists(f"{beside}/new")

    run(scenario())


def test_what_is_denied_stays_denied_though_all_around_it_is_granted(run, tmp_path, outside):
    async def scenario():
        entries = [
            {"path": {"type": "path", "path": outside}, "access": "write"},
            {"path": {"type": "path", "path": f"{outside}/old"}, "access": "deny"},
        ]
        answers = (
            {"permissions": {"fileSystem": {"entries": entries}}, "scope": "session"},
            grants(outside, f"{outside}/old"),
        )
        async with bench(tmp_path, *answers) as it:
            told = await request(it, writes(outside))
            assert told["permissions"]["file_system"] == {"entries": entries}
            await request(it, writes(outside, f"{outside}/old"))
            assert "Permission denied" in await it.command(f"cat {outside}/old")
            await it.command(f"touch {outside}/new")
            assert os.path.exists(f"{outside}/new")

    run(scenario())


@pytest.mark.parametrize("path", ["", "/deep"])
def test_what_the_profile_denies_cannot_be_granted(run, tmp_path, outside, path):
    async def scenario():
        os.mkdir(f"{outside}/deep")
        with open(f"{outside}/deep/secret", "w") as file:
            file.write("s3cret")
        async with bench(tmp_path, grants(outside + path)) as it:
            denied = {"mine": {"extends": ":workspace", "filesystem": {outside: "deny"}}}
            it.confinement.config["permissions"] = denied
            it.thread.profile = "mine"
            told = await request(it, writes(outside + path))
            assert told["permissions"]["file_system"] == {"write": [outside + path]}
            assert "s3cret" not in await it.command(f"cat {outside}/deep/secret")
            it.thread.profile = ":workspace"
            assert "s3cret" in await it.command(f"cat {outside}/deep/secret")

    run(scenario())


def test_a_link_in_the_workspace_is_shown_as_what_it_leads_to(run, tmp_path, outside):
    async def scenario():
        async with bench(tmp_path, grants(outside)) as it:
            (it.cwd / "build").symlink_to(outside)
            assert (await request(it, writes("build")))["permissions"]["file_system"] == {"write": [outside]}
            assert it.asked[0][1]["permissions"]["fileSystem"]["write"] == [outside]

    run(scenario())


def test_a_link_that_takes_the_place_of_what_was_granted_leads_nowhere(run, tmp_path, outside):
    async def scenario():
        granted = str(tmp_path / "granted")
        os.mkdir(granted)
        async with bench(tmp_path, grants(granted)) as it:
            await request(it, writes(granted))
            os.rmdir(granted)
            os.symlink(outside, granted)
            await it.command(f"touch {granted}/new")
            assert os.listdir(outside) == ["old"]

    run(scenario())


def test_reading_that_is_granted_does_not_end_writing(run, tmp_path):
    async def scenario():
        async with bench(
            tmp_path, {"permissions": {"fileSystem": {"read": [str(tmp_path / "bench/project/src")]}}}
        ) as it:
            (it.cwd / "src").mkdir()
            await request(it, {"file_system": {"read": ["src"]}})
            await it.command("touch src/new")
            assert (it.cwd / "src" / "new").exists()

    run(scenario())


NETWORK = "python3 -c 'import socket; socket.socket(); print(6 * 7_000_007)'"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_network_is_granted_like_a_path(run, tmp_path, enabled):
    async def scenario():
        async with bench(tmp_path, {"permissions": {"network": {"enabled": enabled}}}) as it:
            await request(it, {"network": {"enabled": True}})
            assert ("42000042" in await it.command(NETWORK)) is enabled

    run(scenario())


@pytest.mark.parametrize(
    ("policy", "is_asked"),
    [
        ("never", False),
        ("untrusted", True),
        ({"granular": {"request_permissions": False, "sandbox_approval": True}}, False),
        ({"granular": {"request_permissions": True}}, True),
    ],
    ids=str,
)
def test_the_policy_says_whether_the_user_is_asked(run, tmp_path, outside, policy, is_asked):
    async def scenario():
        async with bench(tmp_path, {"permissions": {}}, policy=policy) as it:
            assert await request(it, writes(outside)) == {"permissions": EMPTY, "scope": "turn"}
            assert bool(it.asked) is is_asked

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "missing field `permissions`"),
        ({"permissions": {}}, "requires at least one permission"),
        ({"permissions": {"file_system": {"read": []}}}, "requires at least one permission"),
        ({"permissions": 5}, "invalid type: number, expected struct RequestPermissionProfile"),
        ({"permissions": {"macos": {}}}, "unknown field `macos`"),
        ({"permissions": {"file_system": {"write": "/x"}}}, "failed to parse"),
        ({"permissions": {"network": {"enabled": "yes"}}}, "failed to parse"),
        ({"permissions": {"network": {"enabled": True}}, "environment_id": "moon"}, "environment id `moon`"),
        ({"permissions": {"network": {"enabled": True}}, "reason": 5}, "failed to parse"),
        ({"permissions": {"file_system": {"write": ["a\0b"]}}}, "failed to parse"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_not(run, tmp_path, arguments, told):
    async def scenario():
        async with bench(tmp_path) as it:
            answer = await it.call(RequestPermissions.name, json.dumps(arguments))
            assert told in answer.content
            assert it.asked == []

    run(scenario())


# exec_command with permissions of its own


def alone(*paths, **more):
    return {"sandbox_permissions": "with_additional_permissions", "additional_permissions": writes(*paths), **more}


@pytest.mark.parametrize(("decision", "runs"), [("accept", True), ("decline", False)])
def test_a_command_gets_permissions_of_its_own_alone(run, tmp_path, outside, decision, runs):
    async def scenario():
        async with bench(tmp_path, {"decision": decision}) as it:
            await it.command(f"touch {outside}/new", **alone(outside, justification="May I?"))
            await it.command(f"touch {outside}/later")
            assert os.path.exists(f"{outside}/new") is runs
            assert not os.path.exists(f"{outside}/later")
            ((_, params),) = it.asked
            assert params["additionalPermissions"]["fileSystem"]["write"] == [outside]
            assert params["availableDecisions"] == ["accept", "cancel"]
            assert params["reason"] == "May I?"

    run(scenario())


def test_a_command_that_was_allowed_with_permissions_is_not_allowed_with_others(run, tmp_path, outside):
    async def scenario():
        answers = [{"decision": "acceptForSession"}, {"decision": "decline"}]
        async with bench(tmp_path, *answers) as it:
            for _ in range(2):
                await it.command("true", **alone(outside))
            assert len(it.asked) == 1
            await it.command("true", **alone("/etc"))
            assert len(it.asked) == 2

    run(scenario())


def test_what_was_granted_before_needs_no_second_word(run, tmp_path, outside):
    async def scenario():
        async with bench(tmp_path, grants(outside)) as it:
            await request(it, writes(outside))
            await it.command(f"touch {outside}/new", **alone(outside))
            assert os.path.exists(f"{outside}/new")
            assert len(it.asked) == 1

    run(scenario())


def test_a_patch_is_applied_where_it_was_granted(run, tmp_path, outside):
    async def scenario():
        patch = f"*** Begin Patch\n*** Add File: {outside}/new\n+hi\n*** End Patch\n"
        async with bench(tmp_path, {"decision": "decline"}, grants(outside)) as it:
            assert "rejected by user" in await it.patch(patch)
            await request(it, writes(outside))
            assert "Success" in await it.patch(patch)

    run(scenario())


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("never", "you cannot ask for escalated permissions if the approval policy is Never"),
        ("untrusted", "you cannot request additional permissions unless the approval policy is OnRequest"),
        ({"granular": {"sandbox_approval": True}}, "you cannot request additional permissions"),
        ({"granular": {"sandbox_approval": False}}, "you cannot ask for escalated permissions"),
    ],
    ids=str,
)
def test_only_on_request_may_a_command_ask_for_permissions(run, tmp_path, outside, policy, told):
    async def scenario():
        async with bench(tmp_path, policy=policy) as it:
            assert told in await it.command(f"touch {outside}/new", **alone(outside))
            assert it.asked == []

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"sandbox_permissions": "with_additional_permissions"}, "missing `additional_permissions`"),
        ({"sandbox_permissions": "all"}, "unknown variant `all`"),
        ({"additional_permissions": {}}, "at least one requested permission"),
        (alone("/x", sandbox_permissions="require_escalated"), "requires `sandbox_permissions` set to"),
    ],
    ids=str,
)
def test_permissions_that_a_command_cannot_have_are_an_output(run, tmp_path, arguments, told):
    async def scenario():
        async with bench(tmp_path) as it:
            assert told in await it.command("true", **arguments)
            assert it.asked == []

    run(scenario())


def test_without_the_feature_there_is_no_such_thing(run, tmp_path, outside):
    async def scenario():
        async with Workbench(tmp_path / "bench") as it:
            assert "additional permissions are disabled" in await it.command("true", **alone(outside))
            assert (await it.call("request_permissions", "{}")).content == "unsupported call: request_permissions"
            names = [tool["name"] for tool in it.tools.declared(it.thread)]
            assert "request_permissions" not in names
            (command,) = [tool for tool in it.tools.declared(it.thread) if tool["name"] == "exec_command"]
            assert "additional_permissions" not in command["parameters"]["properties"]

    run(scenario())
