"""What of config.toml nobody knows, and how clients are told."""

import pytest

from agent.unknown_keys import notice_of_unknown, unknown_keys


def test_a_typo_is_found_and_what_the_original_or_we_know_is_not():
    known = {"model": "m", "tui": {"anything": 1}, "otel": {}, "countersign": {"port": 1}}
    assert unknown_keys({**known, "modle": 1, "sandbox_workspace_write": {"network_access": True, "roots": []}}) == [
        "modle",
        "sandbox_workspace_write.roots",
    ]
    assert unknown_keys(known) == []


@pytest.mark.parametrize(
    ("config", "unknown"),
    [
        ({"features": {"goals": True, "gaols": True}}, "features.gaols"),
        ({"model_providers": {"m": {"name": "M", "http_headers": {"X": "y"}, "bse_url": "x"}}}, "m.bse_url"),
        ({"permissions": {"p": {"filesystem": {":root": "read"}, "filesytem": {}}}}, "p.filesytem"),
        ({"permissions": {"p": {"network": {"enabled": True, "allow": True}}}}, "p.network.allow"),
        ({"profiles": {"p": {"model": "m", "modle": "m"}}}, "p.modle"),
        ({"projects": {"/a.b": {"trust_level": "trusted", "trust": 1}}}, "projects./a.b.trust"),
        ({"shell_environment_policy": {"set": {"A": "b"}, "inherits": "all"}}, "shell_environment_policy.inherits"),
    ],
)
def test_a_typo_in_a_table_that_means_something_is_found(config, unknown):
    (found,) = unknown_keys(config)
    assert found.endswith(unknown) and found.startswith(next(iter(config)))


@pytest.mark.parametrize("config", [{}, {"model": "m"}, {"sandbox_workspace_write": "no table"}, {"features": 5}])
def test_of_nothing_nothing_is_told(config):
    assert notice_of_unknown(config, {}, "/h/config.toml") is None


def test_clients_are_told_in_the_words_of_the_original():
    told = notice_of_unknown({"foo": 1}, {}, "/h/config.toml")
    assert told == (
        "Codex is ignoring 1 unrecognized configuration setting. Check for typos or deprecated settings.\n"
        "  user (/h/config.toml): `foo` is ignored."
    )
    many = dict.fromkeys(("d", "a", "c", "b"), 1)
    told = notice_of_unknown(many, {"d": 1}, "/h/config.toml")
    assert told is not None and told.startswith("Codex is ignoring 4 unrecognized configuration settings. ")
    # The flags first, as the original.
    assert "`d` is ignored.\n  user (/h/config.toml): `a`" in told
    assert told.endswith("`b` is ignored.\n  ... and 1 more ignored settings.")
    assert notice_of_unknown({"d": 1}, {"d": 1}, "/h/config.toml").endswith("\n  session-flags: `d` is ignored.")
