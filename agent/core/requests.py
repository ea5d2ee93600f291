"""What a thread asks of the model, and what it is told of where it works. Pure."""

from datetime import datetime

from agent.core.metadata import turn_metadata
from agent.core.thread import Thread, environment_context, message
from agent.model.wire import Item, ResponsesRequest


def context_of(thread: Thread, now: datetime, timezone: str, shell: str, agents_md: str | None = None) -> list[Item]:
    """What the model must know before the first input: instructions of the client, and where it works.

    Args:
        now: Local time, with its zone.
        shell: Its name.
        agents_md: What is told of the AGENTS.md files of the user and the project; one message with where it works.
    """
    instructions = (
        [] if thread.developer_instructions is None else [message("developer", thread.developer_instructions)]
    )
    place = environment_context(thread, f"{now:%Y-%m-%d}", timezone, shell)
    if agents_md is not None:
        place["content"] = message("user", agents_md)["content"] + place["content"]
    return [*instructions, place]


def request_of(
    thread: Thread,
    items: tuple[Item, ...],
    kind: str,
    *,
    turn_id: str,
    effort: str | None,
    summary: str | None,
    verbosity: str | None,
    tools: tuple[Item, ...],
    installation_id: str,
    generate: bool = True,
    schema: Item | None = None,
    state: str | None = None,
    cause: str | None = None,
) -> ResponsesRequest:
    """One request of a thread.

    Args:
        kind: "prewarm", "turn" or "compaction".
        effort, summary, verbosity: What the thread wants, or its model's default; None for nothing.
        cause: What the turn was begun for, where it was not the user's word.
    """
    family: dict[str, str] = {}
    if thread.subagent is not None:
        family = {
            "x-openai-subagent": thread.subagent.kind,
            "x-codex-parent-thread-id": thread.session_id,
            "parent_turn_id": thread.subagent.parent_turn,
            "root_turn_id": thread.subagent.parent_turn,
        }
    metadata = turn_metadata(
        thread, kind=kind, turn_id=turn_id, installation_id=installation_id, effort=effort, cause=cause
    )
    return ResponsesRequest(
        model=thread.model,
        input=items,
        thread_id=thread.id,
        turn_metadata=metadata,
        tools=tools,
        client_metadata={
            "session_id": thread.session_id,
            "thread_id": thread.id,
            "turn_id": turn_id,
            "x-codex-installation-id": installation_id,
            "x-codex-window-id": f"{thread.id}:{thread.window}",
            "x-codex-turn-metadata": metadata,
            **family,
        },
        session_id=thread.session_id,
        subagent=None if thread.subagent is None else thread.subagent.kind,
        effort=None if effort == "none" else effort,
        summary=None if summary == "none" else summary,
        verbosity=verbosity,
        output_schema=schema,
        service_tier=None if thread.service_tier == "default" else thread.service_tier,
        generate=generate,
        turn_state=state,
    )
