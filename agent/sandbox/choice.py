"""A closed set of named values, without what importing `enum` costs (5 ms with what it pulls in).

The sandbox helper is started anew for each command. Type checkers see a plain Enum.
"""

from __future__ import annotations

__all__ = ["Choice"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from enum import Enum as Choice
else:

    class _Choices(type):
        """The class of the sets: iterates over its members, and finds one by its value when it is called."""

        def __new__(meta, name, bases, namespace):
            values = {key: value for key, value in namespace.items() if key.isupper() and not key.startswith("_")}
            cls = super().__new__(meta, name, bases, {k: v for k, v in namespace.items() if k not in values})
            cls._members = {}
            for key, value in values.items():
                member = object.__new__(cls)
                member.__dict__.update(name=key, value=value)
                cls._members[value] = member
                type.__setattr__(cls, key, member)
            return cls

        def __iter__(cls):
            return iter(cls._members.values())

        def __len__(cls):
            return len(cls._members)

        def __call__(cls, value):
            try:
                return cls._members[value]
            except KeyError:
                raise ValueError(f"{value!r} is not a {cls.__name__}") from None

        def __setattr__(cls, name, value):
            if name != "_members" or "_members" in cls.__dict__:
                raise AttributeError(f"{cls.__name__} is closed; {name!r} cannot be set")
            type.__setattr__(cls, name, value)

    class Choice(metaclass=_Choices):
        """The base of a set: `class Network(Choice): RESTRICTED = "restricted"`. Members are compared by identity."""

        def __setattr__(self, name, value):
            raise AttributeError(f"{self!r} is closed; {name!r} cannot be set")

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __reduce__(self):
            return type(self), (self.value,)
