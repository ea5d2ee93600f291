"""Captured runs for tests, made by the real log."""

import dataclasses

from proxy.capture.exchange import Exchange, Phase
from proxy.capture.limits import Limits, Retention
from proxy.capture.log import CaptureLog
from proxy.capture.observation import Piece
from proxy.capture.store import Run, find
from tests.proxy.capture.test_coverage import POST

FOR_EVER = Retention(keep_bytes=10**12, keep_days=10**6)
STARTED_AT = 1_763_800_000.0


def exchange(number: int = 1, **facts) -> Exchange:
    """An answered POST, or what the facts say."""
    usual = {"started_at": STARTED_AT + number, "status": 200, "first_byte_s": 0.2, "duration_s": 0.5}
    return dataclasses.replace(POST, number=number, **usual | facts)


def phases(number: int = 1, **facts) -> list[Exchange]:
    """The three phases of an exchange."""
    ended = exchange(number, **facts)
    answered = dataclasses.replace(ended, phase=Phase.ANSWERED, error=None)
    decided = dataclasses.replace(
        answered, phase=Phase.DECIDED, status=None, first_byte_s=None, duration_s=None, response_headers=()
    )
    return [decided, answered, ended]


def captured(
    base, *told: Exchange | Piece, name: str = "run", command=(), bodies: bool = False, limits: Limits | None = None
) -> Run:
    """A run that was told these, in this order, and has ended."""
    log = CaptureLog(base, name, command, bodies=bodies, limits=limits or Limits(), retention=FOR_EVER)
    log.start()
    for one in told:
        if isinstance(one, Piece):
            log.piece(one)
        else:
            log.changed(one)
    log.close()
    return find(base, log.run.id)


def carrying(
    base, request: bytes = b"", response: bytes = b"", *, pieces: int = 1, limits: Limits | None = None, **facts
) -> Run:
    """A captured run of one exchange with these bodies, each in so many pieces."""
    decided, answered, ended = phases(**facts)
    told = [decided, *split(1, True, request, pieces), answered, *split(1, False, response, pieces), ended]
    return captured(base, *told, bodies=True, limits=limits)


def split(number: int, from_client: bool, data: bytes, pieces: int) -> list[Piece]:
    """The data as so many pieces of about the same size."""
    step = max(-(-len(data) // pieces), 1)
    return [Piece(number, from_client, data[start : start + step]) for start in range(0, len(data), step)]


def body_files(run: Run) -> dict[str, bytes]:
    """What is in the folder of bodies, by names."""
    return {path.name: path.read_bytes() for path in sorted((run.path / "bodies").iterdir())}
