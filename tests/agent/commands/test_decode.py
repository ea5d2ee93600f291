"""`countersign decode`: envelope and shape, never the content unless it is told to."""

import base64
import json
import os
import subprocess
import sys

import pytest

from agent.commands import decode
from proxy.attestation import AttestationStatus, envelope, failure
from tests.processes import COUNTERSIGN, finish, play

SECRET = "canary/value/that/is/long"
CONTENT = {"bundleId": "com.example.app", "device": {"token": base64.b64encode(SECRET.encode()).decode(), "n": 4711}}
TOKEN = "v1." + base64.urlsafe_b64encode(json.dumps(CONTENT).encode()).decode().rstrip("=")
HEADER = envelope(TOKEN)


def pieces(token=TOKEN):
    """What of a token must not be shown."""
    yield from (token[start : start + 12] for start in range(3, len(token) - 12, 6))
    yield from ("canary", base64.b64encode(SECRET.encode()).decode()[:12], "com.example", "4711")


def leaked(text):
    return [piece for piece in pieces() if piece in text]


def run_decode(capsys, *arguments):
    """(exit code, stdout, stderr) of a call in this process."""
    try:
        code = decode.main(arguments, [])
    except SystemExit as exc:
        code = exc.code
    out, err = capsys.readouterr()
    return code, out, err


def test_a_header_is_told_by_its_status_and_the_shape_of_its_token(capsys, tmp_path):
    (tmp_path / "header").write_text(f"X-OAI-Attestation: {HEADER}\n")
    code, out, err = run_decode(capsys, str(tmp_path / "header"))
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert "envelope  version 1, status 0: OK (the desktop gave a token)" in out
    assert f"token     {len(TOKEN)} characters, version v1, sha256 " in out
    assert "guess     base64url of JSON: it fits" in out
    assert ["bundleId", "string", "15"] in lines and ["device.n", "integer"] in lines
    assert any(line[:2] == ["device.token", "string"] and "base64 of 25 bytes" in " ".join(line) for line in lines)
    assert leaked(out) == []


def test_reveal_shows_what_is_hidden_else(capsys):
    """The negative control of the former."""
    _, out, _ = run_decode(capsys, HEADER, "--reveal")
    assert TOKEN in out and "com.example.app" in out and "4711" in out
    _, out, _ = run_decode(capsys, HEADER, "--reveal", "--json")
    told = json.loads(out)["token"]
    assert told["text"] == TOKEN and told["guesses"][0]["content"] == CONTENT


def test_json_has_the_same_without_values(capsys):
    code, out, _ = run_decode(capsys, "--json", HEADER)
    told = json.loads(out)
    assert code == 0 and leaked(out) == []
    assert told["envelope"] == {"v": 1, "s": 0, "status": "OK", "as_the_original_writes_it": True}
    assert [(guess["format"], guess["fits"]) for guess in told["token"]["guesses"]] == [
        ("base64url of JSON", True), ("base64url of CBOR", False), ("base64 of other bytes", True),
    ]  # fmt: skip
    assert {"path": "device", "type": "object", "length": 2, "sha256_prefix": None, "looks_like": None} in (
        told["token"]["guesses"][0]["fields"]
    )


@pytest.mark.parametrize("status", [one for one in AttestationStatus if one is not AttestationStatus.OK])
def test_a_failure_is_told_by_name_and_has_no_token(capsys, status):
    code, out, _ = run_decode(capsys, failure(status).header)
    assert code == 0 and f"status {int(status)}: {status.name} (" in out and "token     none" in out
    told = json.loads(run_decode(capsys, "--json", failure(status).header)[1])
    assert told["envelope"]["status"] == status.name and told["token"] is None


@pytest.mark.parametrize(
    ("header", "canonical"),
    [
        ('{"v":1,"s":1}', True),
        ('{"v": 1, "s": 1}', False),
        ('{"s":1,"v":1}', False),
        ('{"v":1,"s":0,"t":"v1.\\u0041"}', False),
    ],
)
def test_it_says_whether_the_original_would_have_written_it_so(capsys, header, canonical):
    _, out, _ = run_decode(capsys, header)
    assert ("not written as the original writes it" not in out) is canonical


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ('{"v":1', "it is no JSON"),
        ('{"v":1,"s":0,"t":"canary","t":"canary"}', "a member is there twice"),
        ('{"v":2,"s":0,"t":"canary"}', "its version, v, is not 1"),
        ('{"v":true,"s":0,"t":"canary"}', "its version, v, is not 1"),
        ('{"v":1,"s":9,"t":"canary"}', "its status, s, is none of 0, 1, 2, 3, 4"),
        ('{"v":1,"s":false,"t":"canary"}', "its status, s, is none of"),
        ('{"v":1,"s":0}', "status 0 and no token"),
        ('{"v":1,"s":1,"t":"canary"}', "a status that is not 0"),
        ('{"v":1,"s":0,"t":["canary"]}', "its token, t, is no string"),
        ('{"v":1,"s":0,"t":"canary","canary":1}', "it has 1 members besides v, s and t"),
        ("x-oai-attestation: canary", "it is no JSON"),
        ("x-oai-attestation: [1]", "it is no JSON object"),
        ("{" * 100_000, "it is no JSON"),
    ],
)
def test_what_is_no_envelope_is_code_1_with_the_reason_and_without_its_content(capsys, header, problem):
    code, out, err = run_decode(capsys, header)
    assert (code, out) == (1, "")
    assert f"this is not an attestation envelope: {problem}" in err or problem in err
    assert "canary" not in err


def test_a_bare_token_is_looked_into_as_well(capsys):
    code, out, _ = run_decode(capsys, TOKEN)
    assert code == 0 and "envelope  none: this is a bare token" in out and "bundleId" in out


def test_one_header_is_found_among_others(capsys, tmp_path):
    head = f"POST / HTTP/1.1\r\nAuthorization: Bearer canary\r\nx-oai-attestation: {HEADER}\r\nHost: x\r\n"
    (tmp_path / "head").write_text(head)
    code, out, _ = run_decode(capsys, str(tmp_path / "head"))
    assert code == 0 and "status 0: OK" in out and leaked(out) == []
    (tmp_path / "head").write_text(head * 2)
    code, _, err = run_decode(capsys, str(tmp_path / "head"))
    assert code == 2 and "one x-oai-attestation header is needed, found 2" in err


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "found nothing"),
        (b" \n", "found nothing"),
        (b"two canary words", "or a token in one line is needed; found something else"),
        (b"canary\ncanary", "found something else"),
        (b"caf\xc3\xa9", "found something else"),
        (b"\xff\xfecanary", "should be text, and holds bytes that are none; encode them as base64"),
        (b"x" * 300_000, "longer than 262144 bytes"),
    ],
)
def test_an_input_that_cannot_be_one_is_code_2(capsys, tmp_path, content, problem):
    (tmp_path / "input").write_bytes(content)
    code, out, err = run_decode(capsys, str(tmp_path / "input"))
    assert (code, out) == (2, "") and problem in err and "canary" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["canary-file-that-is-not-there"],
        ["x-oai-attestation:", "canary"],
        ["{", "canary", "}"],
        ["-vcanary"],
        ["-canary"],
        ["--canary=canary"],
        ["--json=canary"],
        ["canary\x00"],
    ],
)
def test_what_was_typed_is_not_shown_in_an_error(capsys, arguments):
    """A header without quotes is many words, one of which holds the token."""
    code, out, err = run_decode(capsys, *arguments)
    assert code in (1, 2) and out == "" and err and "canary" not in err


def test_an_option_that_was_mistyped_is_told_which_one_may_have_been_meant(capsys):
    code, _, err = run_decode(capsys, "--revael", "canary")
    assert code == 2 and "did you mean --reveal? `countersign decode --help` lists the options" in err
    assert "revael" not in err and "canary" not in err


def test_the_header_comes_by_stdin_with_and_without_a_dash():
    async def scenario():
        for arguments in ([], ["-"]):
            done = await finish(COUNTERSIGN, "decode", *arguments, stdin=b'\xef\xbb\xbf{"v":1,"s":4}\n')
            assert (done.code, done.stderr) == (0, "") and "status 4: MALFORMED" in done.stdout

    play(scenario())


def test_no_override_is_taken(capsys):
    assert decode.main([], ["a=b"]) == 2
    assert "decode reads no config" in capsys.readouterr().err


def test_what_a_token_wrote_does_not_steer_the_terminal(capsys):
    content = json.dumps({"\x1b[31mred": "\x1b[2J", "ok": ["\x9b31m"]}).encode()
    token = "v1." + base64.urlsafe_b64encode(content).decode()
    for options in ([], ["--reveal"], ["--json", "--reveal"]):
        _, out, _ = run_decode(capsys, token, *options)
        assert "\x1b" not in out and "\x9b" not in out


@pytest.mark.parametrize("content", [b'{"a":1e999,"b":[-1e999]}', b'{"a":NaN}', b"\x82\xf9\x7e\x00\xf9\x7c\x00"])
def test_json_is_json_whatever_numbers_a_token_holds(capsys, content):
    token = "v1." + base64.urlsafe_b64encode(content).decode()
    _, out, _ = run_decode(capsys, token, "--json", "--reveal")
    foreign = []
    assert json.loads(out, parse_constant=foreign.append) and foreign == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full, which is always full, is Linux's")
def test_a_shape_that_cannot_be_printed_is_told_with_code_2():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [COUNTERSIGN, "decode", "v1.abcd"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and "decode: the shape cannot be printed: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_starts_without_what_only_verifying_needs():
    probe = (
        'import sys; from agent.commands import decode; decode.main([\'{"v":1,"s":1}\'], []);'
        "sys.exit(','.join({'aiohttp', 'jwt', 'rich', 'mitmproxy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
