"""The recordings of the original, replayed: the same client and the same backend must see the same of us.

The recorded client's messages and the recorded backend's answers are played, in their order, to the real methods, core
and model client, through the real proxy. Then what the client was sent is compared message by message, and what
reached the backend by its essentials. Every difference that is allowed has a name below.

The recordings lie beside the checkout (CI has them).
"""

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import re
import uuid
from pathlib import Path

import pytest

from agent.attestation import DesktopAttestation
from agent.model.client import Budgets
from agent.rpc.server import Connections
from proxy.attestation import ATTESTATION_BUDGET_S
from tests.agent.core.memory_app import MemoryApp, MemoryPipe
from tests.agent.core.recorded_backend import RecordedBackend
from tests.agent.model.chatgpt_behind_proxy import world

GOLDENS = Path(__file__).parents[3] / "shared/protocol/goldens"

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"the recordings of the original are not at {GOLDENS}")

# Differences in what the client is sent

# Not sent by the parts that are under test here: the first two are the app's (tests/e2e), the third has nothing behind
# it (we have no MCP servers yet).
NOT_COMPARED = {"remoteControl/status/changed", "account/updated", "mcpServer/startupStatus/updated"}
# Answered with METHOD_NOT_SUPPORTED until we have them (docs/differences.md).
NOT_THERE_YET = {
    "thread/list",
    "thread/read",
    "thread/loaded/list",
    "thread/turns/list",
    "thread/realtime/start",
    "fuzzyFileSearch/sessionStart",
}
# The texts of model failures are ours, with the same codes: only that there is one is compared.
OUR_WORDS = "<a text>"
# The recordings with a budget of their own were made with a model provider of their own; it is not sent zstd.
OTHER_PROVIDER = {"idle_timeout_http", "idle_timeout_ws", "retry_exhausted_http500", "retry_exhausted_ws"}
# The original trusts a directory for good once a thread could write there: the next thread may write by default.
TRUSTED_DIRECTORY = {("thread_start_options", 5)}

# Differences in what the backend is sent

# Recordings with another number of questions for a token.
OTHER_QUESTIONS = {
    "idle_timeout_http",  # their provider has no WebSocket; ours is tried, and refused with 426
    "retry_exhausted_http500",  # the same; and the original sends the token of a failed POST again
    "thread_start_options",  # the original was stopped before it had warmed the last thread
}
# A call of a tool that we do not have yet, where the original found its arguments to be wrong.
NO_EXEC_COMMAND = {
    "unsupported call: exec_command",
    "failed to parse function arguments: key must be a string at line 1 column 2",
}

RECORDED = {
    "plain_turn_ws": {},
    "plain_turn_http": {},
    "plain_turn_http_classic": {},
    "err_401_refresh_fails": {},
    "err_http_400": {},
    "err_http_401_refresh": {},
    "err_http_429_usage": {},
    "err_http_cut_midway": {},
    "err_response_failed": {},
    "err_response_failed_context": {},
    "err_ws_429_usage": {},
    "err_ws_500": {},
    "err_ws_cut_midway": {},
    "err_ws_handshake_401": {},
    "err_ws_handshake_500": {},
    "idle_timeout_http": {"idle_timeout_s": 1.0, "retries": 2},
    "idle_timeout_ws": {"idle_timeout_s": 1.0, "retries": 2},
    "turn_interrupt": {},
    "turn_steer": {},
    "turn_start_while_active": {},
    "thread_start_options": {},
    "initialize_ok": {},
    "initialize_errors": {},
    "initialize_no_experimental": {},
    "initialize_without_initialized": {},
    "account_read_none": {"signed_in": False},
    "account_read_chatgpt": {},
    "retry_exhausted_http500": {"retries": 2},
    "retry_exhausted_ws": {"retries": 2},
    "ws_closed_between_turns": {},
    "tool_misc": {},
    "tool_local_shell_call": {},
}


def recorded(name):
    lines = [json.loads(line) for line in (GOLDENS / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line.get("dir") in ("c>s", "s>c", "in", "out")]


@pytest.mark.parametrize("name", RECORDED)
def test_the_client_and_the_backend_see_what_they_saw_of_the_original(name, run, tmp_path):
    replay = Replay(name, tmp_path, **RECORDED[name])
    run(replay.play())

    assert replay.ours() == replay.theirs()
    assert without_encoding(replay.sent, name) == without_encoding(replay.sent_by_original, name)
    if name not in OTHER_QUESTIONS:
        assert replay.questions() == replay.questions_of_original()


class Replay:
    """One recording, played line by line."""

    def __init__(self, name, directory, *, signed_in=True, retries=5, idle_timeout_s=20.0):
        self.name = name
        self.lines = recorded(name)
        self.sent, self.sent_by_original = [], []
        self._directory = directory
        self._signed_in = signed_in
        self._retries = retries
        self._idle_timeout_s = idle_timeout_s
        self._ids = {}
        self._pipe = MemoryPipe()
        self._played = 0

    async def play(self):
        connections = Connections()
        sockets = any(line.get("kind") == "ws-handshake" for line in self.lines)
        account = signed_in() if self._signed_in else "not yet"
        async with contextlib.AsyncExitStack() as stack:
            here = await stack.enter_async_context(
                world(
                    self._directory,
                    service=RecordedBackend(sockets=sockets),
                    tokens=DesktopAttestation(connections.attester_for),
                    timeout_s=ATTESTATION_BUDGET_S * 50,
                    auth=account,
                    budgets=Budgets(request_retries=2, idle_timeout_s=self._idle_timeout_s),
                )
            )
            if not self._signed_in:
                (here.home / "auth.json").unlink()
            app = MemoryApp(
                here.home, here.client.session, connections=connections, auth=here.client.auth, retries=self._retries
            )
            tasks = [asyncio.create_task(app.server.serve(self._pipe.server)), asyncio.create_task(self._attest())]
            try:
                await self._play_lines(here.service)
            finally:
                await app.core.aclose()
                await self._pipe.desktop.close()
                await self._pipe.server.close()
                await asyncio.gather(*tasks)
            # The thread that was started last has no turn; the original was stopped before it had warmed it.
            unasked = here.service.waiting
            assert unasked == (["ws-handshake"] if self.name == "thread_start_options" else [])

    async def _play_lines(self, backend):
        calls = {}
        last = None  # the call that a cut is about
        for line in self.lines:
            self._played += 1
            match line["dir"], line.get("kind"):
                case "c>s", _:
                    await self._speak(line)
                case "out", "ws-handshake" | "ws-message" | "http" as kind:
                    last = calls[kind] = await backend.next(kind)
                    self.sent.append(essentials(last.kind, last.path, last.headers, last.body))
                    self.sent_by_original.append(
                        essentials(kind, line["path"], line.get("headers", {}), line.get("data") or line.get("body"))
                    )
                case "in", "ws-accepted":
                    calls["ws-handshake"].answers.put_nowait(("accepted", None))
                case "in", "ws-refused":
                    calls["ws-handshake"].answers.put_nowait(("refused", (line["status"], line["body"])))
                case "in", "ws-message":
                    with contextlib.suppress(ConnectionError):  # an interrupted turn has dropped the socket
                        await calls["ws-message"].socket.send_str(json.dumps(line["data"]))
                case "in", "ws-close":
                    await calls["ws-message"].socket.close()
                case "in", "http-response":
                    head = line["status"], line.get("headers", {}), line.get("body")
                    calls["http"].answers.put_nowait(("head", head))
                case "in", "sse":
                    calls["http"].answers.put_nowait(("event", line["data"]))
                    if line["data"]["type"] == "response.completed":
                        calls["http"].answers.put_nowait(("end", None))
                case "in", "cut":
                    if last.kind == "http":
                        last.answers.put_nowait(("cut", None))
                    else:
                        last.cut()
        await self._caught_up()

    async def _speak(self, line):
        """Send what the client sent, once we have been sent what it had been sent by then."""
        message = line.get("msg")
        if message is None:
            await self._pipe.desktop.send(line["text"])
            return
        if "method" not in message:
            return  # the recorded answer for a token; `_attest` gives it when we ask
        await self._caught_up()
        for answer in self._pipe.heard:
            result = answer.get("result")
            if isinstance(result, dict):  # the ids that a client learns from answers
                theirs = next((one for one in self._theirs_so_far() if one.get("id") == answer["id"]), {})
                bind(theirs.get("result"), result, self._ids)
        await self._pipe.desktop.send(self._local(json.dumps(message)))

    def _local(self, text):
        for placeholder in set(re.findall(r"<uuid:\d+>", text)):
            text = text.replace(placeholder, self._ids.setdefault(placeholder, str(uuid.uuid4())))
        return text.replace("<CWD>", str(self._directory))

    async def _caught_up(self):
        wanted = len(compared(self._theirs_so_far()))
        await self._pipe.until(lambda: len(compared(self._pipe.heard)) >= wanted)

    async def _attest(self):
        async for text in self._pipe.desktop.texts():
            message = json.loads(text)
            if message.get("method") == "attestation/generate":
                answer = {"id": message["id"], "result": {"token": "v1.integration-test"}}
                await self._pipe.desktop.send(json.dumps(answer))

    def _theirs_so_far(self):
        return [line["msg"] for line in self.lines[: self._played] if line["dir"] == "s>c"]

    def ours(self):
        """What the client was sent by us."""
        text = json.dumps(compared(self._pipe.heard))
        text = text.replace(str(self._directory / "home"), "<CODEX_HOME>").replace(str(self._directory), "<CWD>")
        return self._normal(json.loads(text))

    def theirs(self):
        return self._normal(compared(self._theirs_so_far()))

    def questions(self):
        return [one for one in self._pipe.heard if one.get("method") == "attestation/generate"]

    def questions_of_original(self):
        return [one for one in self._theirs_so_far() if one.get("method") == "attestation/generate"]

    def _normal(self, messages):
        asked = {one["id"]: one for line in self.lines if (one := request_of(line)) is not None}
        normal = [self._normal_message(message, asked) for message in messages]
        numbers = {}
        text = re.sub(
            r"<uuid:\d+>|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            lambda match: numbers.setdefault(match[0], f"<uuid {len(numbers)}>"),
            json.dumps(normal),
        )
        return json.loads(text)

    def _normal_message(self, message, asked):
        request = asked.get(message.get("id"), {})
        method = request.get("method")
        if method in NOT_THERE_YET and message != {"error": NOT_INITIALIZED, "id": message["id"]}:
            return {"id": message["id"], "not there yet": method}
        message = walked(message, short)
        if method == "model/list" and "result" in message:  # descriptions and offers are ours
            message["result"]["data"] = [model["id"] for model in message["result"]["data"]]
        if method == "thread/start" and "result" in message:
            without_path(message["result"]["thread"])
            if self.name in OTHER_PROVIDER:
                del message["result"]["modelProvider"]
            if (self.name, message["id"]) in TRUSTED_DIRECTORY:
                del message["result"]["sandbox"], message["result"]["activePermissionProfile"]
        match message.get("method"):
            case "thread/started":
                without_path(message["params"]["thread"])
            case "warning":
                message["params"]["message"] = message["params"]["message"].partition(". ")[0]
            case "error":
                in_our_words(message["params"]["error"])
            case "turn/completed" if message["params"]["turn"]["error"] is not None:
                in_our_words(message["params"]["turn"]["error"])
        return message


NOT_INITIALIZED = {"code": -32600, "message": "Not initialized"}


def signed_in():
    """The account of the recordings."""

    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    ours = {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "pro", "chatgpt_user_id": "user-1"}
    claims = {"exp": 4_000_000_000, "email": "a@b.c", "https://api.openai.com/auth": ours}
    token = f"{part({})}.{part(claims)}.{part({})}"
    return {"tokens": {"id_token": token, "access_token": token, "refresh_token": "r", "account_id": "acc-1"}}


def compared(messages):
    return [
        message
        for message in messages
        if message.get("method") not in NOT_COMPARED and message.get("method") != "attestation/generate"
    ]


def request_of(line):
    """The request of the client in a line, if it is one; some were sent as raw text."""
    message = line.get("msg")
    if "text" in line:
        with contextlib.suppress(ValueError):
            message = json.loads(line["text"])
    if line["dir"] == "c>s" and isinstance(message, dict) and {"method", "id"} <= message.keys():
        return message
    return None


def bind(theirs, ours, ids):
    """Learn which of our ids stands for which placeholder."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in theirs.keys() & ours.keys():
            bind(theirs[name], ours[name], ids)
    elif isinstance(theirs, str) and re.fullmatch(r"<uuid:\d+>", theirs) and isinstance(ours, str):
        ids[theirs] = ours


TIMES = {
    "<unix-ms>": ("emittedAtMs", "startedAtMs", "completedAtMs"),
    "<unix-s>": ("startedAt", "completedAt", "createdAt", "updatedAt", "recencyAt"),
    "<ms>": ("durationMs",),
}
PLACEHOLDERS = {name: placeholder for placeholder, names in TIMES.items() for name in names}


def walked(value, leaf, name=""):
    if isinstance(value, dict):
        return {key: walked(one, leaf, key) for key, one in value.items()}
    if isinstance(value, list):
        return [walked(one, leaf, name) for one in value]
    return leaf(name, value)


def short(name, value):
    """Times as placeholders, and long texts as the recordings keep them."""
    if name in PLACEHOLDERS and isinstance(value, int):
        return PLACEHOLDERS[name]
    if isinstance(value, str) and len(value) > 700:
        digest = hashlib.sha256(value.encode()).hexdigest()[:12]
        return f"<<elided {len(value)} chars sha256={digest}: {value[:80]}...>>"
    return value


def without_path(thread):
    """We keep nothing on disk yet, so `path` is null; and we know one provider."""
    thread["path"] = thread["modelProvider"] = None


def in_our_words(error):
    if not error["message"].startswith("Reconnecting... "):
        error["message"] = OUR_WORDS
    if error["additionalDetails"] is not None:
        error["additionalDetails"] = OUR_WORDS


def essentials(kind, path, headers, body):
    """What must be the same of a request that reached the backend: its instructions, tools and metadata are ours."""
    given = {name.lower(): value for name, value in headers.items()}
    essence = {"kind": kind, "path": path}
    if kind != "ws-message":
        essence["attestation"] = given.get("x-oai-attestation")
        essence["account"] = given.get("chatgpt-account-id")
        essence["encoding"] = given.get("content-encoding")
    if isinstance(body, dict) and "input" in body:
        essence["continues"] = body.get("previous_response_id")
        essence["generate"] = body.get("generate", True)
        essence["model"] = body["model"]
        essence["effort"] = body["reasoning"]["effort"]
        said = [brief(item) for item in body["input"]]
        if essence["generate"]:
            # Before the first words of the user, each has instructions and context of its own.
            essence["input"] = list(itertools.dropwhile(lambda one: one.startswith(OUR_OWN), said))
    return essence


def without_encoding(essences, name):
    left_out = {"encoding"} if name in OTHER_PROVIDER else set()
    return [{key: value for key, value in one.items() if key not in left_out} for one in essences]


OUR_OWN = ("additional_tools", "developer", "context")


def brief(item):
    if item["type"] == "function_call_output" and item["output"] in NO_EXEC_COMMAND:
        return "function_call_output: of exec_command"
    if item["type"] != "message":
        return f"{item['type']}: {item.get('output', '')}"
    text = "".join(part.get("text", "") for part in item["content"])
    if text.startswith(("<environment_context>", "<<elided")):
        return "context"
    if text.startswith("<turn_aborted>"):
        return "turn aborted"
    return f"{item['role']}: {text}" if item["role"] != "developer" else "developer"


def test_the_list_of_recordings_names_only_what_exists():
    assert [name for name in RECORDED if not (GOLDENS / f"{name}.jsonl").is_file()] == []


def test_a_replay_can_fail():
    """The comparison itself: one word changed in what we were sent must show."""
    replay = Replay("plain_turn_ws", Path("/code/here"))
    replay._played = len(replay.lines)
    theirs = replay.theirs()
    replay._pipe.heard = [
        json.loads(json.dumps(message).replace('"summary"', '"notLoaded"')) for message in replay._theirs_so_far()
    ]

    assert replay.ours() != theirs
    replay._pipe.heard = replay._theirs_so_far()
    assert replay.ours() == theirs
