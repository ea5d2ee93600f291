"""`countersign verify` on the real codex: the proof says what was so."""

import json
import sys

import pytest

from proxy.standins.chatgpt import ChatGPT
from proxy.standins.faults import Fault
from tests.interop.original import codex
from tests.interop.test_codex import desktop_on
from tests.processes import COUNTERSIGN, attestations, finish, play, world

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("codex")]

EXEC = (codex(), "exec", "--skip-git-repo-check", "hello")


async def verified(here, directory, *options, command=EXEC, desktop=()):
    """The process and its proof, of a run with a desktop."""
    rpc, proof = directory / "rpc.sock", directory / "proof.json"
    async with desktop_on(here, rpc, *desktop):
        done = await finish(
            COUNTERSIGN, "verify", "--no-capture", "--rpc", f"unix://{rpc}", "--json", str(proof), *options,
            "--", *command,
            environment=here.environment, cwd=here.home,
        )  # fmt: skip
    return done, json.loads(proof.read_text())


def test_all_stamped_is_proved(outside):
    async def scenario():
        async with world(outside, ChatGPT(faults=[Fault.parse("websocket:426")])) as here:
            junit = outside / "proof.xml"
            done, proof = await verified(here, outside, "--expect", "websocket,post", "--junit", str(junit))
            assert (done.code, proof["holds"], proof["problems"]) == (0, True, []), done.stderr
            assert "PROOF HOLDS" in done.stderr and 'failures="0"' in junit.read_text()
            assert proof["coverage"]["scoped"] == len(here.scoped()) == 2
            assert proof["watched"] and proof["bypasses"] == []

    play(scenario())


def test_a_route_that_was_demanded_and_did_not_come_is_missed(outside):
    async def scenario():
        async with world(outside, ChatGPT()) as here:
            done, proof = await verified(here, outside, "--expect", "websocket,post")
            assert done.code == 1 and proof["missing"] == ["post"]
            assert "expected post (responses by post), and none came" in done.stderr
            assert "PROOF DOES NOT HOLD" in done.stderr

    play(scenario())


@pytest.mark.parametrize(
    ("behaviour", "outcome"), [("--silent", "timeout"), ("--error", "failed"), ("--null", "malformed")]
)
def test_a_failing_desktop_is_told(outside, behaviour, outcome):
    async def scenario():
        async with world(outside, ChatGPT()) as here:
            done, proof = await verified(here, outside, desktop=(behaviour,))
            assert done.code == 1, done.stderr
            assert {row["outcome"] for row in proof["coverage"]["rows"]} == {outcome}
            assert proof["command_code"] == 0  # codex itself did not mind

    play(scenario())


def test_an_agent_that_goes_around_the_proxy_is_caught(outside):
    """It trusts the upstream and forgets the proxy; the control is the first test, with the same codex."""

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            around = f"""
import socket, ssl, sys, time
context = ssl.create_default_context(cafile={str(outside / "upstream-ca.pem")!r})
with socket.create_connection(("127.0.0.1", {here.upstream.port})) as plain:
    with context.wrap_socket(plain, server_hostname="chatgpt.com") as wire:
        head = ["POST /backend-api/codex/responses HTTP/1.1", "Host: chatgpt.com", "Content-Length: 2", "", "{{}}"]
        wire.sendall("\\r\\n".join(head).encode())
        print(wire.recv(100)[:12])
        time.sleep(0.5)
"""
            done, proof = await verified(here, outside, command=(sys.executable, "-c", around))
            assert done.code == 1, done.stderr
            assert len(here.scoped()) == 1 and attestations(here.scoped()) == [[]]
            assert any("no scoped request came through the proxy" in one for one in proof["problems"])
            (bypass,) = proof["bypasses"]
            assert bypass["scoped"] and bypass["address"] == f"127.0.0.1:{here.upstream.port}"

    play(scenario())


def test_the_headers_that_codex_made_itself_can_be_proved(outside):
    """`exec` has no desktop and makes none: with --native that is seen, and nobody is asked."""

    async def scenario():
        async with world(outside, ChatGPT()) as here:
            done = await finish(
                COUNTERSIGN, "verify", "--no-capture", "--native", "--", *EXEC,
                environment=here.environment, cwd=here.home,
            )  # fmt: skip
            assert done.code == 1 and "unstamped" in done.stderr, done.stderr

    play(scenario())


def test_a_command_that_fails_fails_the_proof(outside):
    async def scenario():
        async with world(outside, ChatGPT()) as here:
            script = f"{EXEC[0]} exec --skip-git-repo-check hello; exit 5"
            done, proof = await verified(here, outside, command=("sh", "-c", script))
            assert (done.code, proof["command_code"], proof["coverage"]["complete"]) == (1, 5, True)

    play(scenario())
