"""Identifiers of threads, turns and items: UUIDv7, as clients know them. Pure: time and randomness are arguments."""

import re
import uuid

_GROUPS = (8, 4, 4, 4, 12)  # hexadecimal digits between the hyphens


def uuid7(unix_ms: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562 5.7) from a time in milliseconds and 10 random bytes."""
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(random[:10])
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def parse_uuid(text: str) -> str:
    """A UUID in any of its spellings (bare digits, hyphens, braces, URN), in the usual one.

    Raises:
        ValueError: With the text that clients of the original know.
    """
    digits, offset = text, 0
    if text.startswith("{") and text.endswith("}"):
        digits, offset = text[1:-1], 1
    elif text.startswith("urn:uuid:"):
        digits, offset = text.removeprefix("urn:uuid:"), len("urn:uuid:")
    if (stray := re.search("[^0-9a-fA-F-]", digits)) is not None:
        expected = "expected an optional prefix of `urn:uuid:` followed by [0-9a-fA-F-]"
        raise ValueError(f"invalid character: {expected}, found `{stray[0]}` at {offset + stray.start() + 1}")
    groups = digits.split("-")
    if len(groups) == 1 and not offset:
        if len(digits) != 32:
            raise ValueError(f"invalid length: expected length 32 for simple format, found {len(digits)}")
        return str(uuid.UUID(digits))
    if len(groups) != len(_GROUPS):
        raise ValueError(f"invalid group count: expected {len(_GROUPS)}, found {len(groups)}")
    for number, (group, length) in enumerate(zip(groups, _GROUPS, strict=True)):
        if len(group) != length:
            raise ValueError(f"invalid group length in group {number}: expected {length}, found {len(group)}")
    return str(uuid.UUID("".join(groups)))
