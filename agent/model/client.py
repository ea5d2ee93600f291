"""The model client: one session for each thread, WebSocket first, POST when that is refused or given up."""

import asyncio
import contextlib
import enum
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.auth import Auth, AuthFailed, Bearer, NotSignedIn, RefreshFailed
from agent.model.endpoint import ClientIdentity
from agent.model.failures import StreamBroken, Unavailable, UpgradeRefused, UpstreamError, failure
from agent.model.http import HttpClient
from agent.model.provider import OPENAI, Provider, is_header_value, laid_over
from agent.model.wire import Completed, Item, ItemDone, ResponseEvent, ResponsesRequest, history_item

if TYPE_CHECKING:
    from agent.model.websocket import ResponsesSocket

API_ORIGIN = "https://api.openai.com"
# Without it the service does not know what a compaction trigger is.
BETA_FEATURES = "remote_compaction_v2"
WEBSOCKET_PROTOCOL = "responses_websockets=2026-02-06"
COMPACT_TIMEOUT_S = 300.0
# What is tried after the first, the second and the third 401.
_RECOVERIES = ("reload", "refresh", None)


class Transport(enum.StrEnum):
    """How a thread's requests travel."""

    WEBSOCKET = "websocket"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class _Known:
    """What the service knows on the open socket: the items up to the end of its last response."""

    shape: Item
    items: tuple[Item, ...]
    response_id: str


class ModelClient:
    """What all threads share.

    Args:
        origin: The ChatGPT origin, such as "https://chatgpt.com".
        identity: Who we are, once a client has said.
        environ: Where the keys of providers are.
    """

    def __init__(
        self,
        *,
        origin: str,
        auth: Auth,
        http: HttpClient,
        identity: Callable[[], ClientIdentity],
        environ: Mapping[str, str],
    ) -> None:
        self.origin = origin
        self.auth = auth
        self.http = http
        self.identity = identity
        self.environ = environ

    def session(self, thread_id: str, provider: Provider = OPENAI) -> "ModelSession":
        """A session for a thread."""
        return ModelSession(self, thread_id, provider)


class ModelSession:
    """The model requests of one thread, one at a time. `transport` is how the next one will travel."""

    def __init__(self, client: ModelClient, thread_id: str, provider: Provider) -> None:
        self.transport = Transport.WEBSOCKET if provider.websockets else Transport.HTTP
        self._client = client
        self._thread_id = thread_id
        self._provider = provider
        self._socket: ResponsesSocket | None = None
        self._known: _Known | None = None
        self._turn = asyncio.Lock()

    async def prewarm(self, request: ResponsesRequest) -> None:
        """Open the socket and let the service load the static input; failures are left to the first turn."""
        with contextlib.suppress(UpstreamError, StreamBroken, Unavailable):
            async with contextlib.aclosing(self.stream(request)) as events:
                async for _ in events:
                    pass

    async def stream(self, request: ResponsesRequest) -> AsyncGenerator[ResponseEvent]:
        """The events of one response, response.completed last. Waits for the request before it, if there is one.

        Raises:
            UpstreamError, StreamBroken: It failed or broke off; nothing was retried that a user should know of.
            Unavailable: There are no usable credentials, or no proxy.
        """
        async with self._turn:
            completed = False
            try:
                async with contextlib.aclosing(self._recovering(request)) as events:
                    async for event in events:
                        # Before the yield: whoever has response.completed need not come back for more.
                        completed = isinstance(event, Completed)
                        yield event
            finally:
                if not completed:
                    await self._drop_socket()

    async def compact(self, request: ResponsesRequest) -> tuple[Item, ...]:
        """Have the input summed up by a request of its own, for a service that knows no compaction trigger.

        Returns:
            What takes the place of the input.

        Raises:
            UpstreamError, StreamBroken: It failed; nothing was retried.
            Unavailable: There are no usable credentials, or no proxy.
        """
        bearer = await self._bearer()
        url = self._url(bearer, "responses/compact")
        status, answer = await self._client.http.request_json(
            "POST", url, request.compact_body(), self._headers(request, bearer), timeout_s=COMPACT_TIMEOUT_S
        )
        if status != 200:
            raise failure(status, {}, json.dumps(answer))
        output = answer.get("output") if isinstance(answer, dict) else None
        if not isinstance(output, list) or not all(isinstance(item, dict) and "type" in item for item in output):
            raise StreamBroken("the answer to a compaction has no list of items")
        return tuple(output)

    def use_http(self) -> None:
        """From now on POST, for the rest of the thread."""
        self.transport = Transport.HTTP

    async def aclose(self) -> None:
        """Close the socket in order, if there is one."""
        socket, self._socket, self._known = self._socket, None, None
        if socket is not None:
            await socket.aclose()

    async def _recovering(self, request: ResponsesRequest) -> AsyncGenerator[ResponseEvent]:
        """One request, and twice more after a 401: as it is (the file may be newer), then with refreshed tokens.

        An API key cannot be refreshed: its 401 is left to the turn (observed).
        """
        bearer = await self._bearer()
        for recovery in _RECOVERIES if _is_chatgpt(bearer) else (None,):
            started = False
            try:
                async with contextlib.aclosing(self._attempt(request, bearer)) as events:
                    async for event in events:
                        started = True
                        yield event
                return
            except UpstreamError as exc:
                if exc.status != 401 or started or recovery is None:
                    raise
            await self._drop_socket()
            bearer = await self._bearer(recovery, bearer)

    async def _bearer(self, recovery: str | None = None, rejected: Bearer | None = None) -> Bearer | None:
        """The provider's own key, else what the user is signed in with if the provider is to have that."""
        key = self._provider.key(self._client.environ)
        if key is not None:
            return Bearer("apikey", key)
        if not self._provider.needs_openai_auth:
            return None
        return await usable_bearer(self._client.auth, recovery, rejected)

    async def _attempt(self, request: ResponsesRequest, bearer: Bearer | None) -> AsyncGenerator[ResponseEvent]:
        if self.transport is Transport.WEBSOCKET:
            try:
                socket = await self._open_socket(request, bearer)
            except UpgradeRefused:
                self.use_http()
            else:
                async with contextlib.aclosing(self._over_socket(socket, request)) as events:
                    async for event in events:
                        yield event
                return
        if not request.generate:
            return  # there is nothing to warm on a POST
        headers = self._headers(request, bearer)
        if request.turn_state is not None:
            headers["x-codex-turn-state"] = request.turn_state
        responding = self._client.http.respond(
            self._url(bearer, "responses"),
            headers,
            request.body(),
            compress=_is_chatgpt(bearer) and self._provider.is_openai,
            idle_timeout_s=self._provider.idle_timeout_s,
            retries=self._provider.request_retries,
        )
        async with contextlib.aclosing(responding):
            async for event in responding:
                yield event

    async def _open_socket(self, request: ResponsesRequest, bearer: Bearer | None) -> "ResponsesSocket":
        """The open socket, or a new one; a new one knows nothing."""
        if self._socket is not None and self._socket.is_open:
            return self._socket
        await self._drop_socket()
        headers = {**self._headers(request, bearer), "openai-beta": WEBSOCKET_PROTOCOL}
        url = f"ws{self._url(bearer, 'responses').removeprefix('http')}"
        way = await self._client.http.way_to(url)
        # Here and not above: a thread is answered before websockets is imported, which the app does meanwhile.
        from agent.model.websocket import ResponsesSocket

        self._socket = await ResponsesSocket.open(
            way,
            url,
            headers,
            timeout_s=self._provider.connect_timeout_s,
            idle_timeout_s=self._provider.idle_timeout_s,
        )
        return self._socket

    async def _over_socket(self, socket: "ResponsesSocket", request: ResponsesRequest) -> AsyncGenerator[ResponseEvent]:
        known, shape = self._known, request.shape()
        body = request.body()
        if known is not None and known.shape == shape and request.input[: len(known.items)] == known.items:
            body = request.body(request.input[len(known.items) :], known.response_id)
        metadata = body["client_metadata"]
        metadata["x-codex-ws-stream-request-start-ms"] = str(time.time_ns() // 1_000_000)
        if request.turn_state is not None:
            metadata["x-codex-turn-state"] = request.turn_state
        self._known = None
        produced: list[Item] = []
        responding = socket.respond(body)
        async with contextlib.aclosing(responding):
            async for event in responding:
                if isinstance(event, ItemDone):
                    produced.append(history_item(event.item))
                elif isinstance(event, Completed) and event.response_id:
                    self._known = _Known(shape, (*request.input, *produced), event.response_id)
                yield event

    async def _drop_socket(self) -> None:
        """Let go of a socket that may be in the middle of a response."""
        socket, self._socket, self._known = self._socket, None, None
        if socket is not None:
            socket.abort()

    def _url(self, bearer: Bearer | None, path: str) -> str:
        base, provider = self._provider.base_url, self._provider
        if _is_chatgpt(bearer) and (base is None or provider.is_openai):
            base = f"{self._client.origin}/backend-api/codex"
        return provider.url(base or f"{API_ORIGIN}/v1", path)

    def _headers(self, request: ResponsesRequest, bearer: Bearer | None) -> dict[str, str]:
        identity, provider = self._client.identity(), self._provider
        headers: dict[str, str] = {}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer.token}"
            if bearer.account_id is not None:
                headers["chatgpt-account-id"] = bearer.account_id
        if provider.id == OPENAI.id:
            headers["version"] = identity.version
        # A model is any text; one that is no header value has no hint (observed).
        hint = {}
        if _is_chatgpt(bearer) and provider.is_openai and is_header_value(request.model):
            hint = {"x-codex-routing-hint": f"model={request.model}"}
        session_id = request.session_id or self._thread_id
        family = {}
        if request.subagent is not None:
            family = {"x-codex-parent-thread-id": session_id, "x-openai-subagent": request.subagent}
        headers |= {
            "x-client-request-id": self._thread_id,
            "x-codex-beta-features": BETA_FEATURES,
            "session-id": session_id,
            "thread-id": self._thread_id,
            "x-codex-window-id": request.client_metadata.get("x-codex-window-id", f"{self._thread_id}:0"),
            "x-codex-turn-metadata": request.turn_metadata,
            **family,
            **hint,
        }
        who = {"User-Agent": identity.user_agent, "originator": identity.originator}
        return laid_over(laid_over(who, provider.headers(self._client.environ)), headers)


async def usable_bearer(auth: Auth, recovery: str | None = None, rejected: Bearer | None = None) -> Bearer:
    """The credentials; with `recovery`, after reading the file again ("reload") or refreshing the rejected ones.

    Raises:
        UpstreamError: The sign-in service refused to refresh them.
        Unavailable: There are none.
    """
    try:
        if recovery == "reload":
            auth.load()
        elif recovery == "refresh" and rejected is not None:
            await auth.refresh("unauthorized_recovery", rejected.token)
        return await auth.bearer()
    except RefreshFailed as exc:
        raise UpstreamError(str(exc)) from exc
    except (NotSignedIn, AuthFailed) as exc:
        raise Unavailable(str(exc), "unauthorized") from exc


def _is_chatgpt(bearer: Bearer | None) -> bool:
    return bearer is not None and bearer.mode == "chatgpt"
