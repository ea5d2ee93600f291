"""Checks for the parameters of requests, with the errors of the original, whose parser is serde. Pure.

Ours and not pydantic: the texts and their order are serde's without a translation, and pydantic with models for the
first few methods costs a fifth of the time to the first turn (94 ms measured, of 470).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams, invalid_type, missing_field, unknown_variant

# A shape takes a JSON value and returns it checked, or raises InvalidParams.
Shape = Callable[[Any], Any]


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise InvalidParams(invalid_type(value, "a string"))
    return value


def flag(value: Any) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise InvalidParams(invalid_type(value, "a boolean"))
    return value


def integer(low: int, high: int, name: str) -> Shape:
    """An integer from `low` to below `high`, with serde's name for it."""

    def check(value: Any) -> int:
        if type(value) is not int:
            raise InvalidParams(invalid_type(value, name))
        if not low <= value < high:
            raise InvalidParams(f"invalid value: integer `{value}`, expected {name}")
        return value

    return check


count = integer(0, 2**32, "u32")
size = integer(0, 2**64, "usize")
whole = integer(-(2**63), 2**63, "i64")


def table(value: Any) -> dict[str, Any]:
    """An object of any members."""
    if not isinstance(value, dict):
        raise InvalidParams(invalid_type(value, "a map"))
    return value


def anything(value: Any) -> Any:
    """Whatever it is."""
    return value


def optional(shape: Shape) -> Shape:
    """The shape, or null."""
    return lambda value: None if value is None else shape(value)


def variant(value: Any, names: Sequence[str]) -> tuple[str, Any]:
    """One of these strings, or an object whose only member is named so: (name, content; MISSING for a string)."""
    content: Any = MISSING
    if isinstance(value, dict):
        if len(value) != 1:
            raise InvalidParams("invalid value: map, expected map with a single key")
        ((value, content),) = value.items()
    elif not isinstance(value, str):
        raise InvalidParams(invalid_type(value, "string or map"))
    if value not in names:
        raise InvalidParams(unknown_variant(value, names))
    return value, content


def one_of(*names: str) -> Shape:
    """One of these strings; `{"name": null}` is one too, as for serde."""

    def check(value: Any) -> str:
        name, content = variant(value, names)
        if content is not MISSING and content is not None:
            raise InvalidParams(invalid_type(content, "unit"))
        return name

    return check


def list_of(shape: Shape) -> Shape:
    """An array of the shape."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise InvalidParams(invalid_type(value, "a sequence"))
        return [shape(one) for one in value]

    return check


def tagged(variants: Mapping[str, Mapping[str, Shape]], required: Mapping[str, tuple[str, ...]], name: str) -> Shape:
    """An object whose `type` names one of the variants; its known members are returned, `type` first.

    Args:
        required: The members that a variant must have.
        name: Of the enum, for the error.
    """

    def check(value: Any) -> dict[str, Any]:
        kind = tag(value, tuple(variants), name)
        return {"type": kind, **members(value, variants[kind], required.get(kind, ()))}

    return check


def tag(value: Any, names: Sequence[str], enum: str) -> str:
    """The variant that the `type` of an object names, also by its number, as for serde."""
    if not isinstance(value, dict):
        raise InvalidParams(invalid_type(value, f"internally tagged enum {enum}"))
    if "type" not in value:
        raise InvalidParams(missing_field("type"))
    kind = value["type"]
    if type(kind) is int and kind >= 0:
        if kind >= len(names):
            raise InvalidParams(f"invalid value: integer `{kind}`, expected variant index 0 <= i < {len(names)}")
        return names[kind]
    if not isinstance(kind, str):
        raise InvalidParams(invalid_type(kind, "variant identifier"))
    if kind not in names:
        raise InvalidParams(unknown_variant(kind, names))
    return kind


def members(value: Mapping[str, Any], known: Mapping[str, Shape], required: tuple[str, ...]) -> dict[str, Any]:
    """The known members of an object, checked in the order they came in; unknown ones are ignored.

    serde stops at the first wrong value and misses what is missing only after the last member, and so does this.
    """
    checked = {name: known[name](one) for name, one in value.items() if name in known}
    for name in required:
        if name not in checked:
            raise InvalidParams(missing_field(name))
    return checked


def struct(name: str, elements: int, known: Mapping[str, Shape], required: tuple[str, ...] = ()) -> Shape:
    """An object with these members; a null member is not a missing one.

    Args:
        name: What serde calls it, with its kind: "struct ClientInfo".
        elements: How many members the original knows; only its error for an array tells.
    """

    def check(value: Any) -> dict[str, Any]:
        if isinstance(value, list):  # serde takes the members in order, too; nobody writes them so
            plural = "" if elements == 1 else "s"
            raise InvalidParams(f"invalid length {len(value)}, expected {name} with {elements} element{plural}")
        if not isinstance(value, dict):
            raise InvalidParams(invalid_type(value, name))
        return members(value, known, required)

    return check


def params(value: Any, shape: Shape) -> dict[str, Any]:
    """The parameters of a request, checked; there must be some.

    Raises:
        InvalidParams: With the text of the original, without its "Invalid request: ".
    """
    if value is MISSING or value is None:
        raise InvalidParams(missing_field("params"))
    checked: dict[str, Any] = shape(value)
    return checked
