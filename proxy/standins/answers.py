"""What the stand-in of ChatGPT answers to a model request: lists of Responses events. Pure.

Only the events that the original was seen to need are sent (codex-cli 0.169.0): created, output_item.added,
output_text.delta, output_item.done, completed.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

Event = dict[str, Any]

DEFAULT_TEXT = "Hello from the stand-in."


class Answers:
    """Answers in order, then the default again and again.

    A step is one of:
    - {"text": "..."}: an assistant message, streamed word by word
    - {"call": {"name": "...", "arguments": {...}}}: a function call
    - {"items": [...]}: Responses output items, each as it is
    - {"events": [...]}: raw events, nothing is added
    Any step may have "usage": {...}.
    """

    def __init__(self, steps: Iterable[dict[str, Any]] = ()) -> None:
        self._steps = list(steps)
        for step in self._steps:
            if not _is_step(step):
                raise ValueError(
                    "a step of the script must have one of text, call, items or events (a text, an object with a "
                    f"name, a list of objects), found {json.dumps(step)[:200]}"
                )
        self._numbers = itertools.count(1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a JSON file that holds a list of steps.

        Raises:
            ValueError: Not JSON, not a list, or a malformed step.
            OSError: The file cannot be read.
        """
        try:
            steps = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"the script {str(path)!r} is not JSON: {exc}") from exc
        if not isinstance(steps, list):
            raise ValueError(f"the script {str(path)!r} must be a list of steps")
        return cls(steps)

    def events(self, request: dict[str, Any]) -> list[Event]:
        """The events that answer one model request."""
        number = next(self._numbers)
        response_id = f"resp_{number:04d}"
        created = {"type": "response.created", "response": {"id": response_id}}
        if request.get("generate") is False:  # the prewarm
            return [created, _completed(response_id, None)]
        if any(item.get("type") == "compaction_trigger" for item in _input(request)):
            item = {"type": "compaction", "id": f"cmp_{number:04d}", "encrypted_content": "stand-in compaction"}
            return [created, *_item_events([item]), _completed(response_id, None)]
        step: dict[str, Any] = self._steps.pop(0) if self._steps else {"text": DEFAULT_TEXT}
        if "events" in step:
            return list(step["events"])
        if "items" in step:
            items = list(step["items"])
        elif "call" in step:
            call = step["call"]
            items = [
                {
                    "type": "function_call",
                    "id": f"fc_{number:04d}",
                    "call_id": f"call_{number:04d}",
                    "name": call["name"],
                    "arguments": json.dumps(call.get("arguments", {})),
                }
            ]
        else:
            items = [_message(f"msg_{number:04d}", step["text"])]
        return [created, *_item_events(items), _completed(response_id, step.get("usage"))]


def _is_step(step: object) -> bool:
    if not isinstance(step, dict) or not isinstance(step.get("usage", {}), dict):
        return False
    match {name: value for name, value in step.items() if name in ("text", "call", "items", "events")}:
        case {"text": str(), **others} | {"call": {"name": str()}, **others}:
            return not others
        case {"items": list(objects), **others} | {"events": list(objects), **others}:
            return not others and all(isinstance(one, dict) and isinstance(one.get("type", ""), str) for one in objects)
    return False


def _input(request: dict[str, Any]) -> list[dict[str, Any]]:
    items = request.get("input")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _message(item_id: str, text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "id": item_id,
        "content": [{"type": "output_text", "text": text}],
    }


def _item_events(items: list[dict[str, Any]]) -> list[Event]:
    events: list[Event] = []
    for index, item in enumerate(items):
        if item.get("type") == "message":
            text = "".join(part.get("text", "") for part in item.get("content", []))
            events.append(
                {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}}
            )
            # Split so that the pieces joined again are the text, blanks included.
            words = text.split(" ")
            for position, word in enumerate(words):
                delta = word if position == len(words) - 1 else word + " "
                if delta:
                    events.append(
                        {
                            "type": "response.output_text.delta",
                            "item_id": item.get("id", ""),
                            "output_index": index,
                            "content_index": 0,
                            "delta": delta,
                        }
                    )
        else:
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    return events


def _completed(response_id: str, usage: dict[str, Any] | None) -> Event:
    counted = usage or {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 110,
    }
    return {"type": "response.completed", "response": {"id": response_id, "usage": counted}}
