"""The composition root of the app-server: builds everything once, in order, and takes it down in reverse.

What the first answer does not need is imported afterwards, in a thread, in the order in which it will be needed:
first what answers requests, then the proxy (mitmproxy is most of the start), then the rest.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.home import ConfigBroken, config_path, installation_id, position_of_key
from agent.loading import imported
from agent.machine import identity_of_this_machine
from agent.model.endpoint import ClientIdentity
from agent.model.failures import Unavailable
from agent.notices import config_warning, no_remote_control, sandbox_warnings
from agent.recording_options import RecordingOptions
from agent.rpc.handshake import PROTOCOL_VERSION
from agent.rpc.jsonrpc import INTERNAL_ERROR, RequestFailed
from agent.rpc.server import AppServer, Connection, Connections, MessageStream, Method, Methods
from agent.settings import ProxySettings
from agent.unknown_keys import notice_of_unknown

if TYPE_CHECKING:
    from agent.auth import Auth
    from agent.core.session import Core
    from agent.model.endpoint import ProxyEndpoint
    from agent.model.http import HttpClient
    from agent.model.realtime import RealtimeService
    from agent.rpc.login_methods import LoginMethods
    from agent.sandbox.run import Runner

logger = logging.getLogger(__name__)

NAME = "countersign"
_ENDS = "the app-server is ending"

# What answers requests, and what runs a turn. In this order.
_TO_ANSWER = ("agent.rpc.methods", "agent.parts")
_TO_SEND = ("proxy.server", "certs.trust", "agent.model.websocket")

# Seconds without a follower and without a turn, after which a thread is unloaded, as in the original (observed).
UNLOAD_AFTER_S = 60.0
# Seconds that a refresh of the sign-in gets at the end.
REFRESH_PATIENCE_S = 5.0
# Seconds for the first turn, which may wait for the proxy already, before anything that nobody has asked for.
FIRST_TURN_S = 0.5
# While modules load, the loop gets its turn this often (the default of 5 ms would be felt in each answer).
LOADING_SWITCH_INTERVAL_S = 0.0005


class App:
    """The app-server's parts.

    Args:
        home: CODEX_HOME.
        config: config.toml with the overrides, as plain data.
        broken: Why there is nothing of config.toml in it.
        flags: What of `config` came from the command line.
        any_desktop: A desktop that follows no thread may be asked for tokens: where the client is not one (`exec`).
    """

    def __init__(
        self,
        settings: ProxySettings,
        recorded: RecordingOptions,
        home: str,
        config: dict[str, Any],
        broken: ConfigBroken | None,
        *,
        any_desktop: bool = False,
        flags: dict[str, Any] | None = None,
    ) -> None:
        self._any_desktop = any_desktop
        self.attester_arrived = asyncio.Event()
        self._settings = settings
        self._recorded = recorded
        self._home = home
        self._config = config
        self._config_problem: str | None = None
        self._config_warning: dict[str, Any] | None = None
        self._notice = notice_of_unknown(config, flags or {}, config_path(home))
        if broken is not None:
            logger.warning("%s; no thread can start until it is mended", broken)
            self._config_problem = str(broken)
            self._config_warning = config_warning(str(broken), broken.path, broken.position)
        self._connections = Connections()
        self._loop = asyncio.get_running_loop()
        self._methods: asyncio.Future[Methods] = self._loop.create_future()
        self._endpoint: asyncio.Future[ProxyEndpoint] = self._loop.create_future()
        self._ends = False
        self._loading: asyncio.Task[None] | None = None
        self._others: asyncio.Task[Methods] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._core: Core | None = None
        self._http: HttpClient | None = None
        self._runner: Runner | None = None
        self._login: LoginMethods | None = None
        self._flags = flags or {}
        self._auth: Auth | None = None
        self._identity: ClientIdentity | None = None
        self._installation_id = installation_id(home)
        self._server = AppServer(
            name=NAME,
            codex_home=home,
            connections=self._connections,
            identity=identity_of_this_machine,
            method=self._method,
            on_initialized=self._initialized,
        )

    async def serve(self, stream: MessageStream, *, greeted: bool) -> None:
        """Serve one connection until it ends; `greeted` as in `AppServer.serve`."""
        await self._server.serve(stream, greeted=greeted)

    async def serve_also(self, stream: MessageStream) -> None:
        """Serve one more connection until it ends."""
        await self._server.serve(stream)

    async def end_turns(self) -> None:
        """Stop turns, and tell their clients."""
        if self._core is not None:
            await self._core.aclose()

    async def aclose(self) -> None:
        """Stop turns, close sockets, stop the proxy; in this order."""
        self._ends = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._others is not None:  # somebody may wait for them
            await asyncio.gather(self._others, return_exceptions=True)
        self._give_up(_ENDS)
        await self.end_turns()
        if self._runner is not None:
            self._runner.close()
        if self._login is not None:
            await self._login.aclose()
        if self._auth is not None:
            await self._auth.aclose(REFRESH_PATIENCE_S)  # it needs the proxy
        if self._http is not None:
            await self._http.aclose()
        await self._stack.aclose()

    # Loading

    async def _method(self, name: str) -> Method | None:
        self._load()
        try:
            methods = await asyncio.shield(self._methods)
            return methods.get(name) or (await self._other_methods()).get(name)
        except Unavailable as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc

    async def _other_methods(self) -> Methods:
        if self._others is None:
            if self._ends:
                raise Unavailable(_ENDS, "other")
            self._others = asyncio.create_task(self._build_others())
        return await asyncio.shield(self._others)

    def _load(self) -> None:
        if self._loading is None and not self._ends:
            self._loading = asyncio.create_task(self._build())

    async def _build(self) -> None:
        """Import and build the parts; a failure is what later requests and turns are answered with."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(LOADING_SWITCH_INTERVAL_S)
        try:
            await imported(self._loop, (*_TO_ANSWER, "agent.config") if self._config else _TO_ANSWER)
            self._check_config()
            self._methods.set_result(self._build_core())
            self._tell_account()
            await imported(self._loop, _TO_SEND)
            self._endpoint.set_result(await self._start_proxy())
            await asyncio.sleep(FIRST_TURN_S)
            await self._other_methods()
            await self._check_sandbox()
        except Exception as exc:
            logger.error("the app-server cannot work: %s; later turns are answered with this reason", exc)
            self._give_up(str(exc))
        finally:
            sys.setswitchinterval(interval)
            # The modules stay for good: the collector need not look at them again.
            gc.freeze()
            gc.enable()

    def _give_up(self, reason: str) -> None:
        """Nobody waits any more for what was not built."""
        for future in (self._methods, self._endpoint):
            if not future.done():
                future.set_exception(Unavailable(reason, "other"))
                future.exception()  # it is told to whoever asks; nobody may

    def _build_core(self) -> Methods:
        from agent.auth import Auth
        from agent.core.session import Core
        from agent.core.store import Store
        from agent.model.client import ModelClient
        from agent.model.http import HttpClient
        from agent.model.models import Models
        from agent.parts import facts_of, make_tools
        from agent.rpc.idle_threads import IdleThreads
        from agent.rpc.methods import AgentMethods
        from agent.rpc.realtime_methods import RealtimeMethods

        self._runner, tools = make_tools(self._config, self._own_proxy, self._home)
        self._http = http = HttpClient(self._ready_endpoint)
        self._auth = auth = Auth(Path(self._home), http.post_json_tunnelled)
        models = Models(self._origin, auth, http, self._client_identity, os.environ)
        client = ModelClient(
            origin=self._origin,
            auth=auth,
            http=http,
            identity=self._client_identity,
            environ=os.environ,
        )

        self._core = Core(
            open_session=client.session,
            facts=facts_of(models, self._config),
            publish=self._connections.publish,
            installation_id=self._installation_id,
            ask=self._connections.questions.ask,
            tools=tools,
            store=Store(Path(self._home)),
            config=self._config,
        )
        idle = IdleThreads(self._core, self._connections, UNLOAD_AFTER_S)
        self._stack.push_async_callback(idle.aclose)
        methods = AgentMethods(
            core=self._core,
            connections=self._connections,
            auth=auth,
            config=self._config,
            config_problem=self._config_problem,
            config_notice=self._notice,
            origin=self._origin,
            originator=lambda: self._client_identity().originator,
            models=models,
            now_s=lambda: int(time.time()),
        ).table()

        def realtime() -> "RealtimeService":
            from agent.model.realtime import RealtimeService

            return RealtimeService(client)

        return {**methods, **RealtimeMethods(self._core, self._connections, realtime).table()}

    async def _build_others(self) -> Methods:
        await imported(self._loop, ("agent.other_methods",))
        from agent.other_methods import other_methods

        assert self._runner is not None and self._auth is not None and self._http is not None
        methods, self._login = other_methods(
            self._runner,
            self._connections,
            self._auth,
            self._http,
            origin=self._origin,
            identity=self._client_identity,
            own_proxy=self._own_proxy,
            home=self._home,
            config=self._config,
            flags=self._flags,
            config_problem=self._config_problem,
        )
        return methods

    def _attester_for(self, thread_id: str | None) -> Connection | None:
        found = self._connections.attester_for(thread_id)
        return self._connections.any_attester() if found is None and self._any_desktop else found

    def _own_proxy(self) -> tuple[str | None, frozenset[int], tuple[str, ...]]:
        """What no tool may have: the address of the proxy, its port, and where its certificates are."""
        if not self._endpoint.done() or self._endpoint.exception() is not None:
            return None, frozenset(), ()
        endpoint = self._endpoint.result()
        directory = str(Path(endpoint.roots_file).parent)
        return f"{endpoint.host}:{endpoint.port}", frozenset({endpoint.port}), (directory,)

    async def _start_proxy(self) -> "ProxyEndpoint":
        from agent.attestation import DesktopAttestation
        from agent.model.endpoint import ProxyEndpoint
        from certs.run_directory import RunDirectory
        from certs.trust import client_context, trust_also
        from proxy.credentials import Credentials
        from proxy.server import LOOPBACK, ProxyServer

        observation = None
        if self._recorded.wanted:
            from agent.recording import recording

            record = await self._stack.enter_async_context(recording(self._recorded, "app-server"))
            record.announce("app-server", sys.stderr)
            observation = record.observation
        settings = self._settings
        credentials = settings.credentials or Credentials.random()
        context = client_context()
        run = self._stack.enter_context(RunDirectory())
        proxy = await self._stack.enter_async_context(
            ProxyServer(
                scope=settings.scope,
                provider=DesktopAttestation(self._attester_for),
                run_directory=run.path,
                credentials=credentials,
                upstream=settings.upstream,
                on_exchange=lambda exchange: logger.info("%s", exchange.log_line()),
                port=settings.port,
                mode=settings.stamp,
                on_failure=settings.on_failure,
                on_renewed=functools.partial(trust_also, context),
                observation=observation,
            )
        )
        trust_also(context, proxy.ca_pem)
        return ProxyEndpoint(
            LOOPBACK, proxy.port, credentials.user, credentials.secret, context, str(proxy.bundle_file), proxy.admit
        )

    # What the parts ask of each other

    @property
    def _origin(self) -> str:
        target = self._settings.scope.origins[0]
        return f"https://{target.host}" if target.port == 443 else f"https://{target}"

    async def _ready_endpoint(self) -> "ProxyEndpoint":
        self._load()
        return await asyncio.shield(self._endpoint)

    def _client_identity(self) -> ClientIdentity:
        assert self._identity is not None, "no request is handled before a client has initialised"
        return self._identity

    # What clients are told by themselves

    def _initialized(self, connection: Connection) -> None:
        assert self._server.identity is not None and connection.initialized is not None
        if connection.attests:
            self.attester_arrived.set()
        if self._identity is None:
            identity = self._server.identity
            user_agent = identity.user_agent(connection.initialized.client)
            self._identity = ClientIdentity(user_agent, identity.originator, PROTOCOL_VERSION)
        if self._config_warning is not None:
            connection.notify("configWarning", self._config_warning)
        if self._notice is not None:
            connection.notify("configWarning", {"summary": self._notice, "details": None})
        connection.notify("remoteControl/status/changed", no_remote_control(self._installation_id))
        self._load()

    def _check_config(self) -> None:
        """Tell clients of a key that no thread will start with, as the original does; it can be overridden yet."""
        if not self._config:
            return
        from agent.config import ConfigError, thread_defaults

        try:
            thread_defaults(self._config, {})
        except ConfigError as exc:
            logger.warning("config.toml: %s", exc)
            position = position_of_key(self._home, exc.key)
            path = None if position is None else config_path(self._home)
            self._config_warning = config_warning(str(exc), path, position)
            self._connections.broadcast("configWarning", self._config_warning)

    async def _check_sandbox(self) -> None:
        """Tell clients what will keep commands from being sandboxed; last, since it may start bubblewrap to see."""
        if sys.platform == "linux" and self._config.get("sandbox_mode") != "danger-full-access":
            for warning in await asyncio.to_thread(sandbox_warnings):
                logger.warning("%s", warning)
                self._connections.broadcast("configWarning", {"summary": warning, "details": None})

    def _tell_account(self) -> None:
        from agent.auth import AuthFailed
        from agent.providers import needs_sign_in

        assert self._auth is not None
        if not needs_sign_in(self._config):  # then it is nobody's account (observed)
            return
        try:
            account = self._auth.account()
        except AuthFailed as exc:
            logger.error("%s", exc)
            return
        if account is not None:
            plan = None if account.mode == "apikey" else account.plan or "unknown"
            self._connections.broadcast("account/updated", {"authMode": account.mode, "planType": plan})
