"""What `countersign capture` prints of an exchange."""

import io

from agent.commands.capture_report import follow_line, print_exchange
from proxy.capture.exchange import Phase, SocketTurn
from tests.proxy.capture.runs import exchange

TURNS = (SocketTurn(1, 1.0, 3.0, 12.0, 4.0, 11.0), SocketTurn(2, 20.0))


def test_the_turns_of_a_websocket_are_told_with_their_times():
    out = io.StringIO()
    print_exchange(exchange(1, turns=TURNS), out)
    _, _, told = out.getvalue().partition("turns ")
    first, second, *_ = told.splitlines()
    assert first.strip() == "turn 1 asked at 1.0 s, answered after 2.0 s, 11.0 s in all, silent for 7.0 s of it"
    assert second.strip() == "turn 2 asked at 20.0 s"


def test_a_line_of_follow_tells_how_far_the_last_turn_is():
    told = follow_line(exchange(1, turns=TURNS, phase=Phase.ANSWERED))
    assert "turn 2 asked at 20.0 s" in told and "turn 1" not in told
    assert "answered 200" in follow_line(exchange(1, phase=Phase.ANSWERED))
