"""The trial with real parts: the proxy, the stand-in before it, a desktop, and clients in child processes."""

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from agent.doctor.doors import Doors
from agent.doctor.findings import Level
from agent.doctor.proxy_variables import proxy_address
from agent.doctor.route import Listening, Stamped, canary_findings, refusal_findings
from agent.doctor.trial import (
    arrivals_of,
    fly_canaries,
    furnish,
    knocks,
    run_watched,
    targets_of,
    trial_settings,
    who_listens,
)
from agent.standalone import standalone
from agent.standins.desktop import Script, connect
from proxy.credentials import Credentials
from proxy.scope import Scope, Target
from proxy.server import ProxyServer
from proxy.standins.chatgpt import ChatGPT

MARK = "0123456789abcdef"
SCOPE = Scope.of()


@dataclass(frozen=True, slots=True)
class Stage:
    proxy: ProxyServer
    upstream: ChatGPT
    doors: Doors
    loopback: Target

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.proxy.child_environment(os.environ)}

    async def canaries(self, environ: dict[str, str]):
        reports = await fly_canaries(environ, SCOPE.origins[0], MARK)
        return reports, canary_findings(reports, arrivals_of(self.upstream.received, MARK))


@contextlib.asynccontextmanager
async def stage(tmp_path, token=lambda number: f"v1.{MARK}-{number}") -> AsyncIterator[Stage]:
    targets = targets_of(SCOPE)
    names = [target.host for target in targets]
    async with ChatGPT(names=(*names, "127.0.0.1")) as upstream, Doors(upstream.port, targets) as doors:
        ca_file = tmp_path / "upstream-ca.pem"
        ca_file.write_bytes(upstream.ca_pem)
        loopback = Target("localhost", upstream.port)
        settings = trial_settings(SCOPE, doors.addresses, ca_file, loopback)
        async with (
            standalone(settings, "test", str(tmp_path), lambda exchange: None) as running,
            connect(running.rpc, Script(token=token)),
        ):
            yield Stage(running.proxy, upstream, doors, loopback)


def levels(findings):
    return [finding.level for finding in findings]


# Canaries


def test_canaries_arrive_and_the_scoped_ones_are_stamped(run, tmp_path):
    async def scenario():
        async with stage(tmp_path) as here:
            reports, findings = await here.canaries(here.environment)
            assert reports == {"post": "", "websocket": "", "login": ""}
            # A token may be late on a busy machine; anything else must be fine.
            assert set(levels(findings)) <= {Level.OK, Level.WARNING}
            assert here.doors.connected == {
                "chatgpt.com": 2, "api.openai.com": 0, "auth.openai.com": 1, "ab.chatgpt.com": 0,
            }  # fmt: skip

    run(scenario())


def test_a_client_that_trusts_another_authority_does_not_arrive_and_says_why(run, tmp_path):
    async def scenario():
        async with stage(tmp_path) as here, ChatGPT() as another:
            foreign = tmp_path / "foreign.pem"
            foreign.write_bytes(another.ca_pem)
            reports, findings = await here.canaries({**here.environment, "SSL_CERT_FILE": str(foreign)})
            assert all("SSLCertVerificationError" in problem for problem in reports.values())
            assert levels(findings) == [Level.PROBLEM] * 3
            assert here.upstream.received == []
            assert here.doors.connected["chatgpt.com"] >= 2  # the clue that they came as far as the proxy

    run(scenario())


def test_a_proxy_that_is_not_there_is_told_without_its_credentials(run, tmp_path):
    async def scenario():
        async with stage(tmp_path) as here:
            with_nobody = {name: "http://me:s3cret@127.0.0.1:9" for name in ("HTTPS_PROXY", "https_proxy")}
            reports, findings = await here.canaries({**here.environment, **with_nobody})
            assert levels(findings) == [Level.PROBLEM] * 3
            assert "Connection refused" in reports["post"]
            assert "s3cret" not in str(reports)

    run(scenario())


def test_wrong_credentials_are_told_by_the_status_alone(run, tmp_path):
    async def scenario():
        async with stage(tmp_path) as here:
            url = f"http://me:s3cret-guess@127.0.0.1:{here.proxy.port}"
            reports, _ = await here.canaries({**here.environment, "HTTPS_PROXY": url, "https_proxy": url})
            assert "407" in reports["post"] and "407" in reports["websocket"]
            assert all(reports.values()) and "s3cret" not in str(reports)

    run(scenario())


def test_tokens_of_somebody_else_are_found(run, tmp_path):
    async def scenario():
        async with stage(tmp_path, token=lambda number: f"another-{number}") as here:
            _, findings = await here.canaries(here.environment)
            assert levels(findings)[2] is Level.OK
            assert any(finding.level is Level.PROBLEM and Stamped.FOREIGN in finding.found for finding in findings)

    run(scenario())


# Refusals


def test_the_proxy_refuses_all_that_it_must(run, tmp_path):
    async def scenario():
        async with stage(tmp_path) as here:
            found = await knocks(here.proxy.port, here.proxy.credentials, here.loopback)
            assert [knock.status for knock in found] == [407, 407, 403, 403, 502]
            assert set(levels(refusal_findings(found))) == {Level.OK}
            assert here.upstream.received == []

    run(scenario())


@contextlib.asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """Something that listens, and says the same to everybody; nothing, if it is None."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_a_proxy_that_lets_everything_through_is_found(run):
    """The control of the test above: the same knocks, and nobody who refuses."""

    async def scenario():
        async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
            found = await knocks(port, Credentials.random(), Target("localhost", 1))
            assert set(levels(refusal_findings(found))) == {Level.PROBLEM}

    run(scenario())


def test_a_proxy_of_ours_is_known_by_its_answer_and_its_credentials(run, tmp_path):
    async def scenario():
        async with stage(tmp_path) as here:
            assert await who_listens(proxy_address(here.proxy.url)) is Listening.OURS
            stale = f"http://countersign:of-another-run@127.0.0.1:{here.proxy.port}"
            assert await who_listens(proxy_address(stale)) is Listening.STRANGER
            without = f"http://127.0.0.1:{here.proxy.port}"
            assert await who_listens(proxy_address(without)) is Listening.STRANGER
            assert here.upstream.received == []
        assert await who_listens(proxy_address(here.proxy.url)) is Listening.NOBODY

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "listening"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Listening.ANOTHER),
        (b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="squid"\r\n\r\n', Listening.ANOTHER),
        (b"SSH-2.0-x\r\n\r\n", Listening.SILENT),
        (b"", Listening.SILENT),
    ],
)
def test_what_is_no_proxy_of_ours_is_told_apart(run, answer, listening):
    async def scenario():
        async with answering(answer) as port:
            assert await who_listens(proxy_address(f"http://127.0.0.1:{port}")) is listening

    run(scenario())


# The command


def test_a_command_is_watched_to_its_end(run):
    async def scenario():
        ran = await run_watched([sys.executable, "-c", "exit(3)"], os.environ, 30.0, subprocess.DEVNULL)
        assert (ran.not_started, ran.code, ran.past) == ("", 3, ())

    run(scenario())


def test_a_command_that_does_not_end_has_no_code(run):
    async def scenario():
        ran = await run_watched(["sleep", "600"], os.environ, 0.3, subprocess.DEVNULL)
        assert (ran.not_started, ran.code) == ("", None)

    run(scenario())


def test_a_command_that_is_not_there_was_not_started(run):
    ran = run(run_watched(["no-such-program"], os.environ, 1.0, subprocess.DEVNULL))
    assert ran.not_started == "not found on PATH"


def test_the_command_gets_a_copy_of_the_settings_and_credentials_that_are_worth_nothing(tmp_path):
    original, home = tmp_path / "original", tmp_path / "home"
    original.mkdir()
    (original / "auth.json").write_text('{"tokens": {"refresh_token": "real"}}')
    (original / ".env").write_text("A=1")
    (original / "config.toml").write_text("model = 'x'")
    furnish(home, original, {"tokens": {"refresh_token": "fake"}})
    assert {path.name: path.read_text() for path in home.iterdir()} == {
        "auth.json": '{"tokens": {"refresh_token": "fake"}}',
        ".env": "A=1",
        "config.toml": "model = 'x'",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_what_is_no_file_is_not_copied(tmp_path):
    original = tmp_path / "original"
    (original / ".env").mkdir(parents=True)
    os.mkfifo(original / "config.toml")
    furnish(tmp_path / "home", original, {})
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["auth.json"]
