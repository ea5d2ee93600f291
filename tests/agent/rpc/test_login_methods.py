"""Signing in and out, and what the account may still use."""

import asyncio
import logging
import stat
from urllib.parse import parse_qsl, urlsplit

import pytest

from agent.auth import CLIENT_ID, REFRESH_URL, Auth, Bearer, NotSignedIn
from agent.model.endpoint import ClientIdentity
from agent.rpc.jsonrpc import INTERNAL_ERROR
from agent.rpc.login_flows import POLL_URL, USER_CODE_URL, VERIFICATION_URL
from agent.rpc.login_methods import LoginMethods, SignInService
from agent.rpc.server import Connections
from tests.agent.rpc.desk import desk
from tests.agent.rpc.sign_in import ACCESS, GRANTED, ORIGIN, Service, at_desk, done, external, kept, no_refresh

# API keys, and signing out


def test_an_api_key_is_kept_told_and_forgotten_as_recorded(run, tmp_path):
    """misc_requests."""
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with at_desk(tmp_path, auth=auth) as it:
            assert await it.call("account/login/start", type="apiKey", apiKey=" sk-x ") == {"type": "apiKey"}
            assert await it.desktop.wait_for("account/login/completed") == done()
            assert await it.desktop.wait_for("account/updated") == {"authMode": "apikey", "planType": None}
            assert await auth.bearer() == Bearer("apikey", "sk-x")
            assert stat.S_IMODE((tmp_path / "auth.json").stat().st_mode) == 0o600
            assert await it.call("account/logout") == {}
            assert await it.desktop.wait_for("account/updated", 2) == {"authMode": None, "planType": None}
            assert not (tmp_path / "auth.json").exists()
            with pytest.raises(NotSignedIn):
                await auth.bearer()
            assert await it.call("account/logout") == {}

    run(scenario())


def test_who_signs_in_and_out_in_one_breath_is_signed_out(run, tmp_path):
    async def scenario():
        async with at_desk(tmp_path) as it:
            await asyncio.gather(
                it.call("account/login/start", type="apiKey", apiKey="sk-x"),
                it.call("account/logout"),
            )
            assert [one["authMode"] for one in it.told("account/updated")] == ["apikey", None]
        assert not (tmp_path / "auth.json").exists()

    run(scenario())


@pytest.mark.parametrize(
    ("params", "config", "text"),
    [
        ({"type": "apiKey", "apiKey": "  "}, {}, "failed to save api key"),
        ({"type": "apiKey", "apiKey": "a\nb"}, {}, "failed to save api key"),
        ({"type": "apiKey", "apiKey": "sk"}, {"forced_login_method": "chatgpt"}, "API key login is disabled"),
        (external(), {"forced_login_method": "api"}, "ChatGPT login is disabled"),
        (external(), {"forced_chatgpt_workspace_id": ["other"]}, "login is restricted to the workspace other"),
        (external(), {"forced_chatgpt_workspace_id": 5}, "forced_chatgpt_workspace_id of config.toml is neither"),
        (external(), {"forced_login_method": "chatgtp"}, "forced_login_method of config.toml is neither"),
        (external("ä"), {}, "failed to set external auth"),
        ({"type": "amazonBedrock", "apiKey": "k", "region": "r"}, {}, "account/login/start amazonBedrock is not supp"),
        ({"type": "apiKey"}, {}, "Invalid request: missing field `apiKey`"),
        ({"type": "x"}, {}, "Invalid request: unknown variant `x`"),
    ],
)
def test_a_sign_in_that_cannot_be_is_refused_and_changes_nothing(run, tmp_path, params, config, text):
    async def scenario():
        async with at_desk(tmp_path, config=config) as it:
            assert (await it.refused("account/login/start", **params)).startswith(text)
            assert it.desktop.notifications == []
        assert list(tmp_path.iterdir()) == []

    run(scenario())


# Device codes


def test_a_device_code_is_asked_for_polled_and_exchanged(run, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    granted = {"authorization_code": "code-s3cret", "code_verifier": "verifier-s3cret", "code_challenge": "c"}
    service = Service((403, None), (404, None), (200, granted))
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with at_desk(tmp_path, service, auth=auth) as it:
            answer = await it.call("account/login/start", type="chatgptDeviceCode")
            assert (answer["userCode"], answer["verificationUrl"]) == ("ABCD-1234", VERIFICATION_URL)
            assert await it.desktop.wait_for("account/login/completed") == done(answer["loginId"])
            assert await it.desktop.wait_for("account/updated") == {"authMode": "chatgpt", "planType": "pro"}
            gone = await it.call("account/login/cancel", loginId=answer["loginId"])
            assert gone == {"status": "notFound"}
            assert await auth.bearer() == Bearer("chatgpt", ACCESS, "acc-1")

    run(scenario())
    asked = {"device_auth_id": "device-s3cret", "user_code": "ABCD-1234"}
    exchanged = {
        "grant_type": "authorization_code",
        "code": "code-s3cret",
        "redirect_uri": "https://auth.openai.com/deviceauth/callback",
        "client_id": CLIENT_ID,
        "code_verifier": "verifier-s3cret",
    }
    assert service.asked == [
        (USER_CODE_URL, {"client_id": CLIENT_ID}),
        *[(POLL_URL, asked)] * 3,
        (REFRESH_URL, exchanged),
    ]
    assert service.waited == [5.0, 5.0]
    assert kept(tmp_path)["tokens"] == {**GRANTED, "account_id": "acc-1"} and kept(tmp_path)["auth_mode"] == "chatgpt"
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("code", "error_code", "text"),
    [
        ((404, {"detail": "nope"}), -32600, "device code login is not enabled for this Codex server. Use the browser "),
        ((500, None), INTERNAL_ERROR, "the sign-in service gave no device code (it answered 500)"),
        ((0, None), INTERNAL_ERROR, "the sign-in service gave no device code (it could not be reached)"),
        ((200, {"user_code": 5}), INTERNAL_ERROR, "the sign-in service gave no device code (it answered 200)"),
    ],
)
def test_a_service_without_device_codes_is_told_at_once(run, tmp_path, code, error_code, text):
    """no_auth_turn."""

    async def scenario():
        async with at_desk(tmp_path, Service(code=code)) as it:
            refused = await it.refused("account/login/start", error_code, type="chatgptDeviceCode")
            assert refused.startswith(text)

    run(scenario())


@pytest.mark.parametrize(
    ("service", "config", "text"),
    [
        (Service((500, None)), {}, "device auth failed (it answered 500)"),
        (Service((200, {})), {}, "without an authorization code"),
        (
            Service((200, {"authorization_code": "c", "code_verifier": "v"}), tokens=(400, {"error": "s3cret"})),
            {},
            "the sign-in service gave no tokens (it answered 400)",
        ),
        (
            Service((200, {"authorization_code": "c", "code_verifier": "v"})),
            {"forced_chatgpt_workspace_id": "other"},
            "restricted to the workspace other, not acc-1",
        ),
    ],
)
def test_a_sign_in_that_comes_to_nothing_says_why(run, tmp_path, service, config, text):
    async def scenario():
        async with at_desk(tmp_path, service, config) as it:
            login_id = (await it.call("account/login/start", type="chatgptDeviceCode"))["loginId"]
            told = await it.desktop.wait_for("account/login/completed")
            assert (told["loginId"], told["success"]) == (login_id, False)
            assert text in told["error"] and "s3cret" not in told["error"]
            assert it.told("account/updated") == []
        assert not (tmp_path / "auth.json").exists()

    run(scenario())


def test_a_sign_in_that_waits_is_cancelled_or_gives_way_to_the_next(run, tmp_path):
    async def scenario():
        async with at_desk(tmp_path) as it:
            first = (await it.call("account/login/start", type="chatgptDeviceCode"))["loginId"]
            second = (await it.call("account/login/start", type="chatgptDeviceCode"))["loginId"]
            assert it.told("account/login/completed") == [done(first, "Login was not completed")]
            assert await it.call("account/login/cancel", loginId=first) == {"status": "notFound"}
            assert await it.call("account/login/cancel", loginId=second) == {"status": "canceled"}
            assert it.told("account/login/completed")[1] == done(second, "Login was not completed")
            assert await it.refused("account/login/cancel", loginId="x") == "invalid login id: x"

    run(scenario())


def test_tokens_are_kept_in_one_go_with_the_sign_in(run, tmp_path):
    """It was done in a thread, which goes on when the sign-in is given up: it could sign in behind the next one."""

    class Watched(Auth):
        def sign_in_with_tokens(self, id_token, access_token, refresh_token):
            asyncio.get_running_loop()  # fails in a thread
            super().sign_in_with_tokens(id_token, access_token, refresh_token)

    async def scenario():
        service = Service((200, {"authorization_code": "c", "code_verifier": "v"}))
        async with at_desk(tmp_path, service, auth=Watched(tmp_path, no_refresh)) as it:
            login_id = (await it.call("account/login/start", type="chatgptDeviceCode"))["loginId"]
            assert await it.desktop.wait_for("account/login/completed") == done(login_id)

    run(scenario())


def test_a_connection_that_says_nothing_does_not_hold_up_the_end_of_a_sign_in(run, tmp_path):
    """A browser opens one in advance; the sign-in, or its cancellation, waited ten seconds for it."""

    async def scenario():
        async with at_desk(tmp_path) as it:
            answer = await it.call("account/login/start", type="chatgpt")
            back = urlsplit(dict(parse_qsl(urlsplit(answer["authUrl"]).query))["redirect_uri"])
            reader, writer = await asyncio.open_connection(back.hostname, back.port)
            async with asyncio.timeout(5.0):
                said = await it.call("account/login/cancel", loginId=answer["loginId"])
                assert said == {"status": "canceled"} and await reader.read() == b""
            writer.close()

    run(scenario())


def test_of_two_sign_ins_at_once_the_first_is_told_to_be_over(run, tmp_path):
    """Its listener would stay open, and its client would wait for ever."""

    async def scenario():
        async with at_desk(tmp_path) as it:
            first, second = await asyncio.gather(*(it.call("account/login/start", type="chatgpt") for _ in range(2)))
            assert it.told("account/login/completed") == [done(first["loginId"], "Login was not completed")]
            redirects = [dict(parse_qsl(urlsplit(one["authUrl"]).query))["redirect_uri"] for one in (first, second)]
            with pytest.raises(OSError):
                await visit(redirects[0])
            assert (await visit(redirects[1]))[0] == 400  # the control: it listens

    run(scenario())


# The browser


async def visit(url, host=None, method="GET"):
    """What a browser is answered: (status, body)."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    host = host or f"{parts.hostname}:{parts.port}"
    writer.write(f"{method} {parts.path}?{parts.query} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


def test_a_browser_that_comes_back_signs_its_user_in(run, tmp_path):
    """no_auth_turn."""
    service = Service()

    async def scenario():
        async with at_desk(tmp_path, service) as it:
            answer = await it.call("account/login/start", type="chatgpt")
            url = urlsplit(answer["authUrl"])
            query = dict(parse_qsl(url.query))
            assert f"{url.scheme}://{url.netloc}{url.path}" == "https://auth.openai.com/oauth/authorize"
            assert (
                list(query)
                == (
                    "response_type client_id redirect_uri code_challenge code_challenge_method state scope "
                    "id_token_add_organizations codex_cli_simplified_flow originator"
                ).split()
            )
            back = query["redirect_uri"]
            assert urlsplit(back).hostname == "127.0.0.1" and urlsplit(back).path == "/auth/callback"
            status, body = await visit(f"{back}?code=the-code&state={query['state']}")
            assert status == 200 and "Signed in" in body
            assert await it.desktop.wait_for("account/login/completed") == done(answer["loginId"])
            with pytest.raises(OSError):
                await visit(back)  # nobody listens any more
        _, form = service.asked[-1]
        assert form["code"] == "the-code" and form["redirect_uri"] == back and len(form["code_verifier"]) >= 43
        assert kept(tmp_path)["tokens"]["access_token"] == ACCESS

    run(scenario())


def test_only_the_browser_that_was_sent_there_is_believed(run, tmp_path):
    async def scenario():
        async with at_desk(tmp_path) as it:
            query = dict(parse_qsl(urlsplit((await it.call("account/login/start", type="chatgpt"))["authUrl"]).query))
            back, state = query["redirect_uri"], query["state"]
            assert (await visit(f"{back}?code=mine&state=guessed"))[0] == 400
            assert (await visit(f"{back}?code=mine"))[0] == 400
            assert (await visit(f"{back}?code=mine&state={state}", host="evil.example"))[0] == 400
            assert (await visit(f"{back}?code=mine&state={state}", method="POST"))[0] == 400
            assert (await visit(back.replace("/auth/callback", "/")))[0] == 404
            assert it.told("account/login/completed") == []
            status, body = await visit(f"{back}?error=access_denied<script>&state={state}")
            assert status == 200 and "script" not in body
            told = await it.desktop.wait_for("account/login/completed")
            assert "access_denied" in told["error"]

    run(scenario())


def test_a_port_that_is_taken_is_told(run, tmp_path):
    async def scenario():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        service = Service()
        connections = Connections()
        methods = LoginMethods(
            connections=connections,
            auth=Auth(tmp_path, no_refresh),
            http=service,
            service=SignInService(service.post_json, service.post_form, ports=(port,)),
            origin=ORIGIN,
            identity=lambda: ClientIdentity("agent/1", "codex_desktop", "0.169.0"),
            config={},
        )
        async with desk(methods.table(), connections) as it:
            assert str(port) in await it.refused("account/login/start", INTERNAL_ERROR, type="chatgpt")
        server.close()
        await server.wait_closed()

    run(scenario())
