"""What a thread has used, and the limits of its user, as its clients are told of them. Pure."""

from typing import Any

from agent.core.steps import Notify
from agent.core.thread import Thread
from agent.core.views import limits_wire, token_usage_wire
from agent.model.limits import RateLimits
from agent.model.wire import TokenUsage


class Meter:
    """For one turn.

    Args:
        window: Tokens of input that clients are told the model has.

    Whenever the usage is told the limits are told behind it, once the service has named any (observed).
    """

    def __init__(self, thread: Thread, turn_id: str, window: int) -> None:
        self.window = window
        self._thread = thread
        self._turn_id = turn_id
        self._is_news = False  # whether limits came since they were told last

    def spend(self, usage: TokenUsage | None) -> list[Notify]:
        """A response has ended, and has cost this."""
        return self.tell() if usage is None else self.count(self._thread.total + usage, usage)

    def count(self, total: TokenUsage, last: TokenUsage) -> list[Notify]:
        """Set the thread's total and how full its context is, and tell it."""
        self._thread.total, self._thread.last, self._thread.context_tokens = total, last, last.total
        return [self._usage(), *self._limits()]

    def fill(self) -> list[Notify]:
        """The context is full: the service has said so, and counts for more than what was counted."""
        left = max(0, self.window - self._thread.total.total)
        told = self.count(TokenUsage(total=self.window), TokenUsage(total=left))
        self._thread.context_tokens = self.window
        return told

    def learn(self, limits: RateLimits | None) -> None:
        """The service named these limits."""
        if limits is not None:
            self._thread.limits, self._is_news = limits.after(self._thread.limits), True

    def tell(self) -> list[Notify]:
        """Of limits that nobody was told of; what was used stands before them, as always."""
        if not self._is_news:
            return []
        return [*([self._usage()] if self._thread.total.total else []), *self._limits()]

    def _usage(self) -> Notify:
        thread = self._thread
        usage = token_usage_wire(thread.total, thread.last, self.window)
        told: dict[str, Any] = {"threadId": thread.id, "turnId": self._turn_id, "tokenUsage": usage}
        return Notify("thread/tokenUsage/updated", told)

    def _limits(self) -> list[Notify]:
        self._is_news = False
        limits = self._thread.limits
        return [] if limits is None else [Notify("account/rateLimits/updated", {"rateLimits": limits_wire(limits)})]
