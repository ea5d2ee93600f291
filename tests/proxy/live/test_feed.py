import asyncio
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from proxy.capture.coverage import CoverageCount
from proxy.capture.exchange import Phase, Stamp
from proxy.live.feed import MOST_NOTICES, LiveFeed
from tests.proxy.live.exchanges import OTHER, POST, SOCKET, answered, decided, numbered

UNSTAMPED = replace(POST, stamp=Stamp.ABSENT, attestation=None, token_bytes=0, waited_s=None)


def feed_of(*exchanges, most=2000):
    feed = LiveFeed("a run", most)
    for exchange in exchanges:
        feed.changed(exchange)
    return feed


def numbers(changes):
    return [followed.exchange.number for followed in changes.exchanges]


def test_a_later_phase_replaces_the_earlier():
    (followed,) = feed_of(decided(POST), answered(POST), POST).since(0).exchanges
    assert followed.exchange == POST


def test_only_what_changed_since_is_told():
    feed = feed_of(*(numbered(decided(POST), number) for number in (1, 2, 3)))
    cursor = feed.since(0).cursor
    feed.changed(numbered(POST, 2))
    changes = feed.since(cursor)
    assert (numbers(changes), changes.is_snapshot) == ([2], False)
    assert numbers(feed.since(changes.cursor)) == []


def test_the_first_question_is_answered_with_all():
    changes = feed_of(POST, numbered(UNSTAMPED, 2)).since(0)
    assert changes.is_snapshot
    assert numbers(changes) == [1, 2]
    assert [notice.number for notice in changes.notices] == [2]
    assert (changes.run, changes.forgotten) == ("a run", 0)


def test_no_more_than_the_bound_is_kept_and_what_is_over_goes_first():
    feed = feed_of(answered(SOCKET), *(numbered(POST, number) for number in range(2, 12)), most=4)
    changes = feed.since(0)
    assert numbers(changes) == [1, 9, 10, 11]
    assert changes.forgotten == 7
    assert feed.find(1) is not None and feed.find(2) is None


def test_what_is_open_goes_too_when_nothing_else_is_there():
    feed = feed_of(*(numbered(answered(SOCKET), number) for number in range(1, 8)), most=3)
    assert numbers(feed.since(0)) == [5, 6, 7]


def test_notices_are_bounded_too():
    feed = feed_of(*(numbered(UNSTAMPED, number) for number in range(1, MOST_NOTICES + 50)))
    assert len(feed.since(0).notices) == MOST_NOTICES


def test_the_coverage_counts_each_exchange_once_also_those_that_are_forgotten():
    feed = feed_of(most=2)
    for number in range(1, 10):
        for phase in (decided, answered, replace):
            feed.changed(phase(numbered(POST if number % 3 else UNSTAMPED, number)))
    coverage = feed.since(0).coverage
    assert (coverage.scoped, coverage.attested) == (9, 6)


def test_one_that_was_forgotten_under_way_is_counted_when_it_ends():
    feed = feed_of(*(numbered(decided(POST), number) for number in range(1, 6)), most=2)
    assert feed.since(0).coverage.scoped == 0
    feed.changed(numbered(POST, 1))
    feed.changed(numbered(POST, 1))
    assert feed.since(0).coverage.scoped == 1


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), max_size=120), st.integers(1, 14))
def test_in_whatever_order_they_come_the_coverage_is_that_of_a_plain_count(changes, most):
    """Of each exchange the phases come in order; those of several are mixed."""
    feed, count, last = LiveFeed("", most), CoverageCount(), {}
    for number, phase in changes:
        if phase < last.get(number, 0) or (number not in last and phase != 0):
            continue
        exchange = (decided, answered, replace)[phase](numbered(POST, number))
        if phase > 0 and last[number] == 0:
            count.add(exchange)
        last[number] = phase
        feed.changed(exchange)
    assert feed.since(0).coverage == count.coverage()
    assert len(feed.since(0).exchanges) <= most


def test_the_worst_that_was_noticed_stays_with_the_exchange():
    late = replace(POST, waited_s=0.2)
    feed = feed_of(decided(late), replace(late, error="server closed connection"))
    assert feed.find(1).severity == "problem"
    feed.changed(replace(late, error="server closed connection", phase=Phase.ENDED))
    assert feed.find(1).severity == "problem"
    assert feed_of(late).find(1).severity == "warning"
    assert feed_of(POST, OTHER).find(1).severity is None


def test_another_run_replaces_all():
    feed = feed_of(numbered(UNSTAMPED, 1), numbered(POST, 2))
    cursor = feed.since(0).cursor
    feed.restart("another")
    feed.changed(numbered(POST, 1))
    changes = feed.since(cursor)
    assert (changes.is_snapshot, changes.run, numbers(changes), changes.notices) == (True, "another", [1], ())
    assert changes.coverage.scoped == 1


def test_who_waits_is_woken_by_a_change_and_sees_all_since(run):
    async def scenario():
        feed = feed_of(POST)
        cursor = feed.since(0).cursor
        waiting = [asyncio.create_task(feed.next(cursor)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        feed.changed(numbered(POST, 2))
        feed.changed(numbered(POST, 3))
        for task in waiting:
            assert numbers(await task) == [2, 3]

    run(scenario())


def test_who_does_not_wait_any_more_leaves_nothing_behind(run):
    async def scenario():
        feed = feed_of(POST)
        waiting = asyncio.create_task(feed.next(feed.since(0).cursor))
        await asyncio.sleep(0)
        assert len(feed._waiting) == 1
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert not feed._waiting
        feed.changed(POST)

    run(scenario())
