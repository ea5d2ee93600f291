"""`countersign verify-token` against the stand-in of Apple's server: exit codes, output, and what stays hidden."""

import base64
import io
import json
import os
import subprocess
import sys

import cbor2
import pytest

from agent.commands import verify_token
from agent.commands.verify_token import exit_code
from proxy.attestation import envelope
from proxy.devicecheck import Verdict
from proxy.standins.apple import DEVELOPMENT, PRODUCTION, Apple, Manner, Reply, Tls
from tests.agent.commands.token_desk import GOOD_KEY, NOWHERE, desk, told
from tests.processes import COUNTERSIGN, finish, play

# Answers


@pytest.mark.parametrize(
    ("reply", "code", "verdict"),
    [
        (Manner.HONEST, 0, "valid"),
        (Reply(400, "Missing or incorrectly formatted device token payload"), 1, "invalid_token"),
        (Reply(400, "Missing or badly formatted device token payload"), 1, "invalid_token"),
        (Reply(400, "bad device token"), 1, "invalid_token"),
        (Reply(400, "Missing or badly formatted authorization token"), 2, "auth_malformed"),
        (Reply(401, "Unable to verify authorization token"), 2, "auth_rejected"),
        (Reply(400, "Missing or incorrectly formatted time stamp"), 2, "request_error"),
        (Reply(400, "Invalid or missing timestamp"), 2, "request_error"),
        (Reply(405, "Method Not Allowed"), 2, "request_error"),
        (Reply(200, "Bit State Not Found"), 3, "unexpected"),
        (Reply(200, "Failed to find bit state"), 3, "unexpected"),
        (Reply(400, "something new"), 3, "unexpected"),
        (Reply(429), 3, "unavailable"),
        (Reply(500), 3, "unavailable"),
        (Reply(503), 3, "unavailable"),
        (Manner.CLOSE, 3, "unavailable"),
    ],
)
def test_each_answer_of_the_server_has_one_exit_code(tmp_path, reply, code, verdict):
    async def scenario():
        async with desk(tmp_path, replies=[reply]) as here:
            done = await here.verify("--json", "--attempts", "1", stdin=here.apple.token().encode())
        assert (done.code, done.stderr) == (code, "")
        status = 200 if reply is Manner.HONEST else None if reply is Manner.CLOSE else reply.status
        text = reply.text or None if isinstance(reply, Reply) else None
        expected = {
            "verdict": verdict, "status_code": status, "is_ok": code == 0, "exit_code": code, "text": text,
            "environment": "production", "server": here.apple.url(PRODUCTION), "attempts": 1, "asked": 1,
            "transaction": here.apple.asked[0].transaction_id,
        }  # fmt: skip
        assert {name: value for name, value in told(done).items() if name in expected} == expected

    play(scenario())


def test_every_verdict_has_an_exit_code_and_only_valid_has_0():
    codes = {verdict: exit_code(verdict) for verdict in Verdict}
    assert [verdict for verdict, code in codes.items() if code == 0] == [Verdict.VALID]
    assert [verdict for verdict, code in codes.items() if code == 1] == [Verdict.INVALID_TOKEN]
    assert set(codes.values()) == {0, 1, 2, 3}


@pytest.mark.parametrize("tls", [Tls.UNTRUSTED, Tls.NAME, Tls.EXPIRED])
def test_a_bad_certificate_is_code_3_and_nothing_is_sent(tmp_path, tls):
    async def scenario():
        async with desk(tmp_path, tls=tls) as here:
            done = await here.verify(stdin=here.apple.token().encode())
            assert done.code == 3 and here.apple.asked == []
        assert "the server's certificate is not trusted: " in done.stdout
        assert "status_code   null" in done.stdout and "is_ok         false" in done.stdout

    play(scenario())


def test_a_server_that_is_late_is_code_3(tmp_path):
    async def scenario():
        async with desk(tmp_path, delay_s=60) as here:
            done = await here.verify("--timeout", "0.3", stdin=here.apple.token().encode())
        assert done.code == 3 and "no answer within 0.3 seconds" in done.stdout

    play(scenario())


def test_an_answer_is_told_in_words(tmp_path):
    async def scenario():
        async with desk(tmp_path) as here:
            good = await here.verify(stdin=here.apple.token().encode())
            bad = await here.verify(stdin=b"QUJDRA==")
        assert good.stdout.splitlines()[:3] == [
            "valid         the server says that the token is genuine", "status_code   200", "is_ok         true",
        ]  # fmt: skip
        assert "text          Missing or incorrectly formatted device token payload" in bad.stdout.splitlines()
        assert (good.code, bad.code) == (0, 1) and (good.stderr, bad.stderr) == ("", "")

    play(scenario())


def test_the_other_environment_is_asked_only_when_wanted(tmp_path):
    async def scenario():
        async with desk(tmp_path) as here:
            token = here.apple.token(DEVELOPMENT).encode()
            assert (await here.verify(stdin=token)).code == 1
            assert [one.environment for one in here.apple.asked] == [PRODUCTION]
            other = ["--try-other-environment", "--other-server", here.apple.url(DEVELOPMENT)]
            done = await here.verify(*other, stdin=token)
            assert done.code == 0 and "environment   development" in done.stdout
            assert "asked of production first, which said: invalid_token" in done.stdout
            done = await here.verify("--json", *other, stdin=b"QUJDRA==")
            assert done.code == 1 and told(done)["asked"] == 2

    play(scenario())


# What is asked about


def wrapped(content, dumps=lambda content: json.dumps(content).encode()):
    return "v1." + base64.urlsafe_b64encode(dumps(content)).decode().rstrip("=")


def test_the_device_token_is_found_where_it_is(tmp_path):
    """Bare, in an envelope, and inside of an app's own wrapper; url-safe or as bytes, it arrives as standard base64."""

    async def scenario():
        async with desk(tmp_path, single_use=False) as here:
            token = here.apple.token()
            safe = token.replace("+", "-").replace("/", "_").rstrip("=")
            raw = base64.b64decode(token)
            field = ["--device-token-field", "device.token"]
            (tmp_path / "token").write_text(f"{token}\n")
            cases = [
                ([str(tmp_path / "token")], ""),
                ([], token),
                ([], safe),
                ([], f"v1.{token}"),
                ([], f"x-oai-attestation: {envelope(f'v1.{safe}')}"),
                (["--device-token-field", "."], f"v1.{token}"),
                (field, wrapped({"device": {"token": token}})),
                (field, envelope(wrapped({"device": {"token": safe}}))),
                (field, wrapped({"device": {"token": raw}}, cbor2.dumps)),
                (["--device-token-field", "2.0"], wrapped({2: [raw]}, cbor2.dumps)),
            ]
            for arguments, stdin in cases:
                done = await here.verify(*arguments, stdin=stdin.encode())
                assert done.code == 0, (arguments, done)
            assert len(here.apple.asked) == len(cases)

    play(scenario())


@pytest.fixture
def usage(tmp_path, capsys, monkeypatch):
    """Calls the command in this process, where a good key lies; (code, stderr), and nothing on stdout."""
    (tmp_path / "AuthKey_STANDINKEY.p8").write_bytes(Apple().key_pem)
    monkeypatch.chdir(tmp_path)
    for name in (verify_token.KEY_VARIABLE, verify_token.KEY_ID_VARIABLE, verify_token.TEAM_ID_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments, stdin):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            code = verify_token.main(arguments, [])
        except SystemExit as exc:
            code = exc.code
        out, error = capsys.readouterr()
        assert out == ""
        return code, error

    return call


@pytest.mark.parametrize(
    ("token", "options", "problem"),
    [
        ("", [], "a header or a token is needed, found nothing"),
        ("two canary words", [], "a token in one line is needed; found something else"),
        ("canary!", [], "a device token is one line of base64, and this is something else"),
        ("v1.canary!", [], "a device token is one line of base64, and this is something else"),
        ('{"v":1,"s":1}', [], "the header carries no token (status 1, TIMEOUT: the desktop did not answer in time)"),
        ('{"v":1,"s":0}', [], "not an attestation envelope: it has status 0 and no token"),
        (wrapped({"canary": "canary"}), [], "the token seems to hold 2 fields (base64url of JSON); name the one"),
        (wrapped({"a": "canary"}), ["--device-token-field", "b"], "--device-token-field: part 1 of 1 of the path"),
        (wrapped({"a": "canary"}), ["--device-token-field", "canary"], "part 1 of 1 of the path is not there"),
        (wrapped({"a": [1]}), ["--device-token-field", "a"], "neither a string nor bytes"),
        (wrapped({"a": "canary!"}), ["--device-token-field", "a"], "a device token is one line of base64"),
        ("v1.canary!", ["--device-token-field", "a"], "the token could not be decoded"),
    ],
)
def test_what_holds_no_device_token_is_code_2_and_nobody_is_asked(usage, token, options, problem):
    code, error = usage(*GOOD_KEY, *NOWHERE, *options, stdin=token)
    assert code == 2 and problem in error and "canary" not in error


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "a team key is needed: --key FILE.p8 or $DEVICECHECK_KEY"),
        (["--key", "canary.p8", "--team-id", "STANDIN123"], "the key's id is needed: --key-id or $DEVICECHECK_KEY_ID"),
        (["--key", "AuthKey_STANDINKEY.p8"], "the team's id is needed: --team-id or $DEVICECHECK_TEAM_ID"),
        (["--key", "AuthKey_CANARYCANA.p8", "--team-id", "STANDIN123"], "the team key cannot be read"),
        (["--key", "AuthKey_STANDINKEY.p8", "--team-id", "canary"], "the team id should be ten capital letters"),
        (["--key", "-", "--key-id", "STANDINKEY", "--team-id", "STANDIN123"], "cannot both come from stdin"),
        ([*GOOD_KEY, "--other-server", "https://x"], "--other-server needs --server"),
        ([*GOOD_KEY, "--server-ca", "x"], "--server-ca needs --server"),
        ([*GOOD_KEY, *NOWHERE, "--try-other-environment"], "--try-other-environment and --other-server go together"),
        (
            [*GOOD_KEY, *NOWHERE, "--other-server", "https://x"],
            "--try-other-environment and --other-server go together",
        ),
        ([*GOOD_KEY, "--server", "http://x"], "--server must be https://HOST[:PORT][/PATH]"),
        ([*GOOD_KEY, "--server", "https://u:canary@x"], "without user"),
        ([*GOOD_KEY, "--server", "https://x?canary"], "without user, query"),
        ([*GOOD_KEY, "--server", "https://x#canary"], "without user, query and fragment"),
        ([*GOOD_KEY, "--server", "https://x:canary"], "--server must be"),
        ([*GOOD_KEY, "--server", "https://[canary"], "--server must be"),
        ([*GOOD_KEY, "--server", "https://"], "--server must be"),
        ([*GOOD_KEY, *NOWHERE, "--server-ca", "AuthKey_STANDINKEY.p8"], "--server-ca should be a file of PEM cert"),
        ([*GOOD_KEY, *NOWHERE, "--server-ca", "canary"], "--server-ca cannot be read"),
        ([*GOOD_KEY, "--timeout", "0"], "--timeout cannot be used so"),
        ([*GOOD_KEY, "--timeout", "canary"], "--timeout cannot be used so"),
        ([*GOOD_KEY, "--timeout", "nan"], "--timeout cannot be used so"),
        ([*GOOD_KEY, "--attempts", "0"], "--attempts cannot be used so"),
        ([*GOOD_KEY, "--environment", "canary"], "--environment cannot be used so"),
        ([*GOOD_KEY, "--canary", "canary"], "some arguments are too many or unknown"),
        ([*GOOD_KEY, "QUJD", "canary"], "some arguments are too many or unknown"),
        ([*GOOD_KEY, "canary"], "the header or token cannot be read from the file that was named"),
    ],
)
def test_what_cannot_be_used_is_code_2_and_is_not_quoted(usage, arguments, problem):
    code, error = usage(*arguments, stdin="QUJDRA==")
    assert code == 2 and problem in error and "canary" not in error.casefold()


def test_a_key_that_is_none_is_code_2_and_is_not_quoted(usage, tmp_path):
    for content in ("canary", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"):
        (tmp_path / "key.p8").write_text(content)
        arguments = ["--key", "key.p8", "--key-id", "STANDINKEY", "--team-id", "STANDIN123"]
        code, error = usage(*arguments, *NOWHERE, "-vv", stdin="QUJDRA==")
        assert code == 2 and "the key should be" in error and "canary" not in error


def test_key_and_ids_come_from_the_environment_or_stdin_too(tmp_path):
    async def scenario():
        async with desk(tmp_path) as here:
            (tmp_path / "token").write_text(here.apple.token())
            address = ["--server", here.apple.url(PRODUCTION), "--server-ca", str(tmp_path / "ca.pem")]
            ids = {"DEVICECHECK_KEY_ID": "STANDINKEY", "DEVICECHECK_TEAM_ID": "STANDIN123"}
            pem = here.apple.key_pem
            for arguments, variables, stdin in (
                ([], {**ids, "DEVICECHECK_KEY": pem.decode()}, b""),
                (["--key", "-"], ids, pem),
                # What is named by an option counts.
                (["--key-id", "STANDINKEY"], {**ids, "DEVICECHECK_KEY": pem.decode(), "DEVICECHECK_KEY_ID": "X"}, b""),
            ):
                done = await finish(
                    COUNTERSIGN, "verify-token", str(tmp_path / "token"), *address, *arguments,
                    environment={**os.environ, **variables}, stdin=stdin,
                )  # fmt: skip
                assert done.code == 0, done.stderr

    play(scenario())


def test_no_override_is_taken(capsys):
    assert verify_token.main([], ["a=b"]) == 2
    assert "verify-token reads no config" in capsys.readouterr().err


def test_help_says_who_can_use_the_real_server_and_what_is_for_everybody_else():
    done = subprocess.run([COUNTERSIGN, "verify-token", "--help"], capture_output=True, text=True, check=False)
    shown = " ".join(done.stdout.split())
    assert "Only the owner of the app's team key can ask Apple" in shown
    assert "For everybody else there is `countersign standin apple`" in shown
    assert "0 the token is valid; 1 it is not; 2 usage" in shown
