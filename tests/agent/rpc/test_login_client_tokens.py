"""Signed in with a client's own tokens, which it is asked to renew."""

import asyncio
import contextlib

import pytest

from agent.auth import Auth, AuthFailed, Bearer, RefreshFailed
from tests.agent.rpc.memory import served
from tests.agent.rpc.sign_in import ACCESS, ID_TOKEN, at_desk, done, external, kept, login, no_refresh


def test_tokens_of_a_client_are_used_and_never_written_down(run, tmp_path):
    """auth_external_tokens."""
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with at_desk(tmp_path, auth=auth) as it:
            answer = await it.call("account/login/start", **external(chatgptPlanType="pro"))
            assert answer == {"type": "chatgptAuthTokens"}
            assert await it.desktop.wait_for("account/login/completed") == done()
            told = await it.desktop.wait_for("account/updated")
            assert told == {"authMode": "chatgptAuthTokens", "planType": "pro"}
            assert await auth.bearer() == Bearer("chatgpt", ACCESS, "acc-1")
            assert "External auth is active" in await it.refused("account/login/start", type="apiKey", apiKey="sk")
            assert list(tmp_path.iterdir()) == []
            await it.call("account/logout")
            await it.call("account/login/start", type="apiKey", apiKey="sk")  # the control
            assert kept(tmp_path)["OPENAI_API_KEY"] == "sk"

    run(scenario())


@contextlib.asynccontextmanager
async def bringing(tmp_path, auth):
    """A client that has brought tokens; it answers the questions of the server by hand."""
    async with login(tmp_path, auth=auth) as methods, served(methods.table()) as it:
        client = await it.connect()
        await client.initialize()
        assert (await client.call("account/login/start", external()))["result"] == {"type": "chatgptAuthTokens"}
        yield client


def test_rejected_tokens_are_renewed_by_the_client_that_brought_them(run, tmp_path):
    """auth_external_tokens."""
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with bringing(tmp_path, auth) as client:
            renewing = asyncio.create_task(auth.refresh("unauthorized_recovery", ACCESS))
            question = await client.receive()
            assert question == {
                "method": "account/chatgptAuthTokens/refresh",
                "id": 0,
                "params": {"reason": "unauthorized", "previousAccountId": "acc-1"},
            }
            await client.send(id=0, result={"accessToken": "new", "chatgptAccountId": "acc-1"})
            await renewing
            assert (await auth.bearer()).token == "new"
            await auth.refresh("unauthorized_recovery", ACCESS)  # replaced already: nobody is asked

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": -1, "message": "s3cret"}},
        {"result": {}},
        {"result": None},
        {"result": {"accessToken": "s3cret", "chatgptAccountId": "other"}},
        {"result": {"accessToken": "ä", "chatgptAccountId": "acc-1"}},
    ],
)
def test_an_answer_without_usable_tokens_changes_nothing(run, tmp_path, answer):
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with bringing(tmp_path, auth) as client:
            renewing = asyncio.create_task(auth.refresh("unauthorized_recovery", ACCESS))
            question = await client.receive()
            await client.send(id=question["id"], **answer)
            with pytest.raises(RefreshFailed) as failed:
                await renewing
            assert "s3cret" not in str(failed.value)
            assert (await auth.bearer()).token == ACCESS

    run(scenario())


def test_a_client_that_has_left_cannot_renew_its_tokens(run, tmp_path):
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with bringing(tmp_path, auth) as client:
            renewing = asyncio.create_task(auth.refresh("unauthorized_recovery", ACCESS))
            await client.receive()
            await client.leave()
            with pytest.raises(AuthFailed, match="has left; sign in again"):
                await renewing

    run(scenario())


def test_what_a_refresh_brings_after_signing_out_is_dropped(run, tmp_path):
    """It would sign the user in again."""
    go = asyncio.Event()

    async def slow(url, body):
        await go.wait()
        return 200, {"access_token": "new"}

    async def scenario():
        auth = Auth(tmp_path, slow)
        auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")
        refreshing = asyncio.create_task(auth.refresh("forced", ACCESS))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        auth.sign_out()
        go.set()
        await refreshing
        assert not (tmp_path / "auth.json").exists()
        auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")
        await auth.refresh("forced", ACCESS)  # the control
        assert kept(tmp_path)["tokens"]["access_token"] == "new"

    run(scenario())
