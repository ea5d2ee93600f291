"""How much of a run is kept, and for how long. Pure."""

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take. Whatever is beyond is counted and not kept; the traffic does not feel it.

    Args:
        body_bytes: Of one body, decoded.
        socket_bytes: Of the messages of one WebSocket, both directions.
        message_bytes: Of one message of a WebSocket, decoded. One that is being put together is held in memory.
        run_bytes: Of a run on the disk. Bodies may take seven eighths of it, so that exchanges still find room.
        queue_bytes: Of pieces that wait to be looked at, in memory.
        queue_items: Exchanges and pieces that wait.
    """

    body_bytes: int = 16 * MIB
    socket_bytes: int = 64 * MIB
    message_bytes: int = 4 * MIB
    run_bytes: int = 512 * MIB
    queue_bytes: int = 32 * MIB
    queue_items: int = 20_000


@dataclass(frozen=True, slots=True)
class Retention:
    """What of former runs stays when one starts.

    Args:
        keep_bytes: Of all runs together; the oldest go first.
        keep_days: Days since a run started.
    """

    keep_bytes: int = 1024 * MIB
    keep_days: float = 14.0
