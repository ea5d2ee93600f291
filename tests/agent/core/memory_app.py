"""The app-server without processes, sockets and network: real methods and core, a scripted model, a desktop in memory.

The desktop is the stand-in that users have for their CI; only what carries its messages is ours.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from agent.auth import Auth, PostJson
from agent.core.session import Core
from agent.core.store import Store
from agent.core.surroundings import ModelSession
from agent.core.tooling import NoTools, ToolBox
from agent.model.catalog import Catalog
from agent.model.endpoint import ClientIdentity
from agent.model.failures import StreamBroken
from agent.model.models import Models
from agent.model.provider import Provider
from agent.parts import facts_of
from agent.rpc.handshake import PROTOCOL_VERSION, Identity
from agent.rpc.idle_threads import IdleThreads
from agent.rpc.methods import AgentMethods
from agent.rpc.server import AppServer, Connections, Method
from agent.standins.desktop import Desktop, Script
from tests.agent.core.published_schema import Listener
from tests.agent.core.scripted_model import ScriptedModel

ORIGIN = "https://chatgpt.com"
INSTALLATION = "019a0000-0000-4000-8000-000000000001"


class MemoryPipe:
    """A `MessageStream` for the server and a `Link` for the desktop; `heard` is what the desktop was sent, in order."""

    def __init__(self) -> None:
        to_server: asyncio.Queue[str | None] = asyncio.Queue()
        to_desktop: asyncio.Queue[str | None] = asyncio.Queue()
        self.heard: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._listener = Listener()
        self.desktop = _End(to_desktop, to_server, self._listener.asked)
        self.server = _End(to_server, to_desktop, self._hear)

    def _hear(self, text: str) -> None:
        self.heard.append(json.loads(text))
        self._listener.heard(self.heard[-1])
        self._news.set()

    async def until(self, enough: Callable[[], bool]) -> None:
        """Wait until what was heard is enough."""
        while not enough():
            self._news.clear()
            await self._news.wait()


class _End:
    def __init__(
        self,
        incoming: asyncio.Queue[str | None],
        outgoing: asyncio.Queue[str | None],
        sent: Callable[[str], None],
    ) -> None:
        self._incoming, self._outgoing, self._sent = incoming, outgoing, sent

    async def texts(self) -> AsyncIterator[str]:
        while (text := await self._incoming.get()) is not None:
            yield text

    def __aiter__(self) -> AsyncIterator[str]:
        return self.texts()

    async def send(self, text: str) -> None:
        self._sent(text)
        await self._outgoing.put(text)

    async def close(self) -> None:
        """Both directions end."""
        await self._outgoing.put(None)
        await self._incoming.put(None)

    async def aclose(self) -> None:
        await self.close()


class NoNetwork:
    """An `HttpClient` that reaches nobody, or lists these models."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    async def request_json(self, method: str, url: str, **_: Any) -> tuple[int, Any]:
        if self.answer is None:
            raise StreamBroken(f"{method} {url}: there is no network here")
        return 200, self.answer


async def no_sign_in(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    """A sign-in service that is not there, as the recorded one."""
    return 404, {"detail": "nope"}


class MemoryApp:
    """The parts, put together as `agent.app` does it."""

    def __init__(
        self,
        home: Path,
        open_session: Callable[[str, Provider], ModelSession],
        *,
        config: dict[str, Any] | None = None,
        config_problem: str | None = None,
        post_json: PostJson = no_sign_in,
        listed: Any = None,
        connections: Connections | None = None,
        auth: Auth | None = None,
        tools: ToolBox | None = None,
        unload_after_s: float = 60.0,
    ) -> None:
        self.connections = connections or Connections()
        self.heard: list[dict[str, Any]] = []  # by the desktop that connected first
        self.auth = auth or Auth(home, post_json)
        self._identity: ClientIdentity | None = None
        models: Any = Models(ORIGIN, self.auth, NoNetwork(listed), self.client_identity, {})  # type: ignore[arg-type]

        self.core = Core(
            open_session=open_session,
            facts=facts_of(models, config or {}),
            publish=self.connections.publish,
            installation_id=INSTALLATION,
            ask=self.connections.questions.ask,
            tools=tools or NoTools(),
            store=Store(home),
            config=config,
        )
        self.idle = IdleThreads(self.core, self.connections, unload_after_s)
        self.methods = AgentMethods(
            core=self.core,
            connections=self.connections,
            auth=self.auth,
            config=config or {},
            config_problem=config_problem,
            origin=ORIGIN,
            originator=lambda: self.client_identity().originator,
            models=models,
            now_s=lambda: 1_700_000_000,
        ).table()
        self.server = AppServer(
            name="countersign",
            codex_home=str(home),
            connections=self.connections,
            identity=lambda name: Identity(name, "Debian 12.0.0; x86_64", "xterm"),
            method=self._method,
            on_initialized=lambda connection: None,
        )

    async def _method(self, name: str) -> Method | None:
        return self.methods.get(name)

    def client_identity(self) -> ClientIdentity:
        identity = self.server.identity
        assert identity is not None
        return ClientIdentity("test", identity.originator, PROTOCOL_VERSION)

    @contextlib.asynccontextmanager
    async def desktop(self, script: Script | None = None, *, initialized: bool = True) -> AsyncIterator[Desktop]:
        """A desktop that is connected."""
        pipe = MemoryPipe()
        self.heard = self.heard or pipe.heard
        serving = asyncio.create_task(self.server.serve(pipe.server))
        try:
            async with Desktop(script or Script(name="codex_desktop"), pipe.desktop) as desktop:
                if initialized:
                    await desktop.initialize()
                yield desktop
        finally:
            await serving


@contextlib.asynccontextmanager
async def app_and_desktop(
    home: Path, model: ScriptedModel | None = None, script: Script | None = None, **options: Any
) -> AsyncIterator[tuple[MemoryApp, Desktop]]:
    """An app whose threads all use `model`, and one desktop."""
    with model or ScriptedModel() as scripted:
        app = MemoryApp(home, lambda thread_id, provider: scripted, **options)
        try:
            async with app.desktop(script) as desktop:
                yield app, desktop
        finally:
            await app.core.aclose()


BUILT_IN_SLUGS = [model.slug for model in Catalog().models]
