"""Who is signed in: `account/login/*`, `account/logout`, `account/rateLimits/read`, and the tokens of clients."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from agent.auth import Auth, AuthFailed, Bearer, ExternalTokens, NotSignedIn, PostJson, RefreshFailed, workspace_of
from agent.model.endpoint import ClientIdentity
from agent.model.failures import StreamBroken, Unavailable
from agent.model.limits import plan_wire
from agent.rpc.account_limits import limits_wire
from agent.rpc.config_methods import unit
from agent.rpc.input import NAME
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, MISSING, RequestFailed
from agent.rpc.login_flows import (
    PORTS,
    VERIFICATION_URL,
    BrowserLogin,
    DeviceLoginDisabled,
    LoginFailed,
    PostForm,
    Tokens,
    device_code,
    device_tokens,
)
from agent.rpc.serde_text import InvalidParams
from agent.rpc.server import Answer, ClientGone, Connection, Connections, Method, Methods
from agent.rpc.shapes import flag, one_of, optional, struct, tagged, text
from agent.rpc.thread_pages import given

# As long as the original waits for a client's new tokens.
REFRESH_PATIENCE_S = 10.0

_START = tagged(
    {
        "apiKey": {"apiKey": text},
        "chatgpt": {
            "codexStreamlinedLogin": flag,
            "useHostedLoginSuccessPage": flag,
            "appBrand": optional(one_of("codex", "chatgpt")),
        },
        "chatgptDeviceCode": {},
        "chatgptAuthTokens": {"accessToken": text, "chatgptAccountId": text, "chatgptPlanType": optional(text)},
        "amazonBedrock": {"apiKey": text, "region": text},
        "amazonBedrockAccessKeys": {
            "accessKeyId": text,
            "secretAccessKey": text,
            "region": text,
            "sessionToken": optional(text),
        },
    },
    {
        "apiKey": ("apiKey",),
        "chatgptAuthTokens": ("accessToken", "chatgptAccountId"),
        "amazonBedrock": ("apiKey", "region"),
        "amazonBedrockAccessKeys": ("accessKeyId", "secretAccessKey", "region"),
    },
    "LoginAccountParams",
)
_CANCEL = struct("struct CancelLoginAccountParams", 1, {"loginId": text}, ("loginId",))
_LIMITS = struct(
    "struct GetAccountRateLimitsParams", 2, {"excludeResetCreditDetails": flag, "supportsLunaReserve": flag}
)
_NEW_TOKENS = struct(
    "struct ChatgptAuthTokensRefreshResponse",
    3,
    {"accessToken": text, "chatgptAccountId": text, "chatgptPlanType": optional(text)},
    ("accessToken", "chatgptAccountId"),
)


def _start(value: Any) -> dict[str, Any]:
    if value is MISSING or value is None:
        raise InvalidParams("missing field `params`")
    checked: dict[str, Any] = _START(value)
    return checked


def _limits(value: Any) -> None:
    if value is not MISSING and value is not None:
        _LIMITS(value)


class Http(Protocol):
    """What of an `HttpClient` is needed."""

    async def request_json(self, method: str, url: str, *, headers: dict[str, str]) -> tuple[int, Any]:
        """(status, decoded answer). Raises StreamBroken."""
        ...


@dataclass(frozen=True, slots=True)
class SignInService:
    """How the sign-in service is reached: through the proxy, which passes it on untouched."""

    post_json: PostJson
    post_form: PostForm
    ports: tuple[int, ...] = PORTS


class LoginMethods:
    """The methods.

    Args:
        origin: The ChatGPT origin.
        config: config.toml with the overrides; may force a kind of sign-in or a workspace.
        wait: Waits that many seconds.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        auth: Auth,
        http: Http,
        service: SignInService,
        origin: str,
        identity: Callable[[], ClientIdentity],
        config: dict[str, Any],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connections = connections
        self._auth = auth
        self._http = http
        self._service = service
        self._origin = origin
        self._identity = identity
        self._config = config
        self._wait = wait
        # The one sign-in that waits for the user.
        self._login_id: str | None = None
        self._login: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        # Who has brought tokens, the last first: who else could renew them?
        self._bringers: list[Connection] = []

    def table(self) -> Methods:
        """The rows."""
        return {
            "account/login/start": Method(_start, self._start),
            "account/login/cancel": Method(given(_CANCEL), self._cancel),
            "account/logout": Method(unit, self._logout),
            "account/rateLimits/read": Method(_limits, self._rate_limits),
        }

    async def aclose(self) -> None:
        """Give up a sign-in that waits."""
        await self._give_up()

    # Signing in

    async def _start(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        kind = wanted["type"]
        forced = self._config.get("forced_login_method")
        if kind.startswith("amazon"):
            raise RequestFailed(INVALID_REQUEST, f"account/login/start {kind} is not supported by {NAME}")
        if forced not in (None, "chatgpt", "api"):
            raise RequestFailed(INVALID_REQUEST, "forced_login_method of config.toml is neither chatgpt nor api")
        if kind == "apiKey" and forced == "chatgpt":
            raise RequestFailed(INVALID_REQUEST, "API key login is disabled. Use ChatGPT login instead.")
        if kind != "apiKey" and forced == "api":
            raise RequestFailed(INVALID_REQUEST, "ChatGPT login is disabled. Use API key login instead.")
        async with self._starting:
            if kind != "chatgptAuthTokens" and self._auth.is_external:
                raise RequestFailed(
                    INVALID_REQUEST,
                    "External auth is active. Use account/login/start (chatgptAuthTokens) to update it or "
                    "account/logout to clear it.",
                )
            await self._give_up()
            match kind:
                case "apiKey":
                    return self._with_api_key(wanted["apiKey"].strip())
                case "chatgptAuthTokens":
                    return self._with_tokens(connection, wanted)
                case "chatgpt":
                    return await self._with_browser()
                case _:
                    return await self._with_device_code()

    def _with_api_key(self, key: str) -> Answer:
        try:
            self._auth.sign_in_with_api_key(key)
        except AuthFailed as exc:
            raise RequestFailed(INVALID_REQUEST, f"failed to save api key: {exc}") from exc
        return Answer({"type": "apiKey"}, lambda: self._signed_in(None, "apikey", None))

    def _with_tokens(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        tokens = _external(wanted)
        self._check_workspace(tokens.account_id)
        try:
            self._auth.sign_in_externally(tokens, self._renew)
        except AuthFailed as exc:
            raise RequestFailed(INVALID_REQUEST, f"failed to set external auth: {exc}") from exc
        self._bringers = [connection, *(one for one in self._bringers if one is not connection)]
        return Answer({"type": "chatgptAuthTokens"}, lambda: self._signed_in(None, "chatgptAuthTokens", self._plan()))

    async def _with_browser(self) -> Answer:
        browser = BrowserLogin(self._identity().originator, self._service.post_form, self._service.ports)
        try:
            await browser.open()
        except LoginFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, f"failed to start login server: {exc}") from exc

        async def tokens() -> Tokens:
            try:
                return await browser.tokens()
            finally:
                await browser.aclose()

        login_id = self._wait_for(tokens)
        return Answer({"type": "chatgpt", "loginId": login_id, "authUrl": browser.url})

    async def _with_device_code(self) -> Answer:
        try:
            code = await device_code(self._service.post_json)
        except LoginFailed as exc:
            known = INVALID_REQUEST if isinstance(exc, DeviceLoginDisabled) else INTERNAL_ERROR
            raise RequestFailed(known, str(exc)) from exc
        service = self._service
        login_id = self._wait_for(lambda: device_tokens(code, service.post_json, service.post_form, self._wait))
        answer = {"type": "chatgptDeviceCode", "loginId": login_id, "verificationUrl": VERIFICATION_URL}
        return Answer({**answer, "userCode": code.user_code})

    def _wait_for(self, tokens: Callable[[], Awaitable[Tokens]]) -> str:
        login_id = str(uuid.uuid4())
        self._login_id = login_id
        self._login = asyncio.create_task(self._finish(login_id, tokens))
        return login_id

    async def _finish(self, login_id: str, tokens: Callable[[], Awaitable[Tokens]]) -> None:
        """Wait for the user, and tell everybody how it ended. Never raises, save cancellation."""
        error = None
        try:
            found = await tokens()
            self._check_workspace(workspace_of(found.id_token))
            # Not in a thread: one that is given up could not be stopped, and would sign in whoever was not to be.
            self._auth.sign_in_with_tokens(found.id_token, found.access_token, found.refresh_token)
        except asyncio.CancelledError:
            error = "Login was not completed"
            raise
        except TimeoutError:
            error = "Login timed out"
        except (LoginFailed, AuthFailed, RequestFailed) as exc:
            error = str(exc)
        finally:
            if self._login_id == login_id:
                self._login_id = self._login = None
            if error is None:
                self._signed_in(login_id, "chatgpt", self._plan())
            else:
                self._completed(login_id, error)

    async def _give_up(self) -> bool:
        """End the sign-in that waits, if there is one."""
        login, self._login, self._login_id = self._login, None, None
        if login is None:
            return False
        await asyncio.sleep(0)  # one that is cancelled before it has begun would not clean up, and tell nobody
        login.cancel()
        await asyncio.wait((login,))
        return True

    async def _cancel(self, connection: Connection, wanted: dict[str, Any]) -> Answer:
        try:
            login_id = str(uuid.UUID(wanted["loginId"]))
        except ValueError as exc:
            raise RequestFailed(INVALID_REQUEST, f"invalid login id: {wanted['loginId']}") from exc
        found = login_id == self._login_id and await self._give_up()
        return Answer({"status": "canceled" if found else "notFound"})

    def _check_workspace(self, account_id: str | None) -> None:
        forced = self._config.get("forced_chatgpt_workspace_id")
        allowed = [forced] if isinstance(forced, str) else forced
        if not isinstance(allowed, list | None):
            text = "forced_chatgpt_workspace_id of config.toml is neither a text nor a list of texts"
            raise RequestFailed(INVALID_REQUEST, text)
        if allowed and account_id not in allowed:
            names = ", ".join(map(str, allowed))
            raise RequestFailed(INVALID_REQUEST, f"login is restricted to the workspace {names}, not {account_id}")

    def _plan(self) -> str:
        try:
            account = self._auth.account()
        except AuthFailed:
            return "unknown"
        return plan_wire(None if account is None else account.plan)

    def _signed_in(self, login_id: str | None, mode: str, plan: str | None) -> None:
        self._completed(login_id, None)
        self._connections.broadcast("account/updated", {"authMode": mode, "planType": plan})

    def _completed(self, login_id: str | None, error: str | None) -> None:
        told = {"loginId": login_id, "success": error is None, "error": error, "onboardingEntrypoint": None}
        self._connections.broadcast("account/login/completed", told)

    # Signing out

    async def _logout(self, connection: Connection, wanted: None) -> Answer:
        async with self._starting:  # behind a sign-in that was asked for before
            await self._give_up()
            try:
                self._auth.sign_out()
            except AuthFailed as exc:
                raise RequestFailed(INTERNAL_ERROR, f"logout failed: {exc}") from exc
            self._bringers = []
        told = {"authMode": None, "planType": None}
        return Answer({}, lambda: self._connections.broadcast("account/updated", told))

    # Tokens of clients

    async def _renew(self, account_id: str | None) -> ExternalTokens:
        """Ask whoever brought the tokens, the last first, for new ones: for a `Renew`."""
        params = {"reason": "unauthorized", "previousAccountId": account_id}
        for connection in tuple(self._bringers):
            try:
                async with asyncio.timeout(REFRESH_PATIENCE_S):
                    answer = await connection.request("account/chatgptAuthTokens/refresh", params)
                return _external(_NEW_TOKENS(answer))
            except ClientGone:
                self._bringers = [one for one in self._bringers if one is not connection]
            except TimeoutError as exc:
                raise RefreshFailed("the client gave no new tokens within ten seconds") from exc
            except (RequestFailed, InvalidParams) as exc:
                # Not its text, which may quote a token.
                raise RefreshFailed(f"the client gave no new tokens ({type(exc).__name__})") from exc
        raise AuthFailed("the client that brought the tokens has left; sign in again")

    # account/rateLimits/read

    async def _rate_limits(self, connection: Connection, wanted: None) -> Answer:
        url = f"{self._origin}/backend-api/wham/usage"
        try:
            bearer = await self._auth.bearer()
            if bearer.mode != "chatgpt":
                raise RequestFailed(INVALID_REQUEST, "chatgpt authentication required to read rate limits")
            status, usage = await self._http.request_json("GET", url, headers=self._headers(bearer))
            if status == HTTPStatus.UNAUTHORIZED:
                await self._auth.refresh("unauthorized_recovery", bearer.token)
                bearer = await self._auth.bearer()
                status, usage = await self._http.request_json("GET", url, headers=self._headers(bearer))
        except NotSignedIn as exc:
            text = "codex account authentication required to read rate limits"
            raise RequestFailed(INVALID_REQUEST, text) from exc
        except (AuthFailed, StreamBroken, Unavailable) as exc:
            raise RequestFailed(INTERNAL_ERROR, f"failed to fetch codex rate limits: {exc}") from exc
        if status != HTTPStatus.OK or not isinstance(usage, dict):
            phrase = HTTPStatus(status).phrase if status in HTTPStatus else ""
            found = f"{status} {phrase}".strip() if status != HTTPStatus.OK else "its answer is no JSON object"
            raise RequestFailed(INTERNAL_ERROR, f"failed to fetch codex rate limits: GET {url} failed: {found}")
        return Answer(limits_wire(usage))

    def _headers(self, bearer: Bearer) -> dict[str, str]:
        identity = self._identity()
        headers = {
            "Authorization": f"Bearer {bearer.token}",
            "User-Agent": identity.user_agent,
            "originator": identity.originator,
        }
        return headers if bearer.account_id is None else {**headers, "chatgpt-account-id": bearer.account_id}


def _external(given: dict[str, Any]) -> ExternalTokens:
    plan = given.get("chatgptPlanType")
    return ExternalTokens(given["accessToken"], given["chatgptAccountId"], None if plan is None else plan_wire(plan))
