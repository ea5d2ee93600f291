"""What was kept of bodies is read back; damaged files are told or left out, and nothing else on the disk is read."""

import json

import pytest

from proxy.capture.bodies.reading import read_events, read_summary, read_text
from proxy.capture.store import CaptureError
from tests.proxy.capture.bodies.test_keeper import (
    ANSWER,
    COMPLETED,
    CREATE,
    EVENTS,
    JSON,
    QUESTION,
    compressed,
    frames,
    socket_run,
)
from tests.proxy.capture.runs import captured, carrying, exchange


@pytest.fixture
def run(tmp_path):
    """A captured model request."""
    question = compressed(json.dumps(QUESTION).encode())
    headers = (*JSON, ("Content-Encoding", "zstd"))
    return carrying(tmp_path / "captures", question, ANSWER, request_headers=headers, response_headers=EVENTS)


def test_a_summary_names_both_bodies(run):
    summary = read_summary(run, 1)
    assert summary.request.media_type == "application/json" and summary.response.size == len(ANSWER)
    assert json.loads(read_text(run, 1, summary.request, 10**6)) == QUESTION
    assert read_text(run, 1, summary.response, 10) == ANSWER[:10]
    assert summary.responses[0]["usage"] == {"total_tokens": 12} and summary.problem is None


def test_events_are_read_with_their_types(run):
    events = list(read_events(run, 1))
    assert [(one.kind, one.from_client, one.is_message) for one in events] == [
        ("response.created", False, False),
        ("response.completed", False, False),
    ]
    assert json.loads(events[0].text)["response"] == {"id": "resp_1"}


def test_messages_are_read_with_the_types_of_their_json(tmp_path):
    run = socket_run(tmp_path / "captures", frames(True, CREATE), frames(False, "words", b"\x00", COMPLETED))
    told = [(one.kind, one.opcode, one.from_client, one.size) for one in read_events(run, 1)]
    assert told == [
        ("response.create", "text", True, len(CREATE)),
        ("text", "text", False, 5),
        ("binary", "binary", False, 1),
        ("response.completed", "text", False, len(COMPLETED)),
    ]
    summary = read_summary(run, 1)
    assert summary.request.file is None and read_text(run, 1, summary.request, 100) is None


def test_of_a_run_without_bodies_nothing_is_there(tmp_path):
    run = captured(tmp_path / "captures", exchange(1))
    assert read_summary(run, 1) is None and list(read_events(run, 1)) == []


def test_damaged_and_torn_lines_are_left_out(run):
    path = run.path / "bodies" / "0001.events.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"garbage\n[]\n{}\n" + b"[" * 100_000 + b"\n" + second[:-5])
    assert [one.kind for one in read_events(run, 1)] == ["response.created"]


@pytest.mark.parametrize("text", ["", "garbage", "[]", "{}", '{"request": 5, "response": null, "responses": []}'])
def test_a_damaged_summary_is_told(run, text):
    (run.path / "bodies" / "0001.summary.json").write_text(text)
    with pytest.raises(CaptureError, match="the summary of 1 in .* is damaged"):
        read_summary(run, 1)


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "0002.request.json", "0001.d/../../run.json"])
def test_a_summary_that_names_another_file_leads_nowhere(run, name):
    path = run.path / "bodies" / "0001.summary.json"
    content = json.loads(path.read_text())
    content["request"]["file"] = name
    path.write_text(json.dumps(content))
    (run.path / "bodies" / "0002.request.json").write_text("another")
    (run.path / "bodies" / "0001.d").mkdir()
    assert read_text(run, 1, read_summary(run, 1).request, 100) is None


def test_a_symlink_is_not_followed(run, tmp_path):
    path = run.path / "bodies" / "0001.request.json"
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(CaptureError, match="cannot be read"):
        read_text(run, 1, read_summary(run, 1).request, 100)
