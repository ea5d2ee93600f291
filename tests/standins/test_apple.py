"""The stand-in of Apple's DeviceCheck server: what it refuses, in which order and with which words."""

import base64
import datetime as dt
import json
import ssl
import time
import uuid

import aiohttp
import jwt
import pytest

from certs.authority import LocalAuthority
from certs.trust import client_context
from proxy.standins.apple import (
    DEVELOPMENT,
    KEY_ID,
    PATH,
    PRODUCTION,
    TEAM_ID,
    Apple,
    Manner,
    Reply,
    Tls,
)

AUTH = "Missing or badly formatted authorization token"
REJECTED = "Unable to verify authorization token"
TOKEN = "Missing or incorrectly formatted device token payload"
TIME = "Missing or incorrectly formatted time stamp"
TRANSACTION = "Invalid or missing transaction id"


def signed(service, key=None, algorithm="ES256", kid=KEY_ID, **claims):
    content = {"iss": TEAM_ID, "iat": int(time.time()), **claims}
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key or service.key_pem, algorithm=algorithm, headers={"kid": kid})


def good(service):
    return {"device_token": service.token(), "transaction_id": str(uuid.uuid4()), "timestamp": int(time.time() * 1000)}


class Client:
    """Asks a stand-in that it trusts."""

    def __init__(self, service, session):
        self.service, self.session = service, session

    async def ask(self, body=None, *, bearer=None, method="POST", path=PATH, environment=PRODUCTION, headers=None):
        body = good(self.service) if body is None else body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if headers is None:
            headers = {"Authorization": f"Bearer {bearer or signed(self.service)}"}
        url = self.service.url(environment) + path
        async with self.session.request(method, url, data=content, headers=headers) as response:
            self.response = response
            return response.status, await response.text()


def talk(story, **options):
    async def scenario():
        async with Apple(**options) as service:
            connector = aiohttp.TCPConnector(ssl=client_context(service.ca_pem))
            async with aiohttp.ClientSession(connector=connector) as session:
                await story(Client(service, session))

    return scenario()


def test_a_genuine_token_is_200_with_nothing_in_it_as_text(run):
    async def story(client):
        assert await client.ask() == (200, "")
        assert client.response.headers["Content-Type"] == "text/plain; charset=UTF-8"
        assert uuid.UUID(client.response.headers["x-apple-request-uuid"])
        assert [one.why for one in client.service.asked] == ["genuine"]

    run(talk(story))


def test_only_the_private_half_of_its_key_signs(run):
    """ES256 is checked for real: another key of the same kind, and the public key as an HMAC secret, do not pass."""

    async def story(client):
        service = client.service
        assert (await client.ask())[0] == 200
        other = Apple().key_pem
        header, claims, signature = signed(service).split(".")
        forged = jwt.encode({"iss": "ABCDE12345", "iat": int(time.time())}, service.key_pem, "ES256").split(".")[1]
        none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": KEY_ID}).encode()).decode().rstrip("=")
        for bearer in (
            signed(service, other),
            signed(service, "secret" * 10, "HS256"),
            f"{header}.{forged}.{signature}",
            f"{none}.{claims}.",
            f"{header}.{claims}.{'A' * 86}",
            f"{header}.{claims}.",
        ):
            assert await client.ask(bearer=bearer) == (401, REJECTED)

    run(talk(story))


@pytest.mark.parametrize(
    "changed",
    [
        {"kid": "OTHERKEY12"},
        {"iss": "OTHERTEAM1"},
        {"iss": None},
        {"iat": int(time.time()) - 3700},
        {"iat": int(time.time()) + 7200},  # far enough for the longest run
        {"iat": int(time.time() * 1000)},
        {"iat": None},
    ],
)
def test_a_signed_jwt_that_says_something_else_is_401(run, changed):
    async def story(client):
        assert await client.ask(bearer=signed(client.service, **changed)) == (401, REJECTED)

    run(talk(story))


def test_claims_that_other_libraries_add_do_no_harm(run):
    async def story(client):
        now_s = int(time.time())
        bearer = signed(client.service, exp=now_s + 1200, sub="com.example.app", iat=now_s - 3000)
        assert (await client.ask(bearer=bearer))[0] == 200

    run(talk(story))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer a.b"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": "Basic a.b.c"},
        {"Authorization": "Bearer e30.e30.e30.e30"},
    ],
)
def test_what_is_no_jwt_is_400(run, headers):
    async def story(client):
        assert await client.ask(headers=headers) == (400, AUTH)

    run(talk(story))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"transaction_id": None}, TRANSACTION),
        ({"transaction_id": ""}, TRANSACTION),
        ({"transaction_id": 5}, TRANSACTION),
        ({"timestamp": None}, TIME),
        ({"timestamp": int(time.time())}, TIME),
        ({"timestamp": str(int(time.time() * 1000))}, TIME),
        ({"timestamp": time.time() * 1000}, TIME),
        ({"timestamp": True}, TIME),
        ({"timestamp": int((time.time() - 400) * 1000)}, TIME),
        ({"timestamp": int((time.time() + 7200) * 1000)}, TIME),
        ({"device_token": None}, TOKEN),
        ({"device_token": ""}, TOKEN),
        ({"device_token": "QUJD"}, TOKEN),
        ({"device_token": "not base64"}, TOKEN),
        ({"device_token": 5}, TOKEN),
    ],
)
def test_a_body_with_one_wrong_member_is_400_with_the_words_for_it(run, change, text):
    async def story(client):
        assert await client.ask({**good(client.service), **change}) == (400, text)
        # The negative control: the same body, without the change.
        assert await client.ask(good(client.service)) == (200, "")

    run(talk(story))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"\xff"])
def test_a_body_that_is_no_json_object_is_400(run, body):
    async def story(client):
        assert await client.ask(body) == (400, TOKEN)

    run(talk(story))


@pytest.mark.parametrize(
    "alter", [lambda t: t.replace("A", "A\n", 1), lambda t: t + "\n", lambda t: t.rstrip("=")[:-1]]
)
def test_a_token_must_arrive_byte_for_byte(run, alter):
    async def story(client):
        body = good(client.service)
        assert await client.ask({**body, "device_token": alter(body["device_token"])}) == (400, TOKEN)
        assert await client.ask(body) == (200, "")

    run(talk(story))


def test_a_token_is_good_in_its_own_environment_only(run):
    async def story(client):
        for own, other in ((PRODUCTION, DEVELOPMENT), (DEVELOPMENT, PRODUCTION)):
            body = {**good(client.service), "device_token": client.service.token(own)}
            assert await client.ask(body, environment=other) == (400, TOKEN)
            assert await client.ask(body, environment=own) == (200, "")
        assert client.service.asked[0].why == "a token of the other environment"

    run(talk(story))


def test_a_token_can_be_used_again_unless_each_is_for_once(run):
    async def again(client):
        body = good(client.service)
        assert [(await client.ask(body))[0] for _ in range(2)] == [200, 200]

    async def once(client):
        body = good(client.service)
        assert [(await client.ask(body))[0] for _ in range(3)] == [200, 400, 400]
        assert client.service.asked[1].why == "a token that was used before"

    run(talk(again))
    run(talk(once, single_use=True))


def test_a_foreign_token_is_genuine_if_it_was_told_so(run):
    async def story(client):
        body = {**good(client.service), "device_token": "QUJDRA=="}
        assert (await client.ask(body))[0] == 400
        client.service.accept("QUJDRA==")
        assert (await client.ask(body))[0] == 200
        for bad in ("canary!", "", "QUJDRA", "QUJD\n", "é"):
            with pytest.raises(ValueError, match="standard base64") as caught:
                client.service.accept(bad)
            assert "canary" not in str(caught.value)

    run(talk(story))


def test_what_comes_first_is_refused_first(run):
    async def story(client):
        ask = client.ask
        bad = {"transaction_id": "", "timestamp": 5, "device_token": "x"}
        assert await ask(bad, path="/v1/query_two_bits", method="GET", headers={}) == (404, "Not Found")
        assert await ask(bad, method="GET", headers={}) == (405, "Method Not Allowed")
        assert await ask(bad, headers={}) == (400, AUTH)
        assert await ask(bad, bearer=signed(client.service, iss="OTHERTEAM1")) == (401, REJECTED)
        assert await ask(bad) == (400, TRANSACTION)
        assert await ask({**bad, "transaction_id": "t"}) == (400, TIME)
        assert await ask({**bad, "transaction_id": "t", "timestamp": int(time.time() * 1000)}) == (400, TOKEN)

    run(talk(story))


def test_replies_come_in_order_and_the_last_one_stays(run):
    async def story(client):
        assert await client.ask() == (503, "")
        assert await client.ask() == (400, "bad device token")
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.ask()
        assert [await client.ask() for _ in range(2)] == [(200, "")] * 2
        assert [one.status for one in client.service.asked] == [503, 400, None, 200, 200]

    replies = [Reply.parse(text) for text in ("503", "400:bad device token", "close", "honest")]
    run(talk(story, replies=replies))


@pytest.mark.parametrize("text", ["", "199", "600", "5", "explode", "0503", "503 x", "٥٠٣"])
def test_a_reply_that_is_none_is_refused_with_what_there_is(text):
    with pytest.raises(ValueError, match=r"must be honest, close or STATUS\[:TEXT\]"):
        Reply.parse(text)
    assert Reply.parse("400:a:b") == Reply(400, "a:b") and Reply.parse("close") is Manner.CLOSE


@pytest.mark.parametrize("tls", [Tls.UNTRUSTED, Tls.NAME, Tls.EXPIRED])
def test_a_bad_certificate_is_bad_for_whoever_trusts_its_authority(run, tls):
    async def story(client):
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
            await client.ask()
        assert isinstance(caught.value.certificate_error, ssl.SSLCertVerificationError)
        assert client.service.asked == []

    run(talk(story, tls=tls))


def test_one_that_is_good_is_refused_by_who_trusts_another(run):
    async def scenario():
        other = LocalAuthority.create(["127.0.0.1"], dt.datetime.now(dt.UTC), dt.timedelta(hours=1))
        async with Apple() as service:
            connector = aiohttp.TCPConnector(ssl=client_context(other.certificate_pem))
            async with aiohttp.ClientSession(connector=connector) as session:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await Client(service, session).ask()

    run(scenario())


def test_a_taken_port_is_an_error_and_leaves_nothing_open(run):
    async def scenario():
        async with Apple() as first:
            for ports in ((first.ports[0], 0), (0, first.ports[1])):
                second = Apple(ports=ports)
                with pytest.raises(OSError, match="in use"):
                    await second.__aenter__()
                assert second._runners == []

    run(scenario())


def test_neither_token_nor_signature_is_kept_or_logged(run, caplog):
    caplog.set_level("DEBUG", "proxy")

    async def story(client):
        body = good(client.service)
        bearer = signed(client.service)
        await client.ask(body, bearer=bearer)
        await client.ask({**body, "timestamp": 5}, bearer=bearer)
        kept = repr(client.service.asked) + caplog.text
        assert body["transaction_id"] in kept and "genuine" in caplog.text
        assert body["device_token"][:20] not in kept and bearer.split(".")[2] not in kept

    run(talk(story))
