"""The client of Apple's DeviceCheck server: what it sends, how it takes each answer, what it keeps to itself."""

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.trust import client_context
from proxy.devicecheck import (
    SERVERS,
    Answer,
    Environment,
    KeyUnusable,
    Patience,
    TeamKey,
    Verdict,
    decisive,
    device_token,
    judge,
    question,
    validate,
)
from proxy.standins.apple import DEVELOPMENT, KEY_ID, PRODUCTION, TEAM_ID, Apple, Manner, Reply, Tls
from tests.loops import on_each_loop

NOW_S = 1_800_000_000.987
# As many pauses as there are, and none that is worth waiting for.
QUICK = Patience(total_s=10, attempts=3, first_pause_s=0.001)


def key_of(apple, team_id=TEAM_ID):
    return TeamKey.load(apple.key_pem, KEY_ID, team_id)


async def asked(apple, token=None, environment=Environment.PRODUCTION, **options):
    """The answers of a stand-in that runs already."""
    servers = {one: apple.url(str(one)) for one in Environment}
    key = options.pop("key", None) or key_of(apple)
    options = {"patience": QUICK, "servers": servers, "context": client_context(apple.ca_pem), **options}
    return await validate(token or apple.token(), key, environment, **options)


# What is sent


def test_the_jwt_has_seconds_and_the_body_has_milliseconds_of_the_same_time():
    apple = Apple()
    token = key_of(apple).authorization(NOW_S)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": KEY_ID, "typ": "JWT"}
    public = jwt.get_algorithm_by_name("ES256").prepare_key(apple.key_pem).public_key()
    options = {"verify_iat": False}
    claims = jwt.decode(token, public, algorithms=["ES256"], options=options)
    assert claims == {"iss": TEAM_ID, "iat": 1_800_000_000}
    body = question("QUJD", "id", NOW_S)
    assert body == {"device_token": "QUJD", "transaction_id": "id", "timestamp": 1_800_000_000_987}
    # The negative control: signed by another key.
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(key_of(Apple()).authorization(NOW_S), public, algorithms=["ES256"], options=options)


@on_each_loop
def test_a_genuine_token_is_valid_for_a_server_that_checks_everything(run):
    async def scenario():
        async with Apple(now=lambda: NOW_S) as apple:
            (answer,) = await asked(apple, now=lambda: NOW_S)
            (stale,) = await asked(apple, now=lambda: NOW_S - 7200)
        assert answer.verdict is Verdict.VALID and answer.is_ok and answer.status_code == 200
        assert apple.asked[0].timestamp == 1_800_000_000_987
        assert apple.asked[0].transaction_id == answer.transaction_id and answer.apple_request_id
        # The negative control: a clock that is two hours late.
        assert stale.verdict is Verdict.AUTH_REJECTED and not stale.is_ok

    run(scenario())


def test_each_question_has_a_transaction_id_of_its_own(run):
    async def scenario():
        async with Apple(replies=[Reply(503), Reply(503), Manner.HONEST]) as apple:
            token = apple.token()
            for _ in range(3):
                await asked(apple, token)
        ids = [one.transaction_id for one in apple.asked]
        assert len(ids) == 5 == len(set(ids))

    run(scenario())


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ("AgAA+/==", "AgAA+/=="),
        ("AgAA-_==", "AgAA+/=="),
        ("AgAA-_", "AgAA+/=="),
        ("QUJDRA", "QUJDRA=="),
        (b"\x02\x00\x00\x00", "AgAAAA=="),
    ],
)
def test_a_device_token_is_sent_as_it_is_or_made_standard_base64(content, sent):
    assert device_token(content) == sent


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("QUJD\nQUJD", "line breaks or blanks"),
        ("QUJD QUJD", "line breaks or blanks"),
        ("canary!", "something else"),
        ("", "something else"),
        (b"", "something else"),
        ("v1.QUJD", "something else"),
        ("A" * 65537, "at most 65536 characters"),
    ],
)
def test_what_is_no_device_token_is_refused_without_quoting_it(content, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        device_token(content)
    assert "canary" not in str(caught.value)


# The key


def pem_of(curve_pem_label, body=b"Y2FuYXJ5"):
    return b"-----BEGIN " + curve_pem_label + b"-----\n" + body + b"\n-----END " + curve_pem_label + b"-----\n"


def pkcs8(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def other_curve():
    return pkcs8(ec.generate_private_key(ec.SECP384R1()))


def rsa_key():
    return pkcs8(rsa.generate_private_key(65537, 2048))


@pytest.mark.parametrize(
    ("pem", "problem"),
    [
        (b"", "should be a .p8 file"),
        (b"canary", "should be a .p8 file"),
        (pem_of(b"EC PRIVATE KEY"), "should be a .p8 file"),
        (pem_of(b"ENCRYPTED PRIVATE KEY"), "without passphrase"),
        (pem_of(b"PUBLIC KEY"), "should be a .p8 file"),
        (pem_of(b"CERTIFICATE"), "should be a .p8 file"),
        (pem_of(b"PRIVATE KEY"), "this one is damaged"),
        (pem_of(b"PRIVATE KEY") * 2, "one block"),
        (other_curve(), "on another curve"),
        (rsa_key(), "of another kind"),
    ],
)
def test_what_is_no_team_key_is_refused_without_quoting_it(pem, problem):
    with pytest.raises(KeyUnusable, match=problem) as caught:
        TeamKey.load(pem, KEY_ID, TEAM_ID)
    # Nor does what it was raised from.
    assert "canary" not in str(caught.value) and "Y2Fu" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "bad", ["", "SHORT", "lowercase1", "ELEVENCHARS", "TEN\nCHARS1", "69a6de7e-1234-47e3-a053-5b8c7c11a4d1"]
)
def test_an_id_that_apple_would_not_give_is_refused(bad):
    """The issuer of an App Store Connect key is a UUID, and easily taken for the team's."""
    for key_id, team_id, what in ((bad, TEAM_ID, "key id"), (KEY_ID, bad, "team id")):
        with pytest.raises(KeyUnusable, match=f"the {what} should be ten capital letters and digits"):
            TeamKey.load(Apple().key_pem, key_id, team_id)


# What is made of an answer


ROWS = [
    (200, "", Verdict.VALID),
    (200, "\n", Verdict.VALID),
    (400, "Missing or incorrectly formatted device token payload", Verdict.INVALID_TOKEN),
    (400, "Missing or badly formatted device token payload", Verdict.INVALID_TOKEN),
    (400, " MISSING OR BADLY FORMATTED DEVICE TOKEN \r\n", Verdict.INVALID_TOKEN),
    (400, "bad device token", Verdict.INVALID_TOKEN),
    (400, "Missing or badly formatted authorization token", Verdict.AUTH_MALFORMED),
    (401, "Unable to verify authorization token", Verdict.AUTH_REJECTED),
    (401, "", Verdict.AUTH_REJECTED),
    (400, "Missing or incorrectly formatted time stamp", Verdict.REQUEST_ERROR),
    (400, "Invalid or missing timestamp", Verdict.REQUEST_ERROR),
    (400, "Invalid or missing transaction id", Verdict.REQUEST_ERROR),
    (405, "Method Not Allowed", Verdict.REQUEST_ERROR),
    (429, "", Verdict.UNAVAILABLE),
    (429, "bad device token", Verdict.UNAVAILABLE),
    (500, "", Verdict.UNAVAILABLE),
    (503, "Missing or incorrectly formatted device token payload", Verdict.UNAVAILABLE),
    (599, "", Verdict.UNAVAILABLE),
    (200, "Failed to find bit state", Verdict.UNEXPECTED),
    (200, "Bit State Not Found", Verdict.UNEXPECTED),
    (200, "<html>please sign in</html>", Verdict.UNEXPECTED),
    (400, "", Verdict.UNEXPECTED),
    (400, "something new", Verdict.UNEXPECTED),
    (400, "Failed to find bit state", Verdict.UNEXPECTED),
    (404, "bad device token", Verdict.UNEXPECTED),
    (302, "", Verdict.UNEXPECTED),
    (204, "", Verdict.UNEXPECTED),
]


@pytest.mark.parametrize(("status", "text", "verdict"), ROWS)
def test_each_answer_has_its_verdict(status, text, verdict):
    assert judge(status, text)[0] is verdict


@pytest.mark.parametrize(("status", "text", "verdict"), [row for row in ROWS if row[0] not in (204, 302)])
def test_each_answer_has_its_verdict_over_the_wire(run, status, text, verdict):
    async def scenario():
        async with Apple(replies=[Reply(status, text)]) as apple:
            (answer,) = await asked(apple)
        assert (answer.verdict, answer.status_code) == (verdict, status)
        assert answer.text == (text.strip() or None)
        assert len(apple.asked) == answer.attempts == (3 if verdict is Verdict.UNAVAILABLE else 1)

    run(scenario())


def test_a_server_that_recovers_is_asked_until_it_answers_and_no_longer(run):
    async def scenario():
        async with Apple(replies=[Reply(503), Manner.CLOSE, Manner.HONEST]) as apple:
            (answer,) = await asked(apple)
            assert (answer.verdict, answer.attempts) == (Verdict.VALID, 3)
        # The negative control: with one attempt less it is not.
        async with Apple(replies=[Reply(503), Manner.CLOSE, Manner.HONEST]) as apple:
            (answer,) = await asked(apple, patience=Patience(10, 2, 0.001))
            assert (answer.verdict, answer.attempts) == (Verdict.UNAVAILABLE, 2)

    run(scenario())


def test_a_pause_that_would_outlast_the_deadline_is_not_made(run):
    async def scenario():
        async with Apple(replies=[Reply(503)]) as apple:
            (answer,) = await asked(apple, patience=Patience(total_s=10, attempts=3, first_pause_s=60))
        assert (answer.verdict, answer.attempts, len(apple.asked)) == (Verdict.UNAVAILABLE, 1, 1)

    run(scenario())


@on_each_loop
def test_a_server_that_does_not_answer_in_time_is_unavailable(run):
    async def scenario():
        async with Apple(delay_s=60) as apple:
            (answer,) = await asked(apple, patience=Patience(total_s=0.2))
        assert answer.verdict is Verdict.UNAVAILABLE and answer.status_code is None
        assert answer.reason == "no answer within 0.2 seconds"

    run(scenario())


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        (Tls.UNTRUSTED, "unable to get local issuer certificate"),
        (Tls.NAME, "IP address mismatch"),
        (Tls.EXPIRED, "certificate has expired"),
    ],
)
def test_a_server_with_a_bad_certificate_gets_nothing_and_is_not_asked_again(run, tls, problem):
    async def scenario():
        async with Apple(tls=tls) as apple:
            (answer,) = await asked(apple)
        assert (answer.verdict, answer.attempts, apple.asked) == (Verdict.UNAVAILABLE, 1, [])
        assert answer.reason.startswith("nothing was sent") and problem in answer.reason

    run(scenario())


def test_apples_own_names_are_not_taken_from_a_stand_in(run):
    """The real context: a stand-in's certificate is none of the platform's."""

    async def scenario():
        async with Apple() as apple:
            (answer,) = await asked(apple, context=ssl.create_default_context())
        assert answer.verdict is Verdict.UNAVAILABLE and apple.asked == []

    run(scenario())
    assert set(SERVERS.values()) == {
        "https://api.devicecheck.apple.com", "https://api.development.devicecheck.apple.com",
    }  # fmt: skip


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def from_raw(behaviour: Behaviour, patience=QUICK, tls=True) -> tuple[Answer, int, str]:
    """(the answer, connections, the token) of a server that writes what it likes."""
    authority, connections = trustme.CA(), 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        try:
            await behaviour(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    apple = Apple()
    token = apple.token()
    async with await asyncio.start_server(serve, "127.0.0.1", ssl=context if tls else None) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (answer,) = await validate(
            token,
            key_of(apple),
            Environment.PRODUCTION,
            context=client_context(authority.cert_pem.bytes()),
            servers={Environment.PRODUCTION: url},
            patience=patience,
        )
    return answer, connections, token


def writing(content: bytes | Callable[[bytes], bytes]) -> Behaviour:
    async def behave(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        writer.write(content if isinstance(content, bytes) else content(head + body))

    return behave


def plain(status: int, text: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(text), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + text


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


def test_nobody_at_that_address_is_unavailable_and_the_reason_holds_no_address(run):
    async def scenario():
        async with Apple() as apple:
            pass
        (answer,) = await asked(apple)
        assert answer.verdict is Verdict.UNAVAILABLE and answer.reason == "the connection failed: Connection refused"
        # A label too long for a name, and a name that is none: a network may leave the second without an answer.
        for host in ("n" * 64 + ".example", "nowhere.invalid"):
            servers = {Environment.PRODUCTION: f"https://{host}"}
            (answer,) = await asked(apple, servers=servers, patience=Patience(total_s=3, attempts=1))
            assert answer.verdict is Verdict.UNAVAILABLE and host not in answer.reason

    run(scenario())


# Environments


def asked_environments(apple):
    return [one.environment for one in apple.asked]


def test_the_other_environment_is_asked_once_and_only_when_wanted(run):
    async def scenario():
        async with Apple() as apple:
            token = apple.token(DEVELOPMENT)
            (answer,) = await asked(apple, token)
            assert answer.verdict is Verdict.INVALID_TOKEN and asked_environments(apple) == [PRODUCTION]
            apple.asked.clear()
            answers = await asked(apple, token, try_other=True)
            assert [one.verdict for one in answers] == [Verdict.INVALID_TOKEN, Verdict.VALID]
            assert asked_environments(apple) == [PRODUCTION, DEVELOPMENT]
            assert decisive(answers).environment is Environment.DEVELOPMENT
            apple.asked.clear()
            answers = await asked(apple, "QUJDRA==", Environment.DEVELOPMENT, try_other=True)
            assert asked_environments(apple) == [DEVELOPMENT, PRODUCTION]
            assert decisive(answers).verdict is Verdict.INVALID_TOKEN

    run(scenario())


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        (Reply(400, "Missing or badly formatted authorization token"), 2),
        (Reply(400, "bad device token"), 2),
        (Reply(401, "Unable to verify authorization token"), 1),
        (Reply(400, "Invalid or missing timestamp"), 1),
        (Reply(404), 1),
        (Reply(200), 1),
    ],
)
def test_it_is_not_asked_where_the_environment_cannot_be_the_cause(run, reply, count):
    async def scenario():
        async with Apple(replies=[reply]) as apple:
            assert len(await asked(apple, try_other=True)) == len(apple.asked) == count

    run(scenario())


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ("invalid_token", "valid", "valid"),
        ("invalid_token", "invalid_token", "invalid_token"),
        ("invalid_token", "auth_malformed", "invalid_token"),
        ("auth_malformed", "invalid_token", "invalid_token"),
        ("auth_malformed", "auth_malformed", "auth_malformed"),
        ("invalid_token", "unavailable", "unavailable"),
        ("invalid_token", "auth_rejected", "auth_rejected"),
        ("invalid_token", "request_error", "request_error"),
        ("invalid_token", "unexpected", "unexpected"),
    ],
)
def test_a_token_is_not_called_invalid_while_one_environment_did_not_say_so(first, second, counts):
    answers = (
        Answer(Verdict(first), Environment.PRODUCTION, ""),
        Answer(Verdict(second), Environment.DEVELOPMENT, ""),
    )
    assert decisive(answers).verdict == counts


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


def test_time_is_read_anew_for_each_attempt(run):
    """A JWT of the first attempt may be stale at the last."""

    async def scenario():
        times = iter(range(1_800_000_000, 1_800_000_100))
        async with Apple(replies=[Reply(503), Manner.HONEST], now=lambda: 1_800_000_000) as apple:
            (answer,) = await asked(apple, now=lambda: float(next(times)))
        assert answer.verdict is Verdict.VALID
        first, second = (one.timestamp for one in apple.asked)
        assert second > first

    run(scenario())
