"""A model client in front of the real proxy, in front of the stand-in of ChatGPT; all of it on loopback."""

import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.auth import Auth
from agent.core.thread import message
from agent.model.client import ModelClient, ModelSession
from agent.model.endpoint import ClientIdentity, ProxyEndpoint
from agent.model.http import HttpClient
from agent.model.provider import Provider
from agent.model.wire import Completed, Item, ItemDone, ResponseEvent, ResponsesRequest, TextDelta, history_item
from certs.trust import client_context
from proxy.server import LOOPBACK
from proxy.standins.answers import Answers
from proxy.standins.chatgpt import ChatGPT, Received, auth_json
from proxy.standins.faults import Fault
from tests.proxy.running import Stage, Tokens, staged

ORIGIN = "https://chatgpt.com"
IDENTITY = ClientIdentity("codex_desktop/0.169.0 (test)", "codex_desktop", "0.169.0")
RESPONSES = "/backend-api/codex/responses"
# The service, asked by somebody who does not wait for long.
QUICK = Provider(request_retries=2, idle_timeout_s=20.0)


@dataclass
class World:
    """The client and everything behind it."""

    client: ModelClient
    service: ChatGPT
    stage: Stage
    endpoint: ProxyEndpoint
    home: Path
    http: HttpClient

    @property
    def tokens(self) -> Tokens:
        assert isinstance(self.stage.tokens, Tokens)
        return self.stage.tokens

    @property
    def auth_file(self) -> dict[str, Any]:
        content = json.loads((self.home / "auth.json").read_text("utf-8"))
        assert isinstance(content, dict)
        return content

    def requests(self, path: str = RESPONSES, *, websocket: bool | None = None) -> list[Received]:
        """The HTTP requests that arrived under this path; with `websocket`, only handshakes or only the others."""
        return [
            one
            for one in self.service.received
            if one.kind == "request" and one.path.startswith(path) and websocket in (None, one.is_websocket)
        ]

    def bodies(self, *, prewarm: bool = False) -> list[dict[str, Any]]:
        """The model requests that arrived, over either transport."""
        bodies = [one.body for one in self.service.received if one.kind == "message" or one.method == "POST"]
        asked = [body for body in bodies if isinstance(body, dict) and "input" in body]
        return [body for body in asked if prewarm or body.get("generate") is not False]


class Conversation:
    """A thread as the session keeps it: its history grows by what is said and answered."""

    def __init__(self, client: ModelClient, thread_id: str = "thread-1", provider: Provider = QUICK) -> None:
        self.session: ModelSession = client.session(thread_id, provider)
        self.history: list[Item] = [message("developer", "BASE")]
        self._thread_id = thread_id

    def request(self, text: str | None = None, **changes: Any) -> ResponsesRequest:
        """The next request, after the user said `text`."""
        if text is not None:
            self.history.append(message("user", text))
        settings: dict[str, Any] = {
            "model": "gpt-5.5",
            "input": tuple(self.history),
            "thread_id": self._thread_id,
            "turn_metadata": '{"request_kind":"turn"}',
            "client_metadata": {"thread_id": self._thread_id},
            "effort": "low",
        }
        return ResponsesRequest(**settings | changes)

    async def prewarm(self) -> None:
        await self.session.prewarm(self.request(generate=False))

    async def say(self, text: str | None = "hello", **changes: Any) -> str:
        """Ask, take everything in, and return the text of the answer. Raises what the session raises."""
        return text_of(await self.events(text, **changes))

    async def events(self, text: str | None = "hello", **changes: Any) -> list[ResponseEvent]:
        seen: list[ResponseEvent] = []
        async with contextlib.aclosing(self.session.stream(self.request(text, **changes))) as events:
            async for event in events:
                seen.append(event)
                if isinstance(event, ItemDone):
                    self.history.append(history_item(event.item))
        assert isinstance(seen[-1], Completed)
        return seen


def text_of(events: Sequence[ResponseEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, TextDelta))


def brief(body: dict[str, Any]) -> tuple[str | None, list[str]]:
    """(previous_response_id, texts of the input) of a request that arrived."""
    texts = ["".join(part["text"] for part in item["content"]) for item in body["input"]]
    return body.get("previous_response_id"), texts


def write_auth(home: Path, content: Any) -> None:
    home.mkdir(exist_ok=True)
    (home / "auth.json").write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


@contextlib.asynccontextmanager
async def world(
    directory: Path,
    *,
    answers: Sequence[dict[str, Any]] = (),
    faults: Sequence[str | Fault] = (),
    auth: Any = None,
    environ: Mapping[str, str] | None = None,
    service: Any = None,
    **stage_options: Any,
) -> AsyncIterator[World]:
    """Everything, running.

    Args:
        faults: As `Fault.parse` takes them.
        auth: The content of auth.json; None for a ChatGPT account that lasts.
        service: Another upstream in place of the stand-in.
    """
    parsed = [fault if isinstance(fault, Fault) else Fault.parse(fault) for fault in faults]
    if service is None:
        service = ChatGPT(answers=Answers(answers), faults=parsed)
    home = directory / "home"
    write_auth(home, auth_json(dt.timedelta(hours=1)) if auth is None else auth)
    async with staged(directory, service, **stage_options) as stage:
        proxy = stage.proxy
        endpoint = ProxyEndpoint(
            LOOPBACK,
            proxy.port,
            proxy.credentials.user,
            proxy.credentials.secret,
            client_context(proxy.ca_pem),
            str(proxy.bundle_file),
            proxy.admit,
        )

        async def ready() -> ProxyEndpoint:
            return endpoint

        http = HttpClient(ready)
        client = ModelClient(
            origin=ORIGIN,
            auth=Auth(home, http.post_json_tunnelled),
            http=http,
            identity=lambda: IDENTITY,
            environ=environ or {},
        )
        try:
            yield World(client, service, stage, endpoint, home, http)
        finally:
            await http.aclose()


@contextlib.asynccontextmanager
async def conversation(
    client: ModelClient, thread_id: str = "thread-1", provider: Provider = QUICK
) -> AsyncIterator[Conversation]:
    talk = Conversation(client, thread_id, provider)
    try:
        yield talk
    finally:
        await talk.session.aclose()
