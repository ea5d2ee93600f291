"""The scripts that the containers run, as processes on this machine."""

import asyncio
import contextlib
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.processes import COUNTERSIGN, World, attestations, finish, play, world

DEPLOY = Path(__file__).parents[2] / "deploy"
TOKEN = "a-token-for-metrics"


def script(name: str) -> tuple[str, str]:
    """How a script is started."""
    return sys.executable, str(DEPLOY / name)


def environment(here: World, **more: str) -> dict[str, str]:
    """As in a container: `countersign` is on PATH."""
    return {**here.environment, "PATH": f"{Path(COUNTERSIGN).parent}:{os.environ['PATH']}", **more}


@contextlib.asynccontextmanager
async def desktop_at(here: World, rpc: Path, *options: str) -> AsyncIterator[None]:
    """desktop.py on a socket, ended as a container is ended."""
    process = await asyncio.create_subprocess_exec(
        *script("desktop.py"), str(rpc), *options, env=environment(here), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 128 + signal.SIGTERM


def verify(rpc: Path) -> tuple[str, ...]:
    """`countersign verify` on turns.py, as the service `verify` runs it."""
    options = ("--no-capture", "--rpc", f"unix://{rpc}", "--expect", "websocket,post")
    return (COUNTERSIGN, "verify", *options, "--", *script("turns.py"))


def test_the_check_holds_and_the_desktop_is_there_for_the_next_one_too(tmp_path_factory):
    async def scenario():
        async with world(tmp_path_factory.mktemp("w"), ChatGPT()) as here:
            rpc = here.home.parent / "rpc.sock"
            async with desktop_at(here, rpc):
                for _ in range(2):
                    done = await finish(*verify(rpc), environment=environment(here))
                    assert (done.code, "PROOF HOLDS" in done.stderr) == (0, True), done.stderr
            values = attestations(here.scoped())
            assert len(values) == len({value for (value,) in values}) == 4
            assert all(values == [] for values in attestations(here.others())) and here.others()

    play(scenario())


def test_a_silent_desktop_or_a_failing_turn_fails_the_check(tmp_path_factory):
    async def scenario():
        async with world(tmp_path_factory.mktemp("w"), ChatGPT(faults=[Fault.parse("post:500")])) as here:
            rpc = here.home.parent / "rpc.sock"
            async with desktop_at(here, rpc, "--silent"):
                done = await finish(*verify(rpc), environment=environment(here))
            assert done.code == 1 and "did not answer in time" in done.stderr, done.stderr
            assert "the command ended with code 1" in done.stderr

    play(scenario())


def test_a_desktop_with_wrong_options_ends_at_once():
    done = play(finish(*script("desktop.py"), "/tmp/no.sock", "--taciturn", environment=_on_path()))
    assert done.code == 2 and "--taciturn" in done.stderr


def test_turns_without_a_proxy_are_refused_and_say_what_to_do():
    done = play(finish(*script("turns.py"), environment=_on_path()))
    assert done.code == 1 and "'HTTPS_PROXY' is missing" in done.stderr and "countersign verify" in done.stderr


def test_the_agent_runs_turns_and_shows_its_metrics_to_whoever_has_the_token(tmp_path_factory):
    async def scenario():
        directory = tmp_path_factory.mktemp("w")
        async with world(directory, ChatGPT()) as here:
            process = await asyncio.create_subprocess_exec(
                *script("app_server.py"), "1", "--metrics", "0",
                env=environment(here, COUNTERSIGN_METRICS_TOKEN=TOKEN),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                assert process.stdout is not None and process.stderr is not None
                for number in (1, 2):
                    assert (await process.stdout.readline()).decode().endswith(f"tokens so far: {number}\n")
                found = re.search(r"http://127.0.0.1:\d+/metrics", (await process.stderr.readline()).decode())
                assert found is not None
                (directory / "token").write_text(TOKEN)
                health = (*script("health.py"), found[0])
                assert (await finish(*health, "--token", str(directory / "token"))).code == 0
                refused = await finish(*health)
                assert refused.code == 1 and "401" in refused.stderr
            finally:
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 128 + signal.SIGTERM
            assert (await finish(*health, "--token", str(directory / "token"))).code == 1

    play(scenario())


def test_the_health_of_the_stand_in_is_asked_with_its_own_authority(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            health = (*script("health.py"), f"https://127.0.0.1:{here.upstream.port}/backend-api/codex/models")
            assert (await finish(*health, "--ca", str(tmp_path / "upstream-ca.pem"))).code == 0
            untrusted = await finish(*health)
            assert untrusted.code == 1 and "certificate" in untrusted.stderr.lower()

    play(scenario())


SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('COUNTERSIGN_METRICS_TOKEN')]))"


def test_the_entry_makes_everything_ready_and_becomes_the_command(tmp_path):
    async def scenario():
        shared, home = tmp_path / "shared", tmp_path / "home"
        shared.mkdir()
        (shared / "auth.json").write_text("{}")
        (shared / "metrics-token").write_text("an old one")
        left = tmp_path / "left"
        left.mkdir()
        for name in ("auth.json", "ca.pem", "other"):
            (left / name).touch()
        async with world(tmp_path / "shared", ChatGPT(), auth=None) as here:
            done = await finish(
                *script("entry.py"),
                f"--fresh={left}", f"--wait-for-port={here.upstream.port}", f"--sign-in={shared / 'auth.json'}",
                f"--metrics-token={shared / 'metrics-token'}",
                "--", sys.executable, "-c", SHOW, "first", "@VERIFY_OPTIONS", "@NO_OPTIONS", "@home", "last",
                environment=_on_path(CODEX_HOME=str(home), VERIFY_OPTIONS="--expect 'a b'"),
            )  # fmt: skip
        token = (shared / "metrics-token").read_text()
        assert len(token) >= 32 and done.code == 0, done.stderr
        assert done.stdout == f'[["first", "--expect", "a b", "@home", "last"], "{token}"]\n'
        assert (home / "auth.json").read_text() == "{}" and [path.name for path in left.iterdir()] == ["other"]
        for path, mode in ((home, 0o700), (home / "auth.json", 0o600), (shared / "metrics-token", 0o600)):
            assert stat.S_IMODE(path.stat().st_mode) == mode

    play(scenario())


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (("--sign-in=/nowhere/auth.json", "--", "true"), {}, "--sign-in needs CODEX_HOME"),
        (("--sign-in=/nowhere/auth.json", "--", "true"), {"CODEX_HOME": "/nowhere/home"}, "No such file"),
        (("--metrics-token=/nowhere/token", "--", "true"), {}, "No such file"),
        (("--", "countersign-is-not-this"), {}, "'countersign-is-not-this': No such file"),
        (("--", "true", "@VERIFY_OPTIONS"), {"VERIFY_OPTIONS": "'open"}, "VERIFY_OPTIONS cannot be split"),
        (("--wait-for-port=1", "--patience=0.2", "--", "true"), {}, "nobody listens on 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_made_ready_is_told_and_the_command_is_not_run(tmp_path, arguments, environ, said):
    environ = {name: value.replace("/nowhere/home", str(tmp_path)) for name, value in environ.items()}
    done = play(finish(*script("entry.py"), *arguments, environment=_on_path(**environ)))
    assert done.code == 1 and said in done.stderr, done.stderr


def _on_path(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(COUNTERSIGN).parent}:{os.environ['PATH']}", **more}
