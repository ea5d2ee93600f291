"""Realtime conversations with the service: the call by WebRTC with its sideband socket, and the socket by API key.

The proxy stamps the call, and gives its sideband the same value again (`proxy/realtime_calls`).
"""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.auth import Bearer
from agent.model.client import API_ORIGIN, ModelClient, usable_bearer
from agent.model.failures import StreamBroken, Unavailable, UpgradeRefused, UpstreamError, failure
from agent.model.http import RETRY_DELAY_S
from agent.model.provider import OPENAI, is_header_value
from agent.model.realtime_wire import Caller, Message, Session, Version
from agent.model.websocket import close, connected

# The longest event that is read, in bytes; a second of audio has 64 KiB.
MAX_EVENT_BYTES = 4 * 1024 * 1024
# Seconds that one message may take to be sent.
SEND_TIMEOUT_S = 15.0
# How often a sideband is tried: the service may not know the call yet (observed).
SIDEBAND_ATTEMPTS = 5

_SOCKETS = f"wss://{API_ORIGIN.removeprefix('https://')}/v1/realtime"
_CALLS = "realtime/calls?intent=quicksilver&architecture=avas"
# As the proxy reads it, which carries the value of the call to its sideband.
_LOCATION = re.compile(r"(?:https://[^/?#]+)?/v1/realtime/calls/([A-Za-z0-9_-]{1,200})", re.ASCII)


class RealtimeService:
    """Opens conversations."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client

    async def call(self, caller: Caller, session: Session, offer: str) -> tuple[str, str]:
        """Open a call.

        Returns:
            The SDP answer, and the id of the call.

        Raises:
            UpstreamError, StreamBroken: It was refused or failed. A 5xx was retried, and so was a 401 with what the
                file has now and with refreshed tokens; each time as a request of its own, with a token of its own.
            Unavailable: There are no usable credentials, or no proxy.
        """
        bearer = await usable_bearer(self._client.auth)
        recoveries = ["reload", "refresh"] if bearer.mode == "chatgpt" else []
        retries, delay_s = OPENAI.request_retries, RETRY_DELAY_S
        while True:
            status, answered, body = await self._post(caller, session, offer, bearer)
            if status == 401 and recoveries:
                bearer = await usable_bearer(self._client.auth, recoveries.pop(0), bearer)
            elif status >= 500 and retries:
                retries -= 1
                await asyncio.sleep(delay_s)
                delay_s *= 2
            elif status not in (200, 201):
                raise failure(status, answered, body)
            else:
                return body, _call_id(answered.get("location"))

    async def _post(
        self, caller: Caller, session: Session, offer: str, bearer: Bearer
    ) -> tuple[int, dict[str, str], str]:
        headers = self._headers(caller, session.version, bearer)
        if bearer.mode == "apikey":
            kind, content = _form(offer, json.dumps(session.call_wire()))
            url = f"{API_ORIGIN}/v1/{_CALLS}"
        else:
            kind, content = "application/json", json.dumps({"sdp": offer, "session": session.call_wire()}).encode()
            url = f"{self._client.origin}/backend-api/codex/{_CALLS}"
        return await self._client.http.post(url, content, {**headers, "Content-Type": kind})

    async def join(self, caller: Caller, session: Session, call_id: str) -> "RealtimeSocket":
        """The sideband socket of a call.

        Raises:
            UpstreamError, StreamBroken, Unavailable: As `call`; no connection counts as a 5xx.
        """
        bearer = await usable_bearer(self._client.auth)
        recoveries = ["reload", "refresh"] if bearer.mode == "chatgpt" else []
        url = f"{_SOCKETS}?{urlencode({'intent': 'quicksilver', 'call_id': call_id})}"
        delay_s = RETRY_DELAY_S
        for attempt in range(1, SIDEBAND_ATTEMPTS + 1):
            try:
                return await self._connect(url, caller, session, bearer)
            except UpstreamError as exc:
                unauthorized = exc.status == 401 and bool(recoveries)
                if attempt == SIDEBAND_ATTEMPTS or not (unauthorized or (exc.status or 0) >= 500):
                    raise
                if unauthorized:
                    bearer = await usable_bearer(self._client.auth, recoveries.pop(0), bearer)
            except StreamBroken:
                if attempt == SIDEBAND_ATTEMPTS:
                    raise
            await asyncio.sleep(delay_s)
            delay_s *= 2
        raise AssertionError("the last attempt returns or raises")

    async def connect(self, caller: Caller, session: Session) -> "RealtimeSocket":
        """A conversation on a socket of its own.

        Raises:
            UpstreamError, StreamBroken: It cannot be; nothing was retried (observed).
            Unavailable: There is no API key, or no proxy.
        """
        bearer = await self._api_key()
        intent = {"intent": "quicksilver"} if session.version is Version.V1 else {}
        url = f"{_SOCKETS}?{urlencode({**intent, 'model': session.model})}"
        return await self._connect(url, caller, session, bearer)

    async def _api_key(self) -> Bearer:
        """The one that is signed in with, else that of the environment (observed). Raises Unavailable."""
        key = self._client.environ.get("OPENAI_API_KEY", "").strip()
        of_environment = Bearer("apikey", key) if key and is_header_value(key) else None
        try:
            signed_in = await usable_bearer(self._client.auth)
        except (Unavailable, UpstreamError):
            if of_environment is None:
                raise
            return of_environment
        if signed_in.mode == "apikey":
            return signed_in
        if of_environment is None:
            raise Unavailable("realtime conversation requires API key auth", "other")
        return of_environment

    async def _connect(self, url: str, caller: Caller, session: Session, bearer: Bearer) -> "RealtimeSocket":
        way = await self._client.http.way_to(url)
        headers = self._headers(caller, session.version, bearer)
        try:
            return RealtimeSocket(await connected(way, url, headers, MAX_EVENT_BYTES))
        except UpgradeRefused as exc:
            raise UpstreamError("the service wants no WebSocket here", status=426) from exc

    def _headers(self, caller: Caller, version: Version, bearer: Bearer) -> dict[str, str]:
        identity = self._client.identity()
        account = {} if bearer.account_id is None else {"chatgpt-account-id": bearer.account_id}
        generation = {"openai-alpha": "quicksilver=v1"} if version is Version.V1 else {}
        return {
            **OPENAI.headers(self._client.environ),
            "Authorization": f"Bearer {bearer.token}",
            **account,
            "User-Agent": identity.user_agent,
            "originator": identity.originator,
            "version": identity.version,
            **generation,
            "x-session-id": caller.session_id,
            "session-id": caller.thread_id,
            "thread-id": caller.thread_id,
        }


class RealtimeSocket:
    """An open conversation."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: Message) -> None:
        """Send one message; returns when there is room for more. Raises StreamBroken."""
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._connection.send(text)
        except TimeoutError as exc:
            raise StreamBroken(f"the realtime service took nothing for {SEND_TIMEOUT_S:.0f} s") from exc
        except ConnectionClosed as exc:
            raise StreamBroken(_how(exc)) from exc

    async def frames(self) -> AsyncGenerator[str | bytes]:
        """What the service says, until it closes the socket. Raises StreamBroken if the connection breaks."""
        while True:
            try:
                frame = await self._connection.recv()
            except ConnectionClosed as exc:
                if exc.rcvd is not None and exc.rcvd_then_sent is not False:
                    return  # whatever its code, as in the original
                raise StreamBroken(_how(exc)) from exc
            yield frame

    async def aclose(self) -> None:
        """As `agent.model.websocket.close` does it."""
        await close(self._connection)


def _how(exc: ConnectionClosed) -> str:
    for frame, whose in ((exc.rcvd, "by the service"), (exc.sent, "by us")):
        if frame is not None:
            return f"the realtime socket was closed {whose} (code {frame.code})"
    return "the realtime socket broke off without a closing handshake"


def _call_id(location: str | None) -> str:
    match = None if location is None else _LOCATION.fullmatch(location)
    if match is None:
        raise StreamBroken("the realtime call was answered without the id of a call in its Location")
    return match[1]


def _form(offer: str, session: str) -> tuple[str, bytes]:
    """(content type, body) of a call with an API key: a form with two parts."""
    boundary = f"countersign-{secrets.token_hex(16)}"
    lines: list[str] = []
    parts: Mapping[tuple[str, str], str] = {("sdp", "application/sdp"): offer, ("session", "application/json"): session}
    for (name, kind), content in parts.items():
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', f"Content-Type: {kind}", ""]
        lines.append(content)
    return f"multipart/form-data; boundary={boundary}", "\r\n".join([*lines, f"--{boundary}--", ""]).encode()
