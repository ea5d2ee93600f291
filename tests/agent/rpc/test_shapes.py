import pytest

from agent.rpc import shapes
from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams

INPUT = shapes.list_of(
    shapes.tagged(
        {"text": {"text": shapes.text}, "image": {"url": shapes.text, "detail": shapes.optional(shapes.text)}},
        {"text": ("text",), "image": ("url",)},
        "UserInput",
    )
)
KNOWN = {
    "cwd": shapes.optional(shapes.text),
    "policy": shapes.one_of("untrusted", "on-request", "never"),
    "limit": shapes.count,
    "flag": shapes.flag,
    "input": INPUT,
    "config": shapes.table,
    "any": shapes.anything,
}


def checked(value, required=()):
    return shapes.params(value, shapes.struct("struct ThreadStartParams", 7, KNOWN, required))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"cwd": None},
        {"cwd": "/tmp", "policy": "never", "limit": 0, "flag": False, "config": {"a": [1]}, "any": None},
        {"limit": 2**32 - 1},
        {"input": []},
        {"input": [{"type": "text", "text": "hello"}, {"type": "image", "url": "u", "detail": None}]},
    ],
)
def test_what_fits_comes_back_as_it_is(value):
    assert checked(value) == value


def test_unknown_members_are_ignored_also_inside():
    assert checked({"unknownField": 1, "cwd": "/"}) == {"cwd": "/"}
    assert checked({"input": [{"type": "text", "text": "a", "text_elements": []}]}) == {
        "input": [{"type": "text", "text": "a"}]
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (MISSING, "missing field `params`"),
        (None, "missing field `params`"),
        (5, "invalid type: integer `5`, expected struct ThreadStartParams"),
        ("x", 'invalid type: string "x", expected struct ThreadStartParams'),
        ([], "invalid length 0, expected struct ThreadStartParams with 7 elements"),
        ({"cwd": 5}, "invalid type: integer `5`, expected a string"),
        ({"policy": "bogus"}, "unknown variant `bogus`, expected one of `untrusted`, `on-request`, `never`"),
        ({"policy": None}, "invalid type: null, expected string or map"),
        ({"limit": "5"}, 'invalid type: string "5", expected u32'),
        ({"limit": True}, "invalid type: boolean `true`, expected u32"),
        ({"limit": 1.0}, "invalid type: floating point `1.0`, expected u32"),
        ({"limit": -1}, "invalid value: integer `-1`, expected u32"),
        ({"limit": 2**32}, f"invalid value: integer `{2**32}`, expected u32"),
        ({"flag": 1}, "invalid type: integer `1`, expected a boolean"),
        ({"config": []}, "invalid type: sequence, expected a map"),
        ({"input": {}}, "invalid type: map, expected a sequence"),
        ({"input": ["x"]}, 'invalid type: string "x", expected internally tagged enum UserInput'),
        ({"input": [{}]}, "missing field `type`"),
        ({"input": [{"type": 5}]}, "invalid value: integer `5`, expected variant index 0 <= i < 2"),
        ({"input": [{"type": "bogus"}]}, "unknown variant `bogus`, expected `text` or `image`"),
        ({"input": [{"type": "text"}]}, "missing field `text`"),
        ({"input": [{"type": "text", "text": None}]}, "invalid type: null, expected a string"),
    ],
)
def test_what_does_not_fit_is_refused_in_the_words_of_serde(value, text):
    with pytest.raises(InvalidParams) as refusal:
        checked(value)
    assert str(refusal.value) == text


def test_a_wrong_value_is_told_before_a_missing_one_and_the_first_wrong_one_first():
    with pytest.raises(InvalidParams, match="integer `5`"):
        checked({"cwd": 5, "limit": "x"}, ("flag",))
    with pytest.raises(InvalidParams, match="missing field `flag`"):
        checked({"cwd": None}, ("flag", "limit"))
