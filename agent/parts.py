"""Parts that the app-server is built of: the tools, and the methods beside threads and turns."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.auth import Auth
from agent.core.goals import are_wanted
from agent.core.surroundings import ModelFacts
from agent.core.tooling import ToolBox
from agent.model.endpoint import ClientIdentity
from agent.model.failures import Unavailable
from agent.model.http import HttpClient
from agent.model.models import Models
from agent.providers import without_secrets
from agent.rpc.command_methods import CommandMethods
from agent.rpc.config_methods import ConfigMethods
from agent.rpc.file_methods import FileMethods
from agent.rpc.login_methods import LoginMethods, SignInService
from agent.rpc.search_sessions import SearchSessions
from agent.rpc.server import Connections, Methods
from agent.sandbox.environment import parse_environment_policy
from agent.sandbox.plan import Options
from agent.sandbox.policy import PolicyError
from agent.sandbox.run import Runner
from agent.tools.asking import AskUser, ClientTools
from agent.tools.confinement import Confinement
from agent.tools.goal_tools import GoalTools
from agent.tools.granting import RequestPermissions
from agent.tools.images import ViewImage
from agent.tools.patching import Patching
from agent.tools.rule_files import RuleFiles
from agent.tools.shell import Shell
from agent.tools.toolbox import Tools

# () -> (host:port of our proxy, loopback ports that stamp, directories of our certificates): what no tool may have.
OwnProxy = Callable[[], tuple[str | None, frozenset[int], tuple[str, ...]]]


def facts_of(models: Models, config: dict[str, Any]) -> Callable[[str], ModelFacts]:
    """What turns need to know of a model by its name: the service's word, and over it the user's."""
    window, limit = (_tokens(config, key) for key in ("model_context_window", "model_auto_compact_token_limit"))

    def facts(slug: str) -> ModelFacts:
        model = models.known.find(slug)
        model = model if window is None else dataclasses.replace(model, window=window)
        return ModelFacts(model.default_effort, model.usable_window, limit)

    return facts


def _tokens(config: dict[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and value > 0 else None  # what is wrong is told when a thread begins


def make_tools(config: dict[str, Any], own_proxy: OwnProxy, home: str) -> tuple[Runner, ToolBox]:
    """What starts commands, and all tools of the model.

    Raises:
        Unavailable: A key of the configuration cannot be used.
    """
    try:
        environment = parse_environment_policy(config)
    except PolicyError as exc:
        raise Unavailable(str(exc), "other") from exc
    confinement = Confinement(environment, _options(config), own_proxy, without_secrets(os.environ, config), config)
    runner = Runner()
    patching = Patching(runner, confinement)
    rules = RuleFiles(Path(home) / "rules")
    shell = Shell(
        runner,
        confinement,
        patching,
        rules,
        additional=_has(config, "exec_permission_approvals"),
        snapshots=_has(config, "shell_snapshot", default=True),
    )
    asking = (RequestPermissions(confinement),) if _has(config, "request_permissions_tool") else ()
    image = ViewImage(confinement.may_read)
    return runner, Tools(
        ClientTools(),
        shell,
        patching,
        AskUser(),
        *asking,
        image,
        *((GoalTools(),) if are_wanted(config) else ()),
        user_command=shell.user_command,
        is_busy=shell.is_busy,
    )


def other_methods(
    runner: Runner,
    connections: Connections,
    auth: Auth,
    http: HttpClient,
    *,
    origin: str,
    identity: Callable[[], ClientIdentity],
    own_proxy: OwnProxy,
    home: str,
    config: dict[str, Any],
    flags: dict[str, Any],
    config_problem: str | None,
) -> tuple[Methods, LoginMethods]:
    """Methods for configuration, files, commands and the sign-in; the last has something to close."""
    login = LoginMethods(
        connections=connections,
        auth=auth,
        http=http,
        service=SignInService(http.post_json_tunnelled, http.post_form_tunnelled),
        origin=origin,
        identity=identity,
        config=config,
    )
    commands = CommandMethods(
        runner,
        config=config,
        options=_options(config),
        own_proxy=own_proxy,
        environ=without_secrets(os.environ, config),
        home=home,
    )
    tables = (
        ConfigMethods(home, config, flags, config_problem).table(),
        FileMethods().table(),
        SearchSessions().table(),
        commands.table(),
        login.table(),
    )
    return {name: method for table in tables for name, method in table.items()}, login


def _options(config: dict[str, Any]) -> Options:
    return Options(legacy_landlock=_has(config, "use_legacy_landlock"))


def _has(config: dict[str, Any], feature: str, *, default: bool = False) -> bool:
    features = config.get("features")
    return (features.get(feature, default) if isinstance(features, dict) else default) is True
