"""`countersign capture`: what it prints, with which code it ends, and what it does not let through."""

import json
import os
import shlex
import signal
import stat
import subprocess
from pathlib import Path

import jsonschema
import pytest

from agent.cli import main
from proxy.capture.exchange import Stamp, Transport
from proxy.capture.log import CaptureLog
from proxy.capture.store import runs
from tests.processes import COUNTERSIGN
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
from tests.proxy.capture.runs import FOR_EVER, captured, carrying, exchange, phases
from tests.proxy.capture.test_har import SCHEMA

HEADERS = {
    "request_headers": (*JSON, ("Content-Encoding", "zstd"), ("User-Agent", "codex/0.163")),
    "response_headers": EVENTS,
}


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Where the runs lie, as the environment says."""
    monkeypatch.setenv("COUNTERSIGN_CAPTURES", str(tmp_path / "captures"))
    return tmp_path / "captures"


def capture(*words):
    """The exit code."""
    return main(["capture", *words])


def model_request(base, **facts):
    return carrying(base, compressed(json.dumps(QUESTION).encode()), ANSWER, **HEADERS | facts)


# Usage


@pytest.mark.parametrize("words", [("list",), ("show", "last"), ("har", "last"), ("follow",)])
def test_an_output_that_cannot_be_written_is_told_in_one_line(base, words):
    """It was a traceback."""
    captured(base, *phases())
    with open("/dev/full", "w") as full:
        done = subprocess.run([COUNTERSIGN, "capture", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == f"countersign capture {words[0]}: cannot go on: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "name what to do, list, show, follow, har, diff or prune; found none"),
        (["bogus"], "found 'bogus'"),
        (["list", "--captures", "/no/such"], "--captures '/no/such' is no directory"),
    ],
)
def test_a_call_that_cannot_be_understood_ends_with_2(base, capsys, words, text):
    assert capture(*words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["show", "last", "first"],
        ["prune", "--keep-days", "-1"],
        ["prune", "--keep-size", "1X"],
        ["diff", "last"],
        ["follow", "--wait", "2026"],
    ],
)
def test_a_bad_argument_ends_with_2(base, words):
    with pytest.raises(SystemExit) as ended:
        capture(*words)
    assert ended.value.code == 2


def test_an_override_has_no_effect_and_is_refused(base, capsys):
    assert main(["-c", "a=secret", "capture", "list"]) == 2
    assert "capture reads no config" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["show", "last"], ["follow"], ["har", "last"], ["diff", "last", "last"]])
def test_where_nothing_is_captured_it_is_told_and_the_code_is_1(base, capsys, words):
    assert capture(*words) == 1
    assert f"countersign capture {words[0]}: no run is captured in {str(base)!r}" in capsys.readouterr().err


def test_runs_lie_in_the_home_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "home"))
    run = captured(tmp_path / "home" / "countersign" / "captures")
    other = captured(tmp_path / "other")
    assert capture("list") == 0
    assert run.id in capsys.readouterr().out
    assert capture("list", "--captures", str(tmp_path / "other")) == 0
    assert other.id in capsys.readouterr().out


def test_a_home_that_is_not_there_is_told(monkeypatch, capsys):
    monkeypatch.setenv("CODEX_HOME", "/no/such")
    assert capture("list") == 2
    assert "CODEX_HOME is '/no/such'" in capsys.readouterr().err


# list and show


def test_list_tells_each_run_and_what_was_left_out(base, capsys):
    run = captured(base, exchange(1), name="verify", command=["/bin/codex"])
    (base / "20250101T000000Z-00aa").mkdir()
    assert capture("list") == 0
    told = capsys.readouterr()
    assert run.id in told.out and "complete" in told.out and "verify codex" in told.out
    assert "left out 20250101T000000Z-00aa: 20250101T000000Z-00aa is no captured run" in told.err
    assert capture("list", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in content["runs"]] == [run.id] and content["runs"][0]["bytes"] > 4096
    assert content["skipped"][0]["name"] == "20250101T000000Z-00aa"


def test_show_tells_a_run_with_its_exchanges(base, capsys):
    run = captured(base, exchange(1, waited_s=0.05), exchange(2, route=None, path="/other", stamp=Stamp.NOT_SCOPED))
    assert capture("show", run.id) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run       {run.id} (complete)"
    assert any("responses" in line and "stamped ok" in line and "50.0 ms" in line for line in lines)
    assert any("chatgpt.com/other" in line for line in lines)
    assert capture("show", run.id, "--json") == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)["all_exchanges"]] == [1, 2]


def test_show_tells_one_exchange_with_headers_times_events_and_usage(base, capsys):
    run = model_request(base, waited_s=0.05)
    assert capture("show", "last", "1") == 0
    told = capsys.readouterr().out
    for text in (
        "what        POST https://chatgpt.com:443/backend-api/codex/responses",
        "token       50.0 ms",
        "  User-Agent: codex/0.163",
        "in bodies/0001.request.json",
        "resp_1 (gpt-5.5), after resp_0, completed, total_tokens 12",
        "response.completed  ",
    ):
        assert text in told
    assert capture("show", run.id, "1", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [event["kind"] for event in content["events"]] == ["response.created", "response.completed"]


def test_show_tells_messages_and_says_how_many_are_left_out(base, capsys):
    socket_run(base, frames(True, *[CREATE] * 50), frames(False, COMPLETED + "x" * 500))
    assert capture("show", "last", "1") == 0
    told = capsys.readouterr().out
    assert told.count("→ response.create") == 40 and "… and 11 more; --all shows them" in told
    assert capture("show", "last", "1", "--all") == 0
    told = capsys.readouterr().out
    assert told.count("→ response.create") == 50 and "x" * 500 in told and "more; --all" not in told


def test_show_without_bodies_says_how_to_get_them(base, capsys):
    captured(base, exchange(1))
    assert capture("show", "last", "1") == 0
    assert "Bodies were not captured; run it with --bodies" in capsys.readouterr().out


def test_an_exchange_that_is_not_there_is_told_with_those_that_are(base, capsys):
    captured(base, exchange(1), exchange(2))
    assert capture("show", "last", "3") == 1
    assert "there are 1 to 2" in capsys.readouterr().err


def test_a_damaged_run_is_shown_with_what_is_wrong(base, capsys):
    run = captured(base, exchange(1), exchange(2))
    path = run.path / "exchanges.jsonl"
    os.truncate(path, path.stat().st_size - 5)
    assert capture("show", "last") == 0
    assert "problem   1 damaged lines were left out" in capsys.readouterr().out


def test_nothing_that_was_captured_steers_the_terminal(base, capsys):
    hostile = "\x1b]0;title\x07\x1b[31m\r\u202e\x9b2J"
    facts = {"host": "h" + hostile, "path": "/" + hostile, "error": hostile, "route": None, "method": hostile}
    captured(
        base, exchange(1, request_headers=((hostile, hostile),), response_headers=(("a", hostile),), **facts),
        name="run", command=[hostile],
    )  # fmt: skip
    for words in (["list"], ["show", "last"], ["show", "last", "1"], ["follow"], ["diff", "last", "last"]):
        assert capture(*words) == 0
        told = capsys.readouterr()
        for text in (told.out, told.err):
            assert all(char.isprintable() or char == "\n" for char in text), words
    assert capture("show", "last", "1", "--json") == 0
    assert capsys.readouterr().out.isascii()


def test_what_is_in_events_does_not_steer_it_either(base, capsys):
    carrying(base, b"", b'data: {"type":"\\u001b[31m","a":"\x1b[31m"}\n\n', **HEADERS)
    assert capture("show", "last", "1", "--all") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_failure(base):
    captured(base, *(exchange(number) for number in range(1, 3000)))
    with subprocess.Popen(
        [COUNTERSIGN, "capture", "follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0 and process.stderr.read() == ""


# follow


def test_follow_prints_a_run_that_is_over_and_ends(base, capsys):
    captured(base, exchange(1, waited_s=0.05), exchange(2, status=None, error="gone"))
    assert capture("follow") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "#1  post  POST  responses  200 in 500.0 ms" in first and "[stamped ok (50.0 ms)]" in first
    assert "failed in 500.0 ms" in second and second.endswith("error: gone")


def test_follow_waits_for_a_run_prints_it_as_it_goes_on_and_ends_with_it(base):
    captured(base, exchange(9))
    command = [COUNTERSIGN, "capture", "follow", "--wait", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == f"countersign capture follow: waiting for a run in {str(base)!r}\n"
        log = CaptureLog(base, "run", retention=FOR_EVER)
        log.start()
        for one in phases(1, transport=Transport.WEBSOCKET, status=101):
            log.changed(one)
            line = json.loads(process.stdout.readline())
            assert (line["number"], line["phase"]) == (1, str(one.phase))
        log.close()
        assert process.wait(20) == 0 and process.stdout.read() == ""


def test_follow_ends_when_it_is_told_to(base):
    log = CaptureLog(base, "run")
    log.start()
    log.changed(exchange(1))
    with subprocess.Popen(
        [COUNTERSIGN, "capture", "follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "#1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0 and process.stderr.read() == ""
    log.close()


def test_follow_says_at_the_end_what_is_missing(base, capsys):
    run = captured(base, exchange(1))
    with (run.path / "exchanges.jsonl").open("ab") as file:
        file.write(b"torn")
    assert capture("follow") == 0
    assert "1 damaged lines were left out" in capsys.readouterr().err


# har


def test_har_is_valid_and_for_the_owner_alone(base, tmp_path, capsys):
    model_request(base)
    path = tmp_path / "out.har"
    path.write_text("before")
    path.chmod(0o644)
    assert capture("har", "last", "--bodies", "-o", str(path)) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_text())
    SCHEMA.validate(content)
    (one,) = content["log"]["entries"]
    assert json.loads(one["request"]["postData"]["text"]) == QUESTION
    assert one["response"]["content"]["text"] == ANSWER.decode()
    assert "wrote 1 entries" in capsys.readouterr().err


def test_har_goes_to_stdout_without_bodies_unless_they_are_wanted(base, capsys):
    model_request(base)
    assert capture("har", "last") == 0
    content = json.loads(capsys.readouterr().out)
    SCHEMA.validate(content)
    assert "postData" not in content["log"]["entries"][0]["request"]


def test_har_has_the_messages_of_a_websocket(base, capsys):
    run = socket_run(base, frames(True, CREATE), frames(False, b"\x00\x01", COMPLETED))
    assert capture("har", run.id, "--bodies") == 0
    content = json.loads(capsys.readouterr().out)
    SCHEMA.validate(content)
    messages = content["log"]["entries"][0]["_webSocketMessages"]
    assert [(one["type"], one["opcode"], one["data"]) for one in messages] == [
        ("send", 1, CREATE),
        ("receive", 2, ""),
        ("receive", 1, COMPLETED),
    ]
    assert messages[0]["time"] > 1_700_000_000


def test_har_with_bodies_of_a_run_without_any_is_refused(base, capsys):
    run = captured(base, exchange(1))
    assert capture("har", "last", "--bodies") == 1
    told = capsys.readouterr()
    assert told.out == "" and f"{run.id} was captured without bodies" in told.err
    assert "leave --bodies out, or capture again with --bodies" in told.err


def test_har_that_cannot_be_written_is_told(base, capsys):
    captured(base, exchange(1))
    assert capture("har", "last", "-o", "/no/such/file") == 1
    assert "cannot write '/no/such/file': No such file or directory; name another file" in capsys.readouterr().err


def test_the_schema_is_what_was_meant(base, capsys):
    """The control: without its head no export is valid."""
    captured(base, exchange(1))
    capture("har", "last")
    content = json.loads(capsys.readouterr().out)
    del content["log"]["creator"]
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(content)


# diff and prune


def test_diff_says_what_changed(base, capsys):
    before = captured(base, exchange(1, request_headers=(("User-Agent", "codex/0.163"), ("Old", "x"))))
    after = captured(base, exchange(1, request_headers=(("User-Agent", "codex/0.169"),)))
    assert capture("diff", before.id, after.id) == 0
    told = capsys.readouterr().out
    assert "  request header user-agent: changed\n    - codex/0.163\n    + codex/0.169\n" in told
    assert "  request header old: removed\n    - x\n" in told and told.rstrip().endswith("They differ.")
    assert capture("diff", before.id, after.id, "--check") == 1
    assert capture("diff", before.id, before.id, "--check") == 0
    capsys.readouterr()
    assert capture("diff", before.id, after.id, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["before"]["id"] == before.id and content["differs"] is True


def test_prune_removes_what_is_too_much_and_only_says_so_on_a_dry_run(base, capsys):
    captured(base)
    captured(base)
    assert capture("prune", "--keep-size", "5K", "--dry-run") == 0
    assert "would remove 1 runs" in capsys.readouterr().out and len(runs(base)) == 2
    assert capture("prune", "--keep-size", "5K") == 0
    assert "removed 1 runs; 4" in capsys.readouterr().out and len(runs(base)) == 1
    assert capture("prune", "--keep-days", "0") == 0
    assert runs(base) == []


def test_every_command_of_the_page_about_captures_works(base, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[3] / "docs" / "capture.md"
    commands = [line for line in page.read_text().splitlines() if line.startswith("countersign capture ")]
    decided, answered, ended = phases(3, **HEADERS)

    def there_are_two_runs():
        for name in ("20261101T090000Z-00aa", "20261122T101112Z-3fa9"):
            if not (base / name).exists():
                captured(base, decided, answered, ended, bodies=True).path.rename(base / name)

    monkeypatch.chdir(tmp_path)
    assert len(commands) == 8
    for command in commands:
        there_are_two_runs()
        assert main(shlex.split(command, comments=True)[1:]) == 0, command
    assert (tmp_path / "run.har").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500", 500), ("5k", 5120), ("2M", 2 << 20), ("1GiB", 1 << 30), ("3 TB", 3 << 40)]
)
def test_sizes_may_have_units(text, size):
    from agent.commands.capture import _size

    assert _size(text) == size
