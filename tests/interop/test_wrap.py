"""The real codex app-server under `countersign wrap`, driven by the official SDK and by a desktop of our own."""

import asyncio
import hashlib
import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from agent.standins.desktop import Script, spawn
from proxy.attestation import ATTESTATION_HEADER
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.interop.original import codex
from tests.processes import COUNTERSIGN, attestations, finish, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

OK = '{"v":1,"s":0,"t":"%s"}'

PAGE = (Path(__file__).parents[2] / "docs" / "wrap.md").read_text("utf-8")
INITIALIZE = b'{"id":1,"method":"initialize","params":{"clientInfo":{"name":"d","version":"1"}}}\n'

# Between two processes: keeps what passes in each direction.
RECORDER = """
import os, signal, subprocess, sys, threading
kept, *command = sys.argv[1:]
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the SDK sends it right behind the end of file, which is enough
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def carry(source, sink, name):
    with open(f"{kept}.{name}", "wb", buffering=0) as record:
        while content := os.read(source, 65536):
            record.write(content)
            while content:
                content = content[os.write(sink, content):]
    os.close(sink)
inward = threading.Thread(target=carry, args=(0, child.stdin.fileno(), "in"), daemon=True)
outward = threading.Thread(target=carry, args=(child.stdout.fileno(), 1, "out"))
inward.start()
outward.start()
outward.join()
os._exit(child.wait())
"""

# The official client, but it says that it can make tokens, and makes them. One turn, then a review.
SDK_SCRIPT = """
import json, sys
from openai_codex.client import CodexClient, CodexConfig
from openai_codex.generated.v2_all import ReviewStartResponse

class Attesting(CodexClient):
    made = 0
    def _request_raw(self, method, params=None):
        if method == "initialize":
            params["capabilities"]["requestAttestation"] = True
        return super()._request_raw(method, params)
    def make(self, method, params):
        if method != "attestation/generate":
            return {}
        self.made += 1
        return {"token": f"sdk-{self.made}"}

workspace, *command = sys.argv[1:]
client = Attesting(CodexConfig(launch_args_override=tuple(command), cwd=workspace))
client._approval_handler = client.make
with client:
    client.initialize()
    thread = client.thread_start({"cwd": workspace, "model": "gpt-5.5", "sandbox": "danger-full-access"}).thread
    turn = client.turn_start(thread.id, "hello").turn
    print(client.wait_for_turn_completed(turn.id).turn.status.value)
    target = {"threadId": thread.id, "target": {"type": "custom", "instructions": "look"}, "delivery": "inline"}
    review = client.request("review/start", target, response_model=ReviewStartResponse)
    print(client.wait_for_turn_completed(review.turn.id).turn.status.value)
"""

REVIEW = {"findings": [], "overall_correctness": "patch is correct", "overall_explanation": "fine"}


def answers():
    return Answers([{"text": "Hello."}, {"text": json.dumps({**REVIEW, "overall_confidence_score": 0.9})}])


def recorder(kept: Path) -> list[str]:
    return [sys.executable, "-c", RECORDER, str(kept)]


@pytest.fixture
def workspace(outside):
    path = outside / "workspace"
    path.mkdir()
    return path


def is_review(received):
    return received.values("x-openai-subagent") == ["review"]


def kept(path: Path, direction: str) -> bytes:
    return Path(f"{path}.{direction}").read_bytes()


def digest(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def lines(content: bytes) -> list[bytes]:
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def between(content: bytes) -> tuple[bytes, list[dict]]:
    """(what is left of a stream without what `wrap` said and was told, that)."""
    rest, ours = [], []
    for line in lines(content):
        message = json.loads(line)
        is_ours = isinstance(message.get("id"), str) and message["id"].startswith("countersign-")
        (ours if is_ours else rest).append(message if is_ours else line)
    return b"".join(rest), ours


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_under_wrap_the_official_sdk_and_codex_hear_each_other_to_the_byte_and_the_review_is_stamped(
    outside, workspace, transport
):
    async def scenario():
        faults = [Fault.parse("websocket:426")] if transport == "post" else []
        async with world(outside, ChatGPT(faults=faults, answers=answers())) as here:
            desktop, child, report = outside / "desktop", outside / "child", outside / "report.json"
            wrap = [COUNTERSIGN, "wrap", "--report", str(report), "--"]
            command = [*recorder(desktop), *wrap, *recorder(child), codex(), "app-server", "--listen", "stdio://"]
            done = await finish(
                sys.executable, "-c", SDK_SCRIPT, str(workspace), *command, environment=here.environment, cwd=here.home
            )
            assert (done.code, done.stdout) == (0, "completed\ncompleted\n"), done.stderr

            # What each end said is what the other end heard, but for the questions and answers between.
            from_desktop, answers_to_us = between(kept(desktop, "in"))
            to_desktop, questions = between(kept(desktop, "out"))
            assert digest(from_desktop) == digest(kept(child, "in"))
            assert digest(to_desktop) == digest(kept(child, "out"))
            assert len(from_desktop) > 500 and len(to_desktop) > 5000

            # Each scoped request carries a token of its own that was asked for it.
            assert [one["id"] for one in questions] == [one["id"] for one in answers_to_us]
            tokens = [one["result"]["token"] for one in answers_to_us]
            assert sorted(attestations(here.scoped())) == sorted([OK % token] for token in tokens)
            assert any(is_review(one) for one in here.scoped())
            assert attestations(here.others()) == [[]] * len(here.others())
            assert json.loads(report.read_text())["complete"] is True

    play(scenario())


async def turn_and_review(here, workspace, script, *options):
    """A turn and a review under `wrap` with these options; the desktop that asked for them."""
    command = [COUNTERSIGN, "wrap", "--quiet", *options, "--", codex(), "app-server"]
    async with spawn(command, script, here.environment, here.home) as desktop:
        await desktop.initialize()
        settings = {"cwd": str(workspace), "model": "gpt-5.5", "sandbox": "danger-full-access"}
        thread = (await desktop.request("thread/start", settings))["thread"]["id"]
        assert (await desktop.turn(thread, "hello"))["status"] == "completed"
        target = {"type": "custom", "instructions": "look"}  # which wants no repository
        await desktop.request("review/start", {"threadId": thread, "target": target, "delivery": "inline"})
        await desktop.wait_for("turn/completed", 2)
    return desktop


def numbered(**more):
    return Script(token=lambda number: f"token-{number}", **more)


@pytest.mark.parametrize("transport", ["websocket", "post"])
def test_natively_the_review_carries_nothing_and_with_missing_only_that_is_filled_in(outside, workspace, transport):
    """What `wrap` is for: the same codex, the same desktop, and all of it attested."""

    async def scenario(mode):
        faults = [Fault.parse("websocket:426")] if transport == "post" else []
        directory = outside / mode
        directory.mkdir()
        async with world(directory, ChatGPT(faults=faults, answers=answers())) as here:
            desktop = await turn_and_review(here, workspace, numbered(), "--stamp", mode)
            asked = [request["id"] for request in desktop.requests if request["method"] == "attestation/generate"]
            by_codex = [OK % f"token-{number}" for number, each in enumerate(asked, 1) if isinstance(each, int)]
            by_us = [OK % f"token-{number}" for number, each in enumerate(asked, 1) if isinstance(each, str)]
            reviews = [one.values(ATTESTATION_HEADER) for one in here.scoped() if is_review(one)]
            others = [one.values(ATTESTATION_HEADER) for one in here.scoped() if not is_review(one)]
            return by_codex, by_us, reviews, others

    by_codex, by_us, reviews, others = play(scenario("never"))
    assert reviews and all(values == [] for values in reviews)
    assert by_us == [] and others == [[value] for value in by_codex]

    by_codex, by_us, reviews, others = play(scenario("missing"))
    assert reviews == [[value] for value in by_us] and reviews
    assert others == [[value] for value in by_codex] and others

    by_codex, by_us, reviews, others = play(scenario("always"))
    assert sorted(value for values in reviews + others for value in values) == sorted(by_us)
    assert all(len(values) == 1 for values in reviews + others)


def test_a_desktop_that_declared_nothing_gets_codex_as_it_is(outside):
    """The control: no question from either, and no header."""

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            command = [COUNTERSIGN, "wrap", "--quiet", "--", codex(), "app-server"]
            async with spawn(command, numbered(attests=False), here.environment, here.home) as desktop:
                await desktop.initialize()
                thread = (await desktop.request("thread/start", {"cwd": str(here.home)}))["thread"]["id"]
                assert (await desktop.turn(thread, "hello"))["status"] == "completed"
            assert here.scoped() and attestations(here.scoped()) == [[]] * len(here.scoped())
            assert [one["method"] for one in desktop.requests if "attestation" in one["method"]] == []

    play(scenario())


def test_the_official_sdk_may_be_given_wrap_in_the_place_of_codex(outside):
    """It starts a program with `app-server` and no arguments of ours: CODEX_CLI_PATH is used so by desktops."""
    launcher = outside / "countersign-wrap"
    root = Path(__file__).parents[2]
    launcher.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        "from agent.commands.wrap_persona import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    script = """
import sys
from openai_codex import Codex, CodexConfig
with Codex(CodexConfig(codex_bin=sys.argv[1], cwd=sys.argv[2])) as codex:
    print(codex.thread_start(cwd=sys.argv[2], model="gpt-5.5").run("hello").final_response)
"""

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            environment = {**here.environment, "COUNTERSIGN_WRAP": codex()}
            command = [sys.executable, "-c", script, str(launcher), str(here.home)]
            done = await finish(*command, environment=environment, cwd=here.home)
            assert (done.code, done.stdout) == (0, "Hello from the stand-in.\n"), done.stderr
            assert here.scoped()
            version = await finish(str(launcher), "--version", environment=environment)
            assert version.stdout == (await finish(codex(), "--version")).stdout and version.stdout

    play(scenario())


def test_the_end_of_the_desktop_is_the_end_of_codex_and_takes_no_time(outside):
    async def scenario():
        async with world(outside, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                COUNTERSIGN, "wrap", "--", codex(), "app-server", env=here.environment, cwd=here.home,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(INITIALIZE)
            assert json.loads(await process.stdout.readline())["id"] == 1
            process.stdin.close()
            async with asyncio.timeout(2.0):  # the official SDK kills after so long
                _, stderr = await process.communicate()
            assert process.returncode == 0
            assert os.fsencode("No scoped request was made") in stderr

    play(scenario())


def shown(language: str) -> list[str]:
    """The blocks of the page in this language."""
    return [block.replace("\n  ", "\n") for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("number", range(len(shown("sh"))))
def test_what_the_page_shows_can_be_typed(outside, number):
    script = shown("sh")[number]
    programs = outside / "programs"
    programs.mkdir()
    (programs / "countersign").symlink_to(COUNTERSIGN)
    (programs / "codex").symlink_to(codex())

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            environment = {**here.environment, "HOME": str(outside), "PATH": f"{programs}:{os.environ['PATH']}"}
            (outside / "bin").mkdir()
            process = await asyncio.create_subprocess_exec(
                "sh", "-eu", "-c", script, env=environment, cwd=here.home,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(INITIALIZE)
            said = [await process.stdout.readline()]
            while said[-1] and not said[-1].startswith(b'{"id":1,"result":'):
                said.append(await process.stdout.readline())
            _, stderr = await process.communicate()  # its end of file ends codex, which may not have answered before
            assert process.returncode == 0 and said[-1], stderr
            assert b"codex-cli" in said[0] or "--version" not in script
            assert b"No scoped request was made" in stderr

    play(scenario())


@pytest.mark.parametrize("kept_from_tools", [True, False])
def test_with_the_policy_that_the_page_shows_the_tools_do_not_get_the_proxy(outside, kept_from_tools):
    (policy,) = shown("toml")
    steps = [{"call": {"name": "exec_command", "arguments": {"cmd": "env"}}}, {"text": "done"}]

    async def scenario():
        async with world(outside, ChatGPT(answers=Answers(steps))) as here:
            (here.home / "config.toml").write_text(policy if kept_from_tools else "")
            command = [COUNTERSIGN, "wrap", "--quiet", "--", codex(), "app-server"]
            async with spawn(command, numbered(), here.environment, here.home) as desktop:
                await desktop.initialize()
                settings = {"cwd": str(here.home), "model": "gpt-5.5", "sandbox": "danger-full-access"}
                started = await desktop.request("thread/start", {**settings, "approvalPolicy": "never"})
                await desktop.turn(started["thread"]["id"], "look around")
            inputs = [item for one in here.upstream.received if one.kind == "message" for item in one.body["input"]]
            (output,) = [item["output"] for item in inputs if item["type"] == "function_call_output"]
            assert "CODEX_HOME=" in output
            given = {"HTTPS_PROXY=", "https_proxy=", "CODEX_CA_CERTIFICATE=", "SSL_CERT_FILE=", "NODE_EXTRA_CA_CERTS="}
            assert {name for name in given if f"\n{name}" in output} == (set() if kept_from_tools else given)

    play(scenario())
