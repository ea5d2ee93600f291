"""Parts that turns are built of: what is known of models, and the tools."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.surroundings import ModelFacts
from agent.core.thread import Thread
from agent.core.tooling import ToolBox
from agent.features import is_on
from agent.model.failures import Unavailable
from agent.model.models import Models
from agent.providers import without_secrets
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


def facts_of(models: Models, config: dict[str, Any]) -> Callable[[Thread], ModelFacts]:
    """What turns need to know of a thread's model: the service's word, and over it the user's."""

    def facts(thread: Thread) -> ModelFacts:
        of_thread = thread.config_over(config)
        window, limit = (_tokens(of_thread, key) for key in ("model_context_window", "model_auto_compact_token_limit"))
        model = models.known.find(thread.model)
        model = model if window is None else dataclasses.replace(model, window=window)
        usual = model.default_effort, model.usable_window, limit, model.default_summary, model.takes_verbosity
        return ModelFacts(*usual)

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
    confinement = Confinement(environment, own_proxy, without_secrets(os.environ, config), config)
    runner = Runner()
    patching = Patching(runner, confinement)
    rules = RuleFiles(Path(home) / "rules")
    shell = Shell(runner, confinement, patching, rules)
    return runner, Tools(
        ClientTools(),
        shell,
        patching,
        AskUser(),
        RequestPermissions(confinement),
        ViewImage(confinement.reach),
        GoalTools(config),
        user_command=shell.user_command,
        is_busy=shell.is_busy,
    )


def options_of(config: dict[str, Any]) -> Options:
    """How commands are confined, as far as that is a matter of features."""
    return Options(legacy_landlock=is_on(config, "use_legacy_landlock"))
