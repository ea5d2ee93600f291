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
# The second is for a summary in words. (observed)
KEPT_TOKENS = 64_000
KEPT_TOKENS_IN_WORDS = 20_000
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
        input: What is to be summed up.
        in_words: The provider knows no trigger.
        outputs: What the service has answered with so far.
    """

    item_id: str
    started_ms: int
    input: Sequence[Item]
    in_words: bool = False
    outputs: list[Item] = field(default_factory=list)
    _left_out: int = 0

    def shorten(self) -> bool:
        """The input did not fit: leave out the oldest of it, the more the longer this goes on; False if it is all.

        A service that knows the trigger is not asked again (observed).
        """
        if not self.in_words or len(self.input) <= 1:
            return False
        items = list(self.input)
        for _ in range(max(1, self._left_out // 4)):
            if len(items) > 1:
                items = _without_oldest(items)
                self._left_out += 1
        self.input = items
        return True

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
            return [*kept(history, KEPT_TOKENS_IN_WORDS), message("user", f"{FOUND}\n{said}")]
        summaries = [item for item in self.outputs if item["type"] == SUMMARY]
        if len(summaries) != 1:
            raise NotOneSummary(
                "Fatal error: remote compaction v2 expected exactly one compaction output item, "
                f"got {len(summaries)} from {len(self.outputs)} output items"
            )
        summary = {name: value for name, value in summaries[0].items() if name not in ("id", "status")}
        return [*kept(history), summary]


def kept(history: Sequence[Item], tokens: int = KEPT_TOKENS) -> list[Item]:
    """What is said again: what the developer said, where the work is, and as much of the user's last words."""
    left = tokens
    items: list[Item] = []
    for item in reversed(history):
        if item.get("type") != "message":
            continue
        if item.get("role") == "developer" or is_context(item):
            items.append(item)
        elif item.get("role") == "user" and left > 0 and not (is_goal_context(item) or _text(item).startswith(FOUND)):
            size = _size(item)
            items.append(item if size <= left else _cut(item, left))
            left -= size
    items.reverse()
    return items


def _size(item: Item) -> int:
    """About how many tokens a message is."""
    parts = item.get("content")
    parts = [one for one in parts if isinstance(one, dict)] if isinstance(parts, list) else []
    return estimated_tokens([{name: one.get(name) for name in ("text", "image_url")} for one in parts])


def _cut(item: Item, tokens: int) -> Item:
    """A message that is too long: how it begins and how it ends."""
    text = words_of(item, "input_text")
    half = tokens * BYTES_PER_TOKEN // 2
    content = text.encode("utf-8", "replace")
    if len(content) > 2 * half:
        head, tail = content[:half].decode("utf-8", "ignore"), content[len(content) - half :].decode("utf-8", "ignore")
        text = f"{head}…{len(content) // BYTES_PER_TOKEN - tokens} tokens truncated…{tail}"
    return message("user", text)  # without its images


def _without_oldest(items: list[Item]) -> list[Item]:
    """Without the first, and without the output of a call that it is: that would stand there alone."""
    call = items[0].get("call_id")
    return [one for one in items[1:] if call is None or one.get("call_id") != call]


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
