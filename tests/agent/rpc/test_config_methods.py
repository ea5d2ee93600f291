"""What clients are told of the configuration."""

import datetime as dt
import json

import pytest

from agent.rpc.config_methods import ConfigMethods
from agent.rpc.jsonrpc import INTERNAL_ERROR
from tests.agent.rpc.desk import desk
from tests.agent.rpc.test_goldens import transcript


def methods(tmp_path, config=None, flags=None, problem=None):
    return ConfigMethods("/home/of/codex", config or {}, flags or {}, problem, str(tmp_path)).table()


def recorded(seq):
    return next(one["msg"]["result"] for one in transcript("config_read") if one.get("seq") == seq)


def test_the_layers_and_origins_are_those_that_were_recorded(run, tmp_path):
    """config_read."""

    async def scenario():
        config = {"model_reasoning_effort": "low", "mcp_servers": {"foo": {"command": "true"}}}
        async with desk(methods(tmp_path, config)) as it:
            answer = await it.call("config/read", includeLayers=True)
        told = json.loads(
            json.dumps(answer).replace("/home/of/codex", "<CODEX_HOME>").replace(str(tmp_path), "/etc/codex")
        )
        theirs = recorded(9)
        assert told["layers"] == theirs["layers"] and told["origins"] == theirs["origins"]
        assert answer["config"]["model_reasoning_effort"] == "low" and answer["config"]["model"] is None
        # The members that are always there come first, in the original's order; apps is experimental.
        stable = [name for name in list(theirs["config"])[:27] if name != "apps"]
        assert list(told["config"])[: len(stable)] == stable

    run(scenario())


def test_flags_are_a_layer_of_their_own_above_the_file(run, tmp_path):
    async def scenario():
        config = {
            "model": "of-the-flag",
            "tools": {"a": 1, "b": [1, 2]},
            "when": dt.date(2026, 1, 2),
            "n": float("inf"),
        }
        async with desk(methods(tmp_path, config, {"model": "of-the-flag"})) as it:
            answer = await it.call("config/read", includeLayers=True, cwd="/")
            assert "layers" not in await it.call("config/read")
        assert [layer["name"]["type"] for layer in answer["layers"]] == ["sessionFlags", "user", "system"]
        assert answer["layers"][0]["config"] == {"model": "of-the-flag"}
        assert "model" not in answer["layers"][1]["config"]
        origins = {path: origin["name"]["type"] for path, origin in answer["origins"].items()}
        of_file = ("tools.a", "tools.b.0", "tools.b.1", "when", "n")
        assert origins == {"model": "sessionFlags", **dict.fromkeys(of_file, "user")}
        assert answer["config"]["when"] == "2026-01-02" and answer["config"]["n"] == "inf"

    run(scenario())


def test_our_own_table_is_nobodys_business(run, tmp_path):
    async def scenario():
        config = {"countersign": {"credentials": "user:s3cret"}, "model": "shown"}
        async with desk(methods(tmp_path, config, {"countersign": {"port": 1}})) as it:
            said = json.dumps(await it.call("config/read", includeLayers=True))
        assert "s3cret" not in said and "countersign" not in said
        assert "shown" in said  # the control

    run(scenario())


@pytest.mark.parametrize(
    ("config", "problem", "text"),
    [
        ({"model": 5}, None, "invalid type: integer `5`, expected a string\nin `model`"),
        ({"sandbox_mode": "x"}, None, "in `sandbox_mode`"),
        ({}, "'config.toml' is not TOML", "'config.toml' is not TOML"),
    ],
)
def test_a_broken_configuration_is_told_and_not_papered_over(run, tmp_path, config, problem, text):
    async def scenario():
        async with desk(methods(tmp_path, config, problem=problem)) as it:
            said = await it.refused("config/read", INTERNAL_ERROR)
        assert said.startswith("failed to load configuration: ") and text in said

    run(scenario())


def test_files_of_the_machine_that_are_not_read_are_not_passed_over(run, tmp_path):
    async def scenario():
        async with desk(methods(tmp_path)) as it:
            assert await it.call("configRequirements/read") == {
                "supportsIndependentSpeedModes": True,
                "requirements": None,
            }
            (tmp_path / "requirements.toml").write_text("")
            (tmp_path / "config.toml").write_text("")
            assert "not supported" in await it.refused("configRequirements/read", INTERNAL_ERROR)
            answer = await it.call("config/read", includeLayers=True)
            assert "does not read" in answer["layers"][-1]["disabledReason"]

    run(scenario())


def test_profiles_are_the_built_in_ones_and_those_of_the_file_in_pages(run, tmp_path):
    """misc_requests."""

    async def scenario():
        async with desk(methods(tmp_path)) as it:
            answer = await it.call("permissionProfile/list")
            ids = [":read-only", ":workspace", ":danger-full-access"]
            assert answer["data"] == [{"id": one, "description": None, "allowed": True} for one in ids]
        own = {"permissions": {"mine": {"extends": ":workspace", "description": "With care."}}}
        async with desk(methods(tmp_path, own)) as it:
            page = await it.call("permissionProfile/list", limit=3)
            rest = await it.call("permissionProfile/list", cursor=page["nextCursor"])
            assert rest == {"data": [{"id": "mine", "description": "With care.", "allowed": True}], "nextCursor": None}
            assert await it.refused("permissionProfile/list", cursor="x") == "invalid cursor: x"
            assert await it.refused("permissionProfile/list", cursor="9") == "cursor 9 exceeds total 4"
        async with desk(methods(tmp_path, {"permissions": {"mine": {"filesystem": 5}}})) as it:
            assert "permissions" in await it.refused("permissionProfile/list", INTERNAL_ERROR)

    run(scenario())


async def enabled(it):
    listed = await it.call("experimentalFeature/list")
    assert listed["nextCursor"] is None
    return {one["name"] for one in listed["data"] if one["enabled"]}


def test_nothing_is_listed_that_we_do_not_have(run, tmp_path):
    async def scenario():
        features = {"memories": True, "use_legacy_landlock": True}
        async with desk(methods(tmp_path, {"features": features})) as it:
            assert await enabled(it) == {"goals", "shell_snapshot", "use_legacy_landlock"}
        async with desk(methods(tmp_path)) as it:
            assert await enabled(it) == {"goals", "shell_snapshot"}
        async with desk(methods(tmp_path, {"features": {"goals": False, "shell_snapshot": False}})) as it:
            assert await enabled(it) == set()

    run(scenario())


def test_providers_are_openai_and_those_of_the_file(run, tmp_path):
    """misc_requests; what is said of the user's own was observed."""

    async def scenario():
        tables = {
            "keyed": {"name": "Keyed", "base_url": "https://k.example/v1/", "env_key": "K"},
            "signed": {"name": "Signed", "requires_openai_auth": True},
            "bare": {"name": "Bare"},
        }
        async with desk(methods(tmp_path, {"model_providers": tables, "model_provider": "keyed"})) as it:
            answer = await it.call("modelProvider/list")
        assert (answer["defaultProviderId"], answer["canChangeDefault"]) == ("keyed", False)
        assert [(one["id"], one["baseUrl"], one["settings"].get("auth")) for one in answer["data"]] == [
            ("bare", None, {"mode": "none"}),
            ("keyed", "https://k.example/v1", {"mode": "externallyConfigured", "envKey": "K"}),
            ("openai", None, None),
            ("signed", None, {"mode": "externallyConfigured", "envKey": None}),
        ]
        async with desk(methods(tmp_path, {"model_providers": {"bad": {"name": "B", "aws": {}}}})) as it:
            assert "model_providers.bad.aws" in await it.refused("modelProvider/list", INTERNAL_ERROR)

    run(scenario())
