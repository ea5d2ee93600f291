"""An app-server of a few lines behind `countersign wrap`, and a desktop before it."""

import contextlib
import json
import sys

from agent.standins.desktop import Manner, Script, spawn
from tests.processes import COUNTERSIGN

PYTHON = sys.executable
OK = '{"v":1,"s":0,"t":"%s"}'

# An app-server that keeps what it was told, and sends a model request when asked to. It asks for no tokens.
APP_SERVER = """
import json, os, sys, urllib.request
kept = open(os.environ["KEPT"], "wb", buffering=0)
def say(**message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\\n")
    sys.stdout.buffer.flush()
for line in sys.stdin.buffer:
    kept.write(line)
    message = json.loads(line)
    match message.get("method"):
        case "initialize":
            say(id=message["id"], result={})
        case "post":
            url = "https://chatgpt.com/backend-api/codex/responses"
            request = urllib.request.Request(url, b'{"input":[]}', {"thread-id": "t-1", **message["params"]})
            with urllib.request.urlopen(request) as answer:
                answer.read()
            say(id=message["id"], result={"status": answer.status})
        case "ask":
            say(id=0, method="attestation/generate", params={})
            kept.write(sys.stdin.buffer.readline())
            say(id=message["id"], result={})
        case "environment":
            say(id=message["id"], result=dict(os.environ))
sys.exit(5)
"""


@contextlib.asynccontextmanager
async def wrapped(here, directory, script=None, *options):
    """A desktop with the app-server above behind `countersign wrap`."""
    environment = {**here.environment, "KEPT": str(directory / "kept")}
    command = [COUNTERSIGN, "wrap", *options, "--", PYTHON, "-c", APP_SERVER]
    async with spawn(command, script or numbered(), environment, here.home) as desktop:
        yield desktop


def numbered(manner=Manner.TOKEN, **more):
    return Script(manner=manner, token=lambda number: f"token-{number}", **more)


def kept(directory):
    """What the app-server was told, message by message."""
    return [json.loads(line) for line in (directory / "kept").read_bytes().splitlines()]
