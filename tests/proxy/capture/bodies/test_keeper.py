"""What is kept of bodies, as files: readable, without secrets, bounded; and what happens to the odd ones."""

import gzip
import hashlib
import json

import pytest
import zstandard
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from proxy.capture.bodies.keeper import BodyKeeper
from proxy.capture.exchange import Transport
from proxy.capture.folder import RunFolder
from proxy.capture.limits import Limits
from proxy.capture.observation import Piece
from proxy.capture.redact import Redactor
from proxy.capture.store import find, read_exchanges
from tests.proxy.capture.runs import body_files, captured, carrying, exchange, phases, split

MIB = 1024 * 1024
JSON = (("Content-Type", "application/json"),)
EVENTS = (("Content-Type", "text/event-stream; charset=utf-8"),)
QUESTION = {"model": "gpt-5.5", "previous_response_id": "resp_0", "input": ["some words"]}
ANSWER = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'
    b'event: response.completed\n'
    b'data: {"type":"response.completed","response":{"id":"resp_1","usage":{"total_tokens":12}}}\n\n'
)  # fmt: skip


def compressed(data):
    return zstandard.ZstdCompressor().compress(data)


def in_a_wide_window(data):
    """Beyond the 8 MiB that a decoder has to keep."""
    wide = zstandard.ZstdCompressionParameters(window_log=27)
    made = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    return made.compress(data) + made.flush()


def summary(run, number=1):
    return json.loads(body_files(run)[f"{number:04d}.summary.json"])


@pytest.mark.parametrize("pieces", [1, 7, 40])
def test_a_model_request_over_http_becomes_text_events_and_a_summary(tmp_path, pieces):
    question = json.dumps(QUESTION).encode()
    run = carrying(
        tmp_path / "captures", compressed(question), ANSWER, pieces=pieces,
        request_headers=(*JSON, ("Content-Encoding", "zstd")), response_headers=EVENTS,
    )  # fmt: skip
    files = body_files(run)
    assert sorted(files) == ["0001.events.jsonl", "0001.request.json", "0001.response.txt", "0001.summary.json"]
    assert files["0001.request.json"] == question and files["0001.response.txt"] == ANSWER
    events = [json.loads(line) for line in files["0001.events.jsonl"].splitlines()]
    assert [event["type"] for event in events] == ["response.created", "response.completed"]
    assert events[0]["data"] == {"type": "response.created", "response": {"id": "resp_1"}} and events[0]["t"] >= 0
    told = summary(run)
    assert told["request"]["sha256"] == hashlib.sha256(compressed(question)).hexdigest()
    assert told["response"]["sha256"] == hashlib.sha256(ANSWER).hexdigest()
    assert (told["request"]["bytes"], told["response"]["bytes"]) == (len(compressed(question)), len(ANSWER))
    assert told["request"]["problem"] is None and told["response"]["problem"] is None
    assert told["responses"] == [
        {
            "model": "gpt-5.5",
            "response_id": "resp_1",
            "previous_response_id": "resp_0",
            "status": "completed",
            "usage": {"total_tokens": 12},
        }
    ]


def frames(is_client, *texts, deflate=False):
    extensions = []
    if deflate:
        extensions = [PerMessageDeflate()]
        extensions[0].finalize("permessage-deflate")
    sender = FrameProtocol(is_client, extensions)
    return bytes(b"".join(sender.send_data(text) for text in texts))


CREATE = json.dumps({"type": "response.create", **QUESTION})
COMPLETED = '{"type":"response.completed","response":{"id":"resp_1","usage":{"total_tokens":12}}}'
SOCKET = {"transport": Transport.WEBSOCKET, "status": 101}
AGREED = (("Sec-WebSocket-Extensions", "permessage-deflate"),)


def socket_run(base, from_client, from_server, pieces=1, **facts):
    decided, answered, ended = phases(1, **SOCKET | facts)
    asked, told = split(1, True, from_client, pieces), split(1, False, from_server, pieces)
    return captured(base, decided, answered, *asked, *told, ended, bodies=True)


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("deflate", [False, True])
def test_a_websocket_becomes_messages_and_a_summary(tmp_path, deflate, pieces):
    asked, told = (
        frames(True, CREATE, deflate=deflate),
        frames(False, '{"é":1}', b"\x00\x01", COMPLETED, deflate=deflate),
    )
    run = socket_run(tmp_path / "captures", asked, told, pieces, response_headers=AGREED if deflate else ())
    files = body_files(run)
    assert sorted(files) == ["0001.frames.jsonl", "0001.summary.json"]
    messages = [json.loads(line) for line in files["0001.frames.jsonl"].splitlines()]
    assert [(one["from"], one["opcode"], one["bytes"], one.get("text")) for one in messages] == [
        ("client", "text", len(CREATE), CREATE),
        ("server", "text", 8, '{"é":1}'),
        ("server", "binary", 2, None),
        ("server", "text", len(COMPLETED), COMPLETED),
    ]
    content = summary(run)
    assert content["request"]["sha256"] == hashlib.sha256(asked).hexdigest()
    assert (content["request"]["messages"], content["response"]["messages"]) == (1, 3)
    assert content["responses"][0]["usage"] == {"total_tokens": 12}
    assert content["responses"][0]["previous_response_id"] == "resp_0"


def test_what_an_upgrade_that_was_refused_carries_is_a_body(tmp_path):
    run = carrying(tmp_path / "captures", b"", b"no", status=426, transport=Transport.WEBSOCKET, request_headers=())
    assert body_files(run)["0001.response.bin"] == b"no"


def test_an_exchange_that_carries_nothing_leaves_nothing(tmp_path):
    assert body_files(carrying(tmp_path / "captures")) == {}


@pytest.mark.parametrize(
    ("media_type", "suffix"),
    [
        ("application/json; charset=utf-8", "json"),
        ("application/problem+json", "json"),
        ("text/html", "txt"),
        ("application/sdp", "txt"),
        ("application/x-www-form-urlencoded", "txt"),
        ("image/png", "bin"),
        ("", "bin"),
        ("../../evil", "bin"),
    ],
)
def test_the_name_of_a_file_says_what_is_in_it(tmp_path, media_type, suffix):
    run = carrying(tmp_path / "captures", b"body", request_headers=(("content-type", media_type),))
    assert f"0001.request.{suffix}" in body_files(run)


# Secrets

CANARIES = {
    "json": (JSON, json.dumps({"access_token": "canary", "x": 1}).encode()),
    "form": ((("Content-Type", "application/x-www-form-urlencoded"),), b"a=b&refresh_token=canary"),
    "binary": ((), b'\x00\xff{"id_token":"canary"}\xfe'),
    "events": (EVENTS, b'data: {"type":"x","client_secret":"canary"}\n\n'),
}


@pytest.mark.parametrize("coding", [None, "gzip", "zstd"])
@pytest.mark.parametrize(("headers", "body"), CANARIES.values(), ids=CANARIES)
def test_no_secret_of_a_body_is_in_any_file(tmp_path, headers, body, coding):
    sent = {None: body, "gzip": gzip.compress(body), "zstd": compressed(body)}[coding]
    headers = (*headers, ("Content-Encoding", coding)) if coding else headers
    run = carrying(tmp_path / "captures", sent, sent, request_headers=headers, response_headers=headers)
    files = body_files(run)
    assert not any(b"canary" in content for content in files.values())
    assert summary(run)["request"]["secrets"] == summary(run)["response"]["secrets"] == 1
    assert b"[redacted 6 bytes" in files[summary(run)["response"]["file"]]


def test_no_secret_of_a_message_is_in_any_file(tmp_path):
    metadata = {"x-oai-attestation": '{"v":1,"s":0,"t":"canary"}', "authorization": "Bearer canary"}
    text = json.dumps({"type": "response.create", "model": "m", "client_metadata": metadata})
    run = socket_run(tmp_path / "captures", frames(True, text), frames(False, '{"refresh_token":"canary"}'))
    assert not any(b"canary" in content for content in body_files(run).values())
    assert summary(run)["request"]["secrets"] == 2 and summary(run)["response"]["secrets"] == 1


def test_a_body_without_a_known_secret_is_kept_as_it_is(tmp_path):
    """The control of those above: the same word under another name."""
    body = json.dumps({"note": "canary"}).encode()
    assert b"canary" in body_files(carrying(tmp_path / "captures", body, request_headers=JSON))["0001.request.json"]


@pytest.mark.parametrize(
    "encoding",
    {
        "unknown": ("lzma", bytes),
        "broken": ("gzip", lambda text: gzip.compress(text)[:-8]),
        "too wide": ("zstd", in_a_wide_window),
        "too deep": (
            "gzip, gzip, gzip, gzip",
            lambda text: gzip.compress(gzip.compress(gzip.compress(gzip.compress(text)))),
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_of_a_body_that_cannot_be_decoded_nothing_is_kept_as_it_travelled(tmp_path, encoding):
    """It was, and whoever could decode it found the secrets in it."""
    _, (coding, encoded) = encoding
    sent = encoded(json.dumps({"access_token": "canary"}).encode())
    run = carrying(tmp_path / "captures", sent, request_headers=(*JSON, ("Content-Encoding", coding)), pieces=3)
    files, told = body_files(run), summary(run)["request"]
    assert told["problem"] and told["sha256"] == hashlib.sha256(sent).hexdigest()
    assert not any(b"canary" in content or sent in content for content in files.values())


def test_encodings_that_are_named_in_two_headers_are_undone_both(tmp_path):
    """Only the last one was, and the other stayed on top of the secrets."""
    sent = gzip.compress(b'{"access_token":"canary"}')
    twice = (*JSON, ("Content-Encoding", "gzip"), ("content-encoding", "identity"))
    run = carrying(tmp_path / "captures", sent, request_headers=twice)
    assert body_files(run)["0001.request.json"].startswith(b'{"access_token":"[redacted 6 bytes #')


# Too much, and broken


def test_a_long_body_is_cut_and_counted_and_hashed_to_its_end(tmp_path):
    body = b"0123456789" * 100_000
    run = carrying(tmp_path / "captures", b"", body, pieces=20, limits=Limits(body_bytes=1000))
    told = summary(run)["response"]
    assert body_files(run)["0001.response.bin"] == body[:1000]
    assert (told["bytes"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert told["problem"] == "only its first 1000 bytes are kept"


def test_half_a_secret_at_the_limit_is_not_kept(tmp_path):
    body = b"x" * 900 + b'"access_token":"' + b"canary" * 1000 + b'"'
    run = carrying(tmp_path / "captures", body, pieces=50, limits=Limits(body_bytes=950))
    assert not any(b"canary" in content for content in body_files(run).values())


@pytest.mark.parametrize(
    ("coding", "bomb"), [("zstd", compressed(bytes(32 * MIB))), ("gzip", gzip.compress(bytes(32 * MIB)))]
)
def test_a_bomb_costs_its_inspection_and_nothing_else(tmp_path, coding, bomb):
    decided, answered, ended = phases(1, request_headers=(("Content-Encoding", coding),))
    ordinary = phases(2, request_headers=JSON)
    run = captured(
        tmp_path / "captures", decided, Piece(1, True, bomb), answered, ended,
        ordinary[0], Piece(2, True, b"{}"), *ordinary[1:], bodies=True,
    )  # fmt: skip
    told = summary(run)["request"]
    assert "as bombs do" in told["problem"] and told["sha256"] == hashlib.sha256(bomb).hexdigest()
    assert told["kept_bytes"] <= 16 * MIB and body_files(run)["0002.request.json"] == b"{}"
    assert run.complete and len(read_exchanges(run)) == 2


def test_a_run_that_is_full_keeps_no_more_bodies_and_all_exchanges(tmp_path):
    told = []
    for number in range(1, 11):
        decided, answered, ended = phases(number)
        told += [decided, Piece(number, True, b"x" * 5000), answered, ended]
    run = captured(tmp_path / "captures", *told, bodies=True, limits=Limits(run_bytes=40_000))
    kept = [content for name, content in body_files(run).items() if name.endswith(".bin")]
    assert 0 < len(kept) < 10 and all(content == b"x" * 5000 for content in kept)
    assert len(read_exchanges(run)) == 10 and run.complete


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (b"\x83\x80garbage", "no sequence of WebSocket frames"),
        (frames(True, "words")[:-2], "ends in the middle of a message"),
        (b"\xc1\x84\0\0\0\0\xff\xff\xff\xff", "cannot be inflated"),
    ],
    ids=["opcode", "cut", "not deflate"],
)
def test_a_broken_socket_keeps_the_other_direction_and_what_was_before(tmp_path, asked, reason):
    before = frames(True, "before", deflate=True)
    run = socket_run(
        tmp_path / "captures", before + asked, frames(False, "answer", deflate=True), response_headers=AGREED
    )
    lines = [json.loads(line) for line in body_files(run)["0001.frames.jsonl"].splitlines()]
    assert [one["text"] for one in lines] == ["before", "answer"]
    told = summary(run)
    assert reason in told["request"]["problem"] and told["response"]["problem"] is None
    assert told["request"]["sha256"] == hashlib.sha256(before + asked).hexdigest()


def test_a_socket_with_an_unknown_extension_is_counted_and_hashed(tmp_path):
    run = socket_run(tmp_path / "captures", b"abc", b"defg", response_headers=(("Sec-WebSocket-Extensions", "x-own"),))
    told = summary(run)
    assert (told["request"]["bytes"], told["response"]["bytes"]) == (3, 4)
    assert (
        told["request"]["problem"]
        == told["response"]["problem"]
        == "its frames use an extension that is not known here"
    )


def test_a_long_socket_is_cut_at_a_message(tmp_path):
    decided, answered, ended = phases(1, **SOCKET)
    data = frames(True, *("x" * 100 for _ in range(1000)))
    run = captured(
        tmp_path / "captures", decided, answered, *split(1, True, data, 9), ended,
        bodies=True, limits=Limits(socket_bytes=5000),
    )  # fmt: skip
    content = body_files(run)["0001.frames.jsonl"]
    assert 4000 < len(content) <= 5000 and all(json.loads(line)["text"] == "x" * 100 for line in content.splitlines())
    assert summary(run)["request"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_events_that_are_no_json_or_too_large_are_told_as_what_they_are(tmp_path):
    large = b'{"type":"response.output_item.done","text":"' + b"x" * 600_000 + b'"}'
    stream = b"data: [DONE]\n\ndata: \xff\n\n" + b"data: " + large + b'\n\ndata: {"a":\ndata: 1}\n\n'
    run = carrying(tmp_path / "captures", b"", stream, response_headers=EVENTS)
    events = [json.loads(line) for line in body_files(run)["0001.events.jsonl"].splitlines()]
    assert [{name: one[name] for name in one if name != "t"} for one in events] == [
        {"type": None, "text": "[DONE]"},
        {"type": None, "text": "\ufffd"},
        {"type": "response.output_item.done", "bytes": len(large)},
        {"type": None, "data": {"a": 1}},
    ]


def test_an_exchange_that_is_under_way_when_the_run_ends_is_kept_so_far(tmp_path):
    decided, answered, _ = phases(1, response_headers=EVENTS)
    run = captured(tmp_path / "captures", decided, answered, Piece(1, False, ANSWER[:90]), bodies=True)
    assert body_files(run)["0001.response.txt"] == ANSWER[:90]
    assert summary(run)["problem"] == "the run ended before it did"


def test_pieces_of_what_nobody_began_or_what_is_over_are_passed_over(tmp_path):
    run = captured(tmp_path / "captures", Piece(9, True, b"x"), exchange(1), Piece(1, True, b"x"), bodies=True)
    assert body_files(run) == {} and find(tmp_path / "captures", "last").complete


def test_a_bug_in_the_looking_costs_one_body(tmp_path, caplog):
    """Whatever a peer may find: the other bodies are still kept, and the log does not quote it."""
    folder = RunFolder.create(tmp_path, "run", {}, True, Limits(), 0.0)
    keeper = BodyKeeper(folder, Redactor(bytes(32)), Limits(), lambda: None)
    for number in (1, 2):
        keeper.changed(phases(number)[0])
    keeper.piece(1, True, 0.0, "canary")  # type: ignore[arg-type]
    keeper.piece(2, True, 0.0, b"words")
    for number in (1, 2):
        keeper.changed(exchange(number))
    folder.close()
    assert sorted(path.name for path in (folder.path / "bodies").iterdir()) == ["0002.request.bin", "0002.summary.json"]
    assert "capture of a body failed number=1 error=TypeError" in caplog.text and "canary" not in caplog.text
