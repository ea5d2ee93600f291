"""The log of a run: what is written of what it is told, and what happens when that cannot be written."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from proxy.capture.exchange import Phase, Transport
from proxy.capture.limits import Limits, Retention
from proxy.capture.log import CaptureLog
from proxy.capture.observation import Piece
from proxy.capture.store import Tail, find, read_exchanges, runs
from tests.proxy.capture.runs import FOR_EVER, body_files, captured, exchange, phases

DEADLINE_S = 10


@pytest.fixture
def base(tmp_path):
    """Where runs are captured; made by the first."""
    return tmp_path / "captures"


def lines(run):
    return [json.loads(line) for line in (run.path / "exchanges.jsonl").read_text().splitlines()]


def seen(log, wanted):
    """The exchanges of a run that goes on, once `wanted` of them are written."""
    tail, found, deadline = Tail(log.run), [], time.monotonic() + DEADLINE_S
    while len(found) < wanted:
        assert time.monotonic() < deadline, f"only {found}"
        found += tail.poll()
    return found


def test_of_an_exchange_that_is_over_soon_one_line_is_written(base):
    run = captured(base, *phases(1), *phases(2))
    assert [(line["number"], line["phase"]) for line in lines(run)] == [(1, "ended"), (2, "ended")]


def test_an_exchange_that_goes_on_can_be_read_meanwhile(base):
    log = CaptureLog(base, "run")
    log.start()
    found = []
    for one in phases(1):
        log.changed(one)
        found += seen(log, len(found) + 1)[len(found) :]
    log.close()
    assert found == phases(1) and read_exchanges(log.run) == phases(1)[-1:]


def test_that_a_websocket_was_opened_is_always_written_and_before_its_end(base):
    run = captured(base, *phases(1, transport=Transport.WEBSOCKET, status=101))
    assert [line["phase"] for line in lines(run)] == ["answered", "ended"]


def test_the_description_has_the_names_of_programs_and_no_arguments(base):
    run = captured(base, name="verify", command=["/opt/bin/codex", "exec", "--token", "canary"])
    assert run.command == "verify codex"
    assert not any(b"canary" in path.read_bytes() for path in base.rglob("*") if path.is_file())


def test_equal_secrets_have_equal_marks_in_all_runs_of_a_base_and_in_no_other(base, tmp_path):
    def mark(where):
        log = CaptureLog(where, "run")
        log.start()
        log.close()
        return log.redactor.mark(b"secret")

    assert mark(base) == mark(base) != mark(tmp_path / "another")


def test_old_runs_go_when_one_starts(base):
    run = captured(base)
    run.path.rename(base / "20250101T000000Z-00aa")
    log = CaptureLog(base, "run")
    log.start()
    log.close()
    assert [one.id for one in runs(base)] == [log.run.id]


def test_a_run_that_cannot_be_pruned_is_no_reason_not_to_capture(base):
    log = CaptureLog(base, "run", retention=Retention(keep_bytes=0, keep_days=0))
    log.start()
    log.changed(exchange(1))
    log.close()
    assert read_exchanges(log.run) == [exchange(1)]


def test_before_its_start_and_after_its_end_a_close_does_nothing(base):
    log = CaptureLog(base, "run")
    log.close()
    log.start()
    log.close()
    log.close()
    assert find(base, "last").complete


def test_its_thread_is_gone_when_it_is_closed(base):
    before = threading.active_count()
    captured(base)
    assert threading.active_count() == before


# Too much


def test_what_comes_too_fast_is_dropped_and_counted(base, caplog):
    log = CaptureLog(base, "run", limits=Limits(queue_items=8))
    log.start()
    for number in range(1, 2001):
        log.changed(exchange(number))
    log.close()
    run = find(base, "last")
    missing = 2000 - len(read_exchanges(run))
    assert missing > 0
    assert log.problem == run.problem == f"{missing} exchanges are not in it" and not run.complete
    assert f"capture incomplete run={run.id}" in caplog.text


def test_phases_that_are_replaced_later_do_not_push_out_the_last_ones(base):
    log = CaptureLog(base, "run", limits=Limits(queue_items=100))
    log.start()
    for number in range(1, 100):
        log.changed(phases(number)[0])
    for number in range(1, 21):
        log.changed(exchange(number))
    log.close()
    assert log.problem is None
    assert [one.number for one in read_exchanges(log.run) if one.phase is Phase.ENDED] == list(range(1, 21))


def test_pieces_that_come_too_fast_are_not_looked_at_nor_is_what_follows_them(base):
    log = CaptureLog(base, "run", bodies=True, limits=Limits(queue_bytes=100_000), retention=FOR_EVER)
    log.start()
    decided, answered, ended = phases(1, response_headers=(("Content-Type", "text/plain"),))
    log.changed(decided)
    log.changed(answered)
    for _ in range(10):
        log.piece(Piece(1, False, b"x" * 50_000))
    log.piece(Piece(1, True, b"small"))
    log.changed(ended)
    log.changed(exchange(2))
    log.close()
    run = find(base, "last")
    assert "bytes of bodies came too fast and were not looked at" in run.problem
    summary = json.loads(body_files(run)["0001.summary.json"])
    assert summary["response"]["sha256"] is None and summary["response"]["bytes"] is None
    assert "came faster than it could be kept" in summary["response"]["problem"]
    assert summary["request"]["problem"] is None and summary["request"]["bytes"] == 5
    assert [one.number for one in read_exchanges(run)] == [1, 2]


def test_pieces_are_not_kept_where_bodies_are_not_wanted(base):
    run = captured(base, *phases(1), Piece(1, True, b"canary"), exchange(1))
    assert body_files(run) == {}


def test_a_run_that_has_reached_its_limit_stops_and_says_so(base, caplog):
    run = captured(base, *(exchange(number) for number in range(1, 200)), limits=Limits(run_bytes=20_000))
    kept = read_exchanges(run)
    assert 0 < len(kept) < 199 and kept == [exchange(number) for number in range(1, len(kept) + 1)]
    assert "reached its limit of 20000 bytes" in run.problem
    assert f"{199 - len(kept)} exchanges are not in it" in run.problem
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# A disk that is full

_TELLS = """
import sys; sys.path[:0] = {path!r}
import logging, pathlib, time
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from proxy.capture.log import CaptureLog
from proxy.capture.observation import Piece
from tests.proxy.capture.runs import exchange, phases
{before}
log = CaptureLog(pathlib.Path(sys.argv[1]), "run", bodies={bodies})
log.start()
for number in range(1, 301):
    decided, answered, ended = phases(number)
    log.changed(decided)
    log.piece(Piece(number, True, b"x" * 5000))
    log.changed(answered)
    log.changed(ended)
log.close()
print("problem:", log.problem)
"""


def on_a_small_disk(tmp_path, bodies, size):
    """What a log says on a disk of this size, and what it left there."""
    (tmp_path / "full").mkdir()
    script = f'mount -t tmpfs -o size={size},mode=700 tmpfs "$1" && "$2" -c "$3" "$1"; cp -r "$1"/. "$4"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path / "full"), sys.executable]
    story = _TELLS.format(path=sys.path, bodies=bodies, before="")
    (tmp_path / "kept").mkdir()
    done = subprocess.run([*words, story, str(tmp_path / "kept")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, find(tmp_path / "kept", "last")


@pytest.mark.parametrize("bodies", [False, True])
def test_on_a_full_disk_capture_ends_with_one_line_and_the_run_says_that_it_is_not_complete(tmp_path, bodies):
    said, run = on_a_small_disk(tmp_path, bodies, "64k")
    assert said.count("No space left on device'; the traffic goes on") == 1
    assert "No space left on device" in run.problem and "exchanges are not in it" in run.problem
    assert run.ended_at is not None and not run.complete
    # Whole lines, as many as found room.
    kept = [one for one in read_exchanges(run) if one.phase is Phase.ENDED]
    assert kept == [exchange(number) for number in range(1, len(kept) + 1)]
    assert f"{300 - len(kept)} exchanges are not in it" in run.problem
    assert (run.path / "exchanges.jsonl").read_bytes()[-1:] in (b"\n", b"")


def test_on_a_disk_with_room_the_same_is_complete(tmp_path):
    said, run = on_a_small_disk(tmp_path, False, "4m")
    assert said == "problem: None\n" and run.complete and len(read_exchanges(run)) == 300


def test_a_file_that_may_not_grow_ends_capture_and_nothing_else(tmp_path):
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    story = _TELLS.format(path=sys.path, bodies=False, before=before)
    done = subprocess.run(
        [sys.executable, "-c", story, str(tmp_path / "captures")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "File too large'; the traffic goes on" in done.stdout, done.stderr
    run = find(tmp_path / "captures", "last")
    assert "File too large" in run.problem and 0 < len(read_exchanges(run)) < 300


def test_after_a_failure_nothing_piles_up(base, caplog):
    """What is told then is counted; it waits for nobody."""
    log = CaptureLog(base, "run", limits=Limits(run_bytes=1))
    with caplog.at_level(logging.ERROR):
        log.start()
        log.changed(exchange(1))
        deadline = time.monotonic() + DEADLINE_S
        while log.problem is None:
            assert time.monotonic() < deadline
        for number in range(2, 5002):
            log.changed(exchange(number))
        assert len(log._queue) <= 1
        log.close()
    assert "5001 exchanges are not in it" in log.problem


def test_a_bug_in_the_writing_ends_capture_without_a_word_of_what_is_captured(base, caplog):
    log = CaptureLog(base, "run")
    log.start()
    log.changed(dataclasses.replace(exchange(1), host=object()))
    log.close()
    assert "an error of its own, TypeError" in find(base, "last").problem
    assert "object" not in caplog.text


def test_a_log_that_was_killed_leaves_a_run_that_was_interrupted(base):
    story = f"""
import sys; sys.path[:0] = {sys.path!r}
import os, pathlib, time
from proxy.capture.log import CaptureLog
from tests.proxy.capture.runs import exchange
from tests.proxy.capture.test_log import seen
log = CaptureLog(pathlib.Path({str(base)!r}), "run")
log.start()
log.changed(exchange(1))
seen(log, 1)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", story], check=False, env=dict(os.environ))
    assert done.returncode == -9
    run = find(base, "last")
    assert run.state() == "interrupted" and read_exchanges(run) == [exchange(1)]
