"""The tables of model_providers, read: what there is, what is refused, and that no secret is in a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.provider import OPENAI, Provider
from agent.providers import ProviderError, ProviderNotFound, provider_of, providers_of, without_secrets

TABLE = {"name": "Mine", "base_url": "https://models.example/v1/"}


def config(table, **more):
    return {"model_provider": "mine", "model_providers": {"mine": table}, **more}


def refusal(table):
    with pytest.raises(ProviderError) as failed:
        provider_of(config(table))
    return str(failed.value)


def test_a_table_becomes_a_provider_with_the_originals_defaults():
    assert provider_of(config(TABLE)) == Provider(
        id="mine",
        name="Mine",
        base_url="https://models.example/v1",
        needs_openai_auth=False,
        websockets=False,
        request_retries=4,
        stream_retries=5,
        idle_timeout_s=300.0,
        connect_timeout_s=15.0,
    )


def test_every_key_is_read():
    table = TABLE | {
        "env_key": "MINE_KEY",
        "env_key_instructions": "Ask.",
        "wire_api": "responses",
        "query_params": {"v": "1"},
        "http_headers": {"X-A": "a"},
        "env_http_headers": {"X-B": "MINE_B"},
        "request_max_retries": 1,
        "stream_max_retries": 1000,
        "stream_idle_timeout_ms": 1500,
        "websocket_connect_timeout_ms": 250,
        "supports_websockets": True,
        "requires_openai_auth": True,
        "experimental_bearer_token": "sk",
        "something_new": 5,
    }
    found = provider_of(config(table))
    assert (found.env_key, found.env_key_instructions, found.bearer_token) == ("MINE_KEY", "Ask.", "sk")
    assert (found.query_params, found.http_headers, found.env_http_headers) == (
        {"v": "1"},
        {"X-A": "a"},
        {"X-B": "MINE_B"},
    )
    assert (found.request_retries, found.stream_retries) == (1, 100)  # as many at the most (the original)
    assert (found.idle_timeout_s, found.connect_timeout_s) == (1.5, 0.25)
    assert found.websockets and found.needs_openai_auth and found.key({"MINE_KEY": "k"}) == "k"


def test_without_a_word_it_is_openai_and_all_are_listed_in_order():
    assert provider_of({}) is OPENAI
    assert list(providers_of({"model_providers": {"z": TABLE, "a": TABLE}})) == ["a", "openai", "z"]
    assert provider_of(config(TABLE), "openai") is OPENAI


def test_the_url_of_openai_can_be_set():
    assert provider_of({"openai_base_url": "https://gateway.example/v1/"}).base_url == "https://gateway.example/v1"
    assert provider_of({"openai_base_url": ""}) is OPENAI


def test_one_that_nobody_defined_is_refused_in_the_words_of_the_original():
    """thread_start_options."""
    with pytest.raises(ProviderNotFound, match="^Model provider `nope` not found$"):
        provider_of({"model_provider": "nope"})
    with pytest.raises(ProviderError, match="^Model provider `ollama` is not supported by countersign; define one"):
        provider_of({}, "ollama")


@pytest.mark.parametrize("name", ["openai", "ollama", "lmstudio", "amazon-bedrock"])
def test_those_of_the_original_cannot_be_overridden(name):
    with pytest.raises(ProviderError, match=f"reserved built-in provider IDs: `{name}`. .*Rename your custom"):
        providers_of({"model_providers": {name: TABLE}})


def test_one_that_no_thread_wants_must_be_in_order_too():
    """As in the original (observed)."""
    with pytest.raises(ProviderError, match='^`wire_api = "chat"` is no longer supported.\nHow to fix: '):
        provider_of({"model_providers": {"other": TABLE | {"wire_api": "chat"}}})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "model_providers.mine: provider name must not be empty"),
        ({"name": " "}, "model_providers.mine: provider name must not be empty"),
        ({"name": 5}, "model_providers.mine.name is of the type int; it is a text"),
        (5, "model_providers.mine is of the type int; it is a table"),
        (TABLE | {"wire_api": "other"}, "model_providers.mine.wire_api must be `responses`"),
        (TABLE | {"request_max_retries": -1}, "model_providers.mine.request_max_retries must be a whole number from 0"),
        (TABLE | {"stream_max_retries": True}, "model_providers.mine.stream_max_retries must be a whole number from 0"),
        (TABLE | {"supports_websockets": 1}, "model_providers.mine.supports_websockets is of the type int; it is true"),
        (TABLE | {"auth": {"command": "x"}}, "model_providers.mine.auth is not supported by countersign"),
        (TABLE | {"aws": {}}, "model_providers.mine.aws is not supported by countersign"),
        (TABLE | {"http_headers": {"X Y": "v"}}, "model_providers.mine.http_headers has 'X Y', which is no name"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_with_the_rule(table, said):
    assert refusal(table).startswith(said)


@pytest.mark.parametrize(
    "url",
    [
        *("models.example", "ftp://models.example", "https://", "https://u:s3cret@models.example", "https://m:99999"),
        *("https://m.example/?key=s3cret", "https://m.example/#s3cret", "https://m .example", "https://0x7f.1"),
        *("https://m.example\n", "https://exämple", "https://m.example:0"),
    ],
)
def test_a_url_that_would_lead_elsewhere_is_refused_and_not_shown(url):
    said = refusal(TABLE | {"base_url": url})
    assert said.startswith("model_providers.mine.base_url must be http(s)://HOST") and "s3cret" not in said


@pytest.mark.parametrize("host", ["localhost:11434", "127.0.0.1", "[::1]:8080"])
def test_what_the_user_is_signed_in_with_may_go_over_plain_http_on_this_machine(host):
    table = TABLE | {"base_url": f"http://{host}/v1", "requires_openai_auth": True}
    assert provider_of(config(table)).base_url == f"http://{host}/v1"


@pytest.mark.parametrize("host", ["models.example", "10.0.0.1", "localhost.example", "[2001:db8::1]"])
def test_and_nowhere_else(host):
    table = TABLE | {"base_url": f"http://{host}/v1", "requires_openai_auth": True}
    assert "plain http" in refusal(table)
    assert provider_of(
        config(table | {"requires_openai_auth": False})
    ).base_url  # without it, that is the user's own matter
    with pytest.raises(ProviderError, match="^openai_base_url is plain http"):
        provider_of({"openai_base_url": f"http://{host}/v1"})


@pytest.mark.parametrize(
    "changes",
    [
        {"experimental_bearer_token": "s3cret\n"},
        {"experimental_bearer_token": ["s3cret"]},
        {"http_headers": {"X-Key": "s3cret\r\nX-Other: 1"}},
        {"http_headers": {"X-Key": {"v": "s3cret"}}},
        {"http_headers": "s3cret"},
        {"query_params": {"key": ["s3cret"]}},
        {"query_params": "s3cret"},
        {"env_key": {"s3cret": 1}},
    ],
)
def test_no_refusal_repeats_what_may_be_secret(changes):
    assert "s3cret" not in refusal(TABLE | changes)


def test_a_tool_is_not_shown_the_keys_of_any_provider():
    environ = {"MINE_KEY": "k", "MINE_ORG": "o", "BROKEN_KEY": "b", "PATH": "/bin"}
    tables = {
        "mine": {"env_key": "MINE_KEY", "env_http_headers": {"X": "MINE_ORG"}},
        "broken": {"env_key": "BROKEN_KEY", "env_http_headers": 5},
        "no table": 5,
    }
    assert without_secrets(environ, {"model_providers": tables}) == {"PATH": "/bin"}
    assert without_secrets(environ, {"model_providers": 5}) == environ == without_secrets(environ, {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        *("name", "base_url", "env_key", "query_params", "http_headers", "env_http_headers", "wire_api", "auth"),
        *("request_max_retries", "stream_idle_timeout_ms", "requires_openai_auth", "experimental_bearer_token"),
    ]
)


@given(VALUES | st.dictionaries(KEYS, VALUES))
def test_no_table_raises_anything_else(table):
    try:
        assert provider_of(config(table)).id == "mine"
    except ProviderError as exc:
        assert str(exc)
