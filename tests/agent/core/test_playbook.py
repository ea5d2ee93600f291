"""The device that the tests of turns are written with must itself be able to fail."""

import pytest

from agent.core.steps import FallBack, Interrupted, Sample
from tests.agent.core.playbook import START, Playbook, Told, begun, holds, new_turn


def test_a_playbook_shows_where_the_turn_said_something_else():
    book = Playbook(new_turn()) >> START << Told("turn/started") << Sample()

    with pytest.raises(AssertionError) as failed:
        bool(book)

    assert "- << Told('turn/started', {})" in str(failed.value)
    assert "+ << Notify(method='thread/status/changed'" in str(failed.value)


def test_a_playbook_fails_when_the_turn_says_less_than_was_expected():
    book = begun(new_turn()) >> Interrupted() << FallBack() << FallBack() << FallBack() << FallBack() << FallBack()

    with pytest.raises(AssertionError, match=r"(?s)- << FallBack\(\).*- << FallBack\(\)"):
        bool(book)


def test_a_playbook_fails_when_the_turn_says_more_than_was_expected():
    book = begun(new_turn()) >> Interrupted()

    with pytest.raises(AssertionError, match=r"\+ << Notify\(method='turn/completed'"):
        bool(book)


def test_a_playbook_that_was_never_asserted_fails():
    book = Playbook(new_turn()) >> START

    with pytest.raises(AssertionError, match="never asserted"):
        book.__del__()


def test_told_looks_at_the_members_it_names_and_their_types():
    assert holds({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1}})
    assert not holds({"a": {"b": 1}}, {"a": {"b": True}})
    assert not holds({"a": {"b": 1}}, {"a": {"x": None}})
    assert not holds({"a": [1, 2]}, {"a": [1]})
