"""How much later a turn is because of tries before it that failed."""

from dataclasses import replace

import pytest

from proxy.capture.exchange import SocketTurn
from proxy.live.feed import LiveFeed
from proxy.live.tries import MOST_THREADS, PATIENCE_S, Tries
from tests.proxy.live.exchanges import BEGAN, POST, SOCKET, answered, decided

REFUSED = replace(SOCKET, status=500, duration_s=0.2)
FAILED = replace(POST, status=500, duration_s=0.2)
ASKED = SocketTurn(1, 1.0)


def lost(*exchanges):
    """Of the last of them; each is (seconds, exchange)."""
    feed = LiveFeed()
    for number, (at_s, exchange) in enumerate(exchanges, 1):
        one = replace(exchange, number=number, started_at=BEGAN + at_s)
        feed.changed(decided(one))
        feed.changed(one)
    return feed.find(len(exchanges)).lost_s


@pytest.mark.parametrize(
    ("exchanges", "seconds"),
    [
        ([(0, POST)], 0),
        ([(0, REFUSED), (2, REFUSED), (6, POST)], 6),  # upgrades that fail, and the POST in their place
        ([(0, REFUSED), (3, SOCKET)], 3),
        ([(0, FAILED), (1, FAILED), (5, POST)], 5),
        ([(0, REFUSED), (1, FAILED), (5, POST)], 5),
        ([(0, FAILED), (3, POST), (9, POST)], 0),  # what succeeded ends it
        ([(0, FAILED), (3, FAILED)], 0),  # is told of the try that succeeds
        ([(0, FAILED), (PATIENCE_S + 1, POST)], 0),  # nobody tried so long: another turn
        ([(0, FAILED), (3, replace(POST, thread_id="another"))], 0),
        ([(0, replace(FAILED, route="compact")), (3, POST)], 0),
        ([(0, replace(FAILED, thread_id=None)), (3, replace(POST, thread_id=None))], 0),
        # A socket whose turn got no answer, and one that was given up within its answer, or is still open.
        ([(0, replace(SOCKET, turns=(ASKED,), duration_s=9.0)), (10, SOCKET)], 9),
        ([(0, replace(SOCKET, turns=(SocketTurn(1, 1.0, 2.0, 2.0),), duration_s=9.0)), (10, POST)], 9),
        ([(0, replace(answered(SOCKET), turns=(SocketTurn(1, 1.0, 2.0, 2.0),))), (400, POST)], 399),
        ([(0, replace(SOCKET, turns=(SocketTurn(1, 1.0, 2.0, 8.0),), duration_s=9.0)), (10, SOCKET)], 0),
        ([(0, SOCKET), (100, POST)], 0),
    ],
)
def test_the_time_since_the_first_of_the_failed_tries_is_lost(exchanges, seconds):
    assert lost(*exchanges) == pytest.approx(seconds)


def test_threads_are_forgotten_when_there_are_too_many():
    tries = Tries()
    for number in range(MOST_THREADS + 1):
        tries.look(replace(FAILED, thread_id=f"thread {number}"))
    found = [tries.lost_s(replace(POST, started_at=BEGAN + 5, thread_id=f"thread {one}")) for one in (0, MOST_THREADS)]
    assert found == [0, 5]
