import base64
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.credentials import Credentials

SECRET = "s3cret:of/the run?"
MINE = Credentials("countersign", SECRET)


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        basic(f"countersign:{SECRET}"),
        basic(f"countersign:{SECRET}").replace("Basic", "basic"),
        basic(f"countersign:{SECRET}").replace("Basic", "BASIC"),
        basic(f"countersign:{SECRET}").replace(" ", "  "),
    ],
)
def test_the_right_credentials_are_accepted(authorization):
    assert MINE.accepts(authorization)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic ",
        basic(""),
        basic(":"),
        basic("countersign:"),
        basic("countersign"),
        basic(SECRET),
        basic(f"Countersign:{SECRET}"),
        basic(f"countersign:{SECRET} "),
        basic(f"countersign:{SECRET[:-1]}"),
        basic(f"countersign:{SECRET}x"),
        basic(f"countersign:{SECRET.upper()}"),
        f"Bearer {SECRET}",
        f"Digest {basic(f'countersign:{SECRET}')[6:]}",
        f"Basic countersign:{SECRET}",
        "Basic !!!!",
        "Basic caf\xe9",
        "Basic \udcff",
        basic(f"countersign:{SECRET}") + "\n!",
        basic(f"countersign:{SECRET}") + ", " + basic("a:b"),
    ],
)
def test_anything_else_is_not(authorization):
    assert not MINE.accepts(authorization)


@given(user=st.text(), secret=st.text())
def test_no_other_pair_is_accepted(user, secret):
    assume(f"{user}:{secret}" != f"countersign:{SECRET}")
    try:
        authorization = basic(f"{user}:{secret}")
    except UnicodeEncodeError:
        return
    assert not MINE.accepts(authorization)


def test_the_secret_is_in_no_repr():
    assert SECRET not in repr(MINE) and SECRET not in str(MINE)
    assert "countersign" in repr(MINE)


def test_each_run_has_fresh_credentials_of_192_bits():
    secrets = {Credentials.random().secret for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(base64.urlsafe_b64decode(secret)) == 24 for secret in secrets)


def test_the_url_carries_them_through_percent_encoding():
    url = urlsplit(MINE.proxy_url("127.0.0.1", 8080))
    assert (url.scheme, url.hostname, url.port) == ("http", "127.0.0.1", 8080)
    assert url.username == "countersign" and unquote(url.password or "") == SECRET


def test_they_are_parsed_at_the_first_colon():
    assert Credentials.parse("me:12:45:7890") == Credentials("me", "12:45:7890")


@pytest.mark.parametrize(
    "text",
    ["", "u", ":12345678", "user:", "user:1234567", "us er:12345678", "user:1234 5678", "user:1234567\n", "ü:12345678"],
)
def test_what_cannot_be_used_is_refused_without_being_repeated(text):
    with pytest.raises(ValueError, match="USER:SECRET") as refusal:
        Credentials.parse(text)
    assert "1234567" not in str(refusal.value)
