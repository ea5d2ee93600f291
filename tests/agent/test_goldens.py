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
import os
import re
import uuid
from pathlib import Path

import pytest

from agent.attestation import DesktopAttestation
from agent.model.client import Budgets
from agent.sandbox.environment import ShellEnvironmentPolicy
from agent.sandbox.plan import Options
from agent.sandbox.run import Runner
from agent.tools.asking import AskUser, ClientTools
from agent.tools.confinement import Confinement
from agent.tools.patching import Patching
from agent.tools.shell import Shell
from agent.tools.toolbox import Tools
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
    "thread/realtime/start",
    "fuzzyFileSearch/sessionStart",
}
# The texts of model failures are ours, with the same codes: only that there is one is compared.
OUR_WORDS = "<a text>"
# The recordings with a budget of their own were made with a model provider of their own; it is not sent zstd.
OTHER_PROVIDER = {"idle_timeout_http", "idle_timeout_ws", "retry_exhausted_http500", "retry_exhausted_ws"}
# The original trusts a directory for good once a thread could write there: the next thread may write by default.
TRUSTED_DIRECTORY = {("thread_start_options", 5), ("thread_list", 4)}
# The recording was made with a feature that one of its own warnings tells of.
FEATURE = "Under-development features enabled"
# The original shows nothing of a command that fails at once because of the sandbox, and shows all others (3 of 3 runs);
# we show each.
QUICKLY_DENIED = {"tool_exec_sandbox_denied"}
# Of threads that were begun last the original had warmed nothing when it was stopped.
STOPPED_EARLY = {"thread_start_options", "thread_fork"}
# The original warms a thread that is taken up again, or forked, before anybody follows it: it has nobody to ask then.
STAMPED_BY_US = {
    *("thread_resume_restart", "thread_lifecycle", "thread_fork"),
    "thread_fork_model_change",
}
# How full the window is after a compaction is an estimate, and our instructions are shorter.
ESTIMATED = {"compact_v2_ws", "compact_v1", "compact_auto", "thread_fork_model_change"}

# Differences in what the backend is sent

# Recordings with another number of questions for a token.
OTHER_QUESTIONS = {
    "idle_timeout_http",  # their provider has no WebSocket; ours is tried, and refused with 426
    "retry_exhausted_http500",  # the same; and the original sends the token of a failed POST again
    *STOPPED_EARLY,
    *STAMPED_BY_US,
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
    "tool_exec_fail_exit": {"tools": True},
    "tool_exec_workspace_write": {"tools": True},
    "tool_exec_sandbox_exit3": {"tools": True},
    "tool_exec_sandbox_ok_slow": {"tools": True},
    "tool_exec_sandbox_denied_slow": {"tools": True},
    "tool_exec_on_request_accept": {"tools": True},
    "tool_exec_on_request_decline": {"tools": True},
    "tool_exec_on_request_cancel": {"tools": True},
    "tool_exec_approval_error_reply": {"tools": True},
    "tool_exec_approval_never": {"tools": True},
    "tool_exec_untrusted": {"tools": True},
    "tool_exec_long_running": {"tools": True},
    "tool_patch_approval_accept": {"tools": True},
    "tool_patch_approval_decline": {"tools": True},
    "tool_patch_workspace_write": {"tools": True},
    "tool_dynamic": {"tools": True},
    "tool_request_user_input": {"tools": True},
    "turn_interrupt_approval": {"tools": True},
    "ws_prewarm_then_tool": {"tools": True},
    "turn_state_http": {"tools": True},
    "thread_resume_restart": {"tools": True},
    "thread_fork": {"tools": True},
    "thread_list": {"tools": True},
    "tool_exec_sandbox_denied": {"tools": True},
    "two_clients_approval": {"tools": True},
    "two_clients_ws": {"tools": True},
    "compact_v2_ws": {"tools": True},
    "compact_v2_bad": {"tools": True},
    "compact_v1": {"tools": True},
    "compact_auto": {"tools": True},
    "thread_fork_model_change": {"tools": True},
    # Further on it forks without a model, for which the original compacts at once, and runs commands for the user.
    "thread_lifecycle": {"tools": True, "until": 180},
}
# Pieces of output come as they are read; the original keeps them back a while, and shows none of a quick command.
OUTPUT_AS_IT_COMES = "item/commandExecution/outputDelta"


def recorded(name):
    lines = [json.loads(line) for line in (GOLDENS / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line.get("dir") in ("c>s", "s>c", "in", "out", "event")]


@pytest.mark.parametrize("name", RECORDED)
def test_the_client_and_the_backend_see_what_they_saw_of_the_original(name, run, tmp_path):
    replay = Replay(name, tmp_path, **RECORDED[name])
    run(replay.play())

    theirs = replay.theirs()
    assert replay.ours() == theirs
    assert without_what_differs(replay.sent, name) == without_what_differs(replay.sent_by_original, name)
    if name not in OTHER_QUESTIONS:
        assert replay.questions() == replay.questions_of_original()


class Replay:
    """One recording, played line by line."""

    def __init__(self, name, directory, *, signed_in=True, retries=5, idle_timeout_s=20.0, tools=False, until=None):
        self.name = name
        self._tools = tools
        self.lines = [line for line in recorded(name) if until is None or line["seq"] <= until]
        self.sent, self.sent_by_original = [], []
        self._directory = directory
        self._cwd = directory / "proj"
        self._signed_in = signed_in
        self._retries = retries
        self._idle_timeout_s = idle_timeout_s
        self._ids = {}
        self._pipes = {}  # by the name of the connection
        self._tasks = {}
        self._app = None
        self._played = 0

    async def play(self):
        self._cwd.mkdir()
        sockets = any(line.get("kind") == "ws-handshake" for line in self.lines)
        account = signed_in() if self._signed_in else "not yet"
        async with contextlib.AsyncExitStack() as stack:
            here = await stack.enter_async_context(
                world(
                    self._directory,
                    service=RecordedBackend(sockets=sockets),
                    tokens=DesktopAttestation(lambda thread_id: self._app.connections.attester_for(thread_id)),
                    timeout_s=ATTESTATION_BUDGET_S * 50,
                    auth=account,
                    budgets=Budgets(request_retries=2, idle_timeout_s=self._idle_timeout_s),
                )
            )
            if not self._signed_in:
                (here.home / "auth.json").unlink()
            tools = workbench(stack, self._directory, self._cwd) if self._tools else None

            def start():
                self._app = MemoryApp(
                    here.home, here.client.session, auth=here.client.auth, retries=self._retries, tools=tools
                )

            start()
            try:
                await self._play_lines(here.service, start)
            finally:
                await self._stop()
            assert here.service.waiting == []

    async def _stop(self):
        await self._app.core.aclose()
        for conn in list(self._tasks):
            await self._hang_up(conn)

    async def _hang_up(self, conn):
        if conn not in self._tasks:
            return
        pipe = self._pipes[conn]
        await pipe.desktop.close()
        await pipe.server.close()
        await asyncio.gather(*self._tasks.pop(conn))

    def _pipe(self, conn):
        """The connection, which is made when it is first spoken on."""
        if conn not in self._pipes:
            pipe = self._pipes[conn] = MemoryPipe()
            serving = asyncio.create_task(self._app.server.serve(pipe.server))
            self._tasks[conn] = [serving, asyncio.create_task(self._attest(pipe, self._token(conn)))]
        return self._pipes[conn]

    def _token(self, conn):
        """What this client gave as its token."""
        said = [line.get("msg", {}).get("result") for line in self.lines if line.get("conn") == conn]
        return next((one["token"] for one in said if isinstance(one, dict) and "token" in one), None)

    async def _play_lines(self, backend, start):
        calls = {}
        last = None  # the call that a cut is about
        for line in self.lines:
            self._played += 1
            match line["dir"], line.get("kind"):
                case "c>s", _:
                    await self._speak(line)
                case "event", _ if line["what"] == "exit":
                    await self._caught_up()
                    if self.name in STOPPED_EARLY:
                        await backend.next("ws-handshake")
                    await self._stop()
                    start()
                case "event", _ if line["what"] == "client closes socket":
                    await self._caught_up()
                    await self._hang_up(line["conn"])
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
                        await calls["ws-message"].socket.send_str(self._local(json.dumps(line["data"])))
                case "in", "ws-close":
                    await calls["ws-message"].socket.close()
                case "in", "http-response":
                    head = line["status"], line.get("headers", {}), line.get("body")
                    calls["http"].answers.put_nowait(("head", head))
                case "in", "sse":
                    data = json.loads(self._local(json.dumps(line["data"])))
                    calls["http"].answers.put_nowait(("event", data))
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
        message, conn = line.get("msg"), line["conn"]
        pipe = self._pipe(conn)
        if message is None:
            await pipe.desktop.send(line["text"])
            return
        if "method" not in message:
            so_far = self._theirs_so_far(conn)
            asked = next((one for one in reversed(so_far) if one.get("id") == message["id"] and "method" in one), {})
            if asked.get("method") == "attestation/generate":
                return  # `_attest` gives it when we ask
        await self._caught_up()
        for answer in pipe.heard:
            result = answer.get("result")
            if isinstance(result, dict):  # the ids that a client learns from answers
                so_far = self._theirs_so_far(conn)
                theirs = next((one for one in so_far if one.get("id") == answer["id"] and "result" in one), {})
                bind(theirs.get("result"), result, self._ids)
        await pipe.desktop.send(self._local(json.dumps(message)))

    def _local(self, text):
        for cursor in (one for one in self._ids if one.startswith("<iso-time>")):
            text = text.replace(cursor, self._ids[cursor])
        for placeholder in set(re.findall(r"<uuid:\d+>", text)):
            text = text.replace(placeholder, self._ids.setdefault(placeholder, str(uuid.uuid4())))
        for conn, pipe in self._pipes.items():  # of a command that goes on, the model says the number again
            for theirs, ours in zip(processes(self._theirs_so_far(conn)), processes(pipe.heard), strict=False):
                text = text.replace(f'session_id\\": {theirs},', f'session_id\\": {ours},')
        return text.replace("<CWD>", str(self._cwd)).replace("<LAB>", str(self._directory / "lab"))

    async def _caught_up(self):
        for conn, pipe in self._pipes.items():
            wanted = len(compared(self._theirs_so_far(conn)))
            await pipe.until(lambda pipe=pipe, wanted=wanted: len(compared(pipe.heard)) >= wanted)

    async def _attest(self, pipe, token):
        async for text in pipe.desktop.texts():
            message = json.loads(text)
            if message.get("method") == "attestation/generate":
                answer = {"id": message["id"], "result": {"token": token}}
                with contextlib.suppress(ConnectionError):
                    await pipe.desktop.send(json.dumps(answer))

    def _connections(self):
        return sorted({line["conn"] for line in self.lines[: self._played] if line["dir"] in ("c>s", "s>c")})

    def _theirs_so_far(self, conn):
        return [line["msg"] for line in self.lines[: self._played] if line["dir"] == "s>c" and line["conn"] == conn]

    def ours(self):
        """What each client was sent by us."""
        heard = {conn: compared(pipe.heard) for conn, pipe in sorted(self._pipes.items())}
        if self.name in QUICKLY_DENIED:
            heard = {conn: [one for one in told if not is_command(one)] for conn, told in heard.items()}
        text = json.dumps(heard)
        text = text.replace(str(self._directory / "home"), "<CODEX_HOME>").replace(
            str(self._directory / "lab"), "<LAB>"
        )
        text = text.replace(str(self._cwd), "<CWD>")
        text = re.sub(r"/sessions/[0-9/]{10}/rollout-[0-9T-]{19}-", "/sessions/<date>/rollout-<ts>-", text)
        return self._normal(json.loads(text))

    def theirs(self):
        """What each client was sent by the original."""
        return self._normal({conn: compared(self._theirs_so_far(conn)) for conn in self._connections()})

    def questions(self):
        return {conn: tokens_asked(pipe.heard) for conn, pipe in sorted(self._pipes.items())}

    def questions_of_original(self):
        return {conn: tokens_asked(self._theirs_so_far(conn)) for conn in self._connections()}

    def _normal(self, told):
        normal = {}
        for conn, messages in told.items():
            lines = [line for line in self.lines if line.get("conn") == conn]
            asked = {one["id"]: one for line in lines if (one := request_of(line)) is not None}
            normal[conn] = [self._normal_message(message, asked) for message in messages]
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
            message["result"]["thread"]["modelProvider"] = None  # we know one
            if self.name in OTHER_PROVIDER:
                del message["result"]["modelProvider"]
            if (self.name, message["id"]) in TRUSTED_DIRECTORY:
                del message["result"]["sandbox"], message["result"]["activePermissionProfile"]
        match message.get("method"):
            case "thread/tokenUsage/updated" if self.name in ESTIMATED:
                if not message["params"]["tokenUsage"]["last"]["inputTokens"]:
                    message["params"]["tokenUsage"]["last"]["totalTokens"] = "<an estimate>"
            case "thread/started":
                message["params"]["thread"]["modelProvider"] = None
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
    left_out = {*NOT_COMPARED, "attestation/generate", OUTPUT_AS_IT_COMES}
    told = [message for message in messages if message.get("method") not in left_out and not of_a_feature(message)]
    # The original tells the diff of a turn again after each count of tokens; we tell it when it has changed.
    diffs = [message for message in told if message.get("method") == "turn/diff/updated"]
    again = [two for one, two in itertools.pairwise(diffs) if one["params"] == two["params"]]
    return [message for message in told if not any(message is one for one in again)]


def of_a_feature(message):
    return message.get("method") == "warning" and message["params"]["message"].startswith(FEATURE)


def tokens_asked(messages):
    return [one for one in messages if one.get("method") == "attestation/generate"]


def is_command(message):
    return message.get("params", {}).get("item", {}).get("type") == "commandExecution"


def processes(messages):
    """The numbers of the commands that a client was shown, in order."""
    begun = [one["params"]["item"] for one in messages if one.get("method") == "item/started" and is_command(one)]
    return [item["processId"] for item in begun if item["processId"] is not None]


def workbench(stack, directory, cwd):
    """All tools, in a workspace as that of the recordings."""
    (cwd / "hello.txt").write_text("hello world\n")
    (directory / "lab" / "proj").mkdir(parents=True)
    (directory / "user").mkdir()
    runner = Runner()
    stack.callback(runner.close)
    # Without the profile of whoever runs the tests.
    environ = {**os.environ, "HOME": str(directory / "user")}
    confinement = Confinement(ShellEnvironmentPolicy(), Options(), lambda: (None, frozenset(), ()), environ)
    patching = Patching(runner, confinement)
    return Tools(ClientTools(), Shell(runner, confinement, patching), patching, AskUser())


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
    elif isinstance(theirs, str) and re.match(r"<uuid:\d+>$|<iso-time>\|", theirs) and isinstance(ours, str):
        ids[theirs] = ours


TIMES = {
    "<unix-ms>": ("emittedAtMs", "startedAtMs", "completedAtMs"),
    "<unix-s>": ("startedAt", "completedAt", "createdAt", "updatedAt", "recencyAt"),
    "<ms>": ("durationMs",),
}
PLACEHOLDERS = {name: placeholder for placeholder, names in TIMES.items() for name in names}


def walked(value, leaf, name=""):
    if isinstance(value, dict):
        # The recordings were made in a repository with one commit.
        return {key: None if key == "gitInfo" else walked(one, leaf, key) for key, one in value.items()}
    if isinstance(value, list):
        return [walked(one, leaf, name) for one in value]
    return leaf(name, value)


def short(name, value):
    """Times as placeholders, and long texts as the recordings keep them."""
    if name == "processId" and value is not None:
        return "<pid>"
    if name in PLACEHOLDERS and isinstance(value, int):
        return PLACEHOLDERS[name]
    if isinstance(value, str) and value.startswith('{"requestedThreadId"'):
        return "<cursor>"
    if name in ("nextCursor", "backwardsCursor") and isinstance(value, str):
        value = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<iso-time>", value)
    if isinstance(value, str) and len(value) > 700:
        digest = hashlib.sha256(value.encode()).hexdigest()[:12]
        return f"<<elided {len(value)} chars sha256={digest}: {value[:80]}...>>"
    return value


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


def without_what_differs(essences, name):
    left_out = {"encoding"} if name in OTHER_PROVIDER else {"attestation"} if name in STAMPED_BY_US else set()
    return [{key: value for key, value in one.items() if key not in left_out} for one in essences]


OUR_OWN = ("additional_tools", "developer", "context")


def brief(item):
    if item["type"] == "function_call_output" and item["output"] in NO_EXEC_COMMAND:
        return "function_call_output: of exec_command"
    if item["type"] != "message":
        output = re.sub(r"Chunk ID: \S+", "Chunk ID: <hex>", str(item.get("output", "")))
        output = re.sub(r"Wall time: \S+", "Wall time: <secs>", output)
        return f"{item['type']}: {re.sub(r'session ID [0-9]+', 'session ID <pid>', output)}"
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
    pipe = replay._pipes["A"] = MemoryPipe()
    pipe.heard = [json.loads(json.dumps(one).replace('"summary"', '"notLoaded"')) for one in replay._theirs_so_far("A")]

    assert replay.ours() != theirs
    pipe.heard = replay._theirs_so_far("A")
    assert replay.ours() == theirs
