"""A sign-in service, and a desk to sign in at."""

import asyncio
import contextlib
import json

from agent.auth import Auth
from agent.model.endpoint import ClientIdentity
from agent.rpc.login_flows import POLL_URL, USER_CODE_URL
from agent.rpc.login_methods import LoginMethods, SignInService
from agent.rpc.server import Connections
from tests.agent.rpc.desk import desk
from tests.agent.signed_in import CLAIMS, jwt

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
