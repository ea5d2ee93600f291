"""The supported methods: from parameters to `core`, and from there to answers."""

import asyncio
import copy
import importlib
import re
from collections.abc import Callable
from typing import Any

from agent.auth import Account, Auth, AuthFailed, NotSignedIn
from agent.core.ids import parse_uuid
from agent.core.session import Core
from agent.core.surroundings import NothingToAdd, NotSteerable, ThreadNotFound, TurnNotRunning
from agent.core.thread import BASE_INSTRUCTIONS, Thread, ThreadDefaults, sandbox_policy
from agent.core.views import error_wire
from agent.home import laid_over
from agent.model.catalog import EFFORTS, Catalog, Model
from agent.model.models import Models
from agent.model.provider import OPENAI
from agent.providers import needs_sign_in
from agent.rpc.compaction_methods import CompactionMethods
from agent.rpc.handshake import PROTOCOL_VERSION
from agent.rpc.input import check_dynamic_tools, check_input, check_length, user_message
from agent.rpc.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST, RequestFailed
from agent.rpc.messages import AccountRead, ModelList, ThreadStart, TurnInterrupt, TurnStart, TurnSteer
from agent.rpc.permissions import READ_ONLY, absolute, assign, check_combined, check_environments, configured
from agent.rpc.review_methods import ReviewMethods
from agent.rpc.server import Answer, Connection, Connections, Method, Methods
from agent.rpc.shell_methods import ShellMethods
from agent.rpc.thread_methods import ThreadMethods
from agent.rpc.thread_pages import ThreadPages
from agent.unknown_keys import notice_of_request


class AgentMethods:
    """What the app-server can do.

    Args:
        config: config.toml with the overrides, as plain data.
        config_problem: Why no thread can start until config.toml is mended; None where it is in order.
        config_notice: What is ignored of it, for those who begin a thread; None for nothing.
        origin: The ChatGPT origin.
    """

    def __init__(
        self,
        *,
        core: Core,
        connections: Connections,
        auth: Auth,
        config: dict[str, Any],
        config_problem: str | None,
        config_notice: str | None = None,
        origin: str,
        originator: Callable[[], str],
        models: Models,
        now_s: Callable[[], int],
    ) -> None:
        self._config_notice = config_notice
        self._core = core
        self._connections = connections
        self._auth = auth
        self._config = config
        self._config_problem = config_problem
        self._origin = origin
        self._originator = originator
        self._models = models
        self._now_s = now_s

    def table(self) -> Methods:
        """The rows: one more method is one more row, its parameters in `messages`, and a test."""
        return {
            "account/read": Method(AccountRead.parse, self._account_read),
            "model/list": Method(ModelList.parse, self._model_list),
            "thread/start": Method(ThreadStart.parse, self._thread_start),
            "turn/start": Method(TurnStart.parse, self._turn_start),
            "turn/steer": Method(TurnSteer.parse, self._turn_steer),
            "turn/interrupt": Method(TurnInterrupt.parse, self._turn_interrupt),
            **ThreadPages(self._core).table(),
            **CompactionMethods(self._core).table(),
            **ReviewMethods(self._core, self._connections).table(),
            **ShellMethods(self._core).table(),
            **ThreadMethods(
                self._core,
                self._connections,
                lambda: self._models.known.default,
                self._now_s,
                self._config,
                self._defaults,
                self._settle,
            ).table(),
        }

    async def _account_read(self, connection: Connection, params: AccountRead) -> Answer:
        if not needs_sign_in(self._config):  # nobody's account then, also where somebody is signed in (observed)
            nobody = {"account": None, "userId": None, "requiresOpenaiAuth": False, "workspaceRouting": None}
            return Answer(nobody)
        try:
            account = self._auth.account()
            if params.refresh_token and account is not None and account.mode == "chatgpt":
                await self._refresh()
                account = self._auth.account()
        except AuthFailed as exc:
            raise RequestFailed(INTERNAL_ERROR, str(exc)) from exc
        return Answer(
            {
                "account": _account_wire(account),
                "userId": None if account is None else account.user_id,
                "requiresOpenaiAuth": True,
                "workspaceRouting": self._routing(account),
            }
        )

    async def _refresh(self) -> None:
        """A refresh that was asked for; one that fails leaves the account as it is, as in the original."""
        try:
            bearer = await self._auth.bearer()
            await self._auth.refresh("forced", bearer.token)
        except (NotSignedIn, AuthFailed):
            self._auth.load()

    def _routing(self, account: Account | None) -> dict[str, Any] | None:
        if account is None or account.account_id is None:
            return None
        return {
            "chatgptAccountId": account.account_id,
            "backendOrigin": self._origin,
            "accountRoutingOverride": "NO_CONSTRAINT",
        }

    async def _model_list(self, connection: Connection, params: ModelList) -> Answer:
        catalog = await self._models.ask() if needs_sign_in(self._config) else self._models.known
        models = [model for model in catalog.models if params.include_hidden or not model.hidden]
        start = 0
        if params.cursor is not None:
            if re.fullmatch(r"\+?[0-9]{1,19}", params.cursor) is None:
                raise RequestFailed(INVALID_REQUEST, f"invalid cursor: {params.cursor}")
            start = int(params.cursor)
            if start > len(models):
                raise RequestFailed(INVALID_REQUEST, f"cursor {start} exceeds total models {len(models)}")
        end = len(models) if params.limit is None else min(start + max(params.limit, 1), len(models))
        page = [_model_wire(model, catalog.default) for model in models[start:end]]
        return Answer({"data": page, "nextCursor": None if end == len(models) else str(end)})

    async def _thread_start(self, connection: Connection, params: ThreadStart) -> Answer:
        check_combined(params.permissions, params.sandbox, "sandbox")
        check_environments(params.environments)
        check_dynamic_tools(params.dynamic_tools)
        if params.project_id is not None:
            raise RequestFailed(INVALID_REQUEST, f"project not found: {params.project_id}")
        defaults = await self._defaults(params.config, params.model_provider)
        config = laid_over(self._config, params.config) if params.config else self._config
        cwd = absolute(params.cwd)
        profile, is_untrusted = configured(config, cwd)
        profile = params.permissions or profile
        by_profile = params.permissions is not None or "default_permissions" in config
        sandbox = params.sandbox or (None if by_profile else defaults.sandbox_mode)
        policy = defaults.approval_policy
        if is_untrusted and "approval_policy" not in config:
            policy = "untrusted"
        thread = Thread(
            id=self._core.new_id(),
            cwd=cwd,
            model=params.model or defaults.model or self._models.known.default,
            originator=self._originator(),
            approval_policy=params.approval_policy or policy or "on-request",
            sandbox=sandbox_policy(sandbox or "read-only", defaults.workspace_write),
            profile=None if sandbox is not None else READ_ONLY,
            created_at=self._now_s(),
            cli_version=PROTOCOL_VERSION,
            base_instructions=BASE_INSTRUCTIONS if params.base_instructions is None else params.base_instructions,
            developer_instructions=params.developer_instructions,
            effort=defaults.effort,
            summary=defaults.summary,
            verbosity=defaults.verbosity or "low",
            service_tier=params.service_tier or defaults.service_tier,
            ephemeral=params.ephemeral,
            source=params.thread_source,
            dynamic_tools=params.dynamic_tools,
            model_provider=defaults.provider.id,
            provider=defaults.provider,
            config=config if params.config else None,
        )
        if sandbox is None and profile != READ_ONLY:
            assign(thread, profile, config)
        if (notice := notice_of_request(laid_over({}, params.config))) is not None:
            connection.notify("configWarning", {"summary": notice, "details": None})
        sources, warnings = await self._settle(thread, params.config)
        self._core.add(thread)
        self._connections.subscribe(thread.id, connection)

        def then() -> None:
            self._connections.broadcast("thread/started", {"thread": thread.wire()})
            for warning in warnings:
                self._connections.publish(thread.id, "warning", {"threadId": thread.id, "message": warning})
            self._core.prewarm(thread.id)

        return Answer(thread.settings_wire(sources), then)

    async def _settle(self, thread: Thread, own: dict[str, Any]) -> tuple[list[str], list[str]]:
        """The files of instructions of a thread that is begun or taken up, and what its followers are warned of.

        A service tier that its model is not offered in is taken from it.

        Args:
            own: The `config` of the request.
        """
        instructions = await self._core.instructions(thread)
        notices = self._config_notice, notice_of_request(laid_over({}, own))
        warnings = [one for one in notices if one is not None] + list(instructions.warnings)
        if (tier := _tier(thread.service_tier)) is not None:
            catalog = await self._catalog(thread.model)
            thread.service_tier = tier if catalog.has_tier(thread.model, tier) else None
            if thread.service_tier is None:
                text = f"is not advertised as supported for model `{thread.model}` and will be omitted from requests."
                warnings.append(f"Configured service tier `{tier}` {text}")
        return list(instructions.sources), warnings

    async def _catalog(self, slug: str) -> Catalog:
        """The models that are known; the service is asked first for one that ours does not list."""
        known = self._models.known
        return known if known.lists(slug) or not needs_sign_in(self._config) else await self._models.ask()

    async def _defaults(self, wanted: dict[str, Any], provider: str | None) -> ThreadDefaults:
        """What config.toml and the `config` of a request say, if anything.

        Args:
            provider: The one that the request wants; None for that of the configuration.

        Raises:
            RequestFailed: They cannot be used.
        """
        if self._config_problem is not None:
            raise RequestFailed(INVALID_REQUEST, f"failed to load configuration: {self._config_problem}")
        overrides = wanted if provider is None else {**wanted, "model_provider": provider}
        if not self._config and (not overrides or overrides == {"model_provider": OPENAI.id}):
            return ThreadDefaults()
        await asyncio.to_thread(importlib.import_module, "agent.config")  # pydantic takes its time
        from agent.config import ConfigError, thread_defaults

        try:
            return thread_defaults(self._config, overrides)
        except ConfigError as exc:
            raise RequestFailed(INVALID_REQUEST, f"failed to load configuration: {exc}") from exc

    async def _turn_start(self, connection: Connection, params: TurnStart) -> Answer:
        check_input(params.input)
        thread = self._thread(params.thread_id)
        check_length(params.input)
        check_combined(params.permissions, params.sandbox_policy, "sandboxPolicy")
        check_environments(params.environments)
        absolute(params.cwd)  # for nothing: it may be no path
        model = params.model or thread.model
        if not (await self._catalog(model)).lists(model):
            text = "Defaulting to fallback metadata; this can degrade performance and cause issues."
            warning = {"threadId": thread.id, "message": f"Model metadata for `{model}` not found. {text}"}
            self._connections.publish(thread.id, "warning", warning)
        if params.permissions is not None:  # once for nothing: it may be no profile
            assign(copy.copy(thread), params.permissions, thread.config_over(self._config))
        item = await user_message(params.input)
        before = thread.settings()
        if not thread.preview:
            thread.preview = next((one["text"] for one in params.input if one["type"] == "text"), "")
        try:
            started = self._core.start_turn(
                thread.id,
                params.input,
                item,
                params.client_user_message_id,
                params.output_schema,
                lambda thread: self._override(thread, params),
            )
        except NothingToAdd as exc:
            raise RequestFailed(INTERNAL_ERROR, "failed to submit turn input: EmptyInput") from exc
        except NotSteerable as exc:
            reason = f"ActiveTurnNotSteerable {{ turn_kind: {exc.kind.capitalize()} }}"
            raise RequestFailed(INTERNAL_ERROR, f"failed to submit turn input: {reason}") from exc
        except ThreadNotFound as exc:  # it was unloaded meanwhile
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {exc}") from exc
        if (settings := thread.settings()) != before:  # told before the answer (observed)
            told = {"threadId": thread.id, "threadSettings": settings}
            self._connections.publish(thread.id, "thread/settings/updated", told)
        return Answer({"turn": started.wire}, started.begin)

    async def _turn_steer(self, connection: Connection, params: TurnSteer) -> Answer:
        check_input(params.input)
        thread = self._thread(params.thread_id)
        if not params.expected_turn_id:
            raise RequestFailed(INVALID_REQUEST, "expectedTurnId must not be empty")
        check_length(params.input)
        item = await user_message(params.input)
        try:
            self._core.steer(
                thread.id, params.expected_turn_id, params.input, item, params.client_user_message_id
            )  # fmt: skip
        except TurnNotRunning as exc:
            raise RequestFailed(INVALID_REQUEST, str(exc)) from exc
        except NothingToAdd as exc:
            raise RequestFailed(INVALID_REQUEST, "input must not be empty") from exc
        except NotSteerable as exc:
            about = error_wire(str(exc), {"activeTurnNotSteerable": {"turnKind": exc.kind}})
            raise RequestFailed(INVALID_REQUEST, str(exc), about) from exc
        except ThreadNotFound as exc:  # it was unloaded meanwhile
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {exc}") from exc
        return Answer({"turnId": params.expected_turn_id})

    async def _turn_interrupt(self, connection: Connection, params: TurnInterrupt) -> Answer:
        thread = self._thread(params.thread_id)
        if not params.turn_id and thread.status != "active":
            return Answer({})  # what a client sends that wants to be sure
        try:
            stop = self._core.interrupt(thread.id, params.turn_id)
        except TurnNotRunning as exc:
            raise RequestFailed(INVALID_REQUEST, str(exc)) from exc
        return Answer({}, stop)

    def _override(self, thread: Thread, params: TurnStart) -> None:
        """Overrides of a turn hold for the later turns of the thread too."""
        if params.cwd is not None:
            thread.cwd = absolute(params.cwd)
        if params.approval_policy is not None:
            thread.approval_policy = params.approval_policy
        if params.sandbox_policy is not None:
            thread.sandbox, thread.profile = params.sandbox_policy, None
        if params.permissions is not None:
            assign(thread, params.permissions, thread.config_over(self._config))
        if params.model is not None:
            thread.model = params.model
        if params.effort is not None:
            thread.effort = params.effort
        if params.summary is not None:
            thread.summary = params.summary
        if params.service_tier is not None:
            tier = _tier(params.service_tier)
            thread.service_tier = tier if tier and self._models.known.has_tier(thread.model, tier) else None

    def _thread(self, given_id: str) -> Thread:
        """The thread that a client means, or the error it gets."""
        try:
            return self._core.thread(parse_uuid(given_id))
        except ValueError as exc:
            raise RequestFailed(INVALID_REQUEST, f"invalid thread id: {exc}") from exc
        except ThreadNotFound as exc:
            raise RequestFailed(INVALID_REQUEST, f"thread not found: {exc}") from exc


def _tier(name: str | None) -> str | None:
    """ "fast" is what users say, "priority" is what the service calls it (observed)."""
    return "priority" if name == "fast" else name


def _account_wire(account: Account | None) -> dict[str, Any] | None:
    if account is None:
        return None
    if account.mode == "apikey":
        return {"type": "apiKey"}
    return {"type": "chatgpt", "email": account.email, "planType": account.plan or "unknown", "workspaceName": None}


def _model_wire(model: Model, default: str) -> dict[str, Any]:
    efforts = [{"reasoningEffort": name, "description": EFFORTS.get(name, name)} for name in model.efforts]
    upgrade = None
    if model.upgrade is not None:
        upgrade = {
            "model": model.upgrade,
            "upgradeCopy": None,
            "modelLink": None,
            "migrationMarkdown": None,
            "retirementAt": None,
        }
    return {
        "id": model.slug,
        "model": model.slug,
        "upgrade": model.upgrade,
        "upgradeInfo": upgrade,
        "availabilityNux": None,
        "displayName": model.name,
        "description": model.description,
        "modelSpecialty": None,
        "hidden": model.hidden,
        "supportedReasoningEfforts": efforts,
        "defaultReasoningEffort": model.default_effort,
        "inputModalities": ["text", "image"],
        "supportsPersonality": False,
        "multiAgentVersion": None,
        "additionalSpeedTiers": [],
        "serviceTiers": [],
        "defaultServiceTier": None,
        "availableAccessPrograms": None,
        "isDefault": model.slug == default,
    }
