"""Which permission profile a thread has, and the older policy that clients are shown of it."""

import os
from typing import Any

from agent.core.thread import SANDBOX_POLICIES, Thread
from agent.core.trust import trust_level
from agent.rpc.jsonrpc import INVALID_REQUEST, RequestFailed
from agent.sandbox.environment import parse_environment_policy
from agent.sandbox.host import places
from agent.sandbox.paths import flaw
from agent.sandbox.policy import Network, PolicyError, resolve
from agent.sandbox.profile_toml import default_profile, named_profile

READ_ONLY = ":read-only"
WORKSPACE = ":workspace"


def absolute(path: str | None) -> str:
    """Against the directory the server was started in; it need not exist. Raises RequestFailed: it cannot."""
    if (problem := flaw(path or "")) is not None:
        raise RequestFailed(INVALID_REQUEST, f"cwd has {problem}")
    return os.path.abspath(path or ".")


def assign(thread: Thread, name: str, config: dict[str, Any]) -> None:
    """Give the thread this profile.

    Raises:
        RequestFailed: There is none of this name, or it cannot be used.
    """
    try:
        found = named_profile(name, config, os.path.expanduser("~"), thread.cwd)
        policy = resolve(found.profile, places(thread.cwd, os.environ, found.workspace_roots))
    except PolicyError as exc:
        raise RequestFailed(INVALID_REQUEST, f"failed to load configuration: {exc}") from exc
    networked = policy.network is Network.ENABLED
    if policy.unrestricted:
        shown = SANDBOX_POLICIES["danger-full-access"]
    elif policy.can_write(thread.cwd):
        temporary = os.environ.get("TMPDIR")
        shown = {
            **SANDBOX_POLICIES["workspace-write"],
            "networkAccess": networked,
            "excludeTmpdirEnvVar": name != WORKSPACE and (not temporary or not policy.can_write(temporary)),
            "excludeSlashTmp": not policy.can_write("/tmp"),
        }
    else:
        shown = {**SANDBOX_POLICIES["read-only"], "networkAccess": networked}
    thread.sandbox, thread.profile = dict(shown), name


def check_combined(permissions: str | None, other: Any, name: str) -> None:
    """Raises RequestFailed if a profile and an older policy are both asked for."""
    if permissions is not None and other is not None:
        raise RequestFailed(INVALID_REQUEST, f"`permissions` cannot be combined with `{name}`")


def check_environments(environments: list[dict[str, Any]] | None) -> None:
    """Raises RequestFailed for other places to work in than this machine."""
    for one in environments or ():
        if one["environmentId"] != "local":
            raise RequestFailed(INVALID_REQUEST, f"unknown turn environment id `{one['environmentId']}`")
    if environments is not None and len(environments) != 1:
        raise RequestFailed(INVALID_REQUEST, "countersign has one environment, `local`; leave `environments` out")


def configured(config: dict[str, Any], cwd: str) -> tuple[str, bool]:
    """The profile of a thread that asks for none, and whether the user does not trust the project.

    A project that the user has judged (`[projects."PATH"] trust_level`) may be written, as in the original.

    Raises:
        RequestFailed: `default_permissions` or `shell_environment_policy` cannot be used.
    """
    try:
        name = default_profile(config)
        parse_environment_policy(config)
    except PolicyError as exc:
        raise RequestFailed(INVALID_REQUEST, f"failed to load configuration: {exc}") from exc
    trust = trust_level(config, cwd)
    return name or (READ_ONLY if trust is None else WORKSPACE), trust == "untrusted"
