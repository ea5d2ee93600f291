"""What the model service is told about a request besides its content. Pure."""

import json

from agent.core.thread import Thread

# How the sandbox is named in the metadata: by what would confine a command, "none" where nothing does.
_SANDBOXES = {"danger-full-access": "none", "external-sandbox": "external"}


def turn_metadata(
    thread: Thread, *, kind: str, turn_id: str, installation_id: str, effort: str | None, cause: str | None = None
) -> str:
    """The JSON text of `x-codex-turn-metadata`; `kind` is "prewarm", "turn" or "compaction".

    The members of the original that we know to be true of us, in its order.
    """
    content = {
        "installation_id": installation_id,
        "session_id": thread.session_id,
        "thread_id": thread.id,
        "agent_name": "/root",
        "turn_id": turn_id,
        "window_id": f"{thread.id}:{thread.window}",
        "window_number": thread.window,
        "request_kind": kind,
        **_of_subagent(thread),
        **({} if cause is None else {"turn_trigger": cause}),
        "sandbox": _SANDBOXES.get(thread.sandbox_mode, "seccomp"),
        "sandbox_mode": thread.sandbox_mode,
        "model": thread.model,
        **({} if effort is None else {"reasoning_effort": effort}),
    }
    return json.dumps(content, separators=(",", ":"))


def _of_subagent(thread: Thread) -> dict[str, str | None]:
    if thread.subagent is None:
        return {}
    return {"parent_thread_id": thread.parent, "subagent_kind": thread.subagent.kind, "thread_source": "subagent"}
