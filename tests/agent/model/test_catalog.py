"""The models: ours, the service's list, and those that nobody listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.catalog import BUILT_IN, DEFAULT_MODEL, EFFORTS, Catalog

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
ENTRY = st.dictionaries(
    st.sampled_from(
        [
            "slug",
            "display_name",
            "supported_reasoning_levels",
            "context_window",
            "default_reasoning_level",
            "visibility",
        ]
    ),
    JSON,
)


def test_the_built_in_models_are_those_that_the_original_listed_in_its_order():
    """model_list."""
    assert [model.slug for model in BUILT_IN] == [
        "gpt-6.1-sol",
        "gpt-6-astra",
        "gpt-6-sol",
        "gpt-6-luna",
        "gpt-5.6-sol",
        "gpt-6.1-terra",
        "gpt-5.6-terra",
        "gpt-5.6-luna",
        "gpt-5.5",
    ]
    assert Catalog().default == DEFAULT_MODEL == "gpt-6.1-sol"


def test_every_built_in_model_can_do_its_default_effort_and_every_effort_is_described():
    for model in BUILT_IN:
        assert model.default_effort in model.efforts
        assert set(model.efforts) <= set(EFFORTS)
        assert model.upgrade is None or Catalog().find(model.upgrade) in BUILT_IN


def test_the_usable_window_is_what_the_original_tells():
    """plain_turn_ws: modelContextWindow."""
    assert Catalog().find("gpt-6.1-sol").usable_window == 258_400


def test_of_a_model_that_nobody_listed_little_is_asked():
    """thread_start_options: made-up-model is no error; what is asked of it was observed."""
    model = Catalog().find("made-up-model")

    assert (model.slug, model.usable_window) == ("made-up-model", 258_400)
    assert (model.default_effort, model.default_summary, model.takes_verbosity) == (None, "auto", False)


def test_the_list_of_the_service_replaces_ours():
    entry = {
        "slug": "gpt-7",
        "display_name": "GPT-7",
        "description": "new",
        "supported_reasoning_levels": [{"effort": "low"}, {"effort": "max"}, "no level"],
        "default_reasoning_level": "max",
        "context_window": 1000,
        "visibility": "list",
    }
    catalog = Catalog.from_service({"models": [{**entry, "slug": "gpt-7-hidden", "visibility": "hide"}, entry]})

    assert [model.slug for model in catalog.models] == ["gpt-7-hidden", "gpt-7"]
    assert catalog.default == "gpt-7"
    model = catalog.find("gpt-7")
    assert (model.name, model.efforts, model.default_effort, model.window) == ("GPT-7", ("low", "max"), "max", 1000)
    assert catalog.models[0].hidden


@pytest.mark.parametrize("answer", [None, [], "models", {}, {"models": None}, {"models": []}, {"models": [{}, 5]}])
def test_a_service_that_lists_nothing_leaves_ours(answer):
    assert Catalog.from_service(answer) is None


@pytest.mark.parametrize("answer", [{"models": 5}, {"models": True}, {"models": {"slug": "x"}}, {"models": "gpt"}])
def test_a_list_that_is_none_leaves_ours(answer):
    assert Catalog.from_service(answer) is None


@given(JSON | st.fixed_dictionaries({"models": st.lists(ENTRY | JSON, max_size=3) | JSON}))
def test_no_answer_of_the_service_can_break_the_catalog(answer):
    catalog = Catalog.from_service(answer)

    assert catalog is None or all(model.efforts and model.usable_window >= 0 for model in catalog.models)
    assert catalog is None or catalog.default


def test_a_list_of_hidden_models_has_our_default():
    catalog = Catalog.from_service({"models": [{"slug": "x", "visibility": "hide"}]})

    assert catalog.default == DEFAULT_MODEL
