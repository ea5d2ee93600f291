"""How tokens are refreshed, and what becomes of the answer."""

import asyncio
import os
import stat
import traceback

import pytest

from agent.auth import CLIENT_ID, REFRESH_URL, Auth, AuthFailed, NotSignedIn, RefreshFailed
from tests.agent.signed_in import EXPIRED, FRESH, Home, SignIn, tokens


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


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


@pytest.mark.parametrize("status", [200, 400])
def test_tokens_that_somebody_else_kept_during_a_refresh_are_left_alone(status, home, run):
    """The answer for the old tokens was written over the account that another process had signed in meanwhile."""

    class Overtaken(SignIn):
        async def __call__(self, url, body):
            home(tokens(FRESH, account_id="acc-2"))
            return await super().__call__(url, body)

    bearer = run(home(tokens(EXPIRED), Overtaken(status)).bearer())
    assert (bearer.token, bearer.account_id) == (FRESH, "acc-2")
    assert home.read()["tokens"]["refresh_token"] == "refresh-4711"


def test_what_else_changes_in_the_file_during_a_refresh_is_kept(home, run):
    class Noted(SignIn):
        async def __call__(self, url, body):
            home({**tokens(EXPIRED), "note": 1})
            return await super().__call__(url, body)

    run(home(tokens(EXPIRED), Noted()).bearer())
    assert home.read()["note"] == 1 and home.read()["tokens"]["refresh_token"] == "refresh-1"


def test_who_signs_out_during_a_refresh_is_signed_out(home, run):
    """It was an assertion that failed, and the turn with it."""

    async def scenario():
        service = SignIn()
        service.go.clear()
        auth = home(tokens(EXPIRED), service)
        asking = asyncio.create_task(auth.bearer())
        while not service.asked:
            await asyncio.sleep(0)
        auth.sign_out()
        service.go.set()
        with pytest.raises(NotSignedIn):
            await asking
        assert not home.file.exists()

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
