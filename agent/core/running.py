"""A thread at work: its model session, and at times a turn, which is driven here.

Longer than most modules: what may happen to a turn at the same time is read in one place.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from agent.core import rollout
from agent.core.calls_at_work import CallsAtWork
from agent.core.chronicle import Chronicle
from agent.core.compaction import estimated_tokens
from agent.core.goals import Goal
from agent.core.grounding import Grounding
from agent.core.pursuit import Pursuit
from agent.core.rollout import StoredTurn
from agent.core.steps import (
    CommandEnded,
    FallBack,
    Finish,
    Impossible,
    Interrupted,
    Notify,
    Received,
    Record,
    Replace,
    RunTool,
    Sample,
    SampleFailed,
    Steered,
    TurnCommand,
    TurnEvent,
)
from agent.core.store import Journal
from agent.core.surroundings import (
    ModelSession,
    NothingToAdd,
    NotSteerable,
    Opening,
    StartedTurn,
    Surroundings,
    TurnNotRunning,
    TurnPlace,
    now_ms,
)
from agent.core.thread import Thread
from agent.core.tooling import OUTPUT_TYPES
from agent.core.turn import Turn
from agent.core.user_commands import UserCommands
from agent.features import is_on
from agent.model.failures import StreamBroken, Unavailable, UpstreamError
from agent.model.wire import Item

logger = logging.getLogger(__name__)

# The first commands of a turn, carried out: the delay before the first request, None if the turn is over.
_Begin = Callable[[], Coroutine[Any, Any, float | None]]

# With these a turn takes its leave; the last of what it cost is told before them.
_LAST_WORDS = {"thread/readState/changed", "thread/status/changed"}


class Running:
    """A thread with its model session and, at times, a turn."""

    def __init__(
        self,
        around: Surroundings,
        thread: Thread,
        session: ModelSession,
        journal: Journal | None,
        goal: Goal | None = None,
    ) -> None:
        self.thread = thread
        self.journal = journal  # None for an ephemeral thread
        self.chronicle = Chronicle(around, thread, journal, self._answering)
        self._around = around
        self._session = session
        self._turn: Turn | None = None
        self._task: asyncio.Task[None] | None = None  # of the turn that runs
        self._warming: asyncio.Task[None] | None = None
        self._opening: Opening | None = None  # of the turn that runs, until it is over
        self._tasks: set[asyncio.Task[None]] = set()  # all that are not over
        self._overrides: list[Callable[[Thread], None]] = []  # for the next turn
        self._commands = UserCommands(self._command_ended)
        self._goes_on = False  # whether the turn that ended last ended as it should
        self._closed = False
        self.pursuit = Pursuit(thread, self.chronicle, goal, self._say, self._running_id)
        self._grounding = Grounding(around, thread, self.chronicle)
        self._calls = CallsAtWork(
            around, thread, self.chronicle, goals=None if journal is None else self.pursuit, running_id=self._running_id
        )

    def _answering(self) -> str | None:
        return None if self._turn is not None and self._turn.of_user else self.thread.model

    def _running_id(self) -> str | None:
        return None if self._turn is None else self._turn.id

    def _say(self, item: Item) -> None:
        """The model reads it next, if it is at work."""
        if self._turn is not None and not self._turn.of_user and self._opening is None:
            self._perform_now(self._turn.receive(Steered([], item, None), now_ms()))

    def pursue(self) -> None:
        """Begin a turn for the goal, if there is one to pursue and nothing else runs."""
        if self._turn is not None or self._closed or not self._pursues:
            return
        started = self.start_turn([], {}, None, None, lambda thread: None, cause="goal")
        for item in self.pursuit.first_items():
            self._say(item)
        if started.begin is not None:
            started.begin()

    @property
    def _pursues(self) -> bool:
        """Whether turns follow one another by themselves."""
        return self.pursuit.is_active and is_on(self.thread.config_over(self._around.config), "goals")

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs, or a command."""
        return self._turn is not None or bool(self._tasks) or self._calls.is_busy

    def prewarm(self) -> None:
        self._warming = self._own(asyncio.create_task(self._warm()))

    async def _transport(self) -> str:
        if self._warming is not None:
            await asyncio.wait({self._warming})
        return self._session.transport

    async def _warm(self) -> None:
        request = self._around.request(self.thread, self.thread.static_input(), "prewarm", turn_id="", generate=False)
        try:
            await self._session.prewarm(request)
        except Exception:
            logger.exception("prewarm failed thread=%s", self.thread.id)  # the first turn does without

    def _own(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def start_turn(
        self,
        content: list[dict[str, Any]],
        item: Item,
        client_id: str | None,
        output_schema: Item | None,
        override: Callable[[Thread], None],
        cause: str | None = None,
    ) -> StartedTurn:
        if self._turn is not None:
            self._add(self._turn, Steered(content, item, client_id))
            self._overrides.append(override)
            return StartedTurn(self._turn.wire(), None)
        thread = self.thread
        before = thread.meta()
        while self._overrides:
            self._overrides.pop(0)(thread)
        override(thread)
        thread.updated_at = now_ms() // 1000
        if (after := thread.meta()) != before and self.chronicle.is_on_disk:
            changed = {name: value for name, value in after.items() if before[name] != value}
            self.chronicle.write(rollout.UPDATED, changed)
        turn = self._new_turn(content, item, client_id, former_model=self._former_model())
        turn.cause = cause
        return self._begun(turn, output_schema)

    def _former_model(self) -> str | None:
        """Who made the history, if it was another than is asked now."""
        same = self.thread.answered_by in (None, self.thread.model) or not self.thread.history
        return None if same else self.thread.answered_by

    def start_compaction(self) -> StartedTurn:
        """Compact the history in a turn of its own."""
        return self._instead(self._new_turn([], {}, None, compacts=True), None)

    def start_opened(self, open_turn: Callable[["TurnPlace"], Opening]) -> StartedTurn:
        """A turn that begins with what `open_turn` makes, and not with a request."""
        turn = self._new_turn([], {}, None)
        chronicle = self.chronicle
        place = TurnPlace(self.thread, turn.id, chronicle.publish, chronicle.add_to_history, self._transport)
        return self._instead(turn, open_turn(place))

    def _instead(self, turn: Turn, opening: Opening | None) -> StartedTurn:
        """A turn that takes the place of the one that runs, if one does (observed)."""

        def begin() -> None:
            self._replaced()
            self._turn, self._opening = turn, opening
            self._drive(turn, lambda: self._begin(turn), None)

        return StartedTurn(turn.wire(), begin)

    def _replaced(self) -> None:
        if (turn := self._turn) is not None:
            self._perform_now(turn.count_held())
            self._stop(turn, self._commands.abort(turn.id), Interrupted(replaced=True))

    def revert(self, turn: StoredTurn) -> None:
        """Take back a turn and all after it; see `agent.core.session.Core.revert`."""
        self._replaced()
        self.thread.history[:] = turn.before(self.thread.history)
        self.thread.context_tokens = estimated_tokens(self.thread.history)
        self.thread.answered_by = turn.after
        self.chronicle.write(rollout.REVERTED, {"turn_id": turn.wire["id"]})

    def start_command(self, command: str, timeout_ms: int | None) -> Callable[[], object]:
        """Run a command of the user, beside the turn that runs or in one of its own; what is returned starts it."""
        if self._turn is None:
            turn = self._turn = self._new_turn([], {}, None, of_user=True, former_model=self._former_model())
            return lambda: self._drive(turn, lambda: self._begin_command(turn, command, timeout_ms), None)
        turn = self._turn
        return lambda: self._own(asyncio.create_task(self._command(turn, command, timeout_ms)))

    async def _command(self, turn: Turn, command: str, timeout_ms: int | None) -> None:
        made = self._around.tools.user_command(command, timeout_ms, self._calls.context(turn.id))
        await self._commands.run(turn.id, made)

    async def _begin_command(self, turn: Turn, command: str, timeout_ms: int | None) -> float | None:
        self._perform(turn.start(now_ms()))
        await self._command(turn, command, timeout_ms)
        if turn.has_input:
            await self._grounding.add_context()
        return self._perform(turn.receive(CommandEnded(), now_ms()))

    def _command_ended(self, item: Item) -> None:
        """The model reads it next, if it is at work; else in its next turn."""
        if self._turn is None or self._turn.of_user or self._opening is not None:
            self.chronicle.add_to_history(item)
        else:
            self._perform_now(self._turn.receive(Steered([], item, None), now_ms()))

    def _new_turn(self, content: list[dict[str, Any]], item: Item, client_id: str | None, **more: Any) -> Turn:
        facts = self._around.facts(self.thread)
        return Turn(
            id=self._around.new_id(),
            thread=self.thread,
            content=content,
            item=item,
            client_id=client_id,
            window=facts.usable_window,
            compaction_limit=facts.compaction_limit,
            retries=self.thread.provider.stream_retries,
            new_id=self._around.new_id,
            **more,
        )

    def _begun(self, turn: Turn, output_schema: Item | None) -> StartedTurn:
        self._turn = turn
        return StartedTurn(turn.wire(), lambda: self._drive(turn, lambda: self._begin(turn), output_schema))

    def _drive(self, turn: Turn, begin: _Begin, output_schema: Item | None) -> None:
        self._task = self._own(asyncio.create_task(self._run(turn, begin, output_schema)))

    async def _begin(self, turn: Turn) -> float | None:
        await self._grounding.add_context()
        return self._start(turn)

    def steer(self, turn_id: str, steered: Steered) -> None:
        if self._turn is None:
            raise TurnNotRunning("no active turn to steer")
        if self._turn.id != turn_id:
            raise TurnNotRunning(f"expected active turn id `{turn_id}` but found `{self._turn.id}`")
        self._add(self._turn, steered)

    def _add(self, turn: Turn, steered: Steered) -> None:
        if self._opening is not None or not turn.takes_input:
            raise NotSteerable("compact" if self._opening is None else "review")
        if not steered.content:
            raise NothingToAdd
        self._perform_now(turn.receive(steered, now_ms()))

    def interrupt(self, turn_id: str) -> Callable[[], None]:
        turn = self._turn
        if turn is None:
            raise TurnNotRunning("no active turn to interrupt")
        if turn.id != turn_id:
            raise TurnNotRunning(f"expected active turn id {turn_id} but found {turn.id}")
        self._perform_now(turn.count_held())
        return functools.partial(self._stop, turn, self._commands.abort(turn.id), Interrupted())

    def _stop(self, turn: Turn, commands: list[asyncio.Task[None]], why: Interrupted) -> None:
        task = self._task
        if self._opening is not None:
            self._opening.stopped()
            self._opening = None
        for finished in self._calls.finished():  # these have an output
            self._perform_now(turn.receive(finished, now_ms()))
        # First the notifications, then the task: its cancellation only drops the stream.
        self._perform_now(turn.receive(why, now_ms()))
        for stopped in {task, *self._calls.tasks, *commands}:  # once each: a second time would cut its end short
            if stopped is not None:
                stopped.cancel()

    async def aclose(self) -> None:
        self._closed = True
        if self._turn is not None:
            self.interrupt(self._turn.id)()
        self._commands.abort()
        for task in (tasks := list(self._tasks)):
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._calls.forget()
        self.chronicle.close()
        with contextlib.suppress(Exception):
            await self._session.aclose()

    async def _run(self, turn: Turn, begin: _Begin, output_schema: Item | None) -> None:
        """Drive the turn to its end; a bug in here fails the turn and is logged, it does not hang it."""
        try:
            await self._grounding.learn_git()
            delay_s = await begin()
            while delay_s is not None:
                await asyncio.sleep(delay_s)
                delay_s = await self._sample(turn, output_schema)
                if self._turn is turn:
                    self._opening = None
            if self._goes_on:
                self.pursue()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            logger.exception("turn failed thread=%s turn=%s", self.thread.id, turn.id)
            failed = Impossible(f"internal error: {type(exc).__name__}", "other")
            self._perform(turn.receive(failed, now_ms()))
            await self._calls_end(turn)
        finally:
            if self._turn is turn:
                self._turn = self._task = self._opening = None

    def _start(self, turn: Turn) -> float | None:
        """Tell of the turn, unless what it begins with does that: it is only written down then."""
        commands = turn.start(now_ms())
        if self._opening is None:
            return self._perform(commands)
        started = next(one for one in commands if isinstance(one, Notify) and one.method == "turn/started")
        self.chronicle.write(rollout.TURN_STARTED, {"turn": started.params["turn"], "model": self.thread.model})
        return 0.0

    async def _sample(self, turn: Turn, output_schema: Item | None) -> float | None:
        """One model request, performed as it goes; the delay before the next, None if the turn is over."""
        thread = self.thread
        items = (*thread.static_input(), *turn.input, *turn.trigger)
        kind = "compaction" if turn.trigger else "turn"
        schema = None if turn.trigger else output_schema
        request = self._around.request(
            thread, items, kind, model=turn.model, turn_id=turn.id, schema=schema, state=turn.state, cause=turn.cause
        )
        transport = self._session.transport
        end: TurnEvent = SampleFailed(StreamBroken("the stream ended before response.completed"), transport)
        try:
            stream = self._session.stream(request) if self._opening is None else self._opening.events()
            async with contextlib.aclosing(stream) as events:
                async for event in events:
                    transport = self._session.transport
                    commands = turn.receive(Received(event), now_ms())
                    # Before the stream is closed: an interruption would come in between, and the end be lost.
                    delay_s = self._perform(commands)
                    if any(isinstance(command, Sample | Finish) for command in commands):
                        return delay_s
                    if turn.waits:
                        return await self._calls_end(turn)
            end = SampleFailed(StreamBroken("the stream ended before response.completed"), transport)
        except (UpstreamError, StreamBroken) as exc:
            end = SampleFailed(exc, self._session.transport)
        except Unavailable as exc:
            end = Impossible(str(exc), exc.info)
        delay_s = self._perform(turn.receive(end, now_ms()))
        return await self._calls_end(turn) if turn.waits else delay_s

    async def _calls_end(self, turn: Turn) -> float | None:
        """The response has ended: wait for what it called."""
        delay_s: float | None = None
        while turn.waits:
            delay_s = self._perform(turn.receive(await self._calls.next_finished(), now_ms()))
        return delay_s

    def _perform(self, commands: list[TurnCommand]) -> float | None:
        """Carry out commands; the delay before the next request in seconds, or None if there is none."""
        delay_s: float | None = None
        end = next((command for command in commands if isinstance(command, Finish)), None)
        answered = any(isinstance(command, Record) and _is_output(command.item) for command in commands)
        last_word = self.pursuit.account() if answered else None
        goes_on = False
        for command in commands:
            match command:
                case Notify():
                    if end is not None and command.method in _LAST_WORDS:
                        self.pursuit.turn_ends(end.status, _failure(commands))
                        goes_on, end = end.status == "completed" and self._pursues, None
                    if not (goes_on and command.method == "thread/readState/changed"):  # it is not over yet (observed)
                        self.chronicle.publish(command.method, command.params)
                case Record():
                    self.chronicle.add_to_history(command.item)
                case Replace():
                    self.chronicle.replace_history(command.history)
                case RunTool():
                    assert self._turn is not None, "only a turn that runs makes calls"
                    self._own(self._calls.start(self._turn.id, command.call))
                case FallBack():
                    self._session.use_http()
                case Sample():
                    if last_word is not None:
                        self.chronicle.add_to_history(last_word)
                    delay_s = command.delay_s
                case Finish():
                    self._turn = self._task = self._opening = None
                    self._goes_on = command.status == "completed"
                case _:
                    assert_never(command)
        return delay_s

    def _perform_now(self, commands: list[TurnCommand]) -> None:
        """Carry out commands that ask for no request."""
        self._perform([command for command in commands if not isinstance(command, Sample)])


def _is_output(item: Item) -> bool:
    return item.get("type") in OUTPUT_TYPES.values() and "call_id" in item


def _failure(commands: list[TurnCommand]) -> Any:
    """The `codexErrorInfo` of a turn that fails with these commands."""
    for command in commands:
        if isinstance(command, Notify) and command.method == "error" and not command.params["willRetry"]:
            return command.params["error"]["codexErrorInfo"]
    return None
