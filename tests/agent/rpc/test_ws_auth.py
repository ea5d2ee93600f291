import base64
import hashlib
import hmac
import json

import pytest

from agent.rpc.ws_auth import (
    CLOCK_SKEW_S,
    INVALID,
    MISSING,
    CapabilityToken,
    SignedBearerToken,
    Unusable,
    refusal,
)

NOW_S = 1_800_000_000.0
TOKEN = b"open-sesame"
SECRET = b"s" * 32


def segment(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def signed(claims, secret=SECRET, header=None):
    """A JWT made by hand, so that the checks are not of the library by the library."""
    head = segment(json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode())
    content = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signature = hmac.digest(secret, head + b"." + segment(content), "sha256")
    return b".".join((head, segment(content), segment(signature)))


def good(**changed):
    return {"exp": NOW_S + 60, "iss": "issuer", "aud": "audience", **changed}


STRICT = SignedBearerToken.of(SECRET, issuer="issuer", audience="audience")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], MISSING),
        (["Bearer open-sesame"], None),
        (["bearer open-sesame"], None),
        (["BEARER  open-sesame "], None),
        (["Bearer open-sesamE"], INVALID),
        (["Bearer open-sesame-and-more"], INVALID),
        (["Bearer open-sesam"], INVALID),
        (["Bearer "], INVALID),
        (["Bearer"], INVALID),
        ([""], INVALID),
        (["open-sesame"], INVALID),
        (["Basic open-sesame"], INVALID),
        (["Bearer open-sesame", "Bearer open-sesame"], INVALID),
        (["Bearer \udcff"], INVALID),
    ],
)
def test_a_capability_token_must_be_shown_exactly(headers, expected):
    assert refusal(CapabilityToken.of(TOKEN), headers, NOW_S) == expected


def test_blanks_around_the_content_of_the_file_do_not_count():
    assert CapabilityToken.of(b"  open-sesame \r\n").accepts(TOKEN, NOW_S)
    assert not CapabilityToken.of(b"open-sesame\n").accepts(b"open-sesame\n", NOW_S)


def test_the_sha256_of_a_token_is_as_good_as_the_token():
    digits = hashlib.sha256(TOKEN).hexdigest()
    for written in (digits, digits.upper()):
        assert CapabilityToken.of_sha256(written).accepts(TOKEN, NOW_S)
        assert not CapabilityToken.of_sha256(written).accepts(digits.encode(), NOW_S)  # who knows only that may not


@pytest.mark.parametrize("digits", ["", "ab", "g" * 64, "a" * 63, "a" * 65, "0x" + "a" * 62, "\u0663" * 64])
def test_what_is_no_sha256_is_refused_and_not_repeated(digits):
    with pytest.raises(Unusable, match="64 hexadecimal digits") as refused:
        CapabilityToken.of_sha256(digits)
    assert not digits or digits not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"caf\xc3\xa9"])
def test_a_token_that_nobody_could_send_is_refused_at_the_start(content):
    with pytest.raises(Unusable):
        CapabilityToken.of(content)


@pytest.mark.parametrize(
    ("claims", "is_good"),
    [
        (good(), True),
        (good(aud=["other", "audience"]), True),
        (good(exp=int(NOW_S)), True),
        (good(exp=NOW_S - CLOCK_SKEW_S), True),
        (good(exp=NOW_S - CLOCK_SKEW_S - 1), False),
        (good(exp=0), False),
        ({key: value for key, value in good().items() if key != "exp"}, False),
        (good(exp=None), False),
        (good(exp=str(NOW_S + 60)), False),
        (good(exp=True), False),
        (good(exp=10**400), False),
        (good(exp=float("inf")), False),
        (good(exp=float("nan")), False),
        (good(nbf=NOW_S + CLOCK_SKEW_S), True),
        (good(nbf=NOW_S + CLOCK_SKEW_S + 1), False),
        (good(nbf="soon"), False),
        (good(iss="another"), False),
        (good(iss=["issuer"]), False),
        (good(aud="another"), False),
        (good(aud=["another"]), False),
        (good(aud=None), False),
        (good(sub=5), True),  # not ours to judge
        (b"[]", False),
        (b"{", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
    ],
)
def test_a_signed_token_must_be_for_us_and_for_now(claims, is_good):
    assert STRICT.accepts(signed(claims), NOW_S) is is_good


def test_who_names_no_issuer_and_no_audience_takes_any():
    check = SignedBearerToken.of(SECRET)
    assert check.accepts(signed({"exp": NOW_S + 1}), NOW_S)
    assert check.accepts(signed(good(iss="x", aud="y")), NOW_S)
    assert not check.accepts(signed({}), NOW_S)


def test_the_skew_is_what_was_asked_for():
    late = signed({"exp": NOW_S - 5})
    assert SignedBearerToken.of(SECRET, skew_s=5).accepts(late, NOW_S)
    assert not SignedBearerToken.of(SECRET, skew_s=4).accepts(late, NOW_S)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS512", "RS256", "hs256"])
def test_another_algorithm_is_refused_even_with_a_good_signature(algorithm):
    assert not STRICT.accepts(signed(good(), header={"alg": algorithm}), NOW_S)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"x",
        b"a.b.c",
        signed(good(), secret=b"t" * 32),
        signed(good())[:-1],
        signed(good()).rpartition(b".")[0] + b".",
        signed(good()).rpartition(b".")[0],
        signed(good(), header={"alg": "HS256", "crit": ["new"], "new": 1}),
    ],
)
def test_what_we_did_not_sign_is_refused(broken):
    assert not STRICT.accepts(broken, NOW_S)


def test_a_secret_has_at_least_32_bytes_without_the_blanks_around_it():
    assert SignedBearerToken.of(b"\n" + SECRET + b"\n").accepts(signed(good()), NOW_S)
    with pytest.raises(Unusable, match="31 bytes; at least 32 are needed"):
        SignedBearerToken.of(SECRET[1:] + b"\n")


def test_nothing_of_a_secret_shows_in_a_repr():
    shown = repr((CapabilityToken.of(TOKEN), STRICT))
    assert "sesame" not in shown and "sss" not in shown and hashlib.sha256(TOKEN).hexdigest()[:8] not in shown
