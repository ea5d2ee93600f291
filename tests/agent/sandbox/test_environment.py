"""Which variables a tool sees. What the policy does was tried on codex 0.169, as `codex sandbox … env`."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.environment import Inherit, ShellEnvironmentPolicy, apply, parse_environment_policy
from agent.sandbox.policy import PolicyError

CORE = "PATH SHELL TMPDIR TEMP TMP HOME LANG LC_ALL LC_CTYPE LOGNAME USER".split()
SECRETS = ["FOO_TOKEN", "AWS_SECRET", "OPENAI_API_KEY", "monkey"]
NAMES = [*CORE, *SECRETS, "FOO", "FOO_BAR", "fooxy", "TERM", "PAGER", "lang", "AZ", "F[O]O", "CODEX_THREAD_ID"]
ENVIRON = {name: f"value of {name}" for name in NAMES}
KEPT = set(NAMES)

OWN_PROXY = "127.0.0.1:43210"
OWN_URL = "http://countersign:secret@127.0.0.1:43210"


def policy(**table) -> ShellEnvironmentPolicy:
    return parse_environment_policy({"shell_environment_policy": table})


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ({}, KEPT),
        ({"inherit": "all"}, KEPT),
        ({"inherit": "core"}, {*CORE, "lang"}),
        ({"inherit": "none"}, set()),
        ({"ignore_default_excludes": True}, KEPT),
        ({"ignore_default_excludes": False}, KEPT - set(SECRETS)),
        ({"exclude": ["foo*"]}, KEPT - {"FOO", "FOO_BAR", "FOO_TOKEN", "fooxy"}),
        ({"exclude": ["FO?"]}, KEPT - {"FOO"}),
        ({"exclude": ["F**"]}, KEPT - {"FOO", "FOO_BAR", "FOO_TOKEN", "fooxy", "F[O]O"}),
        ({"exclude": ["[FA]*", "AZ|FOO", "FO.*", "F{O,}O", "\\FOO", "FOO ", ""]}, KEPT),
        ({"exclude": ["f[o]o"]}, KEPT - {"F[O]O"}),
        ({"include_only": ["foo*"]}, {"FOO", "FOO_BAR", "FOO_TOKEN", "fooxy"}),
        ({"include_only": []}, KEPT),
        ({"include_only": ["P*"], "set": {"ABC": "1"}}, {"PATH", "PAGER"}),
        ({"exclude": ["ABC"], "set": {"ABC": "1"}}, KEPT | {"ABC"}),
        ({"ignore_default_excludes": False, "inherit": "none", "set": {"MY_KEY": "1"}}, {"MY_KEY"}),
        ({"experimental_use_profile": True, "later": 1}, KEPT),
    ],
)
def test_the_policy_leaves_the_names_that_the_original_leaves(table, names):
    assert set(apply(policy(**table), ENVIRON)) == names


def test_values_are_handed_on_and_assigned_ones_win():
    held = apply(policy(set={"FOO": "other", "new": ""}), ENVIRON)
    assert held == {**ENVIRON, "FOO": "other", "new": ""}


def test_without_a_table_everything_is_inherited():
    assert parse_environment_policy({}) == ShellEnvironmentPolicy()
    assert ShellEnvironmentPolicy().inherit is Inherit.ALL
    assert apply(ShellEnvironmentPolicy(), ENVIRON) == ENVIRON


def reference(pattern: str) -> re.Pattern[str]:
    """fnmatch, with the only sign taken away that it has and the original has not."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)


@given(st.text("aB*?[_", max_size=6), st.text("aAbB[_", min_size=1, max_size=6))
def test_patterns_match_as_shell_patterns_without_classes(pattern, name):
    left = apply(policy(exclude=[pattern]), {name: "1"})
    assert (name not in left) is bool(reference(pattern).match(name))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shell_environment_policy": 3}, ["shell_environment_policy is 3", "a table"]),
        ({"inherit": "Core"}, ["shell_environment_policy.inherit", "'Core'", "'all', 'core' or 'none'"]),
        ({"inherit": 3}, ["shell_environment_policy.inherit is 3"]),
        ({"exclude": "a"}, ["shell_environment_policy.exclude", "'a'", "a list"]),
        ({"include_only": [1]}, ["shell_environment_policy.include_only", "[1]", "patterns"]),
        ({"ignore_default_excludes": "x"}, ["ignore_default_excludes", "'x'", "true or false"]),
        ({"experimental_use_profile": 3}, ["experimental_use_profile is 3", "true or false"]),
        ({"set": ["A=1"]}, ["shell_environment_policy.set", "a table of strings"]),
        ({"set": {"A": 12345}}, ["shell_environment_policy.set.A", "int", "a string"]),
        # The original sets A to "B=1" here.
        ({"set": {"A=B": "1"}}, ["'A=B'", "'='"]),
        ({"set": {"": "1"}}, ["''", "not empty"]),
        ({"set": {"A": "secret\0"}}, ["shell_environment_policy.set.A", "NUL"]),
    ],
)
def test_what_is_wrong_is_named_and_no_value_to_be_set_is_shown(config, words):
    table = config if "shell_environment_policy" in config else {"shell_environment_policy": config}
    with pytest.raises(PolicyError) as raised:
        parse_environment_policy(table)
    assert [word for word in words if word not in str(raised.value)] == []
    assert "secret" not in str(raised.value) and "12345" not in str(raised.value)


NEVER = [
    "OPENAI_FEDERATION_RULE_ID",
    "OPENAI_IDENTITY_TOKEN_FILE",
    "openai_identity_token_file",
    "OPENAI_WORKLOAD_IDENTITY_CONTEXT",
    "CODEX_GUARDIAN_DECISIONS_API_KEY",
    "CODEX_INTERNAL_APP_SERVER_REMOTE_CONTROL_DISABLED",
    "NODE_REPL_AUTH_TOKEN",
    "CODEX_ACCESS_TOKEN",
    "CODEX_API_KEY",
    "COUNTERSIGN_CREDENTIALS",
    "COUNTERSIGN_RPC",
    "countersign_anything",
]


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("table", [{}, {"include_only": ["*"]}, {"inherit": "none"}])
def test_the_agents_own_identity_never_passes_not_even_when_it_is_set(name, table):
    assert apply(policy(**table), {name: "inherited"}) == {}
    assert apply(policy(**table, set={name: "assigned"}), {}) == {}


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "OPENAI_IDENTITY_TOKEN", "CODEX_HOME", "MY_COUNTERSIGN_X", "AWS_TOKEN"]
)
def test_a_name_that_only_looks_like_it_passes(name):
    assert apply(policy(), {name: "1"}) == {name: "1"}


PROXY_NAMES = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "npm_config_https_proxy", "DOCKER_HTTP_PROXY"]


@pytest.mark.parametrize("name", PROXY_NAMES)
@pytest.mark.parametrize(
    "value",
    [
        OWN_URL,
        OWN_URL + "/",
        "http://127.0.0.1:43210",
        "127.0.0.1:43210",
        "http://LOCALHOST:43210",
        "http://[::1]:43210/",
        "socks5h://127.0.0.53:43210",
        "http://other:name@localhost:43210",
        "http://countersign:pa%40ss@127.0.0.1:999",  # of a `countersign run` around us
    ],
)
def test_a_way_to_a_proxy_of_ours_never_passes(name, value):
    assert apply(policy(), {name: value, "FOO": "1"}, OWN_PROXY) == {"FOO": "1"}
    assert apply(policy(set={name: value}), {}, OWN_PROXY) == {}


@pytest.mark.parametrize("name", PROXY_NAMES)
@pytest.mark.parametrize(
    "value",
    [
        "http://proxy.example.com:3128",
        "http://proxy.example.com:43210",
        "http://me:secret@proxy.example.com:3128",
        "http://countersign:secret@proxy.example.com:3128",
        "http://127.0.0.1:3128",
        "http://127.0.0.1:4321",
        "http://me:countersign@localhost:3128",
        "",
    ],
)
def test_the_users_own_proxy_stays(name, value):
    assert apply(policy(), {name: value}, OWN_PROXY) == {name: value}


def test_only_proxy_variables_are_looked_into_and_an_unknown_own_proxy_matches_no_address():
    assert apply(policy(), {"NOTE": OWN_URL, "no_proxy": "localhost"}, OWN_PROXY) == {
        "NOTE": OWN_URL,
        "no_proxy": "localhost",
    }
    assert apply(policy(), {"HTTPS_PROXY": "http://127.0.0.1:43210"}) == {"HTTPS_PROXY": "http://127.0.0.1:43210"}


CA_NAMES = "CODEX_CA_CERTIFICATE SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS".split()


@pytest.mark.parametrize("name", CA_NAMES)
def test_certificates_of_ours_never_pass_and_a_companys_do(name):
    run = ("/run/user/0/countersign-1",)
    for ours in ("/run/user/0/countersign-1/bundle.pem", "/run/user/0/x/../countersign-1//bundle.pem"):
        assert apply(policy(), {name: ours}, own_directories=run) == {}
        assert apply(policy(set={name: ours}), {}, own_directories=run) == {}
    for theirs in ("/etc/ssl/company.pem", "/run/user/0/countersign-10/x.pem", "relative.pem"):
        assert apply(policy(), {name: theirs}, own_directories=run) == {name: theirs}


@pytest.mark.parametrize("name", CA_NAMES)
def test_certificates_that_came_with_our_proxy_go_with_it(name):
    outer = {name: "/somewhere/bundle.pem", "HTTPS_PROXY": "http://countersign:x@127.0.0.1:999"}
    assert apply(policy(), outer) == {}
    assert apply(policy(set={name: "/etc/ssl/company.pem"}), outer) == {name: "/etc/ssl/company.pem"}
    theirs = {**outer, "HTTPS_PROXY": "http://proxy.example.com:3128"}
    assert apply(policy(), theirs) == theirs


def test_what_countersign_run_exports_is_gone_and_the_rest_is_not():
    exported = {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), OWN_URL),
        **dict.fromkeys(CA_NAMES, "/run/user/0/countersign-1/bundle.pem"),
        "COUNTERSIGN_RPC": "unix:///run/user/0/countersign-1/rpc.sock",
    }
    assert apply(policy(), {**ENVIRON, **exported}, OWN_PROXY) == ENVIRON
