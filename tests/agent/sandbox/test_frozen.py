"""Our own immutable classes beside dataclasses, which they stand in for."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.frozen import frozen, replaced


@frozen
class Point:
    x: int
    y: int = 0
    label: str | None = None


@frozen
class Twin:
    x: int
    y: int = 0
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class Reference:
    x: int
    y: int = 0
    label: str | None = None


@frozen
class Named:
    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


arguments = st.lists(st.integers(0, 2), max_size=4)
named_arguments = st.dictionaries(st.sampled_from(["x", "y", "label", "z"]), st.integers(0, 2), max_size=3)


@given(arguments, named_arguments)
def test_it_takes_the_arguments_that_a_dataclass_takes(given_, named):
    try:
        expected = dataclasses.asdict(Reference(*given_, **named))
    except TypeError:
        with pytest.raises(TypeError, match="Point (takes|needs)"):
            Point(*given_, **named)
    else:
        assert vars(Point(*given_, **named)) == expected


@given(*[st.builds(Point, st.integers(0, 1), st.integers(0, 1))] * 2)
def test_equal_values_are_equal_and_hash_alike(left, right):
    same = (left.x, left.y) == (right.x, right.y)
    assert (left == right) is same
    assert (left != right) is not same
    assert len({left, right}) == (1 if same else 2)


def test_another_class_with_the_same_values_is_not_equal():
    assert Point(1) != Twin(1)
    assert Point(1) != Reference(1)
    assert Point(1) != (1, 0, None)


@pytest.mark.parametrize("name", ["x", "y", "unknown"])
def test_nothing_can_be_set_or_deleted(name):
    point = Point(1)
    with pytest.raises(AttributeError, match=f"'{name}'"):
        setattr(point, name, 2)
    with pytest.raises(AttributeError, match=f"'{name}'"):
        delattr(point, name)
    assert point == Point(1)


def test_a_copy_differs_in_what_was_named_only():
    point = Point(1, 2, "a")
    assert replaced(point, y=5) == Point(1, 5, "a")
    assert point == Point(1, 2, "a")
    with pytest.raises(TypeError):
        replaced(point, z=1)


def test_it_is_shown_by_its_fields_unless_it_says_otherwise():
    assert repr(Point(1, label="a")) == "Point(x=1, y=0, label='a')"
    assert repr(Named("n")) == "<n>"


def test_match_takes_it_apart_by_position():
    match Point(1, 2):
        case Point(x, y, label):
            assert (x, y, label) == (1, 2, None)


# What each start of the helper would pay for; re comes with the first pattern, not before.
HEAVY = ("dataclasses", "inspect", "re", "typing", "json", "pathlib", "asyncio")


@pytest.mark.parametrize("module", ["profile_json", "profile_toml", "legacy", "environment", "denial"])
def test_what_a_policy_is_made_with_loads_nothing_heavy(module):
    script = f"import sys, agent.sandbox.{module}; print(*(set({HEAVY}) & set(sys.modules)))"
    # -S: a .pth file of an editable installation may import what it likes.
    found = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
