"""Known secrets are taken out of bodies, wherever they are and however the body is split; all else stays."""

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capture.bodies.secrets import SecretFilter
from proxy.capture.redact import Redactor

REDACTOR = Redactor(bytes(range(32)))
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canarycanary"


def filtered(body, step=10**9):
    """(what is left, how many were taken out)."""
    looked = SecretFilter(REDACTOR)
    made = b"".join(looked.feed(body[at : at + step]) for at in range(0, len(body), step)) + looked.finish()
    return made, looked.found


def as_json(content):
    return json.dumps(content).encode()


SECRETS = {
    "member": as_json({"access_token": "canary", "refresh_token": "canary", "id_token": "canary", "apiKey": "canary"}),
    "spaces": b'{"access_token" \t:  "canary"}',
    "escapes": as_json({"access_token": 'canary"\\', "b": 1}),
    "header": as_json({"client_metadata": {"Authorization": "Bearer canary", "chatgpt-account-id": "canary"}}),
    "websocket header": as_json({"client_metadata": {"ws_request_header_x-oai-attestation": "canary"}}),
    "json in json": as_json({"meta": json.dumps({"refresh_token": "canary", "b": 'c"d'})}),
    "json in json in json": as_json(
        {"a": json.dumps({"b": json.dumps({"client_secret": 'can"ary canary', "c": "d"})})}
    ),
    "form": b"grant_type=refresh_token&refresh_token=canary&client_id=x",
    "form at the end": b"client_secret=canary",
    "bearer": b"curl -H 'authorization: bearer canarycanarycanary' x",
    "token": f"a prompt with {JWT} in it".encode(),
    "token behind an escape": as_json({"text": f"line\n{JWT}\n"}),
    "key": b"export KEY=sk-canarycanarycanarycanary",
    "cut": b'{"access_token": "canary',
    "cut in an escape": b'{"access_token": "canary\\',
    "cut form": b"a=b&access_token=canary",
}


@pytest.mark.parametrize("body", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_taken_out_however_the_body_is_split(body):
    whole, found = filtered(body)
    assert b"canary" not in whole and b"[redacted " in whole and found > 0
    for step in range(1, len(body) + 1):
        assert filtered(body, step) == (whole, found), step


@pytest.mark.parametrize("name", ["member", "escapes", "header", "json in json", "json in json in json"])
def test_json_stays_json(name):
    content = json.loads(filtered(SECRETS[name])[0])
    if name == "json in json in json":
        assert json.loads(json.loads(content["a"])["b"])["c"] == "d"
    if name == "json in json":
        assert json.loads(content["meta"])["b"] == 'c"d'


HARMLESS = {
    "usage": as_json({"input_tokens": 5, "output_tokens_details": {"reasoning_tokens": 1}, "max_output_tokens": "10"}),
    "words": b"the bearer of news, an access token, the cookie jar and a password; max_token=5 monkey=banana",
    "short": b"bearer token eyJ sk-learn",
    "no text": b'{"access_token": null, "id_token": 5, "cookie": ["a"]}',
    "code": b'token = headers["authorization"]\nif token == "": raise',
    "not JSON": bytes(range(256)) * 20,
    "backslashes": b"\\" * 1000 + b'"' * 1000,
}


@pytest.mark.parametrize("body", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_secret_stays_as_it_is(body):
    for step in (1, 3, 50, 10**9):
        assert filtered(body, step) == (body, 0)


def test_equal_secrets_have_equal_marks_in_a_body_and_in_a_header():
    token = "v1.device-token"
    envelope = json.dumps({"v": 1, "s": 0, "t": token}, separators=(",", ":"))
    ((_, header),) = REDACTOR.headers([(b"x-oai-attestation", envelope.encode())])
    body, _ = filtered(as_json({"client_metadata": {"x-oai-attestation": envelope}}))
    assert json.loads(body)["client_metadata"]["x-oai-attestation"] == header
    assert REDACTOR.mark(token.encode()) in header
    other, _ = filtered(as_json({"access_token": "é\ntoken"}))
    assert json.loads(other)["access_token"] == REDACTOR.mark("é\ntoken".encode())


@pytest.mark.parametrize("step", [1000, 65_536, 10**9])
def test_a_secret_that_is_too_long_to_be_held_is_taken_out_whole(step):
    body = b'{"access_token": "' + b"canary" * 100_000 + b'", "b": 1}'
    made, found = filtered(body, step)
    assert b"canary" not in made and made.endswith(b'", "b": 1}') and found == 1


@given(st.lists(st.sampled_from(list(SECRETS.values()) + list(HARMLESS.values())), max_size=6), st.integers(1, 400))
def test_a_split_changes_nothing(bodies, step):
    body = b" ".join(bodies)
    assert filtered(body, step) == filtered(body)


@pytest.mark.parametrize(
    "body",
    [
        b"eyJ" * 20_000,
        b" eyJ" * 15_000,
        b"sk-" * 20_000,
        b"bearer " * 9_000,
        b"access_token=" * 5_000,
        b'"access_token":"' * 4_000,
        b'\\"access_token\\":\\"' * 3_000,
        b"\\" * 64_000,
        b'\\\\\\"' * 16_000,
    ],
    ids=lambda body: body[:20].decode(),
)
def test_no_text_makes_the_search_slow(body):
    """64 KiB of ordinary text take a millisecond; a search that was quadratic took seconds."""
    begun = time.thread_time()
    for _ in range(3):
        filtered(body, 16 * 1024)
    assert time.thread_time() - begun < 3


def test_random_bytes_pass():
    body = random.Random(1).randbytes(300_000)
    assert filtered(body, 5000)[0] == body
