"""Signing in and out, and what the account may still use."""

import asyncio
import contextlib
import json
import logging
import stat
from urllib.parse import parse_qsl, urlsplit

import pytest

from agent.auth import CLIENT_ID, REFRESH_URL, Auth, AuthFailed, Bearer, NotSignedIn, RefreshFailed
from agent.model.endpoint import ClientIdentity
from agent.model.failures import StreamBroken
from agent.rpc.account_limits import limits_wire
from agent.rpc.jsonrpc import INTERNAL_ERROR
from agent.rpc.login_flows import POLL_URL, USER_CODE_URL, VERIFICATION_URL
from agent.rpc.login_methods import LoginMethods, SignInService
from agent.rpc.server import Connections
from tests.agent.core import published_schema
from tests.agent.rpc.desk import desk
from tests.agent.rpc.memory import served
from tests.agent.test_auth import CLAIMS, jwt

ORIGIN = "https://chatgpt.com"
ID_TOKEN = jwt(email="a@b.c", **{CLAIMS: {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "pro"}})
ACCESS = jwt(exp=4_000_000_000, secret="s3cret", **{CLAIMS: {"chatgpt_plan_type": "pro"}})
GRANTED = {"id_token": ID_TOKEN, "access_token": ACCESS, "refresh_token": "refresh-s3cret"}
CODE = {"device_auth_id": "device-s3cret", "usercode": "ABCD-1234", "interval": "5"}
USAGE = {
    "plan_type": "pro",
    "rate_limit": {
        "allowed": True,
        "primary_window": {"used_percent": 12.4, "limit_window_seconds": 18000, "reset_at": 1_800_000_000},
        "secondary_window": None,
    },
    "credits": {"has_credits": True, "unlimited": False, "balance": "5.00"},
    "additional_rate_limits": [{"limit_name": "Other", "metered_feature": "other", "rate_limit": {}}, 5],
    "rate_limit_reached_type": {"type": "rate_limit_reached"},
    "rate_limit_reset_credits": {"available_count": 2},
}


class Service:
    """The sign-in service and the usage of ChatGPT: answers what it was told to, and records what it was asked."""

    def __init__(self, *polls, code=(200, CODE), tokens=(200, GRANTED), usages=((200, USAGE),)):
        self.asked = []
        self.waited = []
        self.headers = []
        self._code, self._tokens = code, tokens
        self._polls, self._usages = list(polls), list(usages)
        self.polled_out = asyncio.Event()

    async def post_json(self, url, body):
        self.asked.append((url, body))
        if url == USER_CODE_URL:
            return self._code
        assert url == POLL_URL
        if not self._polls:
            self.polled_out.set()
            await asyncio.Event().wait()
        return self._polls.pop(0)

    async def post_form(self, url, form):
        self.asked.append((url, form))
        return self._tokens

    async def request_json(self, method, url, *, headers):
        self.asked.append((url, method))
        self.headers.append(headers)
        answer = self._usages.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait(self, seconds):
        self.waited.append(seconds)


async def no_refresh(url, body):
    return 500, None


@contextlib.asynccontextmanager
async def login(tmp_path, service=None, config=None, auth=None, connections=None):
    service = service or Service()
    connections = connections or Connections()
    methods = LoginMethods(
        connections=connections,
        auth=auth or Auth(tmp_path, no_refresh),
        http=service,
        service=SignInService(service.post_json, service.post_form, ports=(0,)),
        origin=ORIGIN,
        identity=lambda: ClientIdentity("agent/1", "codex_desktop", "0.169.0"),
        config=config or {},
        wait=service.wait,
    )
    try:
        yield methods
    finally:
        await methods.aclose()


@contextlib.asynccontextmanager
async def at_desk(tmp_path, *args, **options):
    connections = Connections()
    async with login(tmp_path, *args, connections=connections, **options) as methods:
        async with desk(methods.table(), connections) as it:
            yield it


def kept(tmp_path):
    return json.loads((tmp_path / "auth.json").read_text())


def done(login_id=None, error=None):
    return {"loginId": login_id, "success": error is None, "error": error, "onboardingEntrypoint": None}


def external(token=ACCESS, account="acc-1", **more):
    return {"type": "chatgptAuthTokens", "accessToken": token, "chatgptAccountId": account, **more}


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


# Tokens of a client


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


# What may still be used


def test_limits_are_asked_for_and_told(run, tmp_path):
    service = Service()
    auth = Auth(tmp_path, no_refresh)
    auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")

    async def scenario():
        async with at_desk(tmp_path, service, auth=auth) as it:
            answer = await it.call("account/rateLimits/read")
        assert service.asked == [(f"{ORIGIN}/backend-api/wham/usage", "GET")]
        assert service.headers[0]["chatgpt-account-id"] == "acc-1"
        main = answer["rateLimits"]
        assert main["primary"] == {"usedPercent": 12, "windowDurationMins": 300, "resetsAt": 1_800_000_000}
        assert main["secondary"] is None and main["planType"] == "pro" and main["limitId"] == "codex"
        assert main["credits"] == {"hasCredits": True, "unlimited": False, "balance": "5.00"}
        assert main["rateLimitReachedType"] == "rate_limit_reached"
        assert list(answer["rateLimitsByLimitId"]) == ["codex", "other"]
        assert answer["rateLimitResetCredits"] == {"availableCount": 2, "credits": None}

    run(scenario())


def test_limits_that_cannot_be_had_are_an_error(run, tmp_path):
    """misc_requests."""
    failures = ((404, {"detail": "s3cret"}), (200, []), StreamBroken("GET chatgpt.com failed (TimeoutError)"))
    auth = Auth(tmp_path, no_refresh)

    async def scenario():
        async with at_desk(tmp_path, Service(usages=failures), auth=auth) as it:
            method = "account/rateLimits/read"
            assert await it.refused(method) == "codex account authentication required to read rate limits"
            auth.sign_in_with_api_key("sk")
            assert await it.refused(method) == "chatgpt authentication required to read rate limits"
            auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")
            failed = f"failed to fetch codex rate limits: GET {ORIGIN}/backend-api/wham/usage failed: "
            assert await it.refused(method, INTERNAL_ERROR) == f"{failed}404 Not Found"
            assert await it.refused(method, INTERNAL_ERROR) == f"{failed}its answer is no JSON object"
            assert "TimeoutError" in await it.refused(method, INTERNAL_ERROR)

    run(scenario())


def test_limits_are_asked_for_again_with_new_tokens_after_a_401(run, tmp_path):
    async def refresh(url, body):
        return 200, {"access_token": "new"}

    service = Service(usages=((401, None), (200, USAGE)))
    auth = Auth(tmp_path, refresh)
    auth.sign_in_with_tokens(ID_TOKEN, ACCESS, "refresh")

    async def scenario():
        async with at_desk(tmp_path, service, auth=auth) as it:
            await it.call("account/rateLimits/read")
        assert [one["Authorization"] for one in service.headers] == [f"Bearer {ACCESS}", "Bearer new"]

    run(scenario())


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {name: 5 for name in USAGE},
        {name: [None] for name in USAGE},
        {"plan_type": "of tomorrow", "rate_limit": {"primary_window": {"used_percent": float("nan")}}},
        {"rate_limit": {"primary_window": {"used_percent": 1e99, "limit_window_seconds": -1, "reset_at": "x"}}},
    ],
)
def test_usage_of_another_shape_fits_the_schema_still(usage):
    assert published_schema.misfit("GetAccountRateLimitsResponse", limits_wire(usage)) is None
