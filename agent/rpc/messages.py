"""The parameters of the methods we support: what each member must be, and what we make of it. Pure."""

from dataclasses import dataclass
from typing import Any

from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams, invalid_type
from agent.rpc.shapes import (
    anything,
    count,
    flag,
    list_of,
    one_of,
    optional,
    params,
    table,
    tag,
    tagged,
    text,
    variant,
)

_POLICIES = ("untrusted", "on-request", "granular", "never")
_SANDBOXES = ("dangerFullAccess", "readOnly", "externalSandbox", "workspaceWrite")
_EFFORT_SUMMARIES = ("auto", "concise", "detailed", "none")


def _approval_policy(value: Any) -> Any:
    """A policy's name, or {"granular": {...}}."""
    name, content = variant(value, _POLICIES)
    if name != "granular":
        return one_of(*_POLICIES)(value)
    if content is MISSING:
        raise InvalidParams("invalid type: unit variant, expected struct variant")
    if not isinstance(content, dict):
        raise InvalidParams(invalid_type(content, "struct variant"))
    return value


def _sandbox_policy(value: Any) -> dict[str, Any]:
    """A legacy sandbox policy; which members fit which type is judged where it is enforced."""
    kind = tag(value, _SANDBOXES, "SandboxPolicyDeserialize")
    return {**value, "type": kind}


_DETAIL = optional(one_of("auto", "low", "high", "original"))
# One element of a turn's input, as the client sent it: known members only, `type` first. The protocol has one member
# in snake case, among camel case ones.
_TAGGED_INPUT = tagged(
    {
        "text": {"text": text, "text_elements": list_of(table)},
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


@dataclass(frozen=True, slots=True)
class AccountRead:
    refresh_token: bool

    @classmethod
    def parse(cls, value: Any) -> "AccountRead":
        given = params(value, "GetAccountParams", {"refreshToken": flag})
        return cls(given.get("refreshToken", False))


@dataclass(frozen=True, slots=True)
class ModelList:
    cursor: str | None
    limit: int | None
    include_hidden: bool

    @classmethod
    def parse(cls, value: Any) -> "ModelList":
        known = {"cursor": optional(text), "limit": optional(count), "includeHidden": optional(flag)}
        given = params(value, "ModelListParams", known)
        return cls(given.get("cursor"), given.get("limit"), bool(given.get("includeHidden")))


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
        known = {
            "cwd": optional(text),
            "model": optional(text),
            "modelProvider": optional(text),
            "approvalPolicy": optional(_approval_policy),
            "sandbox": optional(one_of("read-only", "workspace-write", "danger-full-access")),
            "config": optional(table),
            "baseInstructions": optional(text),
            "developerInstructions": optional(text),
            "ephemeral": optional(flag),
            "serviceTier": optional(text),
            "threadSource": optional(text),
            "dynamicTools": optional(list_of(anything)),
            "experimentalRawEvents": flag,
        }
        given = params(value, "ThreadStartParams", known)
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
            experimental=tuple(name for name in experimental if given.get(name) is not None),
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
        known = {
            "threadId": text,
            "input": list_of(_user_input),
            "clientUserMessageId": optional(text),
            "cwd": optional(text),
            "approvalPolicy": optional(_approval_policy),
            "sandboxPolicy": optional(_sandbox_policy),
            "model": optional(text),
            "effort": optional(text),
            "summary": optional(one_of(*_EFFORT_SUMMARIES)),
            "serviceTier": optional(text),
            "outputSchema": anything,
        }
        given = params(value, "TurnStartParams", known, ("threadId", "input"))
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


@dataclass(frozen=True, slots=True)
class TurnSteer:
    thread_id: str
    expected_turn_id: str
    input: list[dict[str, Any]]
    client_user_message_id: str | None

    @classmethod
    def parse(cls, value: Any) -> "TurnSteer":
        known = {
            "threadId": text,
            "expectedTurnId": text,
            "input": list_of(_user_input),
            "clientUserMessageId": optional(text),
        }
        given = params(value, "TurnSteerParams", known, ("threadId", "input", "expectedTurnId"))
        return cls(given["threadId"], given["expectedTurnId"], given["input"], given.get("clientUserMessageId"))


@dataclass(frozen=True, slots=True)
class TurnInterrupt:
    thread_id: str
    turn_id: str

    @classmethod
    def parse(cls, value: Any) -> "TurnInterrupt":
        given = params(value, "TurnInterruptParams", {"threadId": text, "turnId": text}, ("threadId", "turnId"))
        return cls(given["threadId"], given["turnId"])
