"""How a user signs in with ChatGPT: in a browser that comes back to this machine, or with a code typed elsewhere.

Addresses, members and their order are those of the original's requests.
"""

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from agent.auth import CLIENT_ID, REFRESH_URL, PostJson

ISSUER = "https://auth.openai.com"
USER_CODE_URL = f"{ISSUER}/api/accounts/deviceauth/usercode"
POLL_URL = f"{ISSUER}/api/accounts/deviceauth/token"
VERIFICATION_URL = f"{ISSUER}/codex/device"
_DEVICE_REDIRECT = f"{ISSUER}/deviceauth/callback"

# The ports that the sign-in service lets a browser come back to.
PORTS = (1455, 1457)
_LOOPBACK = "127.0.0.1"
_CALLBACK = "/auth/callback"
_SCOPE = "openid profile email offline_access api.connectors.read api.connectors.invoke"
# Seconds that a user gets.
BROWSER_PATIENCE_S = 600.0
DEVICE_PATIENCE_S = 900.0
_REQUEST_PATIENCE_S = 10.0
_MOST_REQUEST_BYTES = 32 * 1024
_LEAST_INTERVAL_S, _MOST_INTERVAL_S = 1.0, 60.0

# (url, form) -> (status, decoded answer; None if it is not JSON); status 0 where there was no answer
PostForm = Callable[[str, dict[str, str]], Awaitable[tuple[int, Any]]]


class LoginFailed(Exception):
    """Nobody was signed in; the text says why, without codes or tokens."""


class DeviceLoginDisabled(LoginFailed):
    """The sign-in service does not offer codes."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a sign-in brings."""

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What the user types at `VERIFICATION_URL`, and how the service is asked whether that was done."""

    user_code: str
    device_auth_id: str = field(repr=False)
    interval_s: float


async def device_code(post_json: PostJson) -> DeviceCode:
    """A new code.

    Raises:
        DeviceLoginDisabled: There are none to be had.
        LoginFailed: The service could not be reached, or gave none.
    """
    status, answer = await post_json(USER_CODE_URL, {"client_id": CLIENT_ID})
    if status == HTTPStatus.NOT_FOUND:
        raise DeviceLoginDisabled(
            "device code login is not enabled for this Codex server. Use the browser login or verify the server URL."
        )
    answer = answer if status == HTTPStatus.OK and isinstance(answer, dict) else {}
    user_code, device_auth_id = answer.get("user_code") or answer.get("usercode"), answer.get("device_auth_id")
    if not (user_code and isinstance(user_code, str) and device_auth_id and isinstance(device_auth_id, str)):
        raise LoginFailed(f"the sign-in service gave no device code ({_said(status)})")
    return DeviceCode(user_code, device_auth_id, _interval_s(answer.get("interval")))


async def device_tokens(
    code: DeviceCode, post_json: PostJson, post_form: PostForm, wait: Callable[[float], Awaitable[None]]
) -> Tokens:
    """The tokens, once the user has typed the code.

    Args:
        wait: Waits that many seconds between two questions.

    Raises:
        LoginFailed: The service refused, or gave what cannot be used.
        TimeoutError: It was not typed within fifteen minutes.
    """
    asked = {"device_auth_id": code.device_auth_id, "user_code": code.user_code}
    async with asyncio.timeout(DEVICE_PATIENCE_S):
        while True:
            status, answer = await post_json(POLL_URL, asked)
            if status == HTTPStatus.OK:
                break
            if status not in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):  # "not yet", both
                raise LoginFailed(f"device auth failed ({_said(status)})")
            await wait(code.interval_s)
    answer = answer if isinstance(answer, dict) else {}
    granted, verifier = answer.get("authorization_code"), answer.get("code_verifier")
    if not isinstance(granted, str) or not isinstance(verifier, str):
        raise LoginFailed("device auth failed: the sign-in service answered without an authorization code")
    return await exchange(post_form, granted, verifier, _DEVICE_REDIRECT)


async def exchange(post_form: PostForm, code: str, verifier: str, redirect: str) -> Tokens:
    """Tokens for an authorization code. Raises LoginFailed."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect,
        "client_id": CLIENT_ID,
        "code_verifier": verifier,
    }
    status, answer = await post_form(REFRESH_URL, form)
    answer = answer if status == HTTPStatus.OK and isinstance(answer, dict) else {}
    names = ("id_token", "access_token", "refresh_token")
    if not all(isinstance(answer.get(name), str) and answer[name] for name in names):
        raise LoginFailed(f"the sign-in service gave no tokens ({_said(status)})")
    return Tokens(*(answer[name] for name in names))


class BrowserLogin:
    """Waits on loopback for the browser to come back. `open` before anything else, `aclose` at the end.

    Args:
        originator: As told to the sign-in service.
        ports: Tried in order.
    """

    def __init__(self, originator: str, post_form: PostForm, ports: tuple[int, ...] = PORTS) -> None:
        self._originator = originator
        self._post_form = post_form
        self._ports = ports
        self._port = 0
        self._state = secrets.token_urlsafe(32)
        self._verifier = secrets.token_urlsafe(64)
        self._server: asyncio.Server | None = None
        self._visitors: set[asyncio.StreamWriter] = set()
        self._came_back: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Listen.

        Raises:
            LoginFailed: All ports are taken.
        """
        for port in self._ports:
            try:
                server = await asyncio.start_server(self._serve, _LOOPBACK, port, limit=_MOST_REQUEST_BYTES)
            except OSError:
                continue
            self._server = server
            self._port = server.sockets[0].getsockname()[1]
            return
        raise LoginFailed(
            f"the ports {' and '.join(map(str, self._ports))} of {_LOOPBACK}, to which the browser comes back, are "
            "taken; end the other sign-in, or use the device code"
        )

    @property
    def _redirect(self) -> str:
        return f"http://{_LOOPBACK}:{self._port}{_CALLBACK}"

    @property
    def url(self) -> str:
        """What the browser is to open."""
        digest = hashlib.sha256(self._verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": self._redirect,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": self._state,
            "scope": _SCOPE,
            "id_token_add_organizations": "true",
            "codex_cli_simplified_flow": "true",
            "originator": self._originator,
        }
        return f"{ISSUER}/oauth/authorize?{urlencode(query)}"

    async def tokens(self) -> Tokens:
        """The tokens, once the browser has come back.

        Raises:
            LoginFailed: The user refused, or the service gave none.
            TimeoutError: It did not come back within ten minutes.
        """
        async with asyncio.timeout(BROWSER_PATIENCE_S):
            code = await asyncio.shield(self._came_back)
        return await exchange(self._post_form, code, self._verifier, self._redirect)

    async def aclose(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            # A browser opens connections that it may not need, and leaves them open.
            for visitor in self._visitors:
                visitor.close()
            await self._server.wait_closed()
        if self._came_back.done():
            self._came_back.exception()  # it may be that nobody waited for it
        else:
            self._came_back.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._visitors.add(writer)
        try:
            async with asyncio.timeout(_REQUEST_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, said = self._answer(head.decode("latin-1"))
                body = _page(said).encode()
                lines = (
                    f"HTTP/1.1 {status.value} {status.phrase}",
                    "Content-Type: text/html; charset=utf-8",
                    f"Content-Length: {len(body)}",
                    "Content-Security-Policy: default-src 'none'",
                    "Cache-Control: no-store",
                    "Referrer-Policy: no-referrer",
                    "Connection: close",
                )
                writer.write("\r\n".join((*lines, "", "")).encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # not the browser that we wait for
        finally:
            self._visitors.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: str) -> tuple[HTTPStatus, str]:
        request, *headers = head.split("\r\n")
        method, _, rest = request.partition(" ")
        target = urlsplit(rest.partition(" ")[0])
        hosts = [line.partition(":")[2].strip() for line in headers if line.lower().startswith("host:")]
        # Not for a page that has made its own name lead here.
        if method != "GET" or hosts not in ([f"{_LOOPBACK}:{self._port}"], [f"localhost:{self._port}"]):
            return HTTPStatus.BAD_REQUEST, "This is no sign-in."
        if target.path != _CALLBACK:
            return HTTPStatus.NOT_FOUND, "There is nothing here."
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        # Only the browser that has opened our address knows it: nobody else can sign the user in as somebody.
        if not secrets.compare_digest(query.get("state", "").encode(), self._state.encode()):
            return HTTPStatus.BAD_REQUEST, "This is not the sign-in that was begun here."
        if "code" in query:
            self._settle(lambda: self._came_back.set_result(query["code"]))
            return HTTPStatus.OK, "Signed in. You can close this window."
        why = query.get("error", "no code")
        failure = LoginFailed(f"the sign-in service sent the browser back with {_plain(why)!r}")
        self._settle(lambda: self._came_back.set_exception(failure))
        return HTTPStatus.OK, "Nobody was signed in. You can close this window."

    def _settle(self, act: Callable[[], None]) -> None:
        if not self._came_back.done():
            act()


def _plain(text: str) -> str:
    return "".join(one for one in text[:100] if one.isascii() and one.isprintable())


def _page(said: str) -> str:
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>Countersign</title><p>{said}</p></html>"


def _interval_s(value: Any) -> float:
    """The service sends a text; five seconds where it is none."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 5.0
    return min(max(seconds, _LEAST_INTERVAL_S), _MOST_INTERVAL_S)


def _said(status: int) -> str:
    return f"it answered {status}" if status else "it could not be reached"
