"""Runs on the disk: found, named, read while they grow, damaged in every way that is known, and pruned."""

import json
import os
import subprocess
import sys
import time

import pytest

from proxy.capture.exchange import Phase, Transport
from proxy.capture.log import CaptureLog
from proxy.capture.store import CaptureError, Tail, find, prune, read, read_exchanges, runs, survey
from tests.proxy.capture.runs import captured, exchange, phases

DAY_S = 86400


@pytest.fixture
def base(tmp_path):
    """A private directory of runs."""
    (tmp_path / "captures").mkdir(mode=0o700)
    return tmp_path / "captures"


def named(base, run, name):
    """The same run under another name, as if it was of another time."""
    run.path.rename(base / name)
    return find(base, name)


def rewritten(run, **facts):
    content = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**content, **facts}))


# What is there


def test_what_was_told_is_read_back(base):
    run = captured(base, *phases(1), *phases(2, status=None, error="the upstream left"))
    assert read_exchanges(run) == [exchange(1), exchange(2, status=None, error="the upstream left")]
    assert (run.complete, run.exchanges, run.bodies, run.problem) == (True, 2, False, None)


def test_the_last_line_of_a_number_counts(base):
    """A WebSocket is written when it is opened, and again when it is closed."""
    _, answered, ended = phases(1, transport=Transport.WEBSOCKET, status=101, response_bytes=9)
    run = captured(base, answered, ended)
    lines = [json.loads(line) for line in (run.path / "exchanges.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["answered", "ended"]
    assert [one.phase for one in read_exchanges(run)] == [Phase.ENDED]


def test_runs_are_listed_the_newest_first_and_a_directory_that_is_not_there_has_none(base, tmp_path):
    old = named(base, captured(base), "20250101T000000Z-00aa")
    new = captured(base)
    assert [run.id for run in runs(base)] == [new.id, old.id]
    assert runs(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run.path / "run.json").unlink(), "no captured run, or only half of one: there is no run.json"),
        (lambda run: (run.path / "run.json").write_text('{"format": 1, "id'), "half-written or damaged: it is no JSON"),
        (lambda run: (run.path / "run.json").write_text("[" * 100_000), "it is no JSON"),
        (lambda run: (run.path / "run.json").write_text("[]"), "no known format"),
        (lambda run: rewritten(run, format=2), "it is of format 2, and this countersign reads format 1"),
        (lambda run: rewritten(run, format=True), "format"),
        (lambda run: rewritten(run, started_at=None), "damaged"),
        (lambda run: rewritten(run, versions=3), "damaged"),
        (lambda run: rewritten(run, bodies=True, command=None, versions=[1]), "damaged"),
    ],
)
def test_a_folder_that_cannot_be_read_is_passed_over_with_its_reason(base, damage, reason):
    good, bad = captured(base), named(base, captured(base), "20250101T000000Z-00aa")
    damage(bad)
    found, ((name, told),) = survey(base)
    assert [run.id for run in found] == [good.id] and name == bad.id and reason in told
    with pytest.raises(CaptureError, match="20250101T000000Z-00aa"):
        find(base, "20250101T000000Z")


def test_what_lies_there_and_is_no_run_is_not_looked_at(base):
    (base / "notes").mkdir()
    (base / "20250101T000000Z-00aa").write_text("a file")
    (base / "20250101T000000Z-00ab").symlink_to(base / "notes")
    assert survey(base) == ([], [])


# Names


def test_a_run_is_found_by_its_id_its_beginning_its_digits_its_path_and_as_the_last(base):
    old = named(base, captured(base), "20250101T000000Z-00aa")
    new = captured(base)
    for name in (old.id, "2025010", "00aa", f"{old.path}/"):
        assert find(base, name).id == old.id
    assert find(base, "last").id == new.id


def test_a_name_of_none_or_of_several_is_refused_with_what_there_is(base):
    with pytest.raises(CaptureError, match="no run is captured in"):
        find(base, "last")
    for digits in ("00aa", "00ab"):
        named(base, captured(base), f"20250101T000000Z-{digits}")
    with pytest.raises(CaptureError, match="of 2 runs: 20250101T000000Z-00ab, 20250101T000000Z-00aa"):
        find(base, "2025")
    for name in ("2024", "", "zz"):
        with pytest.raises(CaptureError, match="`countersign capture list` shows"):
            find(base, name)


# Reading


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out_and_counted(base, cut):
    run = captured(base, exchange(1), exchange(2))
    path = run.path / "exchanges.jsonl"
    os.truncate(path, path.stat().st_size - cut)
    exchanges, unreadable = read(run)
    assert [one.number for one in exchanges] == [1] and unreadable == 1


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        b'{"number": "1"}',
    ],
    ids=["words", "list", "text", "bytes", "empty", "deep", "type"],
)
def test_a_damaged_line_costs_only_itself_and_is_counted(base, line, caplog):
    run = captured(base, exchange(1))
    with (run.path / "exchanges.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with (captured(base, exchange(2)).path / "exchanges.jsonl").open("rb") as other:
        good = other.read()
    with (run.path / "exchanges.jsonl").open("ab") as file:
        file.write(good)
    exchanges, unreadable = read(run)
    assert [one.number for one in exchanges] == [1, 2] and unreadable == 1
    read_exchanges(run)
    assert "unreadable_lines=1" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("number", 1.5), ("number", True), ("host", None), ("status", "200"), ("started_at", 1e300), ("duration_s", -1)],
)
def test_a_line_whose_values_are_of_other_types_is_no_exchange(base, name, value):
    run = captured(base, exchange(1))
    content = json.loads((run.path / "exchanges.jsonl").read_text())
    (run.path / "exchanges.jsonl").write_text(json.dumps(content | {name: value}) + "\n")
    assert read(run) == ([], 1)


def test_a_line_that_never_ends_does_not_fill_the_memory(base):
    run = captured(base, exchange(1))
    with (run.path / "exchanges.jsonl").open("r+b") as file:
        good = file.read()
        file.write(b"x" * 5_000_000 + b"\n" + good)
    tail = Tail(run)
    assert [one.number for one in tail.poll()] == [1, 1] and tail.unreadable == 1


def test_without_its_file_a_run_cannot_be_read(base):
    run = captured(base)
    (run.path / "exchanges.jsonl").unlink()
    with pytest.raises(CaptureError, match="exchanges.jsonl' cannot be read: No such file"):
        read(run)


def test_a_tail_gives_each_line_once_and_waits_for_the_end_of_one(base):
    run = captured(base, exchange(1), exchange(2))
    path, whole = run.path / "exchanges.jsonl", (run.path / "exchanges.jsonl").read_bytes()
    path.write_bytes(b"")
    tail, numbers = Tail(run), []
    for end in range(0, len(whole), 100):
        with path.open("ab") as file:
            file.write(whole[end : end + 100])
        numbers += [one.number for one in tail.poll()]
    assert numbers == [1, 2] and not tail.torn and tail.poll() == [] and tail.unreadable == 0


def test_a_tail_goes_on_where_the_writer_took_back_a_torn_line(base):
    run = captured(base, exchange(1), exchange(2))
    path, whole = run.path / "exchanges.jsonl", (run.path / "exchanges.jsonl").read_bytes()
    first, second = whole.splitlines(keepends=True)
    path.write_bytes(first + second[:50])
    tail = Tail(run)
    assert [one.number for one in tail.poll()] == [1] and tail.torn
    os.truncate(path, len(first))
    assert tail.poll() == [] and not tail.torn
    path.write_bytes(whole)
    assert [one.number for one in tail.poll()] == [2] and tail.unreadable == 0


# States


def test_a_run_is_running_as_long_as_its_log_is_open(base):
    log = CaptureLog(base, "run")
    log.start()
    assert log.run.is_running() and find(base, "last").state() == "running"
    log.close()
    assert not log.run.is_running() and find(base, "last").state() == "complete"


def test_a_run_whose_end_nobody_wrote_was_interrupted(base):
    run = captured(base)
    rewritten(run, ended_at=None)
    assert find(base, run.id).state() == "interrupted" and not find(base, run.id).complete
    rewritten(run, ended_at=5.0, problem="the disk was full")
    assert find(base, run.id).state() == "incomplete" and not find(base, run.id).complete


# Pruning


def ids(base):
    return sorted(path.name for path in base.iterdir() if path.is_dir())


def test_runs_that_are_too_old_go(base):
    old = named(base, captured(base), "20250101T000000Z-00aa")
    new = captured(base)
    pruned = prune(base, 10**9, 14, time.time(), dry_run=True)
    assert [name for name, _ in pruned.removed] == [old.id] and ids(base) == [old.id, new.id]
    assert prune(base, 10**9, 14, time.time()) == pruned
    assert ids(base) == [new.id] and pruned.kept_bytes > 4000


def test_the_oldest_go_until_the_rest_is_small_enough(base):
    names = [f"20250101T00000{second}Z-00aa" for second in range(4)]
    for name in names:
        named(base, captured(base), name)
    sizes = dict(prune(base, 0, 10**6, 0, dry_run=True).removed)
    enough = sizes[names[2]] + sizes[names[3]]
    pruned = prune(base, enough, 10**6, time.time())
    assert ids(base) == names[2:] and pruned.kept_bytes == enough


def test_a_run_that_is_running_stays_whatever_its_age_and_size(base):
    log = CaptureLog(base, "run")
    log.start()
    assert prune(base, 0, 0, time.time() + 100 * DAY_S).removed == []
    log.close()
    assert [name for name, _ in prune(base, 0, 0, time.time() + 100 * DAY_S).removed] == [log.run.id]


def test_a_folder_that_is_just_being_made_stays_and_an_old_half_of_one_goes(base):
    half = base / time.strftime("%Y%m%dT%H%M%SZ-00aa", time.gmtime())
    half.mkdir()
    assert prune(base, 0, 0, time.time()).removed == []
    assert [name for name, _ in prune(base, 0, 0, time.time() + 3600).removed] == [half.name]


def test_nothing_that_is_none_of_ours_is_removed(base):
    for name in ("notes", "20250101T000000Z", "20250101T000000Z-00aa-copy", "20259999T000000Z-00aa"):
        (base / name).mkdir()
    elsewhere = base.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (base / "20250101T000000Z-00ab").symlink_to(elsewhere)
    prune(base, 10**9, 0, time.time())
    assert len(ids(base)) == 5 and (elsewhere / "precious").exists()


def test_a_run_that_cannot_be_removed_is_told(base):
    """Something is mounted in it: so it is in the way of root too."""
    run = named(base, captured(base), "20250101T000000Z-00aa")
    story = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from proxy.capture.store import CaptureError, prune
try:
    prune(Path({str(base)!r}), 0, 1, 2e9)
except CaptureError as exc:
    print(exc)
"""
    script = 'mount -t tmpfs tmpfs "$1" && exec "$2" -c "$3"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", f"{run.path}/bodies", sys.executable]
    done = subprocess.run([*words, story], capture_output=True, text=True, check=False)
    assert done.stdout == f"{str(run.path)!r} cannot be removed: Device or resource busy\n", done.stderr
