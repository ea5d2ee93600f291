"""The parameters of the methods we support: what each member must be, and what we make of it. Pure."""

from dataclasses import dataclass
from typing import Any

from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams, invalid_type
from agent.rpc.shapes import (
    Shape,
    anything,
    count,
    flag,
    list_of,
    members,
    one_of,
    optional,
    params,
    size,
    struct,
    table,
    tag,
    tagged,
    text,
    variant,
)

_POLICIES = ("untrusted", "on-request", "granular", "never")
_SANDBOXES = ("dangerFullAccess", "readOnly", "externalSandbox", "workspaceWrite")
_EFFORT_SUMMARIES = ("auto", "concise", "detailed", "none")
_GRANULAR = struct(
    "struct variant",
    5,
    {
        "sandbox_approval": flag,
        "rules": flag,
        "skill_approval": flag,
        "request_permissions": flag,
        "mcp_elicitations": flag,
    },
    ("sandbox_approval", "rules", "mcp_elicitations"),
)


def approval_policy(value: Any) -> Any:
    """A policy's name, or {"granular": {...}}."""
    name, content = variant(value, _POLICIES)
    if name != "granular":
        return one_of(*_POLICIES)(value)
    if content is MISSING:
        raise InvalidParams("invalid type: unit variant, expected struct variant")
    unsaid = {"skill_approval": False, "request_permissions": False}
    return {"granular": unsaid | _GRANULAR(content)}


def _absolute(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidParams(invalid_type(value, "path string"))
    if not value.startswith("/"):
        raise InvalidParams("AbsolutePathBuf deserialized without a base path")
    return value


def path(value: Any) -> str:
    """A path, also a relative one."""
    if not isinstance(value, str):
        raise InvalidParams(invalid_type(value, "path string"))
    return value


_SANDBOX_MEMBERS: dict[str, dict[str, Shape]] = {
    "dangerFullAccess": {},
    "readOnly": {"networkAccess": flag},
    "externalSandbox": {"networkAccess": one_of("restricted", "enabled")},
    "workspaceWrite": {
        "writableRoots": list_of(_absolute),
        "networkAccess": flag,
        "excludeTmpdirEnvVar": flag,
        "excludeSlashTmp": flag,
    },
}


def _sandbox_policy(value: Any) -> dict[str, Any]:
    """A legacy sandbox policy, whole: what it does not say is what it means."""
    kind = tag(value, _SANDBOXES, "SandboxPolicyDeserialize")
    unsaid: dict[str, dict[str, Any]] = {
        "readOnly": {"networkAccess": False},
        "externalSandbox": {"networkAccess": "restricted"},
        "workspaceWrite": {
            "writableRoots": [],
            "networkAccess": False,
            "excludeTmpdirEnvVar": False,
            "excludeSlashTmp": False,
        },
    }
    return {"type": kind, **unsaid.get(kind, {}), **members(value, _SANDBOX_MEMBERS[kind], ())}


def _effort(value: Any) -> str:
    if text(value) == "":
        raise InvalidParams("reasoning_effort must not be empty")
    return str(value)


# What threads and turns can be given alike. Those that we have no use for are looked at all the same.
SHARED_SETTINGS: dict[str, Shape] = {
    "approvalPolicy": optional(approval_policy),
    "approvalsReviewer": optional(one_of("user", "auto_review", "guardian_subagent")),
    "model": optional(text),
    "permissions": optional(text),
    "personality": optional(one_of("none", "friendly", "pragmatic")),
    "runtimeWorkspaceRoots": optional(list_of(_absolute)),
    "serviceTier": optional(text),
}
_AGENT_MODE = optional(one_of("none", "custom", "explicitRequestOnly", "proactive"))
_ENVIRONMENTS = optional(
    list_of(struct("struct TurnEnvironmentParams", 3, {"environmentId": text}, ("environmentId",)))
)
_COLLABORATION = struct(
    "struct CollaborationMode",
    2,
    {
        "mode": one_of("plan", "code", "custom", "default", "execute", "pair_programming"),
        "settings": struct(
            "struct Settings",
            3,
            {"model": text, "reasoning_effort": optional(_effort), "developer_instructions": optional(text)},
            ("model",),
        ),
    },
    ("mode", "settings"),
)

_BYTE_RANGE = struct("struct ByteRange", 2, {"start": size, "end": size}, ("start", "end"))
_TEXT_ELEMENT = struct(
    "struct TextElement", 2, {"byteRange": _BYTE_RANGE, "placeholder": optional(text)}, ("byteRange",)
)
_DETAIL = optional(one_of("auto", "low", "high", "original"))
# One element of a turn's input: known members only, `type` first. The protocol has one member in snake case, among
# camel case ones.
_TAGGED_INPUT = tagged(
    {
        "text": {"text": text, "text_elements": list_of(_TEXT_ELEMENT)},
        "image": {"url": anything, "fileId": anything, "detail": _DETAIL},
        "localImage": {"path": text, "detail": _DETAIL},
        "audio": {"url": optional(text), "fileId": optional(text)},
        "localAudio": {"path": text},
        "skill": {"name": text, "path": text},
        "mention": {"name": text, "path": text},
    },
    {
        "text": ("text",),
        "localImage": ("path",),
        "localAudio": ("path",),
        "skill": ("name", "path"),
        "mention": ("name", "path"),
    },
    "UserInput",
)


# What of it is not said, as all clients are shown it.
_UNSAID: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text_elements": []},
    "image": {"type": "image", "detail": None},
    "localImage": {"type": "localImage", "detail": None},
}


def _user_input(value: Any) -> dict[str, Any]:
    given: dict[str, Any] = _TAGGED_INPUT(value)
    if given["type"] == "image":
        sources = [name for name in ("url", "fileId") if isinstance(given.get(name), str)]
        if not sources:
            raise InvalidParams("data did not match any variant of untagged enum ImageReference")
        given = {name: one for name, one in given.items() if name in ("type", "detail", sources[0])}
    return {**_UNSAID.get(given["type"], {}), **given}


_GET_ACCOUNT = struct("struct GetAccountParams", 1, {"refreshToken": flag})


@dataclass(frozen=True, slots=True)
class AccountRead:
    refresh_token: bool

    @classmethod
    def parse(cls, value: Any) -> "AccountRead":
        given = params(value, _GET_ACCOUNT)
        return cls(given.get("refreshToken", False))


_MODEL_LIST = struct(
    "struct ModelListParams", 4, {"cursor": optional(text), "limit": optional(count), "includeHidden": optional(flag)}
)


@dataclass(frozen=True, slots=True)
class ModelList:
    cursor: str | None
    limit: int | None
    include_hidden: bool

    @classmethod
    def parse(cls, value: Any) -> "ModelList":
        given = params(value, _MODEL_LIST)
        return cls(given.get("cursor"), given.get("limit"), bool(given.get("includeHidden")))


_THREAD_START = struct(
    "struct ThreadStartParams",
    27,
    {
        **SHARED_SETTINGS,
        "cwd": optional(text),
        "modelProvider": optional(text),
        "sandbox": optional(one_of("read-only", "workspace-write", "danger-full-access")),
        "config": optional(table),
        "baseInstructions": optional(text),
        "developerInstructions": optional(text),
        "ephemeral": optional(flag),
        "environments": _ENVIRONMENTS,
        "historyMode": optional(one_of("legacy", "paginated")),
        "multiAgentMode": _AGENT_MODE,
        "projectId": optional(text),
        "serviceName": optional(text),
        "threadSource": optional(text),
        "dynamicTools": optional(list_of(anything)),
        "experimentalRawEvents": flag,
    },
)


@dataclass(frozen=True, slots=True)
class ThreadStart:
    cwd: str | None
    model: str | None
    model_provider: str | None
    approval_policy: Any
    sandbox: str | None
    config: dict[str, Any]
    base_instructions: str | None
    developer_instructions: str | None
    ephemeral: bool
    service_tier: str | None
    thread_source: str | None
    dynamic_tools: list[Any]
    permissions: str | None
    environments: list[Any] | None
    project_id: str | None

    @classmethod
    def parse(cls, value: Any) -> "ThreadStart":
        given = params(value, _THREAD_START)
        return cls(
            cwd=given.get("cwd"),
            model=given.get("model"),
            model_provider=given.get("modelProvider"),
            approval_policy=given.get("approvalPolicy"),
            sandbox=given.get("sandbox"),
            config=given.get("config") or {},
            base_instructions=given.get("baseInstructions"),
            developer_instructions=given.get("developerInstructions"),
            ephemeral=bool(given.get("ephemeral")),
            service_tier=given.get("serviceTier"),
            thread_source=given.get("threadSource"),
            dynamic_tools=given.get("dynamicTools") or [],
            permissions=given.get("permissions"),
            environments=given.get("environments"),
            project_id=given.get("projectId"),
        )


_TURN_START = struct(
    "struct TurnStartParams",
    28,
    {
        "threadId": text,
        "input": list_of(_user_input),
        "clientUserMessageId": optional(text),
        **SHARED_SETTINGS,
        "additionalContext": optional(table),
        "collaborationMode": optional(_COLLABORATION),
        "cwd": optional(path),
        "effort": optional(_effort),
        "environments": _ENVIRONMENTS,
        "multiAgentMode": _AGENT_MODE,
        "outputSchema": anything,
        "responsesapiClientMetadata": optional(table),
        "sandboxPolicy": optional(_sandbox_policy),
        "summary": optional(one_of(*_EFFORT_SUMMARIES)),
    },
    ("threadId", "input"),
)


@dataclass(frozen=True, slots=True)
class TurnStart:
    """`input` is a list of user inputs, each with a `type` (see _TAGGED_INPUT)."""

    thread_id: str
    input: list[dict[str, Any]]
    client_user_message_id: str | None
    cwd: str | None
    approval_policy: Any
    sandbox_policy: dict[str, Any] | None
    model: str | None
    effort: str | None
    summary: str | None
    service_tier: str | None
    output_schema: Any
    permissions: str | None
    environments: list[Any] | None

    @classmethod
    def parse(cls, value: Any) -> "TurnStart":
        given = params(value, _TURN_START)
        mode = (given.get("collaborationMode") or {}).get("settings", {})
        return cls(
            thread_id=given["threadId"],
            input=given["input"],
            client_user_message_id=given.get("clientUserMessageId"),
            cwd=given.get("cwd"),
            approval_policy=given.get("approvalPolicy"),
            sandbox_policy=given.get("sandboxPolicy"),
            # The settings of a collaboration mode come before those of the turn.
            model=mode.get("model") or given.get("model"),
            effort=mode.get("reasoning_effort") or given.get("effort"),
            summary=given.get("summary"),
            service_tier=given.get("serviceTier"),
            output_schema=given.get("outputSchema"),
            permissions=given.get("permissions"),
            environments=given.get("environments"),
        )


_TURN_STEER = struct(
    "struct TurnSteerParams",
    7,
    {
        "threadId": text,
        "expectedTurnId": text,
        "input": list_of(_user_input),
        "clientUserMessageId": optional(text),
    },
    ("threadId", "input", "expectedTurnId"),
)


@dataclass(frozen=True, slots=True)
class TurnSteer:
    thread_id: str
    expected_turn_id: str
    input: list[dict[str, Any]]
    client_user_message_id: str | None

    @classmethod
    def parse(cls, value: Any) -> "TurnSteer":
        given = params(value, _TURN_STEER)
        return cls(given["threadId"], given["expectedTurnId"], given["input"], given.get("clientUserMessageId"))


_TURN_INTERRUPT = struct("struct TurnInterruptParams", 2, {"threadId": text, "turnId": text}, ("threadId", "turnId"))


@dataclass(frozen=True, slots=True)
class TurnInterrupt:
    thread_id: str
    turn_id: str

    @classmethod
    def parse(cls, value: Any) -> "TurnInterrupt":
        given = params(value, _TURN_INTERRUPT)
        return cls(given["threadId"], given["turnId"])
