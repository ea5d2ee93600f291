"""The handshake as codex-cli 0.169.0 was recorded; the transcripts lie beside the checkout and may be missing."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from agent.rpc import shapes
from agent.rpc.server import Answer, Method
from tests.agent.rpc.memory import served

GOLDENS = Path(__file__).parents[4] / "shared" / "protocol" / "goldens"


def transcript(name):
    path = GOLDENS / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def nothing_loaded(connection, params):
    return Answer({"data": [], "nextCursor": None})


def loaded_list(params):
    return shapes.params(params, shapes.struct("struct ThreadLoadedListParams", 2, {}))


METHODS = {"thread/loaded/list": Method(loaded_list, nothing_loaded)}
# Methods that the handshake's transcripts also call, and that are judged elsewhere.
OTHERS = ("thread/start", "thread/read", "turn/start", "model/list")


def alike(recorded, ours):
    """Whether an answer is the recorded one; long texts are recorded by their length and digest."""
    text = recorded.get("error", {}).get("message", "")
    if match := re.match(r"<<elided (\d+) chars sha256=(\w+):", text):
        message = ours["error"]["message"]
        return len(message) == int(match[1]) and hashlib.sha256(message.encode()).hexdigest().startswith(match[2])
    return json.loads(json.dumps(ours).replace("/home/of/codex", "<CODEX_HOME>")) == recorded


@pytest.mark.parametrize(("name", "at_least"), [("initialize_ok", 2), ("initialize_errors", 13)])
def test_the_handshake_is_answered_as_recorded(run, name, at_least):
    """Requests in their recorded order; an answer is compared where the request is part of the handshake."""
    lines = [line for line in transcript(name) if line.get("dir") in ("c>s", "s>c")]
    answers = {line["msg"]["id"]: line["msg"] for line in lines if line["dir"] == "s>c" and "id" in line["msg"]}

    async def scenario():
        compared = 0
        async with served(METHODS) as it:
            client = await it.connect()
            initialized = False
            for line in lines:
                if line["dir"] != "c>s":
                    continue
                text = line["text"] if "text" in line else json.dumps(line["msg"])
                await client.write(text)
                request = line.get("msg") or _json(text)
                if not isinstance(request, dict) or "method" not in request or request.get("id") not in answers:
                    continue
                recorded, ours = answers[request["id"]], await client.receive()
                if request["method"] in OTHERS and initialized:
                    continue
                initialized = initialized or "result" in recorded
                assert alike(recorded, ours), (recorded, ours)
                compared += 1
            assert client.stream.outgoing.empty()  # and nothing was answered that the original left unanswered
        assert compared >= at_least

    run(scenario())


def _json(text):
    try:
        return json.loads(text)
    except ValueError:
        return None
