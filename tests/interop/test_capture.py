"""What the real codex sends, captured and made readable: its zstd bodies, its compressed frames, its event streams."""

import json

import pytest

from proxy.capture.bodies.reading import read_events, read_summary, read_text
from proxy.capture.exchange import Phase, Transport
from proxy.capture.store import find, read_exchanges
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.interop.original import codex
from tests.interop.test_codex import desktop_on
from tests.processes import COUNTERSIGN, finish, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]


def captured_turn(outside, *faults):
    """The run of one turn of codex, with bodies."""

    async def scenario():
        answers = Answers([{"text": "Hello from afar."}])
        async with world(outside, ChatGPT(faults=[Fault.parse(one) for one in faults], answers=answers)) as here:
            rpc = outside / "rpc.sock"
            async with desktop_on(here, rpc):
                done = await finish(
                    COUNTERSIGN, "run", "--bodies", "--rpc", f"unix://{rpc}", "--",
                    codex(), "exec", "--skip-git-repo-check", "a question of mine",
                    environment=here.environment, cwd=here.home,
                )  # fmt: skip
            assert done.code == 0 and "Captured as" in done.stderr, done.stderr
            return here

    here = play(scenario())
    return find(here.home / "countersign" / "captures", "last")


def only(run, transport, status):
    (one,) = (each for each in read_exchanges(run) if each.transport is transport and each.status == status)
    return one


def no_secret_in(run):
    kept = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert b"v1.standin-" not in kept and b"eyJ" not in kept


def test_a_turn_by_post_can_be_read(outside):
    run = captured_turn(outside, "websocket:426")
    exchange = only(run, Transport.POST, 200)
    assert exchange.attested and exchange.phase is Phase.ENDED and run.complete
    summary = read_summary(run, exchange.number)
    assert summary.request.problem is None and summary.request.size == exchange.request_bytes
    question = json.loads(read_text(run, exchange.number, summary.request, 10**7))
    assert "a question of mine" in json.dumps(question["input"])
    assert dict(exchange.request_headers)["content-encoding"] == "zstd"
    events = list(read_events(run, exchange.number))
    assert [events[0].kind, events[-1].kind] == ["response.created", "response.completed"]
    assert summary.responses[0]["model"] == question["model"] and summary.responses[0]["usage"]["total_tokens"] == 110
    no_secret_in(run)


def test_a_turn_by_websocket_can_be_read(outside):
    run = captured_turn(outside)
    exchange = only(run, Transport.WEBSOCKET, 101)
    summary = read_summary(run, exchange.number)
    assert (summary.request.problem, summary.response.problem) == (None, None)
    assert "permessage-deflate" in dict(exchange.response_headers)["Sec-WebSocket-Extensions"]
    messages = list(read_events(run, exchange.number))
    asked = [one for one in messages if one.from_client and one.kind == "response.create"]
    assert "a question of mine" in asked[-1].text
    assert any(one.kind == "response.completed" for one in messages if not one.from_client)
    assert summary.responses[-1]["status"] == "completed"
    no_secret_in(run)
