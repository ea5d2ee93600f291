"""The parameters of the methods we support: what each member must be, and what we make of it. Pure."""

from dataclasses import dataclass
from typing import Any

from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams
from agent.rpc.shapes import (
    anything,
    count,
    flag,
    list_of,
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


def _sandbox_policy(value: Any) -> dict[str, Any]:
    """A legacy sandbox policy; which members fit which type is judged where it is enforced."""
    kind = tag(value, _SANDBOXES, "SandboxPolicyDeserialize")
    return {**value, "type": kind}


_BYTE_RANGE = struct("struct ByteRange", 2, {"start": size, "end": size}, ("start", "end"))
_TEXT_ELEMENT = struct(
    "struct TextElement", 2, {"byteRange": _BYTE_RANGE, "placeholder": optional(text)}, ("byteRange",)
)
_DETAIL = optional(one_of("auto", "low", "high", "original"))
# One element of a turn's input, as the client sent it: known members only, `type` first. The protocol has one member
# in snake case, among camel case ones.
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


def _user_input(value: Any) -> dict[str, Any]:
    given: dict[str, Any] = _TAGGED_INPUT(value)
    if given["type"] == "image":
        sources = [name for name in ("url", "fileId") if isinstance(given.get(name), str)]
        if not sources:
            raise InvalidParams("data did not match any variant of untagged enum ImageReference")
        return {name: one for name, one in given.items() if name in ("type", "detail", sources[0])}
    return given


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
        "cwd": optional(text),
        "model": optional(text),
        "modelProvider": optional(text),
        "approvalPolicy": optional(approval_policy),
        "sandbox": optional(one_of("read-only", "workspace-write", "danger-full-access")),
        "config": optional(table),
        "baseInstructions": optional(text),
        "developerInstructions": optional(text),
        "ephemeral": optional(flag),
        "serviceTier": optional(text),
        "threadSource": optional(text),
        "dynamicTools": optional(list_of(anything)),
        "experimentalRawEvents": flag,
    },
)


@dataclass(frozen=True, slots=True)
class ThreadStart:
    """`experimental` names the members that were given and want `capabilities.experimentalApi`."""

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
    experimental: tuple[str, ...]

    @classmethod
    def parse(cls, value: Any) -> "ThreadStart":
        given = params(value, _THREAD_START)
        experimental = ("dynamicTools", "experimentalRawEvents")  # observed
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
            experimental=tuple(name for name in experimental if given.get(name) not in (None, False)),
        )


_TURN_START = struct(
    "struct TurnStartParams",
    28,
    {
        "threadId": text,
        "input": list_of(_user_input),
        "clientUserMessageId": optional(text),
        "cwd": optional(text),
        "approvalPolicy": optional(approval_policy),
        "sandboxPolicy": optional(_sandbox_policy),
        "model": optional(text),
        "effort": optional(text),
        "summary": optional(one_of(*_EFFORT_SUMMARIES)),
        "serviceTier": optional(text),
        "outputSchema": anything,
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

    @classmethod
    def parse(cls, value: Any) -> "TurnStart":
        given = params(value, _TURN_START)
        return cls(
            thread_id=given["threadId"],
            input=given["input"],
            client_user_message_id=given.get("clientUserMessageId"),
            cwd=given.get("cwd"),
            approval_policy=given.get("approvalPolicy"),
            sandbox_policy=given.get("sandboxPolicy"),
            model=given.get("model"),
            effort=given.get("effort"),
            summary=given.get("summary"),
            service_tier=given.get("serviceTier"),
            output_schema=given.get("outputSchema"),
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
