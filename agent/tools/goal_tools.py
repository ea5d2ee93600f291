"""What the model may do about the goal of its thread: read it, begin one, and say that it is over."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.goals import Goal, GoalKeeper, GoalRefused, GoalStatus
from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput
from agent.features import is_on
from agent.model.wire import Item
from agent.tools.command import BadArguments, arguments

# What the model may make of a goal; all else is the user's and ours.
_STATUSES = (GoalStatus.COMPLETE, GoalStatus.BLOCKED, GoalStatus.PAUSED)
_REPORT = (
    "The goal is reached. Tell the user what it took, from the goal in this output: tokensUsed, of tokenBudget if "
    "there is one, and timeUsedSeconds in words."
)


def _declared(name: str, description: str, properties: dict[str, Any], *required: str) -> Item:
    return {
        "type": "function",
        "name": name,
        "description": description,
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": list(required),
            "additionalProperties": False,
        },
    }


_DECLARED = (
    _declared("get_goal", "The goal of this thread: objective, status, budget, and what was used of it so far.", {}),
    _declared(
        "create_goal",
        "Give this thread a goal that is worked on turn after turn. Only where the user or your instructions ask for a "
        "goal by name; an ordinary task is none. Fails while another goal is unfinished.",
        {
            "objective": {"type": "string", "description": "What is to be reached."},
            "token_budget": {
                "type": "integer",
                "description": "How many tokens it may use; only if one was asked for.",
            },
        },
        "objective",
    ),
    _declared(
        "update_goal",
        "Say that the goal of this thread is over. complete: every part of it is reached and checked. blocked: the "
        "same obstacle stopped at least three turns in a row, and only the user or a change outside can remove it. "
        "paused: the user asked for a pause in so many words. Hard work, doubt or a small budget are no reason.",
        {"status": {"type": "string", "enum": [status.value for status in _STATUSES]}},
        "status",
    ),
)


class GoalTools:
    """get_goal, create_goal and update_goal.

    Args:
        config: config.toml with the overrides.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def _are_offered(self, thread: Thread) -> bool:
        # A reviewer has none (observed).
        return thread.subagent is None and is_on(thread.config_over(self._config), "goals")

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return _DECLARED if self._are_offered(thread) else ()

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        if not self._are_offered(thread):
            return {}
        return {"get_goal": _of(_get), "create_goal": _of(_create), "update_goal": _of(_update)}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass


def _of(
    act: Callable[[GoalKeeper, dict[str, Any]], Goal | None],
) -> Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]:
    async def called(call: ToolCall, context: CallContext) -> ToolOutput:
        if context.goals is None:
            return ToolOutput("Goal tools require a persistent thread.")
        try:
            return _output(act(context.goals, arguments(call.text)), act is _update)
        except GoalRefused as exc:
            return ToolOutput(str(exc))

    return called


def _get(goals: GoalKeeper, given: dict[str, Any]) -> Goal | None:
    return goals.goal


def _create(goals: GoalKeeper, given: dict[str, Any]) -> Goal:
    objective, budget = given.get("objective"), given.get("token_budget")
    if not isinstance(objective, str):
        raise BadArguments("create_goal needs `objective`, a string")
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool)):
        raise BadArguments("`token_budget` of create_goal is an integer")
    return goals.create(objective, budget)


def _update(goals: GoalKeeper, given: dict[str, Any]) -> Goal:
    status = given.get("status")
    if status not in _STATUSES:
        raise BadArguments(
            "update_goal takes the status complete, blocked or paused; all others are set by the user or the system"
        )
    return goals.update(GoalStatus(status))


def _output(goal: Goal | None, is_update: bool) -> ToolOutput:
    shown = None if goal is None else {name: value for name, value in goal.wire().items() if value is not None}
    reports = (
        is_update
        and goal is not None
        and goal.status is GoalStatus.COMPLETE
        and (goal.token_budget is not None or goal.time_used_s > 0)
    )
    content = {
        "goal": shown,
        "remainingTokens": None if goal is None else goal.tokens_left,
        "completionBudgetReport": _REPORT if reports else None,
    }
    return ToolOutput(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
