"""What clients are told of the configuration."""

import datetime as dt
import json

import pytest

from agent.rpc.config_methods import ConfigMethods
from agent.rpc.jsonrpc import INTERNAL_ERROR
from tests.agent.rpc.desk import desk
from tests.agent.rpc.test_goldens import transcript

ORIGIN = "https://chatgpt.com"


def methods(tmp_path, config=None, flags=None, problem=None):
    return ConfigMethods("/home/of/codex", config or {}, flags or {}, problem, ORIGIN, str(tmp_path)).table()


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
        # The members of the schema come first, in the original's order; apps is experimental.
        stable = [name for name in list(theirs["config"])[:27] if name != "apps"]
        assert list(told["config"])[: len(stable)] == stable
        assert told["config"].keys() == theirs["config"].keys()
        differing = {name for name, value in theirs["config"].items() if told["config"][name] != value}
        # Of these the original has defaults that are not true of us, or its own flags and members.
        assert differing == {
            *("background_terminal_max_timeout", "features", "file_opener", "history", "mcp_servers"),
            *("include_apps_instructions", "include_collaboration_mode_instructions", "mcp_oauth_credentials_store"),
            *("include_environment_context_time", "include_permissions_instructions"),
        }

    run(scenario())


def test_flags_are_a_layer_of_their_own_above_the_file(run, tmp_path):
    async def scenario():
        config = {
            "model": "of-the-flag",
            "tools": {"a": 1, "b": [1, 2]},
            "notice": {"when": dt.date(2026, 1, 2), "n": float("inf")},
        }
        async with desk(methods(tmp_path, config, {"model": "of-the-flag"})) as it:
            answer = await it.call("config/read", includeLayers=True, cwd="/")
            assert "layers" not in await it.call("config/read")
        assert [layer["name"]["type"] for layer in answer["layers"]] == ["sessionFlags", "user", "system"]
        assert answer["layers"][0]["config"] == {"model": "of-the-flag"}
        assert "model" not in answer["layers"][1]["config"]
        origins = {path: origin["name"]["type"] for path, origin in answer["origins"].items()}
        of_file = ("tools.a", "tools.b.0", "tools.b.1", "notice.when", "notice.n")
        assert origins == {"model": "sessionFlags", **dict.fromkeys(of_file, "user")}
        assert answer["config"]["notice"] == {"when": "2026-01-02", "n": "inf"}

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
        ({"model": 5}, None, "invalid configuration: invalid type: integer `5`, expected a string\nin `model`\n"),
        ({"sandbox_mode": "x"}, None, "in `sandbox_mode`"),
        (
            {"approval_policy": "x"},
            None,
            "unknown variant `x`, expected one of `untrusted`, `on-failure`, `on-request`",
        ),
        ({}, "'config.toml' is not TOML", "failed to load configuration: 'config.toml' is not TOML"),
    ],
)
def test_a_broken_configuration_is_told_and_not_papered_over(run, tmp_path, config, problem, text):
    async def scenario():
        async with desk(methods(tmp_path, config, problem=problem)) as it:
            said = await it.refused("config/read", INTERNAL_ERROR)
            if problem is not None:
                assert text in await it.refused("experimentalFeature/list", INTERNAL_ERROR)
        assert text in said

    run(scenario())


def test_what_may_be_secret_is_not_shown_and_all_else_is(run, tmp_path):
    """The original shows it. Nobody has use for it: what is read here cannot be written back."""
    provider = {
        "name": "M",
        "base_url": "https://user:s3cret@m.example/v1",
        "env_key": "M_KEY",
        "experimental_bearer_token": "s3cret",
        "http_headers": {"X-Key": "s3cret"},
        "env_http_headers": {"X-Other": "M_OTHER"},
        "query_params": {"key": "s3cret"},
    }
    config = {
        "model_providers": {"m": provider, "plain": {"name": "P", "base_url": "https://p.example/v1"}},
        "openai_base_url": "https://o.example/v1?key=s3cret",
        "mcp_servers": {"s": {"command": "c", "env": {"TOKEN": "s3cret"}, "bearer_token": "s3cret"}},
        "otel": {"exporter": {"otlp-http": {"headers": {"auth": "s3cret"}}}},
        "shell_environment_policy": {"inherit": "core", "set": {"API_KEY": "s3cret"}},
        "chatgpt_base_url": "https://user:s3cret@c.example/",
        "permissions": {"p": {"network": {"proxy_url": "http://user:s3cret@127.0.0.1:1"}}},
    }

    async def scenario():
        async with desk(methods(tmp_path, config, {"model_providers": {"m": provider}})) as it:
            answer = await it.call("config/read", includeLayers=True)
        assert "s3cret" not in json.dumps(answer)
        shown = answer["config"]["model_providers"]
        assert shown["plain"]["base_url"] == "https://p.example/v1"
        assert (shown["m"]["env_key"], shown["m"]["env_http_headers"]) == ("M_KEY", {"X-Other": "M_OTHER"})
        assert shown["m"]["http_headers"] == {"X-Key": "(not shown)"}
        policy = answer["config"]["shell_environment_policy"]
        assert (policy["inherit"], policy["set"]) == ("core", {"API_KEY": "(not shown)"})

    run(scenario())


def test_tables_have_all_their_members_and_nothing_that_nobody_knows(run, tmp_path):
    """As the original shows them, so that clients read the defaults."""
    config = {
        "approval_policy": "on-failure",
        "sandbox_workspace_write": {"network_access": True, "x": 1},
        "model_providers": {"m": {"name": "M", "x": 1}},
        "permissions": {"p": {"filesystem": {":root": "read"}, "network": {"enabled": True, "x": 1}}},
        "tools": {"web_search": True, "x": 1},
        "features": {"goals": False, "of-the-original": True},
        "x": 1,
    }

    async def scenario():
        async with desk(methods(tmp_path, config)) as it:
            shown = (await it.call("config/read"))["config"]
        assert "x" not in shown and shown["approval_policy"] == "on-request"
        assert shown["sandbox_workspace_write"] == {
            "writable_roots": [],
            "network_access": True,
            "exclude_tmpdir_env_var": False,
            "exclude_slash_tmp": False,
        }
        mine = shown["model_providers"]["m"]
        assert (mine["wire_api"], mine["requires_openai_auth"], mine["base_url"]) == ("responses", False, None)
        profile = shown["permissions"]["p"]
        assert profile["filesystem"] == {":root": "read"} and profile["extends"] is None
        assert profile["network"]["enabled"] is True and "x" not in {*mine, *profile["network"], *shown["tools"]}
        assert shown["tools"] == {"web_search": None}
        assert shown["features"]["goals"] is False and shown["features"]["of-the-original"] is True

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
