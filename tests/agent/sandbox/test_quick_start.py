"""The stand-ins for slow standard modules behave like what they stand for, and the quick paths stay quick."""

import enum
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sandbox.choice import Choice
from agent.sandbox.json_text import parse_json
from agent.sandbox.policy import Network

ROOT = Path(__file__).parents[3]
# What the helper must not import: each costs more than a millisecond, with each command.
SLOW = {"re", "enum", "typing", "json", "collections", "dataclasses", "subprocess", "argparse", "asyncio", "ctypes"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Colour(Choice):
    RED = "red"
    DARK_BLUE = "dark-blue"


class Weekday(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@pytest.mark.parametrize("kind", [Colour, Weekday], ids=["Choice", "Enum"])
def test_a_choice_is_used_like_an_enum(kind):
    assert kind("red") is kind.RED
    assert (kind.DARK_BLUE.name, kind.DARK_BLUE.value) == ("DARK_BLUE", "dark-blue")
    assert list(kind) == [kind.RED, kind.DARK_BLUE]
    assert kind.RED != kind.DARK_BLUE and kind.RED != "red"
    assert {kind.RED: 1}[kind("red")] == 1
    assert isinstance(kind.RED, kind)


@pytest.mark.parametrize("kind", [Colour, Weekday], ids=["Choice", "Enum"])
def test_a_value_that_is_no_member_is_refused_like_an_enum_does(kind):
    with pytest.raises(ValueError, match="'green' is not a"):
        kind("green")


def test_a_choice_cannot_be_changed():
    with pytest.raises(AttributeError, match="closed"):
        Colour.GREEN = "green"
    with pytest.raises(AttributeError, match="closed"):
        Colour.RED.value = "green"


@given(JSON)
def test_what_json_writes_is_read_as_json_reads_it(value):
    text = json.dumps(value)
    assert parse_json(text) == json.loads(text)
    assert parse_json(f" \n\t{text}\r ") == value


@given(st.text())
def test_arbitrary_text_is_refused_when_json_refuses_it_and_read_alike_otherwise(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            parse_json(text)
    else:
        # Two members alike are too rare among random texts to come up here.
        assert parse_json(text) == expected or expected != expected


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '[{"b": {"access": "deny", "x": 0, "access": "write"}}]', '{"": 1, "": 1}']
)
def test_a_member_that_is_given_twice_is_refused_by_its_name(text):
    """The last one counted: `"access": "deny", "access": "write"` was a grant."""
    with pytest.raises(ValueError, match="an object has the member '(a|access|)' more than once"):
        parse_json(text)
    assert parse_json('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "[" * 200_000, "", "{'a': 1}", '{"a":1} x'])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("policy", ["read-only", "workspace"])
def test_the_helper_starts_bubblewrap_without_slow_imports(policy, tmp_path):
    """A new import on its way would not fail a functional test, and cost each command of each user."""
    entries = [{"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"}]
    if policy == "workspace":
        entries.append({"path": {"type": "special", "value": {"kind": "project_roots"}}, "access": "write"})
    profile = {"type": "managed", "file_system": {"type": "restricted", "entries": entries}, "network": "restricted"}
    words = ["--sandbox-policy-cwd", str(tmp_path), "--permission-profile", json.dumps(profile), "--", "true"]
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from agent.commands.sandbox_helper import main\n"
        f"code = main({words!r})\n"
        "print(code, *sorted(sys.modules))\n"
    )
    run = [sys.executable, "-I", "-S", "-c", script]
    subprocess.run(run, check=True, capture_output=True)  # the first one fills the cache of what bubblewrap can do
    code, *imported = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert code == "0"
    assert SLOW & set(imported) == set()


def test_the_command_imports_nothing_slow_before_it_knows_what_to_do():
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport agent.cli\nprint(*sys.modules)"
    imported = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, capture_output=True, text=True)
    assert SLOW & set(imported.stdout.split()) == set()


def test_members_survive_a_copy():
    import copy
    import pickle

    assert copy.deepcopy(Network.ENABLED) is Network.ENABLED
    assert pickle.loads(pickle.dumps(Network.ENABLED)) is Network.ENABLED
