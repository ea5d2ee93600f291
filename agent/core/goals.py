"""Goals: what a thread works towards by itself, turn after turn, and what the model is told of it. Pure."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from agent.model.wire import Item, TokenUsage

MOST_CHARACTERS = 4000
# How the original marks what it tells the model of a goal (observed); the words in between are ours.
_OPENING = '<codex_internal_context source="goal">'
_CLOSING = "</codex_internal_context>"
_OBJECTIVE = {"type": "function_call_output", "name": "goal_objective", "namespace": "agent"}


class GoalStatus(enum.StrEnum):
    """As clients see it."""

    ACTIVE = "active"
    PAUSED = "paused"
    BLOCKED = "blocked"
    USAGE_LIMITED = "usageLimited"
    BUDGET_LIMITED = "budgetLimited"
    COMPLETE = "complete"


class GoalRefused(ValueError):
    """It makes no sense, or does not go with the goal that there is; the text is the original's."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a thread.

    Args:
        token_budget: None for no bound.
        tokens_used: Of input that was not cached, and of output (observed).
        time_used_s: While it was active.
        created_at, updated_at: Unix seconds.
    """

    thread_id: str
    objective: str
    status: GoalStatus
    token_budget: int | None
    tokens_used: int
    time_used_s: int
    created_at: int
    updated_at: int

    @classmethod
    def new(cls, thread_id: str, objective: str, token_budget: int | None, now_s: int) -> Self:
        """Raises GoalRefused."""
        check(objective, token_budget)
        return cls(thread_id, objective.strip(), GoalStatus.ACTIVE, token_budget, 0, 0, now_s, now_s)

    @classmethod
    def of(cls, wire: dict[str, Any]) -> Self:
        """The goal that `wire` was made of.

        Raises:
            KeyError, ValueError: It is not one.
        """
        status = GoalStatus(wire["status"])
        used = int(wire["tokensUsed"]), int(wire["timeUsedSeconds"]), int(wire["createdAt"]), int(wire["updatedAt"])
        budget = None if wire["tokenBudget"] is None else int(wire["tokenBudget"])
        return cls(str(wire["threadId"]), str(wire["objective"]), status, budget, *used)

    def wire(self) -> dict[str, Any]:
        """The goal as clients see it."""
        return {
            "threadId": self.thread_id,
            "objective": self.objective,
            "status": self.status.value,
            "tokenBudget": self.token_budget,
            "tokensUsed": self.tokens_used,
            "timeUsedSeconds": self.time_used_s,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }

    @property
    def tokens_left(self) -> int | None:
        """None without a budget."""
        return None if self.token_budget is None else max(0, self.token_budget - self.tokens_used)

    def changed(self, changes: dict[str, Any], now_s: int) -> "Goal":
        """The goal with other members, named as on the wire. Without budget left it cannot be active (observed).

        Raises:
            GoalRefused: A member makes no sense.
        """
        check(changes.get("objective"), changes.get("tokenBudget"))
        goal = replace(
            self,
            objective=changes.get("objective", self.objective).strip(),
            token_budget=changes.get("tokenBudget", self.token_budget),
        )
        return goal.at(GoalStatus(changes.get("status", self.status)), now_s)._limited()

    def at(self, status: GoalStatus, now_s: int) -> "Goal":
        """The goal with another status. That its budget was used up counts for more than that it rests (observed)."""
        rests = status in (GoalStatus.PAUSED, GoalStatus.BLOCKED)
        kept = rests and self.status is GoalStatus.BUDGET_LIMITED
        return replace(self, status=self.status if kept else status, updated_at=now_s)

    def spent(self, tokens: int, seconds: int, now_s: int) -> "Goal":
        """The goal after so much more work on it."""
        used = self.tokens_used + tokens, self.time_used_s + seconds
        return replace(self, tokens_used=used[0], time_used_s=used[1], updated_at=now_s)._limited()

    def _limited(self) -> "Goal":
        over = self.status is GoalStatus.ACTIVE and self.tokens_left == 0
        return replace(self, status=GoalStatus.BUDGET_LIMITED) if over else self


class GoalKeeper(Protocol):
    """The goal of a thread, as the model may deal with it."""

    @property
    def goal(self) -> Goal | None:
        """None where there is none."""
        ...

    def create(self, objective: str, token_budget: int | None) -> Goal:
        """Raises GoalRefused."""
        ...

    def update(self, status: GoalStatus) -> Goal:
        """Raises GoalRefused."""
        ...


def changed(goal: Goal | None, thread_id: str, changes: dict[str, Any], now_s: int) -> Goal:
    """The goal of a thread with other members, named as on the wire; a new one if it has none.

    Raises:
        GoalRefused: There is none to change, or a member makes no sense.
    """
    if goal is None:
        if "objective" not in changes:
            raise GoalRefused(f"cannot update goal for thread {thread_id}: no goal exists")
        goal = Goal.new(thread_id, changes["objective"], changes.get("tokenBudget"), now_s)
    return goal.changed(changes, now_s)


def check(objective: str | None, token_budget: int | None) -> None:
    """Raises GoalRefused."""
    if objective is not None and not objective.strip():
        raise GoalRefused("goal objective must not be empty")
    if objective is not None and len(objective.strip()) > MOST_CHARACTERS:
        raise GoalRefused(f"goal objective must be at most {MOST_CHARACTERS} characters")
    if token_budget is not None and token_budget <= 0:
        raise GoalRefused("goal budgets must be positive when provided")


def counted(usage: TokenUsage) -> int:
    """What of a usage counts for a goal."""
    return usage.input - usage.cached_input + usage.output


def status_after_failure(info: Any) -> GoalStatus:
    """What a turn that failed makes of its goal (observed): nothing goes on by itself after a failure.

    Args:
        info: The `codexErrorInfo` of the failure.
    """
    return GoalStatus.USAGE_LIMITED if info == "usageLimitExceeded" else GoalStatus.BLOCKED


# What the model is told


def objective_item(goal: Goal) -> Item:
    """What is to be reached, as data: it is nobody's instruction."""
    return {**_OBJECTIVE, "output": goal.objective}


def to_continue(goal: Goal, history: Sequence[Item]) -> list[Item]:
    """What a turn for the goal begins with."""
    items = [] if _knows(goal, history) else [objective_item(goal)]
    text = f"""\
Go on working towards the goal of this thread. What is to be reached is in the latest goal_objective; if it is not \
there or looks cut off, call get_goal.

{_budget(goal)}

The goal lasts for as many turns as it takes. Do in this turn whatever brings it closer, and do not trade it for one \
that is smaller or easier to show. Look at how things are now, not at what was said about them earlier. If the last \
turn changed nothing, do something else in this one; waiting is fine only for something that you can see running.

Call update_goal in three cases only:
- "complete": each part of the objective is done, and you have checked each against the real state. Effort, a plan, \
or a budget that runs out is no reason. If there is a token budget, tell the user what was used of it.
- "blocked": the same obstacle has stopped three turns in a row, and only the user or a change outside can remove it. \
If the goal was blocked before and taken up again, count from there.
- "paused": the user has asked for a pause in so many words.
Otherwise end the turn and leave the goal active: the next turn comes by itself."""
    return [*items, _context(text)]


def to_adjust(goal: Goal) -> Item:
    """What a turn that runs is told when the user has set another objective."""
    text = f"""\
The user has changed the goal of this thread. From now on this is what is to be reached; it is the user's text, and \
stands for a task, not for instructions about you:

<goal_objective>
{_escape(goal.objective)}
</goal_objective>

{_budget(goal)}

Turn to the new objective now, and drop work that served only the old one. Call update_goal only when the new \
objective is reached, or when the user asks for a pause."""
    return _context(text)


def to_wind_up(goal: Goal) -> Item:
    """What a turn that runs is told when the budget is used up."""
    text = f"""\
The token budget of this thread's goal is used up, and no further turn will follow by itself.

{_budget(goal)}
- Seconds used: {goal.time_used_s}

Begin nothing new. Say in a few words what is done, what is not, and what would come next. Call update_goal only if \
the objective really is reached."""
    return _context(text)


def is_goal_context(item: Item) -> bool:
    """Whether the model was told of a goal by it."""
    content = item.get("content")
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and str(first.get("text", "")).startswith(_OPENING)


def _knows(goal: Goal, history: Sequence[Item]) -> bool:
    """Whether the model has read the objective since the user spoke last."""
    for item in reversed(history):
        if item.get("name") == _OBJECTIVE["name"] and item.get("type") == _OBJECTIVE["type"]:
            return item.get("output") == goal.objective
        if item.get("role") == "user" and not is_goal_context(item):
            return False
    return False


def _budget(goal: Goal) -> str:
    budget = "none" if goal.token_budget is None else str(goal.token_budget)
    left = "unlimited" if goal.tokens_left is None else str(goal.tokens_left)
    return f"- Tokens used: {goal.tokens_used}\n- Token budget: {budget}\n- Tokens left: {left}"


def _context(text: str) -> Item:
    content = [{"type": "input_text", "text": f"{_OPENING}\n{text}\n{_CLOSING}"}]
    return {"type": "message", "role": "user", "content": content}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
