"""What `exec --json` prints: the notifications of a turn as the events that the official TypeScript SDK reads. Pure."""

import itertools
from collections.abc import Iterator
from typing import Any

_STATUSES = {"inProgress": "in_progress"}
_SEARCHES = {"openPage": "open_page", "findInPage": "find_in_page"}


class ExecEvents:
    """Turns notifications into events, and remembers what the last of them needs."""

    def __init__(self) -> None:
        self._usage = _usage({})
        self._numbers: dict[str, str] = {}  # of the items that have begun and not ended: a model may use an id again
        self._count = itertools.count()
        self.last_message = ""
        self.failure: str | None = None

    def of(self, method: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of one notification."""
        match method:
            case "turn/started":
                yield {"type": "turn.started"}
            case "item/started" | "item/completed":
                # The original shows messages and thoughts only whole.
                begun = method == "item/started"
                item = self._item(params["item"], begun=begun)
                if item is not None and not (begun and item["type"] in ("agent_message", "reasoning")):
                    yield {"type": "item.started" if begun else "item.completed", "item": item}
                if not begun and params["item"]["type"] == "agentMessage":
                    self.last_message = params["item"]["text"]
            case "thread/tokenUsage/updated":
                self._usage = _usage(params["tokenUsage"]["total"])
            case "error":
                yield {"type": "error", "message": params["error"]["message"]}
            case "turn/completed":
                yield self._end(params["turn"])

    def _end(self, turn: dict[str, Any]) -> dict[str, Any]:
        if turn["status"] == "completed":
            return {"type": "turn.completed", "usage": self._usage}
        error = turn.get("error") or {}
        self.failure = error.get("message") or f"the turn was {turn['status']}"
        return {"type": "turn.failed", "error": {"message": self.failure}}

    def _item(self, item: dict[str, Any], *, begun: bool) -> dict[str, Any] | None:
        shown = self._content(item)
        if shown is None:
            return None
        number = self._numbers.pop(item["id"], None) or f"item_{next(self._count)}"
        if begun:
            self._numbers[item["id"]] = number
        return {"id": number, **shown}

    def _content(self, item: dict[str, Any]) -> dict[str, Any] | None:
        match item["type"]:
            case "agentMessage":
                return {"type": "agent_message", "text": item["text"]}
            case "reasoning":
                return {"type": "reasoning", "text": "\n".join(item["summary"])}
            case "commandExecution":
                return {
                    "type": "command_execution",
                    "command": item["command"],
                    "aggregated_output": item["aggregatedOutput"] or "",
                    "exit_code": item["exitCode"],
                    "status": _STATUSES.get(item["status"], item["status"]),
                }
            case "fileChange":
                changes = [{"path": one["path"], "kind": one["kind"]["type"]} for one in item["changes"]]
                status = _STATUSES.get(item["status"], item["status"])
                return {"type": "file_change", "changes": changes, "status": status}
            case "webSearch":
                # Known by the id that the service gave it, though it is counted (observed).
                action = {name: value for name, value in item["action"].items() if value is not None}
                action["type"] = _SEARCHES.get(action["type"], action["type"])
                return {"id": item["id"], "type": "web_search", "query": item["query"], "action": action}
            case _:
                return None


def _usage(total: dict[str, int]) -> dict[str, int]:
    names = {
        "input_tokens": "inputTokens",
        "cached_input_tokens": "cachedInputTokens",
        "cache_write_input_tokens": "cacheWriteInputTokens",
        "output_tokens": "outputTokens",
        "reasoning_output_tokens": "reasoningOutputTokens",
    }
    return {name: total.get(member, 0) for name, member in names.items()}
