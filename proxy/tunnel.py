"""An admitted CONNECT, as all parts of the proxy know it. Pure."""

from dataclasses import dataclass

from proxy.scope import Target

# Set in the metadata of a flow when the head of its request is written upstream.
HEAD_SENT = "countersign head sent"


@dataclass(slots=True)
class Tunnel:
    """One client connection after its CONNECT.

    Args:
        sni: The name in the client's ClientHello, None until there was one.
        addresses: Where its upstream is, none until it was looked up.
        used: Whether a request has come on it.
        error: Why no request could come on it, None if one could.
        number: Of its exchange, 0 if it has none: it is intercepted, and did not fail.
        started_at, started: Unix time, and the monotonic clock.
        sent_bytes, received_bytes: What passed untouched.
    """

    target: Target
    intercepted: bool
    sni: str | None = None
    addresses: tuple[tuple[str, int], ...] = ()
    used: bool = False
    error: str | None = None
    number: int = 0
    started_at: float = 0.0
    started: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
