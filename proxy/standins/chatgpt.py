"""A TLS server that speaks what an agent was seen to need of ChatGPT, and records what reached it.

Responses by WebSocket and by POST with SSE, models, accounts/check, oauth/token, compact, realtime calls and their
sideband. Everything else is 404, as an agent offline would see it. Bodies are decoded (zstd), headers are kept as
the bytes that arrived.
"""

import asyncio
import base64
import datetime as dt
import json
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zstandard
from aiohttp import WSMsgType, web

from certs.authority import LocalAuthority
from proxy.standins.answers import Answers, Event
from proxy.standins.faults import Fault, Faults, Kind, Where, broken_events

LOOPBACK = "127.0.0.1"
NAMES = ("chatgpt.com", "auth.openai.com", "api.openai.com", "ab.chatgpt.com", LOOPBACK)
LIFETIME = dt.timedelta(hours=24)

# Longest body or message that is read, in bytes: as long as the longest the original accepts on a socket.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# Tokens may be long; aiohttp's own limit is 8 KiB.
MAX_HEADER_BYTES = 256 * 1024
MAX_RECORDS = 100_000


@dataclass(frozen=True, slots=True)
class Received:
    """One thing that arrived.

    `kind` is "request" (an HTTP request, a WebSocket handshake among them), "message" (a frame's JSON) or "closed"
    (a WebSocket ended; `status` is its close code).
    """

    kind: str
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: Any = None
    is_websocket: bool = False
    status: int | None = None
    at: float = field(default_factory=time.time)

    def values(self, name: str) -> list[str]:
        """The values of all headers of this name, as they arrived."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]


class ChatGPT:
    """The stand-in, an async context manager.

    Args:
        names: Host names its certificate is for.
        answers: What the model says.
        faults: What goes wrong.
        event_delay_s: Seconds between two events of a stream.
        port: 0 for any free port.
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = NAMES,
        answers: Answers | None = None,
        faults: Sequence[Fault] = (),
        event_delay_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self.answers = answers or Answers()
        self.faults = Faults(list(faults))
        self.received: list[Received] = []
        self.event_delay_s = event_delay_s
        self.port = port
        self._arrived = asyncio.Condition()
        self._authority = LocalAuthority.create(names, dt.datetime.now(dt.UTC), LIFETIME)
        self._names = tuple(names)
        self._runner: web.AppRunner
        self._calls = 0
        self.realtime: list[web.WebSocketResponse] = []  # sockets, the oldest first
        self._realtime_request: web.Request | None = None
        self._refreshes = 0

    @property
    def ca_pem(self) -> bytes:
        """The authority to trust for it."""
        return self._authority.certificate_pem

    async def __aenter__(self) -> Self:
        """Listen on loopback.

        Raises:
            OSError: The port is in use.
        """
        app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.5, auto_decompress=False, max_field_size=MAX_HEADER_BYTES
        )
        await self._runner.setup()
        # A socket of our own, so that the port is known and a taken one is an error at once.
        listener = socket.create_server((LOOPBACK, self.port), backlog=128)
        site = web.SockSite(self._runner, listener, ssl_context=self._context())
        await site.start()
        self.port = listener.getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def wait_for(self, count: int, kind: str = "request", path: str = "", timeout_s: float = 10.0) -> None:
        """Wait until `count` things of this kind and path prefix have arrived.

        Raises:
            TimeoutError: They did not within `timeout_s` seconds.
        """

        def enough() -> bool:
            return sum(one.kind == kind and one.path.startswith(path) for one in self.received) >= count

        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(enough)

    def _context(self) -> ssl.SSLContext:
        leaf = self._authority.issue(self._names, dt.datetime.now(dt.UTC))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.TemporaryDirectory(prefix="countersign-standin-") as directory:
            path = Path(directory) / "leaf.pem"
            path.touch(0o600)
            path.write_bytes(leaf.certificate_pem + leaf.key_pem)
            context.load_cert_chain(path)
        return context

    async def _record(self, received: Received) -> None:
        async with self._arrived:
            if len(self.received) < MAX_RECORDS:
                self.received.append(received)
            self._arrived.notify_all()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        is_websocket = request.headers.get("upgrade", "").lower() == "websocket"
        body = None if is_websocket else _decode(await request.read(), request.headers.get("content-encoding", ""))
        await self._record(
            Received(
                "request", request.method, request.raw_path, tuple(request.raw_headers), body, is_websocket=is_websocket
            )
        )
        path = request.path
        if path in ("/backend-api/codex/responses", "/v1/responses"):
            return await (self._responses_socket(request) if is_websocket else self._responses_post(request, body))
        if path in ("/backend-api/codex/responses/compact", "/v1/responses/compact"):
            return web.json_response({"output": [{"type": "compaction", "encrypted_content": "stand-in compaction"}]})
        if path == "/backend-api/codex/models":
            return web.json_response({"models": []})
        if path.endswith("/accounts/check"):
            return web.json_response(_ACCOUNTS)
        if path == "/oauth/token":
            return self._token(body)
        if path in ("/backend-api/codex/realtime/calls", "/v1/realtime/calls") and request.method == "POST":
            return self._call(request)
        if path == "/v1/realtime" and is_websocket:
            return await self._realtime_socket(request)
        return web.json_response({"detail": "Not Found"}, status=404)

    # Model requests

    async def _responses_post(self, request: web.Request, body: Any) -> web.StreamResponse:
        if (fault := self.faults.next(Where.POST, in_stream=False)) is not None:
            return self._refusal(request, fault)
        fault = self.faults.next(Where.POST, in_stream=True)
        events = self.answers.events(body if isinstance(body, dict) else {})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        if fault is not None and fault.kind is Kind.BAD_FRAME:
            response.headers["Content-Encoding"] = "zstd"
        await response.prepare(request)
        kind = None if fault is None else fault.kind
        try:
            for event in events if kind is None else broken_events(kind, events):
                await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
                await asyncio.sleep(self.event_delay_s)
            if kind is Kind.GARBAGE:
                await response.write(b"data: {not json\n\n")
        except ConnectionResetError:
            return response  # the client has gone in the middle: an interrupted turn
        if kind is Kind.CUT:
            _abort(request)
            return response
        if kind is Kind.STALL:
            await self._stall(request)
            return response
        await response.write_eof()
        return response

    async def _responses_socket(self, request: web.Request) -> web.StreamResponse:
        if (fault := self.faults.next(Where.WEBSOCKET, in_stream=False)) is not None:
            return self._refusal(request, fault)
        websocket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is not WSMsgType.TEXT:
                continue
            body = _decode(message.data.encode(), "")
            await self._record(Received("message", "", request.raw_path, body=body, is_websocket=True))
            content = body if isinstance(body, dict) else {}
            prewarm = content.get("generate") is False
            fault = None if prewarm else self.faults.next(Where.WEBSOCKET, in_stream=True)
            events = self.answers.events(content)
            kind = None if fault is None else fault.kind
            try:
                for event in events if kind is None else broken_events(kind, events):
                    await websocket.send_str(json.dumps(event))
                    await asyncio.sleep(self.event_delay_s)
                if kind is Kind.GARBAGE:
                    await websocket.send_str("{not json")
            except ConnectionResetError:
                break  # the client has gone in the middle: an interrupted turn
            if kind is Kind.BAD_FRAME and request.transport is not None:
                request.transport.write(b"\xf1\x00")  # FIN and all reserved bits, text, empty
            if kind is Kind.CUT:
                _abort(request)
                break
        await self._record(
            Received("closed", "", request.raw_path, is_websocket=True, status=websocket.close_code)
        )  # fmt: skip
        return websocket

    def _call(self, request: web.Request) -> web.Response:
        if (fault := self.faults.next(Where.CALL, in_stream=False)) is not None:
            return self._refusal(request, fault)
        self._calls += 1
        return web.Response(
            status=201,
            text="v=0\r\n",
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/rtc_{self._calls}"},
        )

    async def say(self, *events: Event) -> None:
        """Say something on the realtime socket that was opened last."""
        for event in events:
            await self.realtime[-1].send_str(json.dumps(event))

    def cut(self) -> None:
        """Drop the realtime socket that was opened last."""
        assert self._realtime_request is not None, "no realtime socket was opened yet"
        _abort(self._realtime_request)

    async def _realtime_socket(self, request: web.Request) -> web.StreamResponse:
        if (fault := self.faults.next(Where.REALTIME, in_stream=False)) is not None:
            return self._refusal(request, fault)
        websocket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
        await websocket.prepare(request)
        self.realtime.append(websocket)
        self._realtime_request = request
        await websocket.send_str(json.dumps({"type": "session.created", "session": {"id": "sess_1"}}))
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                body = _decode(message.data.encode(), "")
                await self._record(Received("message", "", request.raw_path, body=body, is_websocket=True))
        await self._record(
            Received("closed", "", request.raw_path, is_websocket=True, status=websocket.close_code)
        )  # fmt: skip
        return websocket

    def _refusal(self, request: web.Request, fault: Fault) -> web.Response:
        if fault.kind is Kind.RESET:
            _abort(request)
            return web.Response(status=500)
        if fault.kind is Kind.USAGE_LIMIT:
            error = {"type": "usage_limit_reached", "message": "limit", "plan_type": "pro", "resets_at": 1999999999}
            headers = {"x-codex-primary-used-percent": "100", "x-codex-primary-window-minutes": "300"}
            return web.json_response({"error": error}, status=429, headers=headers)
        assert fault.status is not None
        return web.json_response(
            {"error": {"message": f"the stand-in was asked for a {fault.status}"}},
            status=fault.status,
            headers=fault.headers,
        )

    async def _stall(self, request: web.Request) -> None:
        """Say nothing until the client has gone."""
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    # Sign-in

    def _token(self, body: Any) -> web.Response:
        if (fault := self.faults.next(Where.TOKEN, in_stream=False)) is not None and fault.status is not None:
            return web.json_response({"error": {"code": "refused"}}, status=fault.status)
        if not isinstance(body, dict) or body.get("grant_type") != "refresh_token":
            return web.json_response({"error": {"code": "unsupported_grant_type"}}, status=400)
        self._refreshes += 1
        return web.json_response(
            {
                "id_token": fake_jwt(dt.timedelta(hours=1)),
                "access_token": fake_jwt(dt.timedelta(hours=1), serial=self._refreshes),
                "refresh_token": f"stand-in-refresh-{self._refreshes}",
            }
        )


_ACCOUNTS = {
    "accounts": [
        {
            "id": "acc-1",
            "account_id": "acc-1",
            "name": None,
            "plan_type": "pro",
            "structure": "personal",
            "is_deactivated": False,
            "workspace_backend_origin": "https://chatgpt.com",
            "account_routing_override": "NO_CONSTRAINT",
        }
    ],
    "default_account_id": "acc-1",
    "account_ordering": ["acc-1"],
}


def fake_jwt(lifetime: dt.timedelta, *, account_id: str = "acc-1", plan: str = "pro", serial: int = 0) -> str:
    """An unsigned JWT with the claims that agents read. Good for stand-ins only."""

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    now = dt.datetime.now(dt.UTC)
    claims = {
        "exp": int((now + lifetime).timestamp()),
        "iat": int(now.timestamp()),
        "jti": f"stand-in-{serial}",
        "email": "stand-in@example.com",
        "https://api.openai.com/auth": {
            "chatgpt_account_id": account_id,
            "chatgpt_plan_type": plan,
            "chatgpt_user_id": "user-1",
        },
    }
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.{part({'signature': 'none'})}"


def auth_json(lifetime: dt.timedelta = dt.timedelta(hours=8)) -> dict[str, Any]:
    """The content of an auth.json that this stand-in accepts, for a CODEX_HOME without a real account."""
    return {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {
            "id_token": fake_jwt(lifetime),
            "access_token": fake_jwt(lifetime),
            "refresh_token": "stand-in-refresh-0",
            "account_id": "acc-1",
        },
        "last_refresh": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z"),
    }


def _decode(body: bytes, encoding: str) -> Any:
    """A body as JSON if it is that, else as bytes."""
    if encoding == "zstd":
        try:
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        except zstandard.ZstdError:
            return body
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body


def _abort(request: web.Request) -> None:
    """Drop the TCP connection with a reset, as a crashing server does."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
