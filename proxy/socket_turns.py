"""When the turns of a WebSocket were asked and answered, by the times of its bytes alone: nothing is decoded. Pure."""

from collections import deque
from dataclasses import dataclass

from proxy.capture.exchange import SocketTurn

# Turns that are kept of one socket, the last ones.
MOST_TURNS = 20
# Seconds. What the client sends after a longer pause, without an answer in between, is another question.
_SAME_QUESTION_S = 1.0
_PONG = 0x8A
_CLOSE = 0x88


@dataclass(slots=True)
class _Turn:
    """A `SocketTurn` that goes on. `first_s` is negative as long as there is no answer."""

    number: int
    asked_s: float
    asked_until_s: float
    first_s: float = -1.0
    last_s: float = 0.0
    quiet_from_s: float = 0.0
    quiet_until_s: float = 0.0


class SocketTurns:
    """The turns of one socket: each begins with bytes of the client that follow on bytes of upstream."""

    def __init__(self) -> None:
        self._turns: deque[_Turn] = deque(maxlen=MOST_TURNS)

    def passed(self, at_s: float, from_client: bool, data: bytes) -> bool:
        """A piece went by, so many seconds after the request head. Whether it began a turn, or an answer."""
        if _is_control(data):
            return False
        turn = self._turns[-1] if self._turns else None
        if from_client:
            return self._asked(turn, at_s)
        if turn is None:
            return False
        if turn.first_s < 0:
            turn.first_s = turn.last_s = at_s
            return True
        if at_s - turn.last_s > turn.quiet_until_s - turn.quiet_from_s:
            turn.quiet_from_s, turn.quiet_until_s = turn.last_s, at_s
        turn.last_s = at_s
        return False

    def _asked(self, turn: _Turn | None, at_s: float) -> bool:
        if turn is None or turn.first_s >= 0:
            self._turns.append(_Turn(1 if turn is None else turn.number + 1, at_s, at_s))
            return True
        is_another = at_s - turn.asked_until_s > _SAME_QUESTION_S
        turn.asked_until_s = at_s
        if is_another:
            turn.asked_s = at_s
        return is_another

    @property
    def last_s(self) -> float:
        """When upstream last said something in this turn; 0.0 if it has not."""
        return self._turns[-1].last_s if self._turns else 0.0

    @property
    def all(self) -> tuple[SocketTurn, ...]:
        """Those that are kept, in their order."""
        return tuple(
            SocketTurn(turn.number, turn.asked_s)
            if turn.first_s < 0
            else SocketTurn(turn.number, turn.asked_s, turn.first_s, turn.last_s, turn.quiet_from_s, turn.quiet_until_s)
            for turn in self._turns
        )


def _is_control(data: bytes) -> bool:
    """Whether it is whole pings, pongs and closes, and nothing else (RFC 6455, 5.5)."""
    at = 0
    while at + 2 <= len(data):
        opcode, length = data[at], data[at + 1] & 0x7F
        if not _CLOSE <= opcode <= _PONG or length > 125:
            return False
        at += 2 + length + (4 if data[at + 1] & 0x80 else 0)
    return at == len(data)
