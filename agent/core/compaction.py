"""Compaction: the service sums up a conversation, and the summary takes the place of most of it. Pure.

The request is an ordinary one with a trigger behind the whole history; its answer must be exactly one item, which the
service can read and we cannot (observed). Another model provider is asked in words, and answers in words (observed).
What the user and the developer said stays as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core.goals import is_goal_context
from agent.core.thread import message
from agent.core.views import words_of
from agent.model.wire import Item

TRIGGER: Item = {"type": "compaction_trigger"}
SUMMARY = "compaction"
# What is kept of the user's words, the newest first: without a bound, enough of them would fill the window for good.
KEPT_TOKENS = 20_000
BYTES_PER_TOKEN = 4
# An image is counted as this many tokens, whatever its size in bytes.
IMAGE_TOKENS = 1_500

WANTED = """\
Sum up this conversation for another model that will go on with it and sees only your summary and what the user said.
Say what was wanted, what was done and found out, what was decided and why, what is left to do and what comes next.
Name files, commands and values exactly. Answer with the summary alone, and call no tools."""
# What the summary stands behind.
FOUND = "Another model worked on this until now. This is its summary of what was done; go on from there:"


class NotOneSummary(ValueError):
    """The service answered with something else; the text is the original's."""


@dataclass(slots=True)
class Compaction:
    """One that runs.

    Args:
        outputs: What the service has answered with so far.
        in_words: The provider knows no trigger.
    """

    item_id: str
    started_ms: int
    outputs: list[Item] = field(default_factory=list)
    in_words: bool = False

    @property
    def trigger(self) -> Item:
        """What its request has behind the history."""
        return message("user", WANTED) if self.in_words else TRIGGER

    def wire(self, completed_ms: int | None) -> dict[str, Any]:
        """As clients see it."""
        return {
            "type": "contextCompaction",
            "id": self.item_id,
            "startedAtMs": self.started_ms,
            "completedAtMs": completed_ms,
        }

    def result(self, history: Sequence[Item]) -> list[Item]:
        """What takes the place of the history.

        Raises:
            NotOneSummary: The answer is not what it must be.
        """
        if self.in_words:
            said = "\n".join(words_of(item) for item in self.outputs if item["type"] == "message").strip()
            if not said:
                raise NotOneSummary("the model was asked for a summary and gave none; the history stays as it is")
            return [*kept(history), message("user", f"{FOUND}\n{said}")]
        summaries = [item for item in self.outputs if item["type"] == SUMMARY]
        if len(summaries) != 1:
            raise NotOneSummary(
                "Fatal error: remote compaction v2 expected exactly one compaction output item, "
                f"got {len(summaries)} from {len(self.outputs)} output items"
            )
        summary = {name: value for name, value in summaries[0].items() if name not in ("id", "status")}
        return [*kept(history), summary]


def kept(history: Sequence[Item]) -> list[Item]:
    """What is said again in full: what the developer said, where the work is, and the user's last words."""
    left = KEPT_TOKENS
    items: list[Item] = []
    for item in reversed(history):
        if item.get("type") != "message":
            continue
        if item.get("role") == "developer" or is_context(item):
            items.append(item)
        elif item.get("role") == "user" and left > 0 and not (is_goal_context(item) or _text(item).startswith(FOUND)):
            left -= estimated_tokens((item,))
            if left >= 0:
                items.append(item)
    items.reverse()
    return items


def is_context(item: Item) -> bool:
    """Whether it tells where the work is."""
    return _text(item).startswith("<environment_context>")


def _text(item: Item) -> str:
    """The first text of a message."""
    content = item.get("content")
    first = content[0] if isinstance(content, list) and content else None
    return str(first.get("text", "")) if isinstance(first, dict) else ""


def is_full(tokens: int, window: int, limit: int | None = None) -> bool:
    """Whether a context of this many tokens is to be compacted before it grows further.

    Args:
        window: What clients are told, which is 95% of the model's; the bound is at 90% of the model's.
        limit: The user's own bound, if he wants a lower one.
    """
    return tokens * 19 >= window * 18 or (limit is not None and tokens >= limit)


def estimated_tokens(items: Sequence[Item]) -> int:
    """About how many tokens the items are, where the service has not said."""
    return sum(_bytes(item) for item in items) // BYTES_PER_TOKEN


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return (
            IMAGE_TOKENS * BYTES_PER_TOKEN if value.startswith("data:image/") else len(value.encode("utf-8", "replace"))
        )
    if isinstance(value, dict):
        return sum(_bytes(one) for one in value.values())
    if isinstance(value, list):
        return sum(_bytes(one) for one in value)
    return 0
