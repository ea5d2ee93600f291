"""The folder of a run while it is written: private, new, bounded."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest

from proxy.capture.folder import CaptureUnavailable, LimitReached, RunFolder, open_base, redaction_key
from proxy.capture.limits import Limits


@pytest.fixture
def base(tmp_path):
    """A directory of runs that is just made."""
    open_base(tmp_path / "captures")
    return tmp_path / "captures"


def made(base, **limits):
    return RunFolder.create(base, "run", {"countersign": "0"}, True, Limits(**limits), time.time())


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_everything_is_for_the_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        base = tmp_path / "a" / "b" / "captures"
        open_base(base)
        redaction_key(base)
        folder = made(base)
        folder.append_body("0001.request.json", b"{}", fresh=True)
        folder.close()
    finally:
        os.umask(before)
    for path in (base.parent.parent, base.parent, base, *base.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert len(list(base.rglob("*"))) == 6


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_where_others_may_write_nothing_is_captured(tmp_path, bits):
    tmp_path.chmod(bits)
    with pytest.raises(CaptureUnavailable, match=f"others may write there .*{bits:04o}.*chmod 700"):
        open_base(tmp_path)
    tmp_path.chmod(0o755)
    open_base(tmp_path)


def test_a_base_that_cannot_be_made_or_is_no_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptureUnavailable, match="file/captures': Not a directory; name another"):
        open_base(tmp_path / "file" / "captures")
    with pytest.raises(CaptureUnavailable, match="it is no directory"):
        open_base(tmp_path / "file")


def test_the_key_is_made_once(base):
    assert redaction_key(base) == redaction_key(base) and len(redaction_key(base)) == 32
    assert [path.name for path in base.iterdir()] == ["key"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key.chmod(0o640),
        lambda key: key.write_bytes(b"short"),
        lambda key: (key.unlink(), key.mkdir()),
    ],
    ids=["open", "short", "directory"],
)
def test_a_key_that_others_may_know_is_not_used(base, spoil):
    redaction_key(base)
    spoil(base / "key")
    with pytest.raises(CaptureUnavailable, match="key"):
        redaction_key(base)


def test_a_key_behind_a_symlink_is_not_read(base, tmp_path):
    (tmp_path / "other").write_bytes(bytes(32))
    (tmp_path / "other").chmod(0o600)
    (base / "key").symlink_to(tmp_path / "other")
    with pytest.raises(CaptureUnavailable, match="key"):
        redaction_key(base)


def test_no_file_that_is_there_is_written_to_and_no_symlink_is_followed(base, tmp_path):
    folder = made(base)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (folder.path / "bodies" / "0001.request.json").symlink_to(victim)
    (folder.path / "bodies" / "0002.request.json").write_text("untouched")
    for name, fresh in (("0001.request.json", True), ("0002.request.json", True), ("0001.request.json", False)):
        with pytest.raises(OSError):
            folder.append_body(name, b"x", fresh=fresh)
    folder.close()
    assert victim.read_text() == (folder.path / "bodies" / "0002.request.json").read_text() == "untouched"


def test_a_folder_that_was_moved_away_is_written_to_where_it_is(base, tmp_path):
    """By its descriptor: whoever puts another directory in its place gets nothing."""
    folder = made(base)
    folder.path.rename(tmp_path / "moved")
    (base / folder.id / "bodies").mkdir(parents=True)
    folder.append_body("0001.request.json", b"x", fresh=True)
    folder.close()
    assert (tmp_path / "moved" / "bodies" / "0001.request.json").read_bytes() == b"x"
    assert list((base / folder.id / "bodies").iterdir()) == []


def test_what_is_known_at_the_end_has_room_in_the_description_from_the_start(base):
    folder = made(base)
    path = folder.path / "run.json"
    before = path.stat().st_size
    folder.describe({"ended_at": 1.0, "problem": "x" * 10_000})
    folder.close()
    content = json.loads(path.read_text())
    assert path.stat().st_size == before == 4096 and content["problem"] == "x" * 500 and content["ended_at"] == 1.0


def test_lines_beyond_the_limit_are_not_written_and_those_before_are_whole(base):
    folder = made(base, run_bytes=100)
    with pytest.raises(LimitReached):
        folder.append([b"a" * 49 + b"\n", b"b" * 49 + b"\n", b"c\n"])
    with pytest.raises(LimitReached):
        folder.append([b"d\n"])
    folder.close()
    assert (folder.path / "exchanges.jsonl").read_bytes() == b"a" * 49 + b"\n" + b"b" * 49 + b"\n"
    assert folder.lines == 2


def test_bodies_leave_room_for_lines(base):
    folder = made(base, run_bytes=800)
    assert not folder.append_body("0001.request.json", b"x" * 701, fresh=True)
    assert folder.append_body("0001.request.json", b"x" * 700, fresh=True)
    folder.append([b"y" * 100])
    folder.close()


def test_a_folder_that_cannot_be_completed_is_taken_away(base):
    """Each start on a full disk left a folder that nobody could read."""
    script = f"""
import resource, sys
from pathlib import Path
sys.path[:] = {sys.path!r}
from proxy.capture.folder import CaptureUnavailable, RunFolder
from proxy.capture.limits import Limits

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    RunFolder.create(Path({str(base)!r}), "run", {{}}, False, Limits(), 0.0)
except CaptureUnavailable as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "No space left on device; name another directory" in done.stdout
    assert list(base.iterdir()) == []
