"""The parameters of the methods we support, checked; errors in the words of the original."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams, from_pydantic, invalid_type, missing_field, unknown_variant


class Params(BaseModel):
    """Unknown members are ignored, wrong types are not repaired."""

    model_config = ConfigDict(extra="ignore", strict=True, alias_generator=to_camel, populate_by_name=False)


def _approval_policy(value: Any) -> Any:
    names = ("untrusted", "on-request", "granular", "never")
    if value is None:
        return None
    if isinstance(value, str):
        if value not in names or value == "granular":
            raise InvalidParams(unknown_variant(value, names))
        return value
    if isinstance(value, dict) and len(value) == 1:
        name = next(iter(value))
        if name != "granular":
            raise InvalidParams(unknown_variant(str(name), names))
        if not isinstance(value[name], dict):
            raise InvalidParams(invalid_type(value[name], "struct variant AskForApproval::Granular"))
        return value
    raise InvalidParams(invalid_type(value, "string or map"))


def _sandbox_policy(value: Any) -> Any:
    if value is None:
        return None
    kinds = ("dangerFullAccess", "readOnly", "externalSandbox", "workspaceWrite")
    if not isinstance(value, dict):
        raise InvalidParams(invalid_type(value, "internally tagged enum SandboxPolicy"))
    if "type" not in value:
        raise InvalidParams(missing_field("type"))
    if value["type"] not in kinds:
        raise InvalidParams(unknown_variant(str(value["type"]), kinds))
    return value


ApprovalPolicy = Annotated[Any, BeforeValidator(_approval_policy)]
SandboxPolicy = Annotated[Any, BeforeValidator(_sandbox_policy)]


class AccountReadParams(Params):
    refresh_token: bool = False


class ModelListParams(Params):
    cursor: str | None = None
    limit: Annotated[int, Field(ge=0)] | None = None
    include_hidden: bool | None = None


class ThreadStartParams(Params):
    model: str | None = None
    model_provider: str | None = None
    cwd: str | None = None
    approval_policy: ApprovalPolicy = None
    sandbox: Literal["read-only", "workspace-write", "danger-full-access"] | None = None
    config: dict[str, Any] | None = None
    base_instructions: str | None = None
    developer_instructions: str | None = None
    ephemeral: bool | None = None
    service_tier: str | None = None
    thread_source: str | None = None
    dynamic_tools: list[Any] | None = None
    experimental_raw_events: bool | None = None


class TextInput(Params):
    type: Literal["text"]
    text: str
    # The protocol has this one member in snake case, among camel case ones.
    text_elements: Annotated[list[Any], Field(alias="text_elements", default_factory=list)]


class ImageInput(Params):
    type: Literal["image"]
    url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class LocalImageInput(Params):
    type: Literal["localImage"]
    path: str
    detail: str | None = None


class AudioInput(Params):
    type: Literal["audio"]


class LocalAudioInput(Params):
    type: Literal["localAudio"]
    path: str


class SkillInput(Params):
    type: Literal["skill"]
    name: str
    path: str


class MentionInput(Params):
    type: Literal["mention"]
    name: str
    path: str


UserInput = Annotated[
    TextInput | ImageInput | LocalImageInput | AudioInput | LocalAudioInput | SkillInput | MentionInput,
    Field(discriminator="type"),
]


class TurnStartParams(Params):
    thread_id: str
    input: list[UserInput]
    client_user_message_id: str | None = None
    cwd: str | None = None
    approval_policy: ApprovalPolicy = None
    sandbox_policy: SandboxPolicy = None
    model: str | None = None
    effort: Annotated[str, Field(min_length=1)] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    service_tier: str | None = None
    output_schema: dict[str, Any] | None = None


class TurnSteerParams(Params):
    thread_id: str
    expected_turn_id: str
    input: list[UserInput]
    client_user_message_id: str | None = None


class TurnInterruptParams(Params):
    thread_id: str
    turn_id: str


# method -> members that want `capabilities.experimentalApi` (observed)
EXPERIMENTAL_FIELDS = {"thread/start": ("dynamic_tools", "experimental_raw_events")}


def parse[P: Params](kind: type[P], params: Any) -> P:
    """Check the parameters of a request.

    Raises:
        InvalidParams: With the text of the original, without its "Invalid request: ".
    """
    if params is MISSING:
        raise InvalidParams(missing_field("params"))
    try:
        return kind.model_validate(params)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        raise InvalidParams(from_pydantic(errors, kind.__name__)) from exc
