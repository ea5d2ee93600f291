"""What `countersign verify-token` never prints, and how it fails without a verdict."""

import asyncio
import io
import os
import signal
import sys

import pytest

from agent.commands import verify_token
from proxy.standins.apple import Apple, Manner, Reply, Tls
from tests.agent.commands.token_desk import GOOD_KEY, NOWHERE, desk
from tests.processes import COUNTERSIGN, finish, play


def pieces(*secrets):
    for secret in secrets:
        yield from (secret[start : start + 16] for start in range(0, len(secret) - 16, 8))


@pytest.mark.parametrize("options", [["-vv"], ["-vv", "--json"]])
@pytest.mark.parametrize(
    "setting", [{}, {"replies": [Reply(503)]}, {"replies": [Manner.CLOSE]}, {"tls": Tls.EXPIRED}, {"single_use": True}]
)
def test_neither_token_nor_jwt_nor_key_is_printed_or_logged_at_any_verbosity(tmp_path, options, setting):
    async def scenario():
        async with desk(tmp_path, **setting) as here:
            token = here.apple.token()
            key = here.apple.key_pem.decode().replace("\n", "")
            for _ in range(2):  # where each is for once, the second is refused
                done = await here.verify("--attempts", "2", *options, stdin=token.encode())
            output = done.stdout + done.stderr
            assert (tmp_path / "ca.pem").exists() and "eyJ" not in output
            assert [one for one in pieces(token, key[27:-25]) if one in output] == []
            assert "verdict=" in done.stderr

    play(scenario())


def test_the_search_for_secrets_finds_one(tmp_path):
    """The negative control of the former: decode, told to reveal, does print the token."""

    async def scenario():
        token = Apple().token()
        done = await finish(COUNTERSIGN, "decode", "--reveal", stdin=token.encode())
        assert [one for one in pieces(token) if one in done.stdout] == list(pieces(token))

    play(scenario())


def test_an_error_of_our_own_is_no_verdict(capsys, monkeypatch, tmp_path):
    """Python ends with 1, which means that the token is invalid."""

    class Broken(io.StringIO):
        def write(self, _):
            raise RuntimeError("canary")

    (tmp_path / "AuthKey_STANDINKEY.p8").write_bytes(Apple().key_pem)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", Broken())
    assert verify_token.main([*GOOD_KEY, *NOWHERE, "--attempts", "1", "v1.QUJDRA=="], []) == 3
    error = capsys.readouterr().err
    assert "an error of countersign itself (RuntimeError in test_verify_token_secrets.py, line" in error
    assert "canary" not in error


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full, which is always full, is Linux's")
def test_an_answer_that_cannot_be_printed_is_no_verdict_either(tmp_path):
    """Python would end with 120."""

    async def scenario():
        async with desk(tmp_path) as here:
            (tmp_path / "token").write_text(here.apple.token())
            command = [COUNTERSIGN, "verify-token", *here.options, str(tmp_path / "token")]
            done = await finish("sh", "-c", 'exec "$0" "$@" >/dev/full', *command)
        assert done.code == 3 and len(here.apple.asked) == 1
        assert "verify-token: the answer cannot be printed: No space left on device" in done.stderr

    play(scenario())


def test_ctrl_c_is_no_verdict_either(tmp_path):
    async def scenario():
        async with desk(tmp_path, delay_s=60) as here:
            (tmp_path / "token").write_text(here.apple.token())
            command = [COUNTERSIGN, "verify-token", *here.options, "-v", str(tmp_path / "token")]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            await here.apple.arrived.wait()
            process.send_signal(signal.SIGINT)
            stdout, stderr = await process.communicate()
        assert (process.returncode, stdout, stderr) == (130, b"", b"")

    play(scenario())
