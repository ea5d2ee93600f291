"""Methods that neither a thread nor a turn needs. They are loaded when one is asked for, or once a turn can be sent."""

import os
from collections.abc import Callable
from typing import Any

from agent.auth import Auth
from agent.model.endpoint import ClientIdentity
from agent.model.http import HttpClient
from agent.parts import OwnProxy, options_of
from agent.providers import without_secrets
from agent.rpc.command_methods import CommandMethods
from agent.rpc.config_methods import ConfigMethods
from agent.rpc.file_methods import FileMethods
from agent.rpc.login_methods import LoginMethods, SignInService
from agent.rpc.search_sessions import SearchSessions
from agent.rpc.server import Connections, Methods
from agent.sandbox.run import Runner


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
        options=options_of(config),
        own_proxy=own_proxy,
        environ=without_secrets(os.environ, config),
        home=home,
    )
    tables = (
        ConfigMethods(home, config, flags, config_problem, origin).table(),
        FileMethods().table(),
        SearchSessions().table(),
        commands.table(),
        login.table(),
    )
    return {name: method for table in tables for name, method in table.items()}, login
