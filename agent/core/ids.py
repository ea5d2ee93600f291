"""Identifiers of threads, turns and items: UUIDv7, as clients know them. Pure: time and randomness are arguments."""

import uuid


def uuid7(unix_ms: int, random: bytes) -> str:
    """A UUIDv7 (RFC 9562 5.7) from a time in milliseconds and 10 random bytes."""
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(random[:10])
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))
