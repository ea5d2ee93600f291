"""A captured run of the real proxy: what is kept is what went by, and what goes by is what was sent."""

import hashlib
import json
import time

import pytest
import zstandard
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from proxy.capture.exchange import Phase, Transport
from proxy.capture.har import har_text
from proxy.capture.limits import Limits
from proxy.capture.log import CaptureLog
from proxy.capture.observation import Observation
from proxy.capture.store import find, read_exchanges
from tests.loops import on_each_loop
from tests.proxy.capture.bodies.test_keeper import ANSWER, COMPLETED, CREATE, QUESTION
from tests.proxy.capture.runs import body_files
from tests.proxy.origin import Origin, answering, echoing, switching_protocols
from tests.proxy.wire import RESPONSES, post, tunnel, upgrade

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\nSet-Cookie: canary-cookie\r\n\r\n"
ZSTD = ["Content-Encoding: zstd", "Content-Type: application/json"]


@pytest.fixture
def log(tmp_path):
    """A log with bodies, that is closed whatever happens."""
    made = CaptureLog(tmp_path / "captures", "run", bodies=True)
    made.start()
    yield made
    made.close()


def watching(log):
    return Observation(log.redactor, (log.changed,), (log.piece,))


def summary(log, number=1):
    return json.loads(body_files(log.run)[f"{number:04d}.summary.json"])


@on_each_loop
def test_a_model_request_arrives_as_it_was_sent_and_is_kept_as_it_arrived(run, stage, log):
    question = zstandard.ZstdCompressor().compress(json.dumps(QUESTION).encode())

    async def scenario():
        origin = Origin(answering(HEAD % len(ANSWER) + ANSWER))
        async with stage(origin, observation=watching(log)) as it, tunnel(it.proxy) as wire:
            answer = await wire.exchange(post(body=question, headers=ZSTD))
            assert answer.body == ANSWER and it.origin.only_request.body == question

    run(scenario())
    log.close()
    files = body_files(log.run)
    assert json.loads(files["0001.request.json"]) == QUESTION and files["0001.response.txt"] == ANSWER
    told = summary(log)
    assert told["request"]["sha256"] == hashlib.sha256(question).hexdigest()
    assert told["response"]["sha256"] == hashlib.sha256(ANSWER).hexdigest()
    assert told["responses"][0]["usage"] == {"total_tokens": 12}
    (exchange,) = read_exchanges(log.run)
    assert exchange.attested and exchange.request_bytes == len(question) and exchange.phase is Phase.ENDED


def deflated(is_client, *texts):
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    sender = FrameProtocol(is_client, [extension])
    return bytes(b"".join(sender.send_data(text) for text in texts))


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
def test_a_websocket_arrives_as_it_was_sent_and_its_messages_are_kept(run, stage, log, deflate):
    plain = FrameProtocol(client=True, extensions=[])
    asked = deflated(True, CREATE, CREATE) if deflate else bytes(plain.send_data(CREATE) + plain.send_data(CREATE))
    plain = FrameProtocol(client=False, extensions=[])
    told = deflated(False, COMPLETED, COMPLETED) if deflate else bytes(plain.send_data(COMPLETED) * 2)
    extensions = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else b""

    async def answer(visit):
        accepted = switching_protocols(await visit.head())
        await visit.write(accepted[:-2] + extensions + b"\r\n")
        received = b""
        while len(received) < len(asked):
            received += await visit.frames()
        assert received == asked
        await visit.write(told)
        await visit.frames()

    async def scenario():
        async with stage(Origin(answer), observation=watching(log)) as it, tunnel(it.proxy) as wire:
            await wire.send(upgrade(headers=["Sec-WebSocket-Extensions: permessage-deflate"] if deflate else []))
            await wire.receive_until(b"\r\n\r\n")
            await wire.send(asked)
            received = b""
            while len(received) < len(told):
                received += await wire.receive()
            assert received == told

    run(scenario())
    log.close()
    lines = [json.loads(line) for line in body_files(log.run)["0001.frames.jsonl"].splitlines()]
    assert [(one["from"], one["text"]) for one in lines] == [("client", CREATE)] * 2 + [("server", COMPLETED)] * 2
    assert summary(log)["request"]["sha256"] == hashlib.sha256(asked).hexdigest()
    assert summary(log)["response"]["sha256"] == hashlib.sha256(told).hexdigest()
    assert [one.transport for one in read_exchanges(log.run)] == [Transport.WEBSOCKET]


@pytest.mark.parametrize(
    "body",
    [
        zstandard.ZstdCompressor().compress(bytes(32 * 1024 * 1024)),
        zstandard.ZstdCompressor().compress(b"words" * 1000)[:-5],
        b"garbage",
    ],
    ids=["bomb", "cut", "garbage"],
)
def test_a_broken_or_bomb_like_body_degrades_what_is_kept_and_not_the_request(run, stage, log, body):
    async def scenario():
        async with stage(observation=watching(log)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post(body=body, headers=ZSTD))).status == 200
            assert it.origin.only_request.body == body

    run(scenario())
    log.close()
    told = summary(log)["request"]
    assert told["problem"] and told["sha256"] == hashlib.sha256(body).hexdigest()
    assert find(log.run.path.parent, "last").complete


def test_frames_that_are_none_pass_and_are_told(run, stage, log):
    async def scenario():
        async with stage(Origin(echoing), observation=watching(log)) as it, tunnel(it.proxy) as wire:
            await wire.send(upgrade())
            await wire.receive_until(b"\r\n\r\n")
            await wire.send(b"\xff\xffgarbage")
            assert await wire.receive_until(b"garbage") == b"\xff\xffgarbage"

    run(scenario())
    log.close()
    assert "no sequence of WebSocket frames" in summary(log)["request"]["problem"]


CANARIES = [
    "Authorization: Bearer canary-bearer",
    "Cookie: a=canary-cookie",
    "Proxy-Authorization: Basic canary-proxy",
    "chatgpt-account-id: canary-account",
    "x-oai-attestation: canary-attestation",
    "x-unheard-of: canary-unheard",
    "User-Agent: \x1b[31mred",
]


def test_no_secret_is_in_anything_that_is_kept_or_exported(run, stage, log, caplog):
    """Negative control: what is no secret is there."""
    body = json.dumps({"client_metadata": {"x-oai-attestation": "canary-in-body"}, "note": "harmless-in-body"}).encode()

    async def scenario():
        origin = Origin(answering(HEAD % len(ANSWER) + ANSWER))
        async with stage(origin, observation=watching(log)) as it, tunnel(it.proxy) as wire:
            path = f"{RESPONSES}?token=canary-query"
            await wire.exchange(post(path, headers=CANARIES, body=body))
            await wire.exchange(post("/backend-api/other?token=canary-query", headers=CANARIES, body=body))

    run(scenario())
    log.close()
    exported = "".join(har_text(read_exchanges(log.run)))
    kept = b"".join(path.read_bytes() for path in log.run.path.rglob("*") if path.is_file())
    for text in (kept.decode("latin-1"), exported, caplog.text):
        assert "canary" not in text and "token-1" not in text and "\x1b" not in text
    assert b"harmless-in-body" in kept and b"/backend-api/other" in kept and b"redacted" in kept


def test_traffic_goes_on_when_capture_has_ended(run, stage, tmp_path):
    log = CaptureLog(tmp_path / "captures", "run", limits=Limits(run_bytes=1))
    log.start()

    async def scenario():
        async with stage(observation=watching(log)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 200
            deadline = time.monotonic() + 10
            while log.problem is None:
                assert time.monotonic() < deadline
                assert (await wire.exchange(post())).status == 200
            assert (await wire.exchange(post())).status == 200
            assert all(one.attested for one in it.exchanges)

    run(scenario())
    log.close()
    assert "reached its limit" in find(tmp_path / "captures", "last").problem


def test_a_request_can_be_read_while_it_waits_for_its_answer(run, stage, log):
    async def silent(visit):
        await visit.body(await visit.head())
        deadline = time.monotonic() + 10
        while not read_exchanges(log.run):
            assert time.monotonic() < deadline
        await visit.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def scenario():
        async with stage(Origin(silent), observation=watching(log)) as it, tunnel(it.proxy) as wire:
            assert (await wire.exchange(post())).status == 200

    run(scenario())
    log.close()
    first = json.loads((log.run.path / "exchanges.jsonl").read_text().splitlines()[0])
    assert first["phase"] == "decided" and first["stamp"] == "stamped"
