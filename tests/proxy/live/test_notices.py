from dataclasses import replace
from pathlib import Path

import pytest

from proxy import gate
from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Phase, Stamp
from proxy.live import notices
from proxy.live.notices import Kind, Notices, Severity, short
from tests.proxy.live.exchanges import OTHER, POST, SOCKET, THREAD, TUNNEL, answered, decided, numbered

REFUSED_426 = replace(SOCKET, status=426, duration_s=0.2)


def told(*exchanges):
    looking = Notices()
    return [notice for exchange in exchanges for notice in looking.look(exchange)]


def fallbacks(*exchanges):
    return [notice for notice in told(*exchanges) if notice.kind is Kind.FALLBACK]


def test_nothing_is_told_of_what_went_well():
    assert told(decided(POST), answered(POST), POST, SOCKET, OTHER, TUNNEL) == fallbacks(POST, SOCKET) == []


@pytest.mark.parametrize(
    ("exchange", "kind", "severity", "text"),
    [
        (replace(POST, stamp=Stamp.ABSENT, attestation=None), Kind.UNSTAMPED, "problem", "nobody to ask for a token"),
        (replace(POST, stamp=Stamp.FOREIGN, attestation=None), Kind.UNSTAMPED, "problem", "value of the client's own"),
        (replace(POST, stamp=Stamp.UNSENT, attestation=None), Kind.UNSTAMPED, "problem", "did not go out"),
        (replace(POST, attestation=AttestationStatus.TIMEOUT), Kind.FAILED_TOKEN, "problem", "status 1: the desktop"),
        (replace(POST, attestation=AttestationStatus.FAILED), Kind.FAILED_TOKEN, "problem", "status 2: the desktop"),
        (replace(POST, attestation=AttestationStatus.CANCELED), Kind.FAILED_TOKEN, "problem", "status 3: the question"),
        (replace(POST, attestation=AttestationStatus.MALFORMED), Kind.FAILED_TOKEN, "problem", "no token after 30 ms."),
        (
            replace(POST, stamp=Stamp.NATIVE, attestation=AttestationStatus.FAILED, waited_s=None),
            Kind.FAILED_TOKEN, "problem", "status 2",
        ),
        (replace(POST, waited_s=0.2401), Kind.LATE_TOKEN, "warning", "waited 240 ms for its token; the budget"),
        (replace(SOCKET, status=426), Kind.UPGRADE, "warning", "upstream answered 426 after 200 ms."),
        (replace(SOCKET, status=401), Kind.UPGRADE, "warning", "upstream answered 401"),
        (replace(SOCKET, status=429), Kind.UPGRADE, "warning", "upstream answered 429"),
        (replace(SOCKET, status=503), Kind.UPGRADE, "warning", "upstream answered 503"),
        (replace(SOCKET, status=200), Kind.UPGRADE, "warning", "upstream answered 200"),
        (replace(POST, status=429), Kind.REJECTED, "warning", "was answered with 429 after 1.00 s."),
        (replace(POST, status=500), Kind.REJECTED, "warning", "was answered with 500"),
        (replace(POST, error="server closed connection"), Kind.BROKEN, "problem", "broke off: server closed"),
        (
            replace(POST, error="Client disconnected.", status=None, first_byte_s=None),
            Kind.BROKEN, "warning", "given up by the client after 3.00 s, without any answer",
        ),
        (replace(OTHER, stamp=Stamp.REFUSED, status=400), Kind.REFUSED, "problem", "answered here with 400"),
        (replace(POST, stamp=Stamp.REFUSED, status=503), Kind.REFUSED, "problem", "answered here with 503"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told_with_its_number_and_with_what_to_do(exchange, kind, severity, text):
    (notice,) = told(replace(exchange, number=7))
    assert (notice.kind, notice.severity, notice.number) == (kind, severity, 7)
    assert text in notice.text
    assert len(notice.advice) > 20


@pytest.mark.parametrize(
    "exchange",
    [
        replace(POST, waited_s=0.1),  # just within
        replace(POST, status=302),
        replace(OTHER, status=404),  # out of scope it is nobody's turn
        replace(SOCKET, waited_s=0.09),
        replace(POST, error="Client disconnected."),  # agents hang up at "response.completed"
        replace(POST, error="stream reset by client (CANCEL)"),
    ],
)
def test_what_is_within_the_rules_is_not_told(exchange):
    assert told(exchange) == []


@pytest.mark.parametrize(
    ("error", "severity", "advice"),
    [
        ("the client broke off TLS: The client disconnected.", Severity.WARNING, "countersign doctor"),
        ("the upstream connection failed: timed out", Severity.PROBLEM, "no request was on it"),
    ],
)
def test_a_connection_that_came_to_nothing_is_told_with_its_side(error, severity, advice):
    (found,) = told(replace(TUNNEL, error=error))
    assert (found.kind, found.severity, found.title) == (Kind.BROKEN, severity, "Connection came to nothing")
    assert found.text == f"A tunnel to chatgpt.com came to nothing: {error.rstrip('.')}." and advice in found.advice
    assert f'f"{notices._CLIENT_BROKE_OFF}: ' in Path(gate.__file__).read_text("utf-8")


def test_each_status_that_an_upgrade_may_get_has_its_own_advice():
    statuses = (426, 401, 403, 429, 503)
    advice = {told(replace(SOCKET, status=status))[0].advice for status in statuses}
    assert len(advice) == len(statuses)


def test_a_thing_is_told_once_though_the_exchange_goes_on():
    late = replace(POST, waited_s=0.2)
    assert len(told(decided(late), answered(late), late)) == 1


def test_an_unstamped_request_is_told_before_its_answer_is_there():
    (notice,) = told(decided(replace(POST, stamp=Stamp.ABSENT, attestation=None)))
    assert notice.kind is Kind.UNSTAMPED


# From WebSocket to POST


def test_a_thread_that_goes_over_to_post_is_told_at_once_with_the_time_it_lost():
    first, second = numbered(REFUSED_426, 1), numbered(REFUSED_426, 5)
    (notice,) = fallbacks(decided(first), first, decided(second), second, decided(numbered(POST, 17)))
    assert (notice.severity, notice.number) == (Severity.WARNING, 17)
    assert notice.title == "Fell back from WebSocket to POST"
    assert notice.text == (
        "Thread …11dead01 went over to POST: 2 failed upgrades (the last was #5: HTTP 426); "
        "16.0 s passed before the POST."
    )


def test_the_fallback_is_told_once_and_not_with_each_post():
    assert len(fallbacks(REFUSED_426, *(numbered(POST, number) for number in range(2, 9)))) == 1


def test_the_next_fallback_of_a_thread_whose_socket_came_back_is_told_again():
    again = [REFUSED_426, numbered(POST, 2), numbered(SOCKET, 3), numbered(POST, 4)]
    assert [notice.number for notice in fallbacks(*again)] == [2, 4]


def test_an_upgrade_that_broke_off_or_was_never_answered_counts():
    broken = replace(SOCKET, status=None, first_byte_s=None, error="Client disconnected.")
    assert "one failed upgrade (the last was #1: Client disconnected)" in fallbacks(broken, numbered(POST, 2))[0].text
    assert "#1 was not answered" in fallbacks(decided(SOCKET), numbered(POST, 2))[0].text


def test_a_socket_that_was_open_before_is_told_of():
    assert "its WebSocket #1 has ended" in fallbacks(SOCKET, numbered(POST, 2))[0].text
    assert "its WebSocket #1 is still open" in fallbacks(answered(SOCKET), numbered(POST, 2))[0].text


@pytest.mark.parametrize(
    "after",
    [
        replace(POST, number=2, thread_id="another"),
        replace(POST, number=2, route="compact"),
        replace(OTHER, number=2, thread_id=THREAD),
        replace(SOCKET, number=2),
    ],
)
def test_what_is_no_post_of_the_same_thread_is_no_fallback(after):
    assert fallbacks(REFUSED_426, after) == []
    assert len(fallbacks(REFUSED_426, replace(POST, number=2))) == 1  # the control


def test_clients_that_name_no_thread_are_one():
    (notice,) = fallbacks(replace(REFUSED_426, thread_id=None), replace(POST, number=2, thread_id=None))
    assert notice.text.startswith("A client that names no thread went over")


def test_memory_stays_bounded():
    looking = Notices()
    for number in range(1, notices.MOST_EXCHANGES + notices.MOST_THREADS):
        looking.look(replace(REFUSED_426, number=number, thread_id=f"thread-{number}"))
    assert len(looking._told) == notices.MOST_EXCHANGES
    assert len(looking._threads) == notices.MOST_THREADS


def test_a_thread_is_called_by_the_end_of_its_id():
    assert short(THREAD) == "…11dead01"
    assert short("thread-1") == "thread-1"


def test_an_end_that_was_told_of_an_exchange_that_never_began_is_no_trouble():
    assert told(replace(POST, phase=Phase.ENDED, number=10**6)) == []
