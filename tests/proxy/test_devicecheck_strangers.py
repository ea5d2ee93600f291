"""The client of Apple's DeviceCheck server before servers that are none, and what it keeps to itself."""

import base64
import json

import pytest

from proxy.devicecheck import (
    Patience,
    Verdict,
)
from proxy.standins.apple import KEY_ID, Apple, Manner, Reply
from tests.proxy.devicecheck_wire import asked, from_raw, key_of, plain, writing


@pytest.mark.parametrize(
    ("content", "verdict", "attempts"),
    [
        (b"", Verdict.UNAVAILABLE, 3),
        (b"not HTTP\r\n\r\n", Verdict.UNAVAILABLE, 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", Verdict.UNAVAILABLE, 3),
        (plain(302, b"", b"Location: https://127.0.0.1:1/elsewhere"), Verdict.UNEXPECTED, 1),
        (plain(200, b"\x1f\x8b\x08\x00", b"Content-Encoding: gzip"), Verdict.UNEXPECTED, 1),
        (plain(200, b"x" * 100_000), Verdict.UNEXPECTED, 1),
        (plain(200, b"", b"x-apple-request-uuid: canary"), Verdict.VALID, 1),
    ],
)
def test_a_server_that_is_none_of_apples_is_no_trouble(run, content, verdict, attempts):
    async def scenario():
        answer, connections, _ = await from_raw(writing(content))
        assert (answer.verdict, answer.attempts, connections) == (verdict, attempts, attempts)
        assert "canary" not in repr(answer)
        assert answer.text is None or len(answer.text) <= 200

    run(scenario())


def test_an_answer_without_an_end_is_cut_by_the_deadline_or_by_its_length(run):
    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await writer.drain()
        await reader.read()  # until the client has gone

    async def flood(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 X\r\n\r\n")
        while True:
            writer.write(b"bad device token " * 1000)
            await writer.drain()

    async def scenario():
        answer, _, _ = await from_raw(drip, Patience(total_s=0.2))
        assert (answer.verdict, answer.status_code, answer.is_ok) == (Verdict.UNAVAILABLE, 200, False)
        answer, _, _ = await from_raw(flood)
        assert answer.verdict is Verdict.INVALID_TOKEN and len(answer.text) <= 200

    run(scenario())


def test_a_server_without_tls_gets_nothing(run):
    async def behave(reader, writer):
        assert b"device_token" not in await reader.read(65536)
        writer.write(plain(200, b""))

    async def scenario():
        answer, _, _ = await from_raw(behave, tls=False)
        assert answer.verdict is Verdict.UNAVAILABLE

    run(scenario())


# Secrets


def bearer(request: bytes) -> bytes:
    return request.partition(b"Bearer ")[2].partition(b"\r\n")[0]


def token_in(request: bytes) -> bytes:
    body: dict[str, str] = json.loads(request.partition(b"\r\n\r\n")[2])
    return body["device_token"].encode()


@pytest.mark.parametrize(
    "content",
    [
        lambda request: plain(400, b"rejected: " + bearer(request)[:150] + token_in(request)),
        lambda request: plain(400, b"bad device token " + token_in(request)[:30]),
        lambda request: plain(400, bearer(request)[:60].upper()),
        lambda request: plain(500, token_in(request)[700:712]),
    ],
)
def test_a_server_that_repeats_a_secret_is_not_quoted(run, caplog, content):
    caplog.set_level("DEBUG")

    async def scenario():
        answer, _, token = await from_raw(writing(content))
        assert answer.status_code is not None and answer.text is None
        told = (repr(answer) + caplog.text).casefold()
        assert not any(token[start : start + 8].casefold() in told for start in range(0, len(token) - 8, 4))
        assert "eyjhbgci" not in told

    run(scenario())


def test_a_sentence_of_its_own_is_quoted(run):
    """The negative control: what holds no secret is what the user needs to see."""

    async def scenario():
        answer, _, _ = await from_raw(writing(plain(400, b"a sentence that nobody knew")))
        assert answer.text == "a sentence that nobody knew" and answer.verdict is Verdict.UNEXPECTED

    run(scenario())


def test_a_key_does_not_show_itself():
    apple = Apple()
    shown = repr(key_of(apple)) + str(key_of(apple))
    secret = base64.b64decode(b"".join(apple.key_pem.splitlines()[1:-1]))
    assert KEY_ID in shown and "private" not in shown.lower()
    assert secret.hex()[:16] not in shown and "EllipticCurve" not in shown


@pytest.mark.parametrize("replies", [[Manner.HONEST], [Reply(503)], [Reply(400, "bad device token")], [Manner.CLOSE]])
def test_neither_token_nor_jwt_is_logged_at_any_level(run, caplog, replies):
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="proxy")

    async def scenario():
        async with Apple(replies=replies) as apple:
            token = apple.token()
            answers = await asked(apple, token)
            told = repr(answers) + caplog.text
            assert "devicecheck environment=production attempt=1" in told
            assert token[:16] not in told and token[-16:] not in told and "eyJ" not in told

    run(scenario())
