"""What a run is observed by: each exchange as it goes on, and if wanted each piece of what it carries. Pure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from proxy.capture.exchange import Exchange
from proxy.capture.redact import Redactor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of what an exchange carries, as it travelled: of a body, or of the frames of a WebSocket.

    Args:
        number: Of its exchange.
        data: Not to be kept longer than the call unless copied into something bounded.
    """

    number: int
    from_client: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Observation:
    """Who is told. All are called on the proxy's loop, in the way of the traffic: they must be quick.

    Args:
        redactor: Makes the headers fit to be kept, before anybody sees them.
        changed: Called with each phase of each exchange.
        pieces: Called with each piece; nobody here means that bodies are not looked at.
        gather_s: Seconds that a phase of a request may be told late. What another one has followed by then is not told.
            Without effect where pieces are looked at: the heads tell how these are to be read.
    """

    redactor: Redactor
    changed: tuple[Callable[[Exchange], None], ...] = ()
    pieces: tuple[Callable[[Piece], None], ...] = ()
    gather_s: float = 0.0

    def tell(self, exchange: Exchange) -> None:
        """Tell all. Whatever fails in one of them is logged, and neither the traffic nor the others feel it."""
        for one in self.changed:
            try:
                one(exchange)
            except Exception as exc:
                logger.error("observer failed number=%d error=%s", exchange.number, type(exc).__name__)

    def pass_on(self, piece: Piece) -> None:
        """The same with a piece."""
        for one in self.pieces:
            try:
                one(piece)
            except Exception as exc:
                logger.error("observer failed number=%d error=%s", piece.number, type(exc).__name__)
