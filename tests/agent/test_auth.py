"""auth.json: what is in it, how it is refreshed, and that nobody gets to see it."""

import asyncio
import base64
import json
import os
import stat
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.auth import CLIENT_ID, REFRESH_URL, Account, Auth, AuthFailed, Bearer, NotSignedIn, RefreshFailed
from tests.loops import run_on

CLAIMS = "https://api.openai.com/auth"


def jwt(**claims):
    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.{part({})}"


FRESH = jwt(exp=4_000_000_000, jti="fresh")
EXPIRED = jwt(exp=1_000_000_000, jti="expired")


def tokens(access_token=FRESH, **more):
    given = {"access_token": access_token, "refresh_token": "refresh-4711", "account_id": "acc-1", **more}
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": given, "future_member": {"kept": True}}


NEXT_TOKENS = object()


class SignIn:
    """The sign-in service: answers each refresh with the next tokens, or with what it was told to."""

    def __init__(self, status=200, answer=NEXT_TOKENS):
        self.asked = []
        self.status, self.answer = status, answer
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, url, body):
        self.asked.append((url, body))
        await self.go.wait()
        number = len(self.asked)
        new = {"access_token": jwt(exp=4_000_000_000, n=number), "refresh_token": f"refresh-{number}"}
        return self.status, new if self.answer is NEXT_TOKENS else self.answer


@pytest.fixture
def home(tmp_path):
    """A CODEX_HOME; `home(content)` signs somebody in."""

    class Home:
        path = tmp_path
        file = tmp_path / "auth.json"

        def __call__(self, content, service=None):
            self.file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
            return Auth(tmp_path, SignIn() if service is None else service)

        def read(self):
            return json.loads(self.file.read_text("utf-8"))

    return Home()


# What the file says


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


# Refreshing


def test_a_token_that_lasts_is_used_as_it_is(home, run):
    service = SignIn()

    assert run(home(tokens(), service).bearer()).token == FRESH
    assert not service.asked


def test_an_expired_token_is_refreshed_first(home, run):
    service = SignIn()
    auth = home(tokens(EXPIRED), service)
    bearer = run(auth.bearer())

    assert service.asked == [
        (
            REFRESH_URL,
            {
                "client_id": CLIENT_ID,
                "grant_type": "refresh_token",
                "refresh_token": "refresh-4711",
                "refresh_reason": "proactive_expiry",
            },
        )
    ]
    assert bearer.token == home.read()["tokens"]["access_token"] != EXPIRED


def test_a_refresh_replaces_the_file_whole_and_keeps_what_it_does_not_know(home, run):
    auth = home(tokens(EXPIRED, id_token="old-id", future_token="kept"))
    home.file.chmod(0o644)
    before = os.stat(home.file).st_ino
    run(auth.bearer())

    content = home.read()
    assert content["future_member"] == {"kept": True} and content["auth_mode"] == "chatgpt"
    assert content["tokens"]["future_token"] == "kept"
    assert content["tokens"]["refresh_token"] == "refresh-1"
    assert content["tokens"]["id_token"] == "old-id"  # the answer brought none
    assert content["tokens"]["account_id"] == "acc-1"
    assert content["last_refresh"].endswith("Z")
    assert stat.S_IMODE(os.stat(home.file).st_mode) == 0o600
    assert os.stat(home.file).st_ino != before
    assert os.listdir(home.path) == ["auth.json"]


def test_an_answer_that_brings_only_an_access_token_keeps_the_rest(home, run):
    service = SignIn(answer={"access_token": FRESH, "refresh_token": "", "id_token": None})
    run(home(tokens(EXPIRED, id_token="old-id"), service).bearer())

    kept = home.read()["tokens"]
    assert (kept["access_token"], kept["refresh_token"], kept["id_token"]) == (FRESH, "refresh-4711", "old-id")


def test_refreshes_at_the_same_time_ask_once(home, run):
    async def scenario():
        service = SignIn()
        service.go.clear()
        auth = home(tokens(EXPIRED), service)
        waiting = [asyncio.create_task(auth.bearer()) for _ in range(5)]
        while not service.asked:
            await asyncio.sleep(0)
        service.go.set()
        bearers = await asyncio.gather(*waiting)

        assert len(service.asked) == 1
        assert {bearer.token for bearer in bearers} == {home.read()["tokens"]["access_token"]}

    run(scenario())


def test_a_refresh_whose_callers_have_given_up_is_still_kept(home, run):
    """It was cancelled half way, and the refresh token that the service had replaced by then was lost."""

    async def scenario():
        service = SignIn()
        service.go.clear()
        auth = home(tokens(EXPIRED), service)
        asking = [asyncio.create_task(auth.bearer()) for _ in range(2)]
        while not service.asked:
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        closing = asyncio.create_task(auth.aclose(10.0))
        service.go.set()
        await closing
        assert home.read()["tokens"]["refresh_token"] == "refresh-1"
        assert len(service.asked) == 1

    run(scenario())


def test_a_refresh_that_gets_no_answer_does_not_hold_up_the_end(home, run, caplog):
    async def scenario():
        service = SignIn()
        service.go.clear()
        auth = home(tokens(EXPIRED), service)
        asking = asyncio.create_task(auth.bearer())
        while not service.asked:
            await asyncio.sleep(0)
        await auth.aclose(0.01)
        with pytest.raises(asyncio.CancelledError):
            await asking

    run(scenario())
    assert "a refresh of the sign-in was given up" in caplog.text


def test_a_failed_refresh_that_nobody_waits_for_is_no_error_of_the_loop(home, run):
    async def scenario():
        service = SignIn(status=500)
        service.go.clear()
        auth = home(tokens(EXPIRED), service)
        asking = asyncio.create_task(auth.bearer())
        while not service.asked:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        service.go.set()
        await auth.aclose(10.0)
        with pytest.raises(RefreshFailed):  # the next one asks anew
            await auth.bearer()
        assert len(service.asked) == 2

    run(scenario())


def test_a_token_that_another_process_replaced_is_not_refreshed_again(home, run):
    async def scenario():
        service = SignIn()
        auth = home(tokens("rejected"), service)
        rejected = (await auth.bearer()).token
        home(tokens(FRESH))
        await auth.refresh("unauthorized_recovery", rejected)

        assert not service.asked
        assert (await auth.bearer()).token == FRESH

    run(scenario())


@pytest.mark.parametrize(
    "status, answer, error",
    [
        (0, None, RefreshFailed),
        (500, {}, RefreshFailed),
        (429, {}, RefreshFailed),
        (200, None, RefreshFailed),
        (200, ["secret-4711"], RefreshFailed),
        (200, {"access_token": 5}, RefreshFailed),
        (200, {"access_token": "secret-4711\n"}, RefreshFailed),
        (200, {"access_token": FRESH, "refresh_token": 5}, RefreshFailed),
        (400, {"error": "secret-4711"}, AuthFailed),
        (401, {}, AuthFailed),
        (403, {}, AuthFailed),
    ],
)
def test_a_refresh_that_fails_changes_nothing_and_tells_no_secret(status, answer, error, home, run):
    auth = home(tokens(EXPIRED), SignIn(status, answer))
    before = home.file.read_text("utf-8")
    with pytest.raises(error, match=rf"answered {status}.*sign in again|no usable tokens") as failed:
        run(auth.bearer())

    assert type(failed.value) is error
    assert home.file.read_text("utf-8") == before
    told = "".join(traceback.format_exception(failed.value)) + repr(failed.value)
    assert "4711" not in told and EXPIRED not in told


def test_only_chatgpt_credentials_can_be_refreshed(home, run):
    for content in ({"OPENAI_API_KEY": "sk-4711"}, None):
        if content is None:
            home.file.unlink()
            auth = Auth(home.path, SignIn())
        else:
            auth = home(content)
        with pytest.raises(AuthFailed, match="only ChatGPT credentials can be refreshed"):
            run(auth.refresh("unauthorized_recovery", "x"))


def test_tokens_that_cannot_be_kept_fail_and_leave_no_copy(home, run):
    class Moving(SignIn):
        async def __call__(self, url, body):
            home.file.unlink()
            home.file.mkdir()  # now it cannot be replaced by a file
            return await super().__call__(url, body)

    with pytest.raises(AuthFailed, match="cannot be written: Is a directory"):
        run(home(tokens(EXPIRED), Moving()).bearer())
    assert os.listdir(home.path) == ["auth.json"]


def test_a_bearer_does_not_show_its_token():
    assert "4711" not in repr(Bearer("apikey", "sk-4711"))
