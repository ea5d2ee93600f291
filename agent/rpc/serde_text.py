"""Parameter errors in the words of the original, whose parser is serde: clients show and match these texts. Pure."""

from collections.abc import Iterable
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
            return f"string {_quoted(value)}"
        case list():
            return "sequence"
        case _:
            return "map"


def _quoted(text: str) -> str:
    """As Rust shows a string."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    shown = (escapes.get(one) or (one if one.isprintable() else f"\\u{{{ord(one):x}}}") for one in text)
    return f'"{"".join(shown)}"'


def missing_field(name: str) -> str:
    return f"missing field `{name}`"


def invalid_type(value: Any, expected: str) -> str:
    return f"invalid type: {kind_of(value)}, expected {expected}"


def unknown_variant(value: str, variants: Iterable[str]) -> str:
    names = [f"`{name}`" for name in variants]
    expected = " or ".join(names) if len(names) <= 2 else f"one of {', '.join(names)}"
    return f"unknown variant `{value}`, expected {expected}"
