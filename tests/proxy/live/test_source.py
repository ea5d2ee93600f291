"""Captured runs as a page follows them."""

import asyncio
import json
import os

import pytest

from proxy.capture.exchange import Phase
from proxy.capture.store import CaptureError
from proxy.live import source
from proxy.live.carried import carried
from proxy.live.feed import LiveFeed
from proxy.live.source import CUT_OFF, CaptureSource, FeedSource
from tests.proxy.live.captures import captured, post_with_events, socket_with_turn
from tests.proxy.live.exchanges import POST, SOCKET, TUNNEL, answered, decided, numbered


async def until(feed, wanted):
    """The first state of the feed that is as wanted."""
    changes = feed.since(0)
    while not wanted(changes):
        await feed.next(changes.cursor)
        changes = feed.since(0)
    return changes


def test_a_run_is_followed_while_another_process_writes_it(run, tmp_path):
    async def scenario():
        with captured(tmp_path / "runs") as log:
            log.changed(numbered(POST, 1))
            async with CaptureSource(tmp_path / "runs", None) as following:
                await until(following.feed, lambda now: len(now.exchanges) == 1)
                log.changed(decided(numbered(POST, 2)))
                await until(following.feed, lambda now: len(now.exchanges) == 2)
                log.changed(numbered(POST, 2))
                now = await until(following.feed, lambda now: now.exchanges[-1].exchange.phase is Phase.ENDED)
                assert (now.run, now.coverage.scoped) == (log.run.id, 2)

    run(scenario())


def test_a_base_that_is_not_there_yet_has_no_run_and_its_first_is_shown(run, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LOOK_FOR_RUNS_S", 0.0)

    async def scenario():
        async with CaptureSource(tmp_path / "later", None) as following:
            assert (following.feed.run, following.feed.exchanges) == ("", [])
            with captured(tmp_path / "later") as log:
                log.changed(POST)
                now = await until(following.feed, lambda now: len(now.exchanges) == 1)
                assert now.run == log.run.id

    run(scenario())


def test_a_newer_run_takes_over_and_a_run_that_was_named_stays(run, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LOOK_FOR_RUNS_S", 0.0)

    async def scenario():
        with captured(tmp_path) as old:
            old.changed(POST)
        os.rename(old.run.path, tmp_path / "20200101T000000Z-0000")
        facts = (tmp_path / "20200101T000000Z-0000" / "run.json").read_text()
        (tmp_path / "20200101T000000Z-0000" / "run.json").write_text(facts.replace(old.run.id, "20200101T000000Z-0000"))
        async with (
            CaptureSource(tmp_path, None) as newest,
            CaptureSource(tmp_path, "20200101") as named,
        ):
            await until(newest.feed, lambda now: now.run == "20200101T000000Z-0000" and now.exchanges)
            # It is old: the run that starts now may remove it.
            await until(named.feed, lambda now: now.exchanges)
            with captured(tmp_path) as new:
                new.changed(numbered(POST, 5))
                now = await until(newest.feed, lambda now: now.run == new.run.id and now.exchanges)
                assert [followed.exchange.number for followed in now.exchanges] == [5]
                now = await until(named.feed, lambda now: now.exchanges)
                assert (now.run, now.exchanges[0].exchange.number) == ("20200101T000000Z-0000", 1)

    run(scenario())


def test_what_was_under_way_when_its_process_was_killed_does_not_go_on_for_ever(run, tmp_path):
    async def scenario():
        with captured(tmp_path) as log:
            log.changed(numbered(answered(SOCKET), 1))
            async with CaptureSource(tmp_path, None) as following:
                await until(following.feed, lambda now: len(now.exchanges) == 1)
        async with CaptureSource(tmp_path, None) as following:
            now = await until(following.feed, lambda now: now.exchanges and now.exchanges[0].exchange.error)
            assert now.exchanges[0].exchange.error == CUT_OFF

    run(scenario())


def test_a_run_that_is_not_there_is_told_with_what_to_do(run, tmp_path):
    async def scenario():
        with pytest.raises(CaptureError, match="capture list"):
            async with CaptureSource(tmp_path, "nothing"):
                pass

    run(scenario())


def test_a_folder_that_goes_away_is_told_once_and_stops_nothing(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(source, "POLL_S", 0.001)

    async def scenario():
        with captured(tmp_path / "runs") as log:
            log.changed(POST)
            async with CaptureSource(tmp_path / "runs", None) as following:
                await until(following.feed, lambda now: now.exchanges)
                os.rename(log.run.path / "exchanges.jsonl", tmp_path / "away")
                while "cannot be read" not in caplog.text:
                    await asyncio.sleep(0)
                os.rename(tmp_path / "away", log.run.path / "exchanges.jsonl")
                log.changed(numbered(POST, 2))
                await until(following.feed, lambda now: len(now.exchanges) == 2)

    run(scenario())
    assert caplog.text.count("cannot be read") == 1


def test_a_har_holds_what_the_feed_has_forgotten_and_what_is_not_written_yet(run, tmp_path):
    async def scenario():
        feed = LiveFeed(most_exchanges=2)
        with captured(tmp_path) as log:
            for number in range(1, 6):
                log.changed(numbered(POST, number))
        shown = FeedSource(feed, log.run)
        for number in (4, 5, 6):
            feed.changed(numbered(POST, number))
        content = json.loads(await shown.har())
        assert [one["_number"] for one in content["log"]["entries"]] == [1, 2, 3, 4, 5, 6]
        alone = json.loads(await FeedSource(LiveFeed(), None).har())
        assert (alone["log"]["version"], alone["log"]["entries"]) == ("1.2", [])

    run(scenario())


# What was carried


def test_the_events_of_a_post_are_shown_with_its_turn(tmp_path):
    with captured(tmp_path, bodies=True) as log:
        post_with_events(log)
    found = carried(log.run, POST).as_json()
    assert [(line["name"], line["count"]) for line in found["lines"]] == [
        ("request body", 1),
        ("response.created", 1),
        ("response.output_text.delta", 2),
        ("response.completed", 1),
    ]
    assert '"input": "hello"' in found["lines"][0]["text"]
    assert found["lines"][2]["text"] == "Hello"
    (turn,) = found["turns"]
    assert "completed" in turn["said"] and "7 in, 2 out" in turn["said"]
    assert dict(found["summary"])["Request"].endswith("application/json")
    assert found["note"] == ""


def test_the_frames_of_a_socket_are_shown_and_its_turns_make_the_verdict(tmp_path):
    with captured(tmp_path, bodies=True) as log:
        socket_with_turn(log)
    found = carried(log.run, SOCKET)
    assert [line.kind for line in found.lines][:2] == ["response.create", "response.created"]
    assert found.turns[0].model == "a-model"
    assert found.verdict.headline.startswith("Its only turn took")


@pytest.mark.parametrize(
    ("exchange", "bodies", "note"),
    [
        (POST, False, "a run with --bodies shows it here"),
        (TUNNEL, True, "encrypted from end to end"),
        (numbered(POST, 77), True, "Nothing of it is kept."),
    ],
)
def test_why_nothing_is_shown_is_told(tmp_path, exchange, bodies, note):
    with captured(tmp_path, bodies=bodies) as log:
        post_with_events(log)
    found = carried(log.run, exchange)
    assert found.lines == ()
    assert note in found.note
    assert "not captured" in carried(None, POST).note


def test_what_is_damaged_or_no_file_is_told_and_nothing_else_is_read(tmp_path):
    with captured(tmp_path, bodies=True) as log:
        post_with_events(log)
    (tmp_path / "secret").write_text("canary-5512")
    events = log.run.path / "bodies" / "0001.events.jsonl"
    events.write_bytes(b'{"t": 1\n\xff\xfe\n[]\n' + events.read_bytes())
    assert len(carried(log.run, POST).lines) == 4
    events.unlink()
    events.symlink_to(tmp_path / "secret")
    found = carried(log.run, POST)
    assert "cannot be read" in found.note
    assert "canary" not in json.dumps(found.as_json())
    events.unlink()
    (log.run.path / "bodies" / "0001.summary.json").write_text("{")
    assert "damaged" in carried(log.run, POST).note
