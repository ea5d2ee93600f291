"""config.toml, `-c` and a request's `config`, as far as threads care."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ConfigError, thread_defaults
from agent.core.thread import ThreadDefaults
from agent.model.provider import OPENAI

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "model",
        "model_provider",
        "model_reasoning_effort",
        "model_reasoning_summary",
        "model_verbosity",
        "approval_policy",
        "sandbox_mode",
        "service_tier",
    ]
)


CLOSED = {"writableRoots": [], "networkAccess": False, "excludeTmpdirEnvVar": False, "excludeSlashTmp": False}


def test_an_empty_configuration_says_nothing_but_the_approval_policy():
    assert thread_defaults({}, {}) == ThreadDefaults(approval_policy="on-request", workspace_write=CLOSED)


def test_every_key_has_its_place():
    config = {
        "model": "gpt-5.5",
        "model_reasoning_effort": "high",
        "model_reasoning_summary": "detailed",
        "model_verbosity": "high",
        "approval_policy": "never",
        "sandbox_mode": "workspace-write",
        "service_tier": "fast",
        "sandbox_workspace_write": {"writable_roots": ["/data"], "network_access": True},
    }
    opened = {**CLOSED, "writableRoots": ["/data"], "networkAccess": True}

    assert thread_defaults(config, {}) == ThreadDefaults(
        "gpt-5.5", "high", "detailed", "high", "never", "workspace-write", opened, "fast"
    )


def test_a_request_overrides_the_file_key_by_key():
    defaults = thread_defaults({"model": "a", "model_verbosity": "high"}, {"model": "b"})

    assert (defaults.model, defaults.verbosity) == ("b", "high")


def test_the_config_of_a_request_may_name_a_key_by_its_path_and_adds_to_tables():
    config = {"sandbox_workspace_write": {"exclude_slash_tmp": True}, "model": "a"}
    opened = {**CLOSED, "excludeSlashTmp": True, "networkAccess": True}
    for request in (
        {"sandbox_workspace_write.network_access": True},
        {"sandbox_workspace_write": {"network_access": True}},
    ):
        assert thread_defaults(config, request).workspace_write == opened
    assert config == {"sandbox_workspace_write": {"exclude_slash_tmp": True}, "model": "a"}


def test_a_profile_as_it_was_configured_in_the_past_is_refused():
    """It was passed over: what it said of the sandbox did not hold."""
    with pytest.raises(ConfigError, match='^legacy `profile = "p"` config is no longer supported; use `--profile p`'):
        thread_defaults({"profile": "p", "profiles": {"p": {"sandbox_mode": "read-only"}}}, {})


def test_keys_of_the_original_that_are_none_of_ours_are_passed_over():
    config = {"features": {"x": True}, "mcp_servers": {}, "projects": {"/": {"trust_level": "trusted"}}, "notify": 5}

    assert thread_defaults(config, {"unknown": [1]}) == thread_defaults({}, {})


@pytest.mark.parametrize("policy", ["untrusted", "on-request", "never"])
def test_an_approval_policy_is_a_name(policy):
    assert thread_defaults({"approval_policy": policy}, {}).approval_policy == policy


def test_an_older_name_of_a_policy_is_still_one():
    """As in the original, in the file and in a request's `config`."""
    assert thread_defaults({"approval_policy": "on-failure"}, {}).approval_policy == "on-request"
    assert thread_defaults({}, {"approval_policy": "on-failure"}).approval_policy == "on-request"


def test_a_granular_policy_has_all_that_clients_are_told_of_it():
    """It was passed on as it was, so that clients got an answer that did not fit the schema."""
    given = {"sandbox_approval": True, "rules": False, "mcp_elicitations": True}
    unsaid = {"skill_approval": False, "request_permissions": False}
    defaults = thread_defaults({"approval_policy": {"granular": given | {"other": 1}}}, {})
    assert defaults.approval_policy == {"granular": given | unsaid}


def granular(rules):
    return {"sandbox_approval": True, "rules": rules, "mcp_elicitations": True}


@pytest.mark.parametrize(
    "config, said",
    [
        ({"model": 5}, "model is 5: "),
        ({"model": ""}, "model is '': "),
        ({"model_reasoning_effort": ""}, "model_reasoning_effort is '': "),
        ({"model_verbosity": "loud"}, "model_verbosity is 'loud': "),
        ({"model_reasoning_summary": True}, "model_reasoning_summary is True: "),
        ({"sandbox_mode": "off"}, "sandbox_mode is 'off': "),
        ({"service_tier": 1}, "service_tier is 1: "),
        ({"model_context_window": 0}, "model_context_window is 0: "),
        ({"model_auto_compact_token_limit": "many"}, "model_auto_compact_token_limit is 'many': "),
        ({"approval_policy": "granular"}, "approval_policy is 'granular': .*untrusted, on-request or never"),
        ({"approval_policy": {"granular": 5}}, "approval_policy: "),
        ({"approval_policy": {"granular": {}}}, "approval_policy: granular.sandbox_approval: "),
        ({"approval_policy": {"granular": granular("x")}}, "approval_policy: granular.rules: "),
        ({"approval_policy": {"granular": granular(True), "x": 1}}, "approval_policy: .*untrusted"),
        ({"features": ["goals"]}, "features: the features are a table"),
        ({"features": {"goals": "yes", "network_proxy": {"p": "s3cret"}}}, "features: the feature goals is"),
        ({"features": {"goals": {}}}, "features: the feature goals is true or false"),
        ({"features": {"of-the-original": 5}}, "features: the feature of-the-original is"),
        ({"forced_login_method": "chatgtp"}, "forced_login_method is 'chatgtp': "),
        ({"forced_chatgpt_workspace_id": 5}, "forced_chatgpt_workspace_id.* is 5: "),
        ({"approval_policy": None}, "approval_policy is None: "),
    ],
)
def test_a_key_that_cannot_be_used_is_named_with_its_value_and_the_rule(config, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        thread_defaults(config, {})
    with pytest.raises(ConfigError, match=f"^{said}"):
        thread_defaults({}, config)


def test_a_provider_that_nobody_defined_is_refused_in_the_words_of_the_original():
    """thread_start_options."""
    with pytest.raises(ConfigError, match="^Model provider `nope` not found$"):
        thread_defaults({}, {"model_provider": "nope"})


def test_the_provider_is_the_one_that_the_request_or_the_file_names():
    config = {"model_provider": "mine", "model_providers": {"mine": {"name": "M", "base_url": "https://x"}}}
    assert thread_defaults(config, {}).provider.base_url == "https://x"
    assert thread_defaults(config, {"model_provider": "openai"}).provider is OPENAI
    assert thread_defaults(config, {"model_providers.mine.base_url": "https://y"}).provider.base_url == "https://y"
    with pytest.raises(ConfigError, match="^model_providers.mine: provider name must not be empty$") as failed:
        thread_defaults(config, {"model_providers.mine.name": ""})
    assert failed.value.key == "model_providers"


@given(st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=4), st.dictionaries(KEYS, JSON, max_size=2))
def test_no_configuration_raises_anything_else(config, overrides):
    try:
        thread_defaults(config, overrides)
    except ConfigError as exc:
        assert str(exc)
