"""One recording, played line by line: the recorded client and backend speak to our methods, core and model client."""

import asyncio
import base64
import contextlib
import json
import os
import re
import uuid

from agent.attestation import DesktopAttestation
from agent.model.realtime import RealtimeService
from agent.other_methods import other_methods
from agent.rpc.realtime_methods import RealtimeMethods
from agent.sandbox.environment import ShellEnvironmentPolicy
from agent.sandbox.run import Runner
from agent.tools.asking import AskUser, ClientTools
from agent.tools.confinement import Confinement
from agent.tools.patching import Patching
from agent.tools.shell import Shell
from agent.tools.toolbox import Tools
from proxy.attestation import ATTESTATION_BUDGET_S
from tests.agent.core.memory_app import ORIGIN, MemoryApp, MemoryPipe
from tests.agent.core.recorded_backend import RecordedBackend
from tests.agent.likeness import compared, essentials, is_command, normal_message, processes, tokens_asked
from tests.agent.model.chatgpt_behind_proxy import world
from tests.agent.recordings import QUICKLY_DENIED, STOPPED_EARLY, recorded


def no_proxy():
    """No tool has to be kept from a proxy here."""
    return None, frozenset(), ()


class Replay:
    """One recording, played line by line."""

    def __init__(self, name, directory, *, account="chatgpt", config=None):
        self.name = name
        self.lines = recorded(name)
        self.sent, self.sent_by_original = [], []
        self._directory = directory
        self._cwd = directory / "proj"
        self._account = account
        self._config = config or {}
        self._ids = {}
        self._pipes = {}  # by the name of the connection
        self._tasks = {}
        self._app = None
        self._played = 0

    async def play(self):
        self._cwd.mkdir()
        sockets = any(line.get("kind") == "ws-handshake" for line in self.lines)
        async with contextlib.AsyncExitStack() as stack:
            here = await stack.enter_async_context(
                world(
                    self._directory,
                    service=RecordedBackend(sockets=sockets),
                    tokens=DesktopAttestation(lambda thread_id: self._app.connections.attester_for(thread_id)),
                    timeout_s=ATTESTATION_BUDGET_S * (10 if self._waits_in_vain() else 50),
                    auth=ACCOUNTS[self._account],
                )
            )
            if self._account is None:
                (here.home / "auth.json").unlink()
            runner, tools = workbench(stack, self._directory, self._cwd)

            def start():
                self._app = MemoryApp(
                    here.home, here.client.session, config=self._config, auth=here.client.auth, tools=tools
                )
                others, self._login = other_methods(
                    runner,
                    self._app.connections,
                    self._app.auth,
                    here.http,
                    origin=ORIGIN,
                    identity=self._app.client_identity,
                    own_proxy=no_proxy,
                    home=str(here.home),
                    config=self._config,
                    flags={},
                    config_problem=None,
                )
                realtime = RealtimeMethods(
                    self._app.core, self._app.connections, lambda: RealtimeService(here.client)
                )  # fmt: skip
                self._app.methods |= others | realtime.table()

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
            self._tasks[conn] = [serving, asyncio.create_task(self._attest(pipe, self._answers(conn)))]
        return self._pipes[conn]

    def _answers(self, conn):
        """What this client answered to each question for a token; None where it did so too late, or never."""
        answers = []
        for number, line in enumerate(self.lines):
            if line["dir"] == "s>c" and line["conn"] == conn and line["msg"].get("method") == "attestation/generate":
                answers.append(self._answer(self.lines[number + 1 :], conn, line["msg"]["id"]))
        return answers or [self._any_answer()]

    def _any_answer(self):
        """For a client that the original asked nothing, and that we ask."""
        found = (line["msg"] for line in self.lines if "token" in str(line.get("msg", {}).get("result")))
        return next(found, None)

    def _answer(self, lines, conn, question):
        for line in lines:
            if '"s":1' in line.get("headers", {}).get("x-oai-attestation", ""):
                return None
            if line["dir"] == "c>s" and line["conn"] == conn and is_answer(line.get("msg"), question):
                return line["msg"]
        return None

    def _waits_in_vain(self):
        return any(None in self._answers(conn) for conn in {line["conn"] for line in self.lines if "conn" in line})

    async def _play_lines(self, backend, start):
        calls = {}
        last = None  # the call that a cut is about
        answered = True  # a request that we do not make has no answer either
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
                    asked = len(tokens_asked(self._theirs_so_far(line["conn"])))
                    pipe = self._pipe(line["conn"])
                    await pipe.until(lambda pipe=pipe, asked=asked: len(tokens_asked(pipe.heard)) >= asked)
                    await self._hang_up(line["conn"])
                case "out", "http" if of_others(line["path"]):
                    answered = False
                case "in", "http-response" if not answered:
                    answered = True
                case "out", "ws-handshake" | "ws-message" | "http" as kind:
                    last = calls[kind] = await backend.next(kind, line["path"].partition("?")[0])
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
        text = text.replace('"<jwt>"', json.dumps(JWT))
        return text.replace("<CWD>", str(self._cwd)).replace("<LAB>", str(self._directory / "lab"))

    async def _caught_up(self):
        for conn, pipe in self._pipes.items():
            wanted = len(compared(self._theirs_so_far(conn)))
            await pipe.until(lambda pipe=pipe, wanted=wanted: len(compared(pipe.heard)) >= wanted)

    async def _attest(self, pipe, answers):
        """Answer questions for a token as the recorded client did; those beyond the recorded ones as the last."""
        async for text in pipe.desktop.texts():
            message = json.loads(text)
            if message.get("method") == "attestation/generate":
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer is not None:
                    with contextlib.suppress(ConnectionError):
                        await pipe.desktop.send(json.dumps({**answer, "id": message["id"]}))

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
            normal[conn] = [normal_message(message, asked, self.name) for message in messages]
        numbers = {}
        text = re.sub(
            r"<uuid:\d+>|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            lambda match: numbers.setdefault(match[0], f"<uuid {len(numbers)}>"),
            re.sub(r"/rollout-[0-9T-]{19}-", "/rollout-<ts>-", json.dumps(normal)),
        )
        return json.loads(text)


def is_answer(message, question):
    return isinstance(message, dict) and "method" not in message and message.get("id") == question


def of_others(path):
    """Whether a request is for plugins, or for figures, which the recorded backend does not have."""
    return path.startswith(("/backend-api/plugins/", "/backend-api/wham/", "/backend-api/ps/"))


def _jwt():
    """The account of the recordings."""

    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    ours = {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "pro", "chatgpt_user_id": "user-1"}
    claims = {"exp": 4_000_000_000, "email": "a@b.c", "https://api.openai.com/auth": ours}
    token = f"{part({})}.{part(claims)}.{part({})}"
    return token


JWT = _jwt()


# How somebody is signed in: the content of auth.json.
_TOKENS = {"id_token": JWT, "access_token": JWT, "refresh_token": "r", "account_id": "acc-1"}
ACCOUNTS = {"chatgpt": {"tokens": _TOKENS}, None: "not yet", "apikey": {"OPENAI_API_KEY": "sk-recorded"}}


# What git puts into a new repository.
HOOKS = """applypatch-msg commit-msg fsmonitor-watchman post-update pre-applypatch pre-commit pre-merge-commit pre-push
    pre-rebase pre-receive prepare-commit-msg push-to-checkout update""".split()


def workbench(stack, directory, cwd):
    """All tools, in a workspace as that of the recordings: a repository with one commit."""
    (cwd / "hello.txt").write_text("hello world\n")
    (cwd / ".git/refs/heads").mkdir(parents=True)
    (cwd / ".git/hooks").mkdir()
    for name in HOOKS:
        (cwd / f".git/hooks/{name}.sample").touch()
    (cwd / ".git/HEAD").write_text("ref: refs/heads/master\n")
    (cwd / ".git/refs/heads/master").write_text(f"{'5a' * 20}\n")
    (directory / "lab" / "proj").mkdir(parents=True)
    (directory / "user").mkdir()
    runner = Runner()
    stack.callback(runner.close)
    # Without the profile of whoever runs the tests.
    environ = {**os.environ, "HOME": str(directory / "user")}
    confinement = Confinement(ShellEnvironmentPolicy(), no_proxy, environ)
    patching = Patching(runner, confinement)
    shell = Shell(runner, confinement, patching)
    return runner, Tools(
        ClientTools(), shell, patching, AskUser(), user_command=shell.user_command, is_busy=shell.is_busy
    )


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
