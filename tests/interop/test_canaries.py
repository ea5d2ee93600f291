"""Secrets in every place where one can be, all commands as loud as they get: none of them comes out anywhere."""

import json
from pathlib import Path

import pytest

from proxy.standins.chatgpt import ChatGPT, auth_json
from tests.interop.original import codex
from tests.interop.test_codex import desktop_on
from tests.processes import COUNTERSIGN, finish, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

TOKEN = "v1.canary-of-a-token"
PROMPT = "canary-of-a-prompt"
COMPANY = "canary-of-a-company"


def credentials():
    """Sign-in data with canaries where the stand-in takes any text."""
    auth = auth_json()
    auth["tokens"]["refresh_token"] = "canary-of-a-refresh-token"
    return auth


def secrets_of(home: Path) -> list[bytes]:
    tokens = json.loads((home / "auth.json").read_text())["tokens"]
    found = [str(tokens[name]) for name in ("access_token", "id_token", "refresh_token")]
    return [text.encode() for text in (*found, TOKEN, PROMPT, COMPANY)]


def everything_written(directory: Path, given: Path) -> dict[Path, bytes]:
    """All files below a directory, but the credentials themselves and what codex writes of its own."""
    ours = [path for path in directory.rglob("*") if path.is_file() and "countersign" in path.parts]
    return {path: path.read_bytes() for path in ours if path != given}


def leaks(canaries, outputs):
    return [(name, canary[:40]) for name, content in outputs.items() for canary in canaries if canary in content]


async def recorded(here, outside, *more):
    """A run of codex with everything on; its outputs, and what it left on disk."""
    rpc = outside / "rpc.sock"
    environment = {
        **here.environment,
        "http_proxy": f"http://user:{COMPANY}@127.0.0.1:9",
        "COUNTERSIGN_CREDENTIALS": "countersign:canary-of-a-proxy-password",
    }
    async with desktop_on(here, rpc, "--token", TOKEN):
        done = await finish(
            COUNTERSIGN, "run", "-vv", *more, "--rpc", f"unix://{rpc}", "--report", str(outside / "report.json"),
            "--metrics", "0", "--", codex(), "exec", "--skip-git-repo-check", PROMPT,
            environment=environment, cwd=here.home,
        )  # fmt: skip
    assert done.code == 0 and here.scoped(), done.stderr
    assert TOKEN in here.scoped()[0].values("x-oai-attestation")[0]  # the control: it did go upstream
    # codex itself shows the prompt; only our own lines are judged.
    ours = "\n".join(line for line in done.stderr.splitlines() if PROMPT not in line)
    return {"stderr": ours.encode(), "report": (outside / "report.json").read_bytes()}


def test_no_secret_is_in_a_log_a_report_or_a_capture(outside):
    async def scenario():
        async with world(outside, ChatGPT(), auth=credentials()) as here:
            outputs = await recorded(here, outside)
            for command in (["capture", "list"], ["capture", "show", "last", "--all"], ["capture", "har", "last"]):
                shown = await finish(COUNTERSIGN, *command, environment=here.environment)
                assert shown.code == 0, shown.stderr
                outputs[" ".join(command)] = (shown.stdout + shown.stderr).encode()
            looked = await finish(COUNTERSIGN, "doctor", "-vv", environment=here.environment)
            outputs["doctor"] = (looked.stdout + looked.stderr).encode()
            written = everything_written(here.home, here.home / "auth.json")
            assert any(path.name == "exchanges.jsonl" for path in written)  # something was captured at all
            canaries = [*secrets_of(here.home), b"canary-of-a-proxy-password"]
            assert leaks(canaries, {**outputs, **written}) == []

    play(scenario())


def test_with_bodies_the_prompt_is_kept_and_the_credentials_are_not(outside):
    """The prompt is the control: what is kept is really looked at."""

    async def scenario():
        async with world(outside, ChatGPT(), auth=credentials()) as here:
            await recorded(here, outside, "--bodies")
            written = everything_written(here.home, here.home / "auth.json")
            found = {canary for _, canary in leaks(secrets_of(here.home), written)}
            assert found == {PROMPT.encode()[:40]}

    play(scenario())


@pytest.mark.parametrize("signal_name", ["ABRT", "SEGV"])
def test_a_crash_leaves_no_secret(outside, signal_name):
    async def scenario():
        async with world(outside, ChatGPT(), auth=credentials()) as here:
            environment = {**here.environment, "COUNTERSIGN_CREDENTIALS": "countersign:canary-of-a-proxy-password"}
            script = f"kill -{signal_name} $PPID; sleep 1"
            done = await finish(
                COUNTERSIGN, "run", "-vv", "--", "sh", "-c", script, environment=environment, cwd=here.home
            )
            assert done.code != 0
            written = everything_written(here.home, here.home / "auth.json")
            outputs = {"stderr": done.stderr.encode(), **written}
            assert leaks([*secrets_of(here.home), b"canary-of-a-proxy-password"], outputs) == []
            assert not list(Path(here.home).glob("core*"))

    play(scenario())


def test_the_comparison_can_fail():
    assert leaks([b"canary"], {"a": b"a canary", "b": b"none"}) == [("a", b"canary")]
