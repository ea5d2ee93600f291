"""auth.json: what is in it, and that nobody gets to see it."""

import base64
import json
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.auth import Account, Auth, AuthFailed, Bearer, NotSignedIn
from tests.agent.signed_in import CLAIMS, EXPIRED, FRESH, Home, SignIn, jwt, tokens
from tests.loops import run_on


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def test_a_chatgpt_account_is_read_from_its_tokens(home):
    """account_read_chatgpt."""
    ours = {"chatgpt_plan_type": "pro", "chatgpt_user_id": "user-1", "chatgpt_account_id": "acc-claimed"}
    access = jwt(exp=4_000_000_000, **{CLAIMS: ours})
    auth = home(tokens(access, id_token=jwt(email="a@b.c")))

    assert auth.account() == Account("chatgpt", "a@b.c", "pro", "user-1", "acc-1")


def test_an_account_without_claims_is_still_signed_in(home):
    assert home(tokens("opaque", account_id=None)).account() == Account("chatgpt")
    assert home(tokens(jwt(**{CLAIMS: "nothing", "email": 5}))).account() == Account("chatgpt", account_id="acc-1")


def test_the_account_id_of_the_claims_stands_in_for_a_missing_one(home):
    auth = home(tokens(jwt(**{CLAIMS: {"chatgpt_account_id": "acc-claimed"}}), account_id=None))

    assert auth.account().account_id == "acc-claimed"


def test_an_api_key_is_an_account_of_its_own(home, run):
    auth = home({"OPENAI_API_KEY": "sk-4711"})

    assert auth.account() == Account("apikey")
    assert run(auth.bearer()) == Bearer("apikey", "sk-4711")


@pytest.mark.parametrize(
    "changes, mode",
    [
        ({"auth_mode": None, "OPENAI_API_KEY": "sk-4711"}, "apikey"),
        ({"auth_mode": None, "OPENAI_API_KEY": None}, "chatgpt"),
        ({"auth_mode": "chatgpt", "OPENAI_API_KEY": "sk-4711"}, "chatgpt"),
        ({"auth_mode": "chatgptAuthTokens", "OPENAI_API_KEY": "sk-4711"}, "chatgpt"),
        ({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-4711"}, "apikey"),
        ({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-4711", "tokens": {"access_token": 5}}, "apikey"),
    ],
)
def test_where_there_are_several_credentials_the_mode_decides_and_then_the_key(changes, mode, home, run):
    """A key beside tokens was passed over: requests went out under the wrong identity (observed of codex)."""
    auth = home({**tokens(), **changes})

    assert auth.account().mode == mode
    bearer = run(auth.bearer())
    assert (bearer.mode, bearer.token) == (mode, FRESH if mode == "chatgpt" else "sk-4711")


def test_an_expired_token_beside_the_key_in_use_is_left_alone(home, run):
    service = SignIn()
    auth = home({**tokens(EXPIRED), "auth_mode": "apikey", "OPENAI_API_KEY": "sk-4711"}, service)

    assert run(auth.bearer()).token == "sk-4711"
    assert service.asked == []


def test_an_account_id_that_cannot_be_sent_is_left_out(home, run):
    assert run(home(tokens(account_id="acc\n1")).bearer()) == Bearer("chatgpt", FRESH, None)


def test_claims_that_are_nested_too_deeply_are_no_claims(home):
    payload = base64.urlsafe_b64encode(b'{"a":' * 20_000 + b"1" + b"}" * 20_000).rstrip(b"=").decode()

    assert home(tokens(f"e30.{payload}.e30")).account() == Account("chatgpt", account_id="acc-1")


def test_nobody_is_signed_in_without_the_file(home, run):
    auth = Auth(home.path, SignIn())

    assert auth.account() is None
    with pytest.raises(NotSignedIn, match=f"there is no '{home.file}'; sign in with the desktop first"):
        run(auth.bearer())


def test_somebody_who_signs_in_later_is_noticed(home, run):
    auth = Auth(home.path, SignIn())
    with pytest.raises(NotSignedIn):
        run(auth.bearer())
    home(tokens())

    assert run(auth.bearer()) == Bearer("chatgpt", FRESH, "acc-1")


@pytest.mark.parametrize(
    "content, said",
    [
        ("{not json secret-4711", "is not JSON; sign in again"),
        ("", "is not JSON"),
        ("[]", "is no JSON object"),
        pytest.param('{"a":' * 20_000 + "1" + "}" * 20_000, "is not JSON", id="nested too deeply"),
        ({**tokens(), "auth_mode": "bogus-4711"}, "has an auth_mode that is not supported"),
        ({**tokens(), "auth_mode": "apikey"}, "has no usable OPENAI_API_KEY"),
        ({"auth_mode": "chatgpt", "OPENAI_API_KEY": "sk-4711"}, "holds neither tokens nor an API key"),
        ("{}", "holds neither tokens nor an API key"),
        ({"tokens": None, "OPENAI_API_KEY": ""}, "holds neither tokens nor an API key"),
        ({"tokens": "secret-4711"}, "holds neither tokens nor an API key"),
        ({"tokens": {}}, "has no usable tokens.access_token"),
        (tokens(5), "has no usable tokens.access_token"),
        (tokens(""), "has no usable tokens.access_token"),
        (tokens("secret-4711-ä"), "has no usable tokens.access_token"),
        (tokens("secret-4711\r\nHost: evil.example"), "has no usable tokens.access_token"),
        (tokens(refresh_token=None), "has no usable tokens.refresh_token"),
        ({"OPENAI_API_KEY": "secret-4711\n"}, "has no usable OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "secret-4711-ä"}, "has no usable OPENAI_API_KEY"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_not_what_is_in_it(content, said, home):
    auth = home(content)
    for ask in (auth.load, auth.account):
        with pytest.raises(AuthFailed, match=said) as failed:
            ask()
        told = "".join(traceback.format_exception(failed.value)) + repr(failed.value)
        assert "4711" not in told and str(home.file) in told


def test_a_file_that_cannot_be_read_says_why(home):
    home.file.mkdir()

    with pytest.raises(AuthFailed, match="cannot be read: Is a directory"):
        Auth(home.path, SignIn()).load()


def test_a_file_that_is_no_text_is_refused(home):
    auth = home("{}")
    home.file.write_bytes(b'{"OPENAI_API_KEY": "\xff"}')

    with pytest.raises(AuthFailed, match="is not JSON"):
        auth.load()


@settings(max_examples=50)
@given(st.text(max_size=30) | st.tuples(st.text(max_size=5), st.binary(max_size=20), st.text(max_size=5)))
def test_a_token_that_is_no_jwt_is_used_as_it_is_or_refused(token):
    """Only the service judges a token; whatever is in the middle of it cannot break us."""
    if isinstance(token, tuple):
        head, claims, tail = token
        token = f"{head}.{base64.urlsafe_b64encode(claims).decode()}.{tail}"
    with tempfile.TemporaryDirectory() as directory:
        auth = Auth(Path(directory), SignIn())
        (Path(directory) / "auth.json").write_text(json.dumps(tokens(token)), "utf-8")
        try:
            assert auth.account() is not None
            assert run_on("asyncio", auth.bearer()).token == token
        except AuthFailed as exc:
            assert "has no usable tokens.access_token" in str(exc)


@pytest.mark.parametrize("expiry", ["soon", None, [], True, 10**400, float("inf")])
def test_an_expiry_that_is_no_time_is_left_to_the_service(expiry, home, run):
    token = jwt(exp=expiry)
    service = SignIn()

    assert run(home(tokens(token), service).bearer()).token == token
    assert not service.asked


def test_a_bearer_does_not_show_its_token():
    assert "4711" not in repr(Bearer("apikey", "sk-4711"))
