"""Which feature flags are on."""

import pytest

from agent.features import KNOWN, STAGES, is_on


@pytest.mark.parametrize(
    ("config", "goals", "landlock"),
    [
        ({}, True, False),
        ({"features": {}}, True, False),
        ({"features": {"goals": True, "use_legacy_landlock": True}}, True, True),
        ({"features": {"goals": False, "use_legacy_landlock": False}}, False, False),
        ({"features": {"goals": "yes", "use_legacy_landlock": "yes"}}, False, False),
        ({"features": "no table"}, True, False),
    ],
)
def test_what_is_stable_is_on_unless_the_configuration_says_otherwise(config, goals, landlock):
    assert (is_on(config, "goals"), is_on(config, "use_legacy_landlock")) == (goals, landlock)


def test_the_original_has_each_flag_of_ours():
    assert set(STAGES) <= set(KNOWN) and len(set(KNOWN)) == len(KNOWN)
