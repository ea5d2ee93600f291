"""The client of Apple's DeviceCheck server: what it sends, and the key that signs it."""

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from proxy.devicecheck import (
    KeyUnusable,
    TeamKey,
    Verdict,
    device_token,
    question,
)
from proxy.standins.apple import KEY_ID, TEAM_ID, Apple, Manner, Reply
from tests.loops import on_each_loop
from tests.proxy.devicecheck_wire import NOW_S, asked, key_of


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
