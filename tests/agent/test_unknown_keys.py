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


@pytest.mark.parametrize("config", [{}, {"model": "m"}, {"sandbox_workspace_write": "no table"}])
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
    assert told.endswith("`c` is ignored.\n  ... and 1 more ignored settings.")
    assert notice_of_unknown({"d": 1}, {"d": 1}, "/h/config.toml").endswith("\n  session-flags: `d` is ignored.")
