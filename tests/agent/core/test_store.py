"""Threads on disk: whose they are, and what happens when the disk does not let us."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.rollout import FORMAT, HISTORY, TURN_STARTED, UPDATED
from agent.core.store import Found, Journal, Store, StoreFailed, ThreadArchived, ThreadBusy, ThreadNotStored

ID = "019a0000-0000-7000-8000-000000000001"
META_OF = {"id": ID, "cwd": "/work"}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path):
    """An empty CODEX_HOME."""
    return Store(tmp_path)


@pytest.fixture
def path(store):
    """Where the file of a thread is."""
    return store.path_of(ID, 1_700_000_000)


@pytest.fixture
def journal(path):
    """A thread that is written, and not yet."""
    journal = Journal(path, lambda: META_OF)
    yield journal
    journal.close()


def started(number):
    return {"turn": {"id": f"turn-{number}", "status": "completed"}}


def test_a_file_is_made_with_the_first_line_and_is_for_its_owner_alone(journal, path):
    assert not path.exists()
    journal.write(TURN_STARTED, started(1))
    assert journal.is_on_disk
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_was_written_is_found_and_read(store, journal, path):
    journal.write(TURN_STARTED, started(1))
    found = store.path_to_load(ID)
    thread = store.read(store.find(ID))
    assert (thread.id, found, thread.meta["countersign"]) == (ID, path, FORMAT)
    assert [turn.wire["id"] for turn in thread.turns] == ["turn-1"]
    assert [stored.id for stored, _ in store.look(archived=False)] == [ID]


def test_a_thread_that_is_loaded_elsewhere_cannot_be_written_here(journal, path):
    journal.write(TURN_STARTED, started(1))
    content = path.read_bytes()
    other = Journal(path, lambda: META_OF, exists=True)
    with pytest.raises(ThreadBusy, match="another process"):
        other.lock()
    other.write(TURN_STARTED, started(2))
    assert "another process" in other.problem
    assert path.read_bytes() == content
    journal.close()
    again = Journal(path, lambda: META_OF, exists=True)
    again.lock()
    again.close()


def test_a_process_that_was_killed_holds_no_thread(journal, path):
    journal.write(TURN_STARTED, started(1))
    journal.close()
    code = (
        "import os, sys; from pathlib import Path; from agent.core.store import Journal\n"
        "journal = Journal(Path(sys.argv[1]), dict, exists=True); journal.lock(); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ThreadBusy):
            Journal(path, lambda: META_OF, exists=True).lock()
    finally:
        holder.kill()
        holder.communicate()
    after = Journal(path, lambda: META_OF, exists=True)
    after.lock()
    after.close()


def test_a_torn_line_is_ended_before_the_next(store, journal, path):
    journal.write(TURN_STARTED, started(1))
    journal.close()
    with open(path, "ab") as file:
        file.write(b'{"timestamp":"","type":"turn_st')
    after = Journal(path, lambda: META_OF, exists=True)
    after.write(TURN_STARTED, started(2))
    after.close()
    thread = store.read(store.find(ID))
    assert [turn.wire["id"] for turn in thread.turns] == ["turn-1", "turn-2"]
    assert thread.problems[0] == "line 3 cannot be read, and is left out"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full, which is always full, is Linux's")
def test_on_a_full_disk_the_thread_goes_on_and_says_that_it_is_not_saved(tmp_path):
    full = tmp_path / "rollout-full.jsonl"
    journal = Journal(full, lambda: META_OF)
    journal.write(TURN_STARTED, started(1))
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, journal._file)  # as if the disk had filled up since
    os.close(device)
    journal.write(TURN_STARTED, started(2))
    assert journal.problem == "the thread is not saved any more: rollout-full.jsonl: No space left on device"
    size = full.stat().st_size
    journal.write(TURN_STARTED, started(3))
    journal.close()
    assert full.stat().st_size == size


def test_a_file_whose_first_line_found_no_room_is_not_left_behind(tmp_path):
    """It was found by its name, and refused as empty, for ever."""
    path = tmp_path / "rollout-full.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        journal = Journal(path, lambda: META_OF)
        journal.write(TURN_STARTED, started(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "not saved any more" in journal.problem and not journal.is_on_disk and not path.exists()


def test_where_no_directory_can_be_made_the_thread_goes_on_too(tmp_path):
    (tmp_path / "sessions").write_text("in the way")
    journal = Journal(Store(tmp_path).path_of(ID, 0), lambda: META_OF)
    journal.write(TURN_STARTED, started(1))
    assert "not saved any more" in journal.problem


def test_a_symlink_in_the_place_of_a_file_is_not_followed(journal, path, tmp_path):
    path.parent.mkdir(parents=True)
    (tmp_path / "target").write_text("")
    path.symlink_to(tmp_path / "target")
    journal.write(TURN_STARTED, started(1))
    assert journal.problem is not None
    resumed = Journal(path, lambda: META_OF, exists=True)
    with pytest.raises(OSError, match="symbolic links"):
        resumed.lock()
    assert (tmp_path / "target").read_text() == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage\n",
        b'{"timestamp":"","type":"turn_started","payload":{}}\n',
        b'{"timestamp":"","type":"session_meta","payload":{"id":"x"}}\n',
        b"\xff\xfe\n",
        b"[" * 100_000,
    ],
    ids=["empty", "garbage", "no first line", "another program's", "no text", "deep"],
)
def test_a_file_that_is_no_thread_of_ours_is_refused_and_not_listed(store, path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match="cannot be used"):
        store.read(store.find(ID))
    assert list(store.look(archived=False)) == []


def test_a_file_that_cannot_be_read_is_a_clear_failure(store, path):
    path.parent.mkdir(parents=True)
    path.mkdir()
    with pytest.raises(StoreFailed, match="cannot be read: Is a directory"):
        store.read(Found(path, archived=False))


def test_the_archive_is_found_apart_and_left_again(store, journal, path):
    journal.write(TURN_STARTED, started(1))
    archived = store.move(store.find(ID), archived=True)
    with pytest.raises(ThreadArchived):
        store.path_to_load(ID)
    assert store.find(ID) == Found(archived, archived=True)
    assert list(store.look(archived=False)) == []
    assert store.move(store.find(ID), archived=False) == path
    store.delete(store.find(ID))
    with pytest.raises(ThreadNotStored):
        store.find(ID)
    with pytest.raises(StoreFailed, match="cannot be deleted"):
        store.delete(Found(path, archived=False))
    with pytest.raises(StoreFailed, match="cannot be moved"):
        store.move(Found(path, archived=False), archived=True)


def test_a_long_thread_is_listed_with_what_was_said_of_it_last(store, journal):
    journal.write(TURN_STARTED, started(1))
    for number in range(2000):
        journal.write(HISTORY, {"type": "message", "content": "x" * 300, "number": number})
    journal.write(UPDATED, {"name": "named late"})
    ((thread, _),) = store.look(archived=False)
    assert thread.meta["name"] == "named late"
