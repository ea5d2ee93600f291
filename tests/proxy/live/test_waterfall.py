from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capture.exchange import Phase, SocketTurn, Stamp, Transport
from proxy.live.waterfall import Part, duration_text, turn_spans, turns_of, verdict, waterfall
from tests.proxy.live.exchanges import POST, SOCKET, TUNNEL, answered, decided


def spans(exchange):
    return [(str(span.part), span.start_s, span.end_s) for span in waterfall(exchange)]


def test_the_parts_of_a_whole_post_follow_each_other():
    assert spans(replace(POST, connect_s=0.2)) == [
        ("connect", -0.2, 0.0),
        ("token", 0.0, 0.03),
        ("send", 0.03, 0.05),
        ("wait", 0.05, 1.0),
        ("receive", 1.0, 3.0),
    ]


def test_what_is_under_way_has_an_open_end():
    assert spans(decided(POST))[-1] == ("send", 0.03, None)
    assert spans(replace(decided(POST), sent_s=0.05))[-1] == ("wait", 0.05, None)
    assert spans(answered(POST))[-1] == ("receive", 1.0, None)


def test_an_answer_before_the_end_of_the_body_ends_the_sending():
    assert spans(replace(POST, sent_s=2.0))[1:] == [("send", 0.03, 1.0), ("wait", 1.0, 1.0), ("receive", 1.0, 3.0)]


def test_what_broke_off_waited_until_then():
    assert spans(replace(POST, first_byte_s=None, status=None, error="x"))[-1] == ("wait", 0.05, 3.0)


def test_the_time_after_a_handshake_is_no_delay():
    assert spans(SOCKET)[-1] == ("open", 0.2, 60.0)
    assert spans(replace(SOCKET, status=426))[-1][0] == "receive"
    assert spans(TUNNEL) == [("open", 0.0, 3.0)]


times = st.none() | st.floats(-1, 1e6)


@given(times, times, times, times, times, st.sampled_from(Phase), st.sampled_from(Transport))
def test_whatever_a_file_says_the_parts_are_in_order_and_a_verdict_is_there(
    connect_s, waited_s, sent_s, first_byte_s, duration_s, phase, transport
):
    odd = replace(
        POST, connect_s=connect_s, waited_s=waited_s, sent_s=sent_s, first_byte_s=first_byte_s, duration_s=duration_s,
        phase=phase, transport=transport,
    )  # fmt: skip
    found = [span for span in waterfall(odd) if span.part not in (Part.CONNECT, Part.TOKEN)]
    for one, next_one in zip(found, found[1:], strict=False):
        assert one.end_s == next_one.start_s
        assert one.start_s <= one.end_s
    assert verdict(odd).headline


@pytest.mark.parametrize(
    ("facts", "headline", "meaning"),
    [
        ({}, "Receiving the answer: 67 % of the 3.00 s that it took", "the model writes"),
        ({"first_byte_s": 2.9}, "Waiting for the first byte: 95 % of the 3.00 s that it took", "thinking or busy"),
        ({"waited_s": 2.9, "sent_s": 2.91, "first_byte_s": 2.95}, "Waiting for the token: 97 % of", "desktop"),
        ({"connect_s": 9.0}, "Connecting upstream: 75 % of the 12.0 s that it took", "name lookup, TCP and TLS"),
        ({"sent_s": 2.8, "first_byte_s": 2.9}, "Sending the request: 92 % of the 3.00 s that it took", "slow uplink"),
        ({"waited_s": 0.2, "sent_s": 0.2}, "Receiving", "The token, too, was late: 200 ms of 100 ms."),
        ({"error": "it broke."}, "Receiving", "Then it broke off: it broke. Upstream"),
        ({"error": "Client disconnected."}, "Receiving", "Then the client hung up."),
        ({"stamp": Stamp.REFUSED}, "Answered here", "nothing of it went upstream"),
        ({"duration_s": None, "waited_s": None, "sent_s": None, "first_byte_s": None}, "No times are known", "ended"),
    ],
)  # fmt: skip
def test_the_verdict_names_what_took_the_time(facts, headline, meaning):
    found = verdict(replace(POST, **facts))
    assert found.headline.startswith(headline)
    assert meaning in found.meaning


def test_of_a_tunnel_only_that_it_came_to_nothing_is_told():
    assert verdict(TUNNEL).headline == "A tunnel to another host"
    found = verdict(replace(TUNNEL, error="the client broke off TLS: unknown authority."))
    assert found.headline == "This connection came to nothing"
    assert found.meaning == "No request was on it: the client broke off TLS: unknown authority."


def test_the_verdict_of_a_socket_is_about_its_handshake():
    found = verdict(SOCKET)
    assert found.headline == "Waiting for the first byte: 75 % of the 200 ms that the handshake took"
    assert "--bodies" in found.meaning


@pytest.mark.parametrize(
    ("turns", "headline", "meaning"),
    [
        ([SocketTurn(1, 1.0, 9.0, 11.0)], "Its only turn took 10.0 s; for 80 % of it nothing came", "was thinking"),
        ([SocketTurn(1, 1.0, 2.0, 11.0)], "Its only turn took 10.0 s; for 10 % of it nothing came", "a long answer"),
        (
            [SocketTurn(1, 1.0, 2.0, 11.0, 3.0, 10.0)],
            "Its only turn took 10.0 s; for 80 % of it nothing",
            "was thinking",
        ),
        (
            [SocketTurn(7, 1.0, 2.0, 9.0), SocketTurn(8, 20.0, 21.0, 22.0)],
            "Its slowest turn, number 7, took 8.00 s",
            "",
        ),
        ([SocketTurn(1, 1.0, 1.01, 1.05)], "Waiting for the first byte: 75 % of the 200 ms that the hand", "below"),
    ],
)
def test_the_verdict_of_a_socket_with_turns_is_about_the_slowest(turns, headline, meaning):
    found = verdict(replace(SOCKET, turns=tuple(turns)))
    assert found.headline.startswith(headline)
    assert meaning in found.meaning


def test_a_turn_without_an_answer_waits_until_the_socket_ends():
    waiting = replace(answered(SOCKET), turns=(SocketTurn(1, 1.0),))
    assert verdict(waiting).headline == "Turn 1 waits for upstream"
    over = replace(SOCKET, turns=waiting.turns)
    assert verdict(over).headline == "Its only turn took 59.0 s; for 100 % of it nothing came from upstream"


def test_failed_tries_stand_before_the_connection_and_are_named():
    found = [(str(span.part), span.start_s, span.end_s) for span in waterfall(replace(POST, connect_s=0.2), 7.0)]
    assert found[:2] == [("tries", -7.0, -0.2), ("connect", -0.2, 0.0)]
    told = verdict(POST, 7.0)
    assert told.headline == "Tries that failed before it: 70 % of the 10.0 s that the turn took"
    assert "under its thread" in told.meaning


@given(st.builds(SocketTurn, st.just(1), *[st.floats(0, 1e6)] * 5), st.floats(0, 1e6))
def test_whatever_a_file_says_of_a_turn_its_parts_are_in_order(turn, ended_s):
    for odd in (turn, replace(turn, first_s=None)):
        found = turn_spans(odd, ended_s)
        for one, next_one in zip(found, found[1:], strict=False):
            assert one.end_s == next_one.start_s
        assert all(one.start_s <= one.end_s for one in found)
    assert verdict(replace(SOCKET, turns=(turn,))).headline
    assert len(turns_of(replace(SOCKET, turns=(turn, turn)))) == 2


def test_what_is_under_way_is_told_without_a_verdict_on_its_time():
    assert verdict(replace(decided(POST), sent_s=0.05)).headline == "Waiting for the first byte"
    assert verdict(answered(POST)).headline == "Still receiving"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 ms"), (0.0072, "7.2 ms"), (0.24, "240 ms"), (0.9994, "999 ms"), (0.9999, "1.00 s"),
        (2.314, "2.31 s"), (12.34, "12.3 s"), (59.96, "1 min 0 s"), (65.2, "1 min 5 s"),
    ],
)  # fmt: skip
def test_a_duration_is_written_as_people_read_it(seconds, text):
    assert duration_text(seconds) == text
