"""Immutable value classes at a fraction of what importing dataclasses costs (it pulls `inspect`: about 10 ms).

The sandbox helper is started anew for each command, so its imports are part of each command's time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, dataclass_transform
else:

    def dataclass_transform(**_options):
        return lambda function: function


@dataclass_transform(frozen_default=True)
def frozen[Class: type](cls: Class) -> Class:
    """Class decorator: `dataclass(frozen=True, slots=False)` for plain fields and defaults, without inheritance.

    Fields are the annotated names, in order; a default must be immutable. Instances compare and hash by value.
    """
    fields = tuple(cls.__annotations__)
    defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
    known = frozenset(fields)

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        values = dict(zip(fields, args, strict=False))
        if len(args) > len(fields) or values.keys() & named.keys() or not named.keys() <= known:
            raise TypeError(f"{cls.__name__} takes {', '.join(fields)}")
        values.update(named)
        for name in fields:
            if name not in values:
                if name not in defaults:
                    raise TypeError(f"{cls.__name__} needs {name!r}")
                values[name] = defaults[name]
        self.__dict__.update(values)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        raise AttributeError(f"{cls.__name__} is immutable; {name!r} cannot be set")

    def _values(self: Any) -> tuple[Any, ...]:
        held = self.__dict__
        return tuple(held[name] for name in fields)

    def __eq__(self: Any, other: object) -> bool:
        return _values(self) == _values(other) if other.__class__ is cls else NotImplemented

    def __hash__(self: Any) -> int:
        return hash((cls, _values(self)))

    def __repr__(self: Any) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(fields, _values(self), strict=True))
        return f"{cls.__name__}({shown})"

    members: dict[str, Any] = {
        "__init__": __init__,
        "__setattr__": __setattr__,
        "__delattr__": lambda self, name: __setattr__(self, name, None),
        "__eq__": __eq__,
        "__hash__": __hash__,
        "__repr__": __repr__,
        "__match_args__": fields,
    }
    for name, member in members.items():
        if name == "__repr__" and "__repr__" in cls.__dict__:
            continue
        setattr(cls, name, member)
    return cls


def replaced[Value](value: Value, **changes: Any) -> Value:
    """A copy with some fields changed, as dataclasses.replace."""
    return value.__class__(**{**value.__dict__, **changes})
