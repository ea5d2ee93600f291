"""JSON in, for the helper: the standard library's own scanner, without the imports around it (`re`: 6 ms)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the scanner asks its decoder (Modules/_json.c); the values are json.JSONDecoder's defaults."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return _object(pairs)

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of different members: of two alike, readers differ about the one that counts (RFC 8259, 4)."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the member {twice!r} more than once")
    return members


def parse_json(text: str) -> Any:
    """The value of a JSON text, as json.loads but without NaN, infinities and members given twice.

    Raises:
        ValueError: It is none; says where. A RecursionError is one, too.
    """
    try:
        # CPython's accelerator, which `json` itself uses where it is there. What it does not like goes the usual way,
        # for its errors too.
        from _json import make_scanner

        value, end = make_scanner(_Context)(text.strip(), 0)  # type: ignore[arg-type]  # stubs want a decoder
        if end == len(text.strip()):
            return value
    except (ImportError, StopIteration, ValueError, RecursionError):
        pass
    import json

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=_object)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
