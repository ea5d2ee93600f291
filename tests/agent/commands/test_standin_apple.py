"""`countersign standin apple` as a process, and the page that shows it with `verify-token`."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from agent.commands.verify_token import exit_code
from proxy.devicecheck import Verdict
from tests.processes import COUNTERSIGN, finish, play, serving

ROOT = Path(__file__).parents[3]


def test_the_stand_in_prints_where_everything_is(tmp_path):
    async def scenario():
        (tmp_path / "mine").write_text("QUJDRA==\n")
        directory = tmp_path / "apple"
        command = [
            COUNTERSIGN, "standin", "apple", "-v", "--directory", str(directory), "--accept", str(tmp_path / "mine"),
            "--single-use", "--answer", "503", "--answer", "honest",
        ]  # fmt: skip
        async with serving(*command, environment=dict(os.environ)) as standin:
            facts = standin.facts
            options = [
                "--key", facts["key_file"], "--key-id", facts["key_id"], "--team-id", facts["team_id"],
                "--server", facts["server"], "--server-ca", facts["ca_file"],
            ]  # fmt: skip
            development = ["--environment", "development", "--server", facts["development_server"]]
            for arguments, code in (
                ([facts["token_file"], "--attempts", "1"], 3),
                ([facts["token_file"]], 0),
                ([facts["token_file"]], 1),
                ([str(tmp_path / "mine")], 0),
                ([facts["development_token_file"]], 1),
                ([facts["development_token_file"], *development], 0),
            ):
                assert (await finish(COUNTERSIGN, "verify-token", *options, *arguments)).code == code
            done = await standin.stop()
        assert done.code == 0 and done.stdout == ""
        tokens = [path.read_text().strip() for path in directory.glob("*device-token")]
        assert len(tokens) == 2 and not any(token[:20] in done.stderr for token in tokens)
        assert "why='a token that was used before'" in done.stderr
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}

    play(scenario())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--answer", "explode"], "--answer: an answer must be honest, close or STATUS[:TEXT]"),
        (["--tls", "worse"], "invalid choice: 'worse' (choose from 'good', 'untrusted', 'name', 'expired')"),
        (["--delay", "-1"], "a finite number of seconds is needed"),
        (["--port", "x"], "a port must be 0 to 65535"),
        (["--development-port", "99999"], "a port must be 0 to 65535"),
        (["--accept", "/no/such/file"], "--accept: '/no/such/file' cannot be read: No such file"),
        (["--accept", __file__], "a device token must be one line of standard base64"),
        (["--accept", "/bin/sh"], "should hold base64, and holds bytes that are no text"),
        (["--directory", "/proc/nope"], "cannot use the directory '/proc/nope'"),
    ],
)
def test_a_stand_in_of_apple_that_cannot_be_started_says_why_with_code_2(arguments, problem):
    done = subprocess.run([COUNTERSIGN, "standin", "apple", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and problem in done.stderr and "Traceback" not in done.stderr


def test_a_taken_port_is_told_and_no_file_is_left(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [COUNTERSIGN, "standin", "apple", "--directory", str(tmp_path / "apple"), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot listen: " in done.stderr
    assert list((tmp_path / "apple").iterdir()) == []


def two_free_ports():
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return str(first.getsockname()[1]), str(second.getsockname()[1])


def test_what_the_documentation_shows_can_be_run(tmp_path):
    """Its commands, one after the other in a shell, on other ports; those for Apple are sent to the stand-in."""
    page = (ROOT / "docs/verify-token.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (real,) = re.findall(r"^    (countersign verify-token .*)", page, re.MULTILINE)
    assert len(blocks) == 2 and "TOKEN-FILE" in real
    real = real.replace("AuthKey_ABCDE12345.p8", "apple/AuthKey_STANDINKEY.p8").replace("TEAM123456", "STANDIN123")
    real = real.replace("TOKEN-FILE", "apple/device-token --server https://127.0.0.1:8443 --server-ca apple/ca.pem")
    real += " --other-server https://127.0.0.1:8444"
    script = "set -e\ntrap 'kill $(jobs -p)' EXIT\n" + "\n".join([*blocks, real])
    for old, new in zip(("8443", "8444"), two_free_ports(), strict=True):
        script = script.replace(old, new)
    environment = {**os.environ, "PATH": f"{Path(COUNTERSIGN).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("is_ok         true") == 3 and '"is_ok": true' in done.stdout
    assert "status 1: TIMEOUT" in done.stdout and "device.token" in done.stdout


def test_the_documentation_has_every_verdict_with_its_exit_code():
    page = (ROOT / "docs/verify-token.md").read_text()
    told_codes = {verdict: int(code) for code, verdict in re.findall(r"^\| (\d) \| `(\w+)`", page, re.MULTILINE)}
    assert told_codes == {str(verdict): exit_code(verdict) for verdict in Verdict}
