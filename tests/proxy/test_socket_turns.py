"""The turns of a WebSocket by the times of its bytes."""

import pytest

from proxy.capture.exchange import SocketTurn
from proxy.socket_turns import MOST_TURNS, SocketTurns

PING, PONG, CLOSE = b"\x89\x02hi", b"\x8a\x82MASKhi", b"\x88\x82MASK\x03\xe8"


def turns(*pieces):
    found = SocketTurns()
    told = [found.passed(at_s, direction == "up", data) for at_s, direction, data in pieces]
    return found, told


def test_a_turn_begins_with_the_client_and_has_the_times_of_its_answer():
    found, told = turns(
        (1.0, "up", b"question"), (1.1, "up", b"of two pieces"), (3.0, "down", b"a"), (3.5, "down", b"b")
    )
    assert found.all == (SocketTurn(1, 1.0, 3.0, 3.5, 3.0, 3.5),)
    assert told == [True, False, True, False]
    found.passed(9.0, True, b"the next")
    assert found.all[1:] == (SocketTurn(2, 9.0),) and found.last_s == 0.0


def test_the_longest_silence_within_an_answer_is_kept():
    found, _ = turns((0.0, "up", b"?"), *((at_s, "down", b"a") for at_s in (1.0, 1.5, 9.5, 9.6, 12.0)))
    (turn,) = found.all
    assert (turn.quiet_from_s, turn.quiet_until_s, turn.last_s) == (1.5, 9.5, 12.0)


@pytest.mark.parametrize("control", [PING, PONG, CLOSE, PING + PONG])
def test_pings_and_their_like_are_no_part_of_a_turn(control):
    found, told = turns((0.0, "down", control), (1.0, "up", control), (2.0, "up", b"?"), (3.0, "down", control))
    assert found.all == (SocketTurn(1, 2.0),) and told == [False, False, True, False]
    found, _ = turns((1.0, "up", b"?"), (2.0, "down", control + b"\x81\x01a"))
    assert found.all == (SocketTurn(1, 1.0, 2.0, 2.0),)


def test_what_was_said_long_before_a_question_does_not_make_it_longer():
    found, _ = turns((1.0, "up", b"nobody answers this"), (60.0, "up", b"?"), (61.0, "down", b"a"))
    assert found.all == (SocketTurn(1, 60.0, 61.0, 61.0),)


def test_what_upstream_says_unasked_is_no_turn():
    assert turns((1.0, "down", b"hello"))[0].all == ()


def test_only_the_last_turns_are_kept_and_their_numbers_go_on():
    found, _ = turns(*((float(at_s), "up" if at_s % 2 else "down", b"x") for at_s in range(1, 201)))
    assert len(found.all) == MOST_TURNS and found.all[-1].number == 100
