"""What a model says, as the events that its client yields."""

from typing import Any

from agent.model.wire import Completed, Created, Item, ItemAdded, ItemDone, ResponseEvent, TextDelta, TokenUsage

USAGE = TokenUsage(total=110, input=100, cached_input=40, output=10, reasoning_output=3)


def message_item(item_id: str, text: str) -> Item:
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "id": item_id, "content": content}


def call_item(call_id: str, name: str, arguments: str = "{}") -> Item:
    return {
        "type": "function_call",
        "id": f"fc-{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def message(item_id: str, *pieces: str) -> list[ResponseEvent]:
    """A message in pieces, without the start and the end of its response."""
    return [
        ItemAdded({**message_item(item_id, ""), "content": []}),
        *(TextDelta(item_id, piece) for piece in pieces),
        ItemDone(message_item(item_id, "".join(pieces))),
    ]


def completed(response_id: str = "resp-1", usage: TokenUsage | None = USAGE) -> Completed:
    return Completed(response_id, usage)


def answer(*pieces: str, item_id: str = "msg-1", response_id: str = "resp-1") -> list[ResponseEvent]:
    """A whole response of one message."""
    return [Created(response_id), *message(item_id, *pieces), completed(response_id)]


def calls(*items: Item, response_id: str = "resp-1") -> list[ResponseEvent]:
    """A whole response of finished items."""
    return [Created(response_id), *(ItemDone(item) for item in items), completed(response_id)]


def shown_message(item_id: str, text: str, **times: Any) -> dict[str, Any]:
    """A message as clients see it."""
    return {
        "type": "agentMessage",
        "moderation": None,
        "id": item_id,
        "text": text,
        "phase": None,
        "memoryCitation": None,
        "delivery": None,
        "questions": None,
        **times,
    }
