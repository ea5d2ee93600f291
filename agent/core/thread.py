"""A thread: its settings and its history. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.model.limits import RateLimits
from agent.model.provider import OPENAI, Provider
from agent.model.wire import Item, TokenUsage

# What the model is told first, unless the client brings its own.
BASE_INSTRUCTIONS = """\
You are a coding agent that runs on the user's computer, inside Countersign. Help with the task the user gives you.
Be precise and brief. Say what you did and what you could not do. Do not claim to have run or changed anything that
you did not run or change. If no tool for something is offered to you, say so and give the user what they need to do
it themselves."""

# What a call that was stopped is answered with.
ABORTED_CALL = "aborted by user"

TURN_ABORTED = """\
<turn_aborted>
The user stopped the previous turn. What it was doing may be half done: look before you rely on it.
</turn_aborted>"""

# What the model is told when an answer of it was held back.
FILTERED_ANSWER = """\
<content_filter_guidance>
A content filter stopped your last answer. Do not try to say the same in another way, with a tool or later: tell the
user briefly that you cannot, offer what you can do instead, and go on with what has nothing to do with it.
</content_filter_guidance>"""

SANDBOX_POLICIES: dict[str, dict[str, Any]] = {
    "read-only": {"type": "readOnly", "networkAccess": False},
    "workspace-write": {
        "type": "workspaceWrite",
        "writableRoots": [],
        "networkAccess": False,
        "excludeTmpdirEnvVar": False,
        "excludeSlashTmp": False,
    },
    "danger-full-access": {"type": "dangerFullAccess"},
}
_MODES = {policy["type"]: mode for mode, policy in SANDBOX_POLICIES.items()} | {"externalSandbox": "external-sandbox"}


def sandbox_policy(mode: str, workspace_write: Mapping[str, Any] | None) -> dict[str, Any]:
    """The legacy policy of a mode, as clients see it."""
    return {**SANDBOX_POLICIES[mode], **((workspace_write or {}) if mode == "workspace-write" else {})}


@dataclass(frozen=True, slots=True)
class ThreadDefaults:
    """What config.toml says of new threads; None where it says nothing."""

    model: str | None = None
    effort: str | None = None
    summary: str | None = None
    verbosity: str | None = None
    approval_policy: Any = None
    sandbox_mode: str | None = None
    workspace_write: Mapping[str, Any] | None = None  # members of the policy workspaceWrite
    service_tier: str | None = None
    provider: Provider = OPENAI


@dataclass(frozen=True, slots=True)
class Subagent:
    """What a thread is to its parent.

    Args:
        kind: As the model service calls it.
        parent_turn: The parent's turn that it works for.
    """

    kind: str
    parent_turn: str


@dataclass(slots=True)
class Thread:
    """One conversation.

    Args:
        approval_policy: A name, or {"granular": {...}}.
        sandbox: The legacy sandbox policy, as clients see it.
        profile: The permission profile that the sandbox comes from; None where the client chose the sandbox itself.
        effort: None for the model's default.
        created_at: Unix seconds.
        history: Responses items, oldest first.
        context_tokens: About how many tokens it is now: what the service counted last, and outputs since then.
        window: How often it was compacted.
        answered_by: The model that answered last; None before the first answer.
        first_unread: The oldest turn that no client has marked as read.
        limits: What the service has said last of the user's limits.
        config: config.toml with what the request said over it that the thread came by; None where it said nothing.
    """

    id: str
    cwd: str
    model: str
    originator: str
    approval_policy: Any
    sandbox: dict[str, Any]
    profile: str | None
    created_at: int
    cli_version: str
    base_instructions: str = BASE_INSTRUCTIONS
    developer_instructions: str | None = None
    effort: str | None = None
    summary: str | None = None
    verbosity: str | None = "low"
    service_tier: str | None = None
    ephemeral: bool = False
    source: str | None = None
    model_provider: str = OPENAI.id
    provider: Provider = OPENAI  # of that name
    config: dict[str, Any] | None = None
    history: list[Item] = field(default_factory=list)
    total: TokenUsage = field(default_factory=TokenUsage)
    last: TokenUsage = field(default_factory=TokenUsage)  # of the last response
    limits: RateLimits | None = None
    context_tokens: int = 0
    window: int = 0
    answered_by: str | None = None
    status: str = "idle"
    flags: dict[str, int] = field(default_factory=dict)  # how many calls wait for what
    preview: str = ""
    first_unread: str | None = None
    read_state: dict[str, Any] | None = None
    updated_at: int = 0
    path: str | None = None
    name: str | None = None
    git_info: dict[str, Any] | None = None
    forked_from: str | None = None
    parent: str | None = None
    subagent: Subagent | None = None  # then `parent` is there too
    dynamic_tools: list[dict[str, Any]] = field(default_factory=list)  # of the client
    problems: list[str] = field(default_factory=list)  # of its file, when it was loaded

    @property
    def sandbox_mode(self) -> str:
        """The name of the sandbox policy, as it is told to the model service."""
        return _MODES.get(str(self.sandbox.get("type")), "unknown")

    @property
    def session_id(self) -> str:
        """The thread that it is known under to the model service besides its own id."""
        return self.id if self.subagent is None or self.parent is None else self.parent

    def config_over[C: Mapping[str, Any]](self, common: C) -> C | dict[str, Any]:
        """The configuration that counts for it: its own, or that of all threads."""
        return common if self.config is None else self.config

    def static_input(self) -> tuple[Item, ...]:
        """What every request starts with, known before the first turn."""
        return (message("developer", self.base_instructions),)

    def wire(self) -> dict[str, Any]:
        """The thread as clients see it. `path` is null where it is not kept on disk."""
        status: dict[str, Any] = {"type": self.status}
        if self.status == "active":
            status["activeFlags"] = [name for name, count in self.flags.items() if count]
        return {
            "id": self.id,
            "environments": [self._environment_wire()],
            "extra": None,
            "sessionId": self.id,
            "forkedFromId": self.forked_from,
            "attachedToThreadId": None,
            "parentThreadId": self.parent,
            "preview": self.preview,
            "ephemeral": self.ephemeral,
            "section": None,
            "sectionEnteredAt": None,
            "projectId": None,
            "historyMode": "paginated",
            "modelProvider": self.model_provider,
            "model": self.model,
            "reasoningEffort": self.effort,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at or self.created_at,
            "recencyAt": self.updated_at or self.created_at,
            "status": status,
            "path": self.path,
            "cwd": self.cwd,
            "cliVersion": self.cli_version,
            "originator": self.originator,
            "source": "vscode",
            "canAcceptDirectInput": True,
            "threadSource": self.source,
            "agentNickname": None,
            "agentRole": None,
            "gitInfo": self.git_info,
            "name": self.name,
            "daybreakEnabled": None,
            "turns": [],
        }

    def meta(self) -> dict[str, Any]:
        """What is written down of it besides what happens in it."""
        return {name: getattr(self, name) for name in _KEPT}

    def settings_wire(self, sources: list[str]) -> dict[str, Any]:
        """The answer to thread/start: the thread and the settings that are in force.

        Args:
            sources: The files with instructions.
        """
        return {
            "thread": self.wire(),
            "model": self.model,
            "modelProvider": self.model_provider,
            "serviceTier": self.service_tier,
            "disabledPluginIds": [],
            "cwd": self.cwd,
            "runtimeWorkspaceRoots": [self.cwd],
            "instructionSources": sources,
            "approvalPolicy": self.approval_policy,
            "approvalsReviewer": "user",
            "sandbox": self.sandbox,
            "activePermissionProfile": self._profile_wire(),
            "reasoningEffort": self.effort,
            "multiAgentMode": "explicitRequestOnly",
        }

    def settings(self) -> dict[str, Any]:
        """What clients are told when a turn has changed something of it."""
        return {
            "disabledPluginIds": [],
            "cwd": self.cwd,
            "environments": [self._environment_wire()],
            "approvalPolicy": self.approval_policy,
            "approvalsReviewer": "user",
            "sandboxPolicy": self.sandbox,
            "activePermissionProfile": self._profile_wire(),
            "model": self.model,
            "modelProvider": self.model_provider,
            "serviceTier": self.service_tier,
            "effort": self.effort,
            "summary": self.summary,
            "collaborationMode": self.collaboration_wire(),
            "multiAgentMode": "explicitRequestOnly",
            "personality": None,
        }

    def collaboration_wire(self) -> dict[str, Any]:
        """The one mode that there is."""
        settings = {"model": self.model, "reasoning_effort": self.effort, "developer_instructions": None}
        return {"mode": "default", "settings": settings}

    def _profile_wire(self) -> dict[str, Any] | None:
        return None if self.profile is None else {"id": self.profile, "extends": None}

    def _environment_wire(self) -> dict[str, Any]:
        return {"environmentId": "local", "cwd": self.cwd, "runtimeWorkspaceRoots": [self.cwd]}


_KEPT = (
    *("id", "cwd", "model", "originator", "approval_policy", "sandbox", "profile", "created_at", "cli_version"),
    *("base_instructions", "developer_instructions", "effort", "summary", "verbosity", "service_tier", "source"),
    *("model_provider", "name", "git_info", "forked_from", "parent", "dynamic_tools", "answered_by"),
)


def thread_of(meta: Mapping[str, Any]) -> Thread:
    """The thread that `Thread.meta` was written of, without its history.

    Raises:
        TypeError: Something is missing.
    """
    return Thread(**{name: meta[name] for name in _KEPT if name in meta})


def message(role: str, *texts: str) -> Item:
    """A Responses message of input texts."""
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text} for text in texts]}


def environment_context(thread: Thread, date: str, timezone: str, shell: str) -> Item:
    """What the model should know of where it works."""
    lines = [
        "<environment_context>",
        f"  <cwd>{_escape(thread.cwd)}</cwd>",
        f"  <shell>{_escape(shell)}</shell>",
        f"  <current_date>{date}</current_date>",
        f"  <timezone>{_escape(timezone)}</timezone>",
        f"  <sandbox_mode>{thread.sandbox_mode}</sandbox_mode>",
        "</environment_context>",
    ]
    return message("user", "\n".join(lines))


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
