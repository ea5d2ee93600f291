"""What the app-server is put together of."""

from types import SimpleNamespace

import pytest

from agent.model.catalog import Catalog
from agent.parts import facts_of
from tests.agent.core.playbook import new_thread


@pytest.mark.parametrize(
    ("config", "window", "limit"),
    [
        ({}, 258_400, None),
        ({"model_context_window": 8_000}, 7_600, None),
        ({"model_auto_compact_token_limit": 5_000}, 258_400, 5_000),
        ({"model_context_window": -1, "model_auto_compact_token_limit": True}, 258_400, None),
    ],
)
def test_the_users_word_on_the_context_window_counts(config, window, limit):
    facts = facts_of(SimpleNamespace(known=Catalog(())), config)(new_thread(model="a model of my own"))
    assert (facts.usable_window, facts.compaction_limit) == (window, limit)
