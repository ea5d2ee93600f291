"""The pursuit of a thread's goal: kept on disk, told to clients, and charged with what its turns cost."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent.core import rollout
from agent.core.chronicle import Chronicle
from agent.core.goals import (
    Goal,
    GoalRefused,
    GoalStatus,
    changed,
    counted,
    objective_item,
    status_after_failure,
    to_adjust,
    to_continue,
    to_wind_up,
)
from agent.core.surroundings import now_ms
from agent.core.thread import Thread
from agent.model.wire import Item


class Pursuit:
    """The goal of a loaded thread, if it has one. What changes is written down at once.

    Args:
        goal: What it had when it was unloaded.
        say: Has a turn that runs read an item next.
        running: The id of the turn that runs.
    """

    def __init__(
        self,
        thread: Thread,
        chronicle: Chronicle,
        goal: Goal | None,
        say: Callable[[Item], None],
        running: Callable[[], str | None],
    ) -> None:
        self.goal = goal
        self._thread = thread
        self._chronicle = chronicle
        self._say = say
        self._running = running
        self._charges = False  # whether what is used now is used for the goal
        self._tokens = 0  # of the thread, when the goal was charged last
        self._at_s = 0.0  # when that was
        self._charge()

    @property
    def is_active(self) -> bool:
        """Whether it is worked on."""
        return self.goal is not None and self.goal.status is GoalStatus.ACTIVE

    def first_items(self) -> list[Item]:
        """What a turn for the goal begins with."""
        return [] if self.goal is None else to_continue(self.goal, self._thread.history)

    # By clients

    def set(self, changes: dict[str, Any]) -> Goal:
        """Change it, or begin one; members are named as on the wire.

        Raises:
            GoalRefused: There is none to change, or a member makes no sense.
        """
        self.account()
        before = self.goal
        goal = changed(before, self._thread.id, changes, now_ms() // 1000)
        if before is not None and goal.objective != before.objective and goal.status is GoalStatus.ACTIVE:
            self._say(to_adjust(goal))
        self._keep(goal)
        return goal

    def clear(self) -> bool:
        """Forget it; False if there was none."""
        self.account()
        if self.goal is None:
            return False
        self._keep(None)
        return True

    # By the model

    def create(self, objective: str, token_budget: int | None) -> Goal:
        """Begin one, unless one is unfinished. Raises GoalRefused."""
        goal = Goal.new(self._thread.id, objective, token_budget, now_ms() // 1000)
        if self.goal is not None and self.goal.status is not GoalStatus.COMPLETE:
            raise GoalRefused(
                "cannot create a new goal because this thread has an unfinished goal; complete the existing goal first"
            )
        self._keep(goal)
        self._say(objective_item(goal))
        self.tell(self._running())
        return goal

    def update(self, status: GoalStatus) -> Goal:
        """What the model says of it. Raises GoalRefused."""
        self.account()
        if self.goal is None:
            raise GoalRefused("cannot update goal because this thread has no goal")
        goal = self.goal.at(status, now_ms() // 1000)
        self._keep(goal)
        self.tell(self._running())
        return goal

    # By turns

    def account(self) -> Item | None:
        """Charge it with what was used since the last time, and tell it if that was anything.

        Returns:
            What the model must know, if that was the last of the budget.
        """
        was_active = self.is_active
        if self._spend():
            self.tell(self._running())
        is_over = was_active and self.goal is not None and self.goal.status is GoalStatus.BUDGET_LIMITED
        return to_wind_up(self.goal) if is_over and self.goal is not None else None

    def turn_ends(self, status: str, info: Any) -> None:
        """The turn that runs is about to end.

        Args:
            status: How.
            info: The `codexErrorInfo` of its failure.
        """
        spent = self._spend()
        if status == "failed" and self.goal is not None and self.is_active:
            self._keep(replace(self.goal, status=status_after_failure(info), updated_at=now_ms() // 1000))
            spent = True
        if spent:
            self.tell(self._running())
        self._charges = self.is_active

    def tell(self, turn_id: str | None) -> None:
        """Those who follow the thread are told how it stands."""
        thread_id = self._thread.id
        if self.goal is None:
            self._chronicle.publish("thread/goal/cleared", {"threadId": thread_id})
        else:
            told = {"threadId": thread_id, "turnId": turn_id, "goal": self.goal.wire()}
            self._chronicle.publish("thread/goal/updated", told)

    def _spend(self) -> bool:
        if self.goal is None or not self._charges:
            return False
        tokens = max(0, counted(self._thread.total) - self._tokens)
        seconds = int(time.monotonic() - self._at_s)
        if not tokens and not seconds:
            return False
        self._tokens = counted(self._thread.total)
        self._at_s += seconds
        self.goal = self.goal.spent(tokens, seconds, now_ms() // 1000)
        self._chronicle.write(rollout.GOAL, self.goal.wire())
        return True

    def _keep(self, goal: Goal | None) -> None:
        self.goal = goal
        self._chronicle.write(rollout.GOAL, None if goal is None else goal.wire())
        if goal is not None and not self._thread.preview:
            self._thread.preview = goal.objective
        if self.is_active and not self._charges:
            self._charge()
        self._charges = self.is_active

    def _charge(self) -> None:
        """From here on what is used is used for the goal."""
        self._charges = self.is_active
        self._tokens, self._at_s = counted(self._thread.total), time.monotonic()
