"""Parameter errors in the words of the original, whose parser is serde: clients show and match these texts. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any


class InvalidParams(ValueError):
    """Parameters that do not fit; the text is serde's."""


def kind_of(value: Any) -> str:
    """What was found, as serde names it."""
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value}"'
        case list():
            return "sequence"
        case _:
            return "map"


def missing_field(name: str) -> str:
    return f"missing field `{name}`"


def invalid_type(value: Any, expected: str) -> str:
    return f"invalid type: {kind_of(value)}, expected {expected}"


def unknown_variant(value: str, variants: Iterable[str]) -> str:
    names = [f"`{name}`" for name in variants]
    expected = " or ".join(names) if len(names) <= 2 else f"one of {', '.join(names)}"
    return f"unknown variant `{value}`, expected {expected}"


# pydantic's error types for a value of the wrong type -> what serde would have expected
_EXPECTED = {
    "string_type": "a string",
    "bool_type": "a boolean",
    "int_type": "i64",
    "int_from_float": "i64",
    "greater_than_equal": "u32",
    "list_type": "a sequence",
    "tuple_type": "a sequence",
    "dict_type": "a map",
    "dict_attributes_type": "a map",
}


def from_pydantic(errors: Sequence[Any], struct: str) -> str:
    """The serde text for pydantic's `ValidationError.errors()`.

    serde stops at the first wrong value and reports missing fields only after the last member, so wrong values go
    first.
    """
    error = next((one for one in errors if one["type"] != "missing"), errors[0])
    kind, value, location = error["type"], error.get("input"), error["loc"]
    if kind == "missing":
        return missing_field(str(location[-1]))
    if kind == "union_tag_not_found":
        return missing_field("type")
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        context = error.get("ctx", {})
        if kind == "union_tag_invalid":
            value, listed = context["tag"], context["expected_tags"]
        else:
            listed = context["expected"]
        if not isinstance(value, str):
            return invalid_type(value, "a string")
        return unknown_variant(value, [name.strip(" '") for name in listed.replace(" or ", ", ").split(",")])
    if kind in ("model_type", "model_attributes_type"):
        if isinstance(value, list):
            return f"invalid length {len(value)}, expected struct {struct}"
        return invalid_type(value, f"struct {struct}")
    if kind in _EXPECTED:
        return invalid_type(value, _EXPECTED[kind])
    return f"{error['msg']} at `{'.'.join(str(part) for part in location)}`"
