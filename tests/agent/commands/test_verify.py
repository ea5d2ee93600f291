"""`countersign verify` on commands that do not what a good agent does. The real codex is in tests/interop."""

import json
import shlex
import sys

from proxy.standins.chatgpt import ChatGPT
from tests.processes import COUNTERSIGN, finish, play, world

# A daemon is on its way when its parents are gone; then it goes straight to the upstream.
DAEMON = """
import os, socket, sys
report, away = os.pipe(), os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(away[1])
        os.read(away[0], 1)  # ends when the process between is gone
        os.read(away[0], 1)
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as plain:
            plain.settimeout(1)
            try:
                plain.recv(1)  # long enough to be seen: the upstream waits for TLS
            except TimeoutError:
                pass
        os.write(report[1], b"x")
    os._exit(0)
os.close(away[1])
os.wait()
os.read(report[0], 1)
"""


def test_a_daemon_that_goes_around_the_proxy_is_caught(tmp_path):
    """It had left the tree of the command's processes, and was not looked at any more."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            proof = tmp_path / "proof.json"
            done = await finish(
                COUNTERSIGN, "verify", "--no-capture", "--json", str(proof), "--",
                sys.executable, "-c", DAEMON, str(here.upstream.port),
                environment=here.environment,
            )  # fmt: skip
            (bypass,) = json.loads(proof.read_text())["bypasses"]
            assert done.code == 1 and bypass["scoped"] and bypass["address"] == f"127.0.0.1:{here.upstream.port}"

    play(scenario())


def test_a_command_that_goes_nowhere_goes_around_nothing(tmp_path):
    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            proof = tmp_path / "proof.json"
            done = await finish(
                COUNTERSIGN, "verify", "--no-capture", "--json", str(proof), "--", "sh", "-c", "true & wait",
                environment=here.environment,
            )  # fmt: skip
            content = json.loads(proof.read_text())
            assert done.code == 1 and content["bypasses"] == [] and content["watched"], done.stderr

    play(scenario())


def test_a_proof_of_before_is_not_left_where_there_is_none_of_this_run(tmp_path):
    """`proof.json` still said that the proof holds, of the run before."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            files = tmp_path / "proof.json", tmp_path / "proof.xml"
            for file in files:
                file.write_text("holds")
            done = await finish(
                COUNTERSIGN, "verify", "--no-capture", "--json", str(files[0]), "--junit", str(files[1]), "--",
                str(tmp_path / "no-such-command"), environment=here.environment,
            )  # fmt: skip
            assert done.code == 127 and "no-such-command': not found" in done.stderr
            assert [file.read_text() for file in files] == ["", ""]

    play(scenario())


def test_the_command_that_shows_the_run_is_told_so_that_it_finds_it(tmp_path):
    """With --captures it was the id alone, and no such run was found."""

    async def scenario():
        async with world(tmp_path, ChatGPT()) as here:
            for options in ([], ["--captures", str(tmp_path / "other place")]):
                done = await finish(
                    COUNTERSIGN, "run", *options, "--", "true", environment=here.environment, cwd=tmp_path
                )
                told = shlex.split(done.stderr.splitlines()[-1].split("`")[1])
                shown = await finish(COUNTERSIGN, *told[1:], environment=here.environment, cwd=tmp_path)
                assert shown.code == 0 and "command   run true" in shown.stdout, shown.stderr

    play(scenario())
